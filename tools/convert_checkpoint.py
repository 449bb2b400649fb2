"""Converts checkpoints to this format and back: ``detrex convert-weights``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("convert-weights")
