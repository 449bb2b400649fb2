"""Trains on Slurm: ``detrex submit``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("submit")
