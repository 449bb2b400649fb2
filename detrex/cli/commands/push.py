"""Uploads a model to the Hugging Face hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import command_parser
from detrex.cli.errors import readable_errors

DESCRIPTION = (
    "Uploads a model to the Hugging Face hub, with a card of its classes, metrics and score thresholds."
)
EXAMPLES = """\
examples:
  %(prog)s output/mine hf://me/nuclei
  %(prog)s output/mine hf://me/nuclei --private --license apache-2.0

Log in before with 'hf auth login', or set HF_TOKEN. 'detrex predict --model hf://me/nuclei' then uses it.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument("source", type=Path, metavar="RUN", help="the folder of a run, or its weights")
    parser.add_argument("repository", metavar="hf://ORG/NAME", help="made if it is not there")
    parser.add_argument("--private", action="store_true", help="a new repository is for you alone")
    parser.add_argument("--license", metavar="NAME", help="of the model, such as apache-2.0")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Uploads, and prints the address; ends with exit code 1 after an error."""
    with readable_errors(arguments.debug):
        from detrex.hub import push_to_hub

        address = push_to_hub(
            arguments.source, arguments.repository, private=arguments.private, license=arguments.license
        )
        print(address)
