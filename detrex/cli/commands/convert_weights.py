"""Converts a checkpoint into this toolbox's format, or back into that of the published Mask DINO."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import add_config, add_overrides, command_parser, parse
from detrex.cli.errors import readable_errors

DESCRIPTION = (
    "Converts a checkpoint into this toolbox's format, or back into that of the published Mask DINO."
)
EXAMPLES = """\
examples:
  published   %(prog)s IN.pth CONFIG --output OUT.safetensors
  back        %(prog)s IN.safetensors CONFIG --to published --output OUT.pth
  a backbone  %(prog)s R50.pth CONFIG --partial --output OUT.safetensors

What was taken over is shown as a table. A file that does not hold exactly the configured model is refused,
unless --partial is given.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument(
        "input", metavar="IN", help="a file, a run's folder, an https:// URL or a name in the zoo"
    )
    add_config(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to",
        choices=["detrex", "published"],
        default="detrex",
        help="detrex: safetensors, with config and class names; published: a .pth under the published names",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="convert a file that holds only a part of the model, such as a backbone or a DINO detector",
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="read detectron2's .pkl files, executing nothing in them"
    )
    add_overrides(parser)
    return parse(parser, arguments)


def run(arguments: argparse.Namespace) -> None:
    """Converts; ends with exit code 1 after an error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with readable_errors(arguments.debug, allows_pickle=True):
        from detrex.cli.weight_conversion import convert

        convert(arguments)
