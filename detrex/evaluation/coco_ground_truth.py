"""Reading COCO instance annotations such that pycocotools' COCOeval can be trusted with them."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from detrex.data.annotation_files import read_json, require_keys
from detrex.data.errors import DataError

logger = logging.getLogger(__name__)


@contextmanager
def logged_prints():
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


def read_ground_truth(path: str | Path, with_masks: bool) -> COCO:
    """Reads and checks an instance annotation file.

    What COCOeval needs and people's own files often lack (``area``, ``iscrowd``, ``bbox`` where there is a
    segmentation) is filled in. Objects of no extent are left out, with a warning, as in training.

    Args:
        path: JSON file with ``images``, ``annotations`` and ``categories``.
        with_masks: whether objects without a usable segmentation are left out too.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a list or all masks are missing, an annotation refers to an image or category that is not
            listed, or its RLE is of another size than its image.
    """
    dataset = read_json(path)
    require_keys(dataset, ("images", "annotations", "categories"), "the COCO file", path)
    for image in dataset["images"]:
        require_keys(image, ("id", "height", "width"), "image", path)
    images = {image["id"]: image for image in dataset["images"]}
    category_ids = {category["id"] for category in dataset["categories"]}
    kept = []
    for number, annotation in enumerate(dataset["annotations"]):
        where = f"{path}: annotation {annotation.get('id', number)}"
        _check_references(annotation, images, category_ids, where)
        completed = _completed(annotation, images[annotation["image_id"]], with_masks)
        if completed is not None:
            # COCOeval takes the id 0 for "unmatched", so ids are numbered afresh from 1.
            kept.append({**completed, "id": len(kept) + 1})
    if with_masks and dataset["annotations"] and not kept:
        raise DataError(f"{path}: no object has a mask: evaluate boxes alone, with tasks=['bbox']")
    if dropped := len(dataset["annotations"]) - len(kept):
        logger.warning("%s: %d annotations of no extent are left out of the evaluation", path, dropped)
    return coco_from({**dataset, "annotations": kept})


def _check_references(annotation: Mapping, images: Mapping, category_ids: set[int], where: str) -> None:
    if annotation.get("image_id") not in images:
        raise DataError(f"{where}: image_id {annotation.get('image_id')} is not in the file's 'images'")
    if annotation.get("category_id") not in category_ids:
        raise DataError(
            f"{where} of image {annotation['image_id']}: category_id {annotation.get('category_id')} "
            "is not in the file's 'categories'. Add the category, or correct the id."
        )


def _completed(annotation: dict, image: Mapping, with_masks: bool) -> dict | None:
    """The annotation with all that COCOeval reads, or None if it has no extent."""
    rle = _rle(annotation.get("segmentation"), image)
    if rle is None and with_masks:
        return None
    box = annotation.get("bbox")
    if not box or min(box[2:]) <= 0:
        if rle is None:
            return None
        box = coco_mask.toBbox(rle).tolist()
    filled = {"iscrowd": 0, "area": float(coco_mask.area(rle)) if rle else box[2] * box[3]}
    segmentation = {} if rle is None else {"segmentation": rle}
    return {**filled, **annotation, "bbox": box, **segmentation}


def _rle(segmentation: Any, image: Mapping) -> dict | None:
    """Polygons or RLE as compressed RLE, or None where they cover no pixel."""
    size = image["height"], image["width"]
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise DataError(
                f"image {image['id']}: an annotation's RLE is of size (height, width) "
                f"{tuple(segmentation['size'])}, but the image's entry says {size}"
            )
        packed = isinstance(segmentation["counts"], (str, bytes))
        rle = segmentation if packed else coco_mask.frPyObjects(segmentation, *size)
    else:
        # Fewer than three points enclose nothing, and pycocotools would take four numbers for a box.
        polygons = [p for p in segmentation or [] if len(p) >= 6]
        if not polygons:
            return None
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    return rle if coco_mask.area(rle) > 0 else None
