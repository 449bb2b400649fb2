"""Trains or evaluates what a config describes: ``detrex train``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("train")
