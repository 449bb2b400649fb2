"""Draws saved results beside the ground truth: ``detrex view results``."""

import sys

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("view", ["results", *sys.argv[1:]], "detrex view")
