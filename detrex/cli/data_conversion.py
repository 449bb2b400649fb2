"""Converts annotations, for ``detrex convert-data``."""

from __future__ import annotations

import argparse
import os
import sys

from detrex.data.sources import find_sources, source_of
from detrex.data.writing import write_coco


def convert(options: argparse.Namespace) -> None:
    """Writes a COCO file for each split, and tells where its images are.

    Raises:
        FileNotFoundError: there are no annotations.
        DataError: they have errors, their format is not known, or a file exists already.
    """
    if options.annotations is None:
        sources = list(find_sources(options.path).values())
    else:
        sources = [source_of(options.path, options.annotations)]
    for source in sources:
        target = options.output / f"instances_{source.split}.json"
        images, objects = write_coco(source, target, options.overwrite)
        folder = os.path.relpath(source.images)
        summary = f"{images} images, {objects} objects ({source.format}); images in {folder}"
        sys.stdout.write(f"{target}: {summary}\n")
