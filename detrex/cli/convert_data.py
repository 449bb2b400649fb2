"""Writes annotations of any known format as COCO JSON.

Reads COCO JSON (also gzip), a folder of Roboflow, YOLO's data.yaml, Pascal VOC, LabelMe, CVAT, VIA, and PNG
masks of instances.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = """\
examples:
  all splits of a data set     convert_dataset.py mydata --output annotations
  images and their annotations convert_dataset.py mydata/images/val mydata/labels/val --output val_annotations

Writes one file for each split: instances_train.json and so on. Pictures stay where they are; a name is
relative to the folder of the images, which is printed. What is wrong is named with its file; see
check_dataset.py for all of it.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a data set, or the folder of images")
    parser.add_argument("annotations", type=Path, nargs="?", metavar="ANNOTATIONS", help="of these images")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the COCO files")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parse_arguments(arguments)
    # The arguments are read before anything slow is imported.
    from detrex.cli.errors import readable_errors
    from detrex.data.sources import find_sources, source_of
    from detrex.data.writing import write_coco

    with readable_errors(options.debug):
        if options.annotations is None:
            sources = list(find_sources(options.path).values())
        else:
            sources = [source_of(options.path, options.annotations)]
        for source in sources:
            target = options.output / f"instances_{source.split}.json"
            images, objects = write_coco(source, target, options.overwrite)
            folder = os.path.relpath(source.images)
            sys.stdout.write(
                f"{target}: {images} images, {objects} objects ({source.format}); images in {folder}\n"
            )
    return 0
