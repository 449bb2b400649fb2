"""Writes models as files that run without this toolbox: ``detrex export``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("export")
