"""Writes annotations of any format as COCO JSON: ``detrex convert-data``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("convert-data")
