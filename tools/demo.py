"""Draws what a model finds in pictures and videos: ``detrex predict``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("predict")
