"""Checks a data set before anything is trained, and shows what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import add_trust_code, command_parser
from detrex.cli.errors import readable_errors

DESCRIPTION = """\
Checks a data set before anything is trained, and shows what is wrong: its annotations, pictures and splits.

Reads a config's data, or any path: COCO JSON (also gzip), a folder of Roboflow, YOLO's data.yaml, Pascal VOC,
LabelMe, CVAT, VIA, and PNG masks.
"""
EXAMPLES = """\
examples:
  a data set of any format      %(prog)s mydata
  images and their annotations  %(prog)s mydata/train mydata/annotations/instances_train.json
  the data of a config          %(prog)s --config-file CONFIG dataloader.root=mydata
  a page with pictures          %(prog)s mydata --html check.html
  for a program                 %(prog)s mydata --json check.json --fail-on warning
  a cleaned copy                %(prog)s mydata --fix mydata_clean

The exit code is 0 if nothing as bad as --fail-on was found, 1 if something was, 2 for wrong arguments.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a data set, or the folder of its images and the path of its annotations; with "
        "--config-file, changes to the config (KEY=VALUE)",
    )
    parser.add_argument("--config-file", metavar="CONFIG", help="check the data of this config")
    add_trust_code(parser)
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with pictures of what is wrong"
    )
    parser.add_argument("--json", metavar="FILE", help="write what was found as JSON; - for the terminal")
    parser.add_argument(
        "--fix", type=Path, metavar="OUT", help="write a cleaned copy of the annotations to OUT"
    )
    parser.add_argument(
        "--pictures",
        type=int,
        metavar="N",
        help="decode N pictures of each split, evenly spread (default: all; 0: none)",
    )
    parser.add_argument("--queries", type=int, metavar="N", help="how many queries the model has")
    parser.add_argument(
        "--crop", type=int, default=512, metavar="PIXELS", help="of training (default: %(default)s)"
    )
    parser.add_argument(
        "--ignore-label",
        type=int,
        nargs="*",
        default=[255],
        metavar="VALUE",
        help="unlabelled pixels of masks",
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning", "never"),
        default="error",
        help="what ends with exit code 1 (default: %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    options = parser.parse_intermixed_args(arguments)
    options.overrides = options.paths if options.config_file is not None else []
    if options.config_file is None and not 1 <= len(options.paths) <= 2:
        parser.error("give the path of a data set, or IMAGES ANNOTATIONS, or --config-file")
    return options


def run(arguments: argparse.Namespace) -> None:
    """Checks; ends with exit code 1 if there are findings of the kind given by ``--fail-on``."""
    with readable_errors(arguments.debug):
        from detrex.cli.data_check import check

        exit_code = check(arguments)
    raise SystemExit(exit_code)
