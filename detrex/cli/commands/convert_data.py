"""Writes annotations of any known format as COCO JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import command_parser
from detrex.cli.errors import readable_errors

DESCRIPTION = """\
Writes annotations of any known format as COCO JSON.

Reads COCO JSON (also gzip), a folder of Roboflow, YOLO's data.yaml, Pascal VOC, LabelMe, CVAT, VIA, and PNG
masks of instances.
"""
EXAMPLES = """\
examples:
  all splits of a data set      %(prog)s mydata --output annotations
  images and their annotations  %(prog)s mydata/images/val mydata/labels/val --output val_annotations

Writes one file for each split: instances_train.json and so on. Pictures stay where they are; a name is
relative to the folder of the images, which is printed. What is wrong is named with its file; 'detrex check'
lists all of it.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument("path", type=Path, metavar="PATH", help="a data set, or the folder of images")
    parser.add_argument("annotations", type=Path, nargs="?", metavar="ANNOTATIONS", help="of these images")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the COCO files")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Converts; ends with exit code 1 after an error."""
    with readable_errors(arguments.debug):
        from detrex.cli.data_conversion import convert

        convert(arguments)
