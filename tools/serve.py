"""Answers requests for predictions over HTTP: ``detrex serve``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("serve")
