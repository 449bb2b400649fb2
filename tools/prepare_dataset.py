"""Makes the annotation files that data sets of papers need beyond those that are distributed; see --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import command_parser
from detrex.cli.errors import readable_errors

DESCRIPTION = "Makes the annotation files that data sets of papers need beyond those that are distributed."
EXAMPLES = """\
examples:
  %(prog)s ade20k-instance datasets/ADEChallengeData2016
  %(prog)s ade20k-panoptic datasets/ADEChallengeData2016
  %(prog)s cityscapes-instance datasets/cityscapes
  %(prog)s cityscapes-panoptic datasets/cityscapes --splits val

Layouts, downloads and disk space: docs/datasets.md. COCO, LVIS, Objects365, Mapillary Vistas and the semantic
labels of ADE20K and Cityscapes are used as they are distributed.
"""
SPLITS = {"ade20k": ["training", "validation"], "cityscapes": ["train", "val"]}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES)
    kinds = [f"{name}-{kind}" for name in SPLITS for kind in ("instance", "panoptic")]
    parser.add_argument("dataset", choices=kinds, help="what to make")
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="by default training and validation")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; ends with exit code 1 after an error."""
    options = parse_arguments(arguments)
    name, kind = options.dataset.split("-")
    with readable_errors(options.debug):
        from detrex.data.preparation import prepare_ade20k, prepare_cityscapes

        prepare = {"ade20k": prepare_ade20k, "cityscapes": prepare_cityscapes}[name]
        for line in prepare(options.root, kind, options.splits or SPLITS[name]):
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
