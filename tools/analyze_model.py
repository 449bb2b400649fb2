"""Counts parameters, FLOPs and activations by module: ``detrex analyze``."""

from detrex.cli.main import run_command

if __name__ == "__main__":
    run_command("analyze")
