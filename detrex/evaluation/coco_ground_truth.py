"""Converts the ground truth of COCO instance files to pycocotools' form."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from pycocotools.coco import COCO

from detrex.data.coco.objects import CocoFile
from detrex.data.coco.segmentation import to_rle

logger = logging.getLogger(__name__)


@contextmanager
def logged_prints() -> Iterator[None]:
    """Turns what pycocotools prints into debug messages."""
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:
        for line in text.getvalue().splitlines():
            logger.debug("pycocotools: %s", line)


def coco_from(dataset: dict[str, Any]) -> COCO:
    """A pycocotools object that holds ``dataset`` (the content of a COCO file)."""
    coco = COCO()
    coco.dataset = dataset
    with logged_prints():
        coco.createIndex()
    return coco


def ground_truth_of(file: CocoFile, masks: bool) -> COCO:
    """The objects that training uses, with the same boxes, and crowds.

    The id of an image is its index in the file, because pycocotools cannot sort ids of different types.
    pycocotools uses the object id 0 for "unmatched", so objects are numbered from 1.

    Args:
        file: the checked file.
        masks: whether to leave out objects without a mask.
    """
    annotations: list[dict[str, Any]] = []
    for index, (height, width) in enumerate(file.sizes.tolist()):
        for found in file.objects(index, masks):
            x0, y0, x1, y1 = found.box
            entry = {
                "id": len(annotations) + 1,
                "image_id": index,
                "category_id": found.category_id,
                "iscrowd": int(found.is_crowd),
                "area": found.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            if found.segmentation is not None:
                entry["segmentation"] = to_rle(found.segmentation, height, width)
            annotations.append(entry)
    categories = zip(file.categories.ids, file.categories.names, strict=True)
    return coco_from(
        {
            "images": [{"id": k, "height": h, "width": w} for k, (h, w) in enumerate(file.sizes.tolist())],
            "annotations": annotations,
            "categories": [{"id": category_id, "name": name} for category_id, name in categories],
        }
    )
