"""Counts the parameters, FLOPs and activations of a config's model, by module."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detrex.cli.arguments import (
    add_config,
    add_overrides,
    command_parser,
    image_size,
    is_override,
    parse,
    positive,
)
from detrex.cli.errors import readable_errors

DESCRIPTION = "Counts the parameters, FLOPs and activations of a config's model, by module."
EXAMPLES = """\
examples:
  one size         %(prog)s CONFIG
  several sizes    %(prog)s CONFIG --input 800x1333 1024x1024 --depth 1
  as in papers     %(prog)s CONFIG --data 100 dataloader.root=/path/to/coco
  another model    %(prog)s CONFIG model.backbone.name=resnet101
  for programs     %(prog)s CONFIG --format json

Sizes are height x width of the image as the model gets it; the model pads it further. Published numbers are
mostly means over the first 100 images of COCO val2017, resized as for evaluation, which --data 100 takes from
the test data of the config (images are not read). Nothing is downloaded, no GPU or large memory is needed.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    add_config(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        action="extend",
        default=[],
        type=_size_or_override,
        metavar="HxW",
        help="sizes of the image in pixels; by default 800x1333, unless there is --data",
    )
    parser.add_argument(
        "--data", type=positive, metavar="N", help="the mean over the config's first N test images"
    )
    parser.add_argument(
        "--depth", type=positive, default=2, metavar="D", help="levels of modules to show (default: 2)"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    add_overrides(parser)
    parsed = parse(parser, arguments)
    # Overrides after --input are taken for its values.
    parsed.overrides = [*(i for i in parsed.input if isinstance(i, str)), *parsed.overrides]
    parsed.input = [i for i in parsed.input if not isinstance(i, str)]
    return parsed


def _size_or_override(text: str) -> tuple[int, int] | str:
    return text if is_override(text) else image_size(text)


def run(arguments: argparse.Namespace) -> None:
    """Counts and prints; ends with exit code 1 after an error."""
    with readable_errors(arguments.debug):
        from detrex.cli.model_analysis import analyze

        analyze(arguments)
