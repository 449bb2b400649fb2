"""Draws what a data loader produces: ``detrex view data``."""

import sys

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("view", ["data", *sys.argv[1:]], "detrex view")
