"""Tells what is installed here and what runs on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detrex.cli.arguments import command_parser
from detrex.cli.errors import readable_errors

DESCRIPTION = "Says what is installed here and what runs on it; put its output into reports of problems."


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, prog=prog)
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Prints what is installed and what runs here."""
    with readable_errors(arguments.debug):
        from detrex.cli.information import describe

        print(describe())
