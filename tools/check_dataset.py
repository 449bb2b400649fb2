"""Finds what is wrong with a data set: ``detrex check``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("check")
