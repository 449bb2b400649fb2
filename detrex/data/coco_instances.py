"""COCO instance files: boxes and masks as polygons or RLE."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from detrex.data.annotation_files import require_keys
from detrex.data.coco_parser import CocoParser, Tally
from detrex.data.errors import DataError
from detrex.data.image_dataset import CocoDataset
from detrex.data.rle import rle_length
from detrex.structures import Targets

_MIN_POLYGON = 6  # numbers: three points


class CocoInstances(CocoDataset):
    """Objects of a COCO instance file (https://cocodataset.org/#format-data).

    Crowds are no targets. Boxes are drawn tight around the masks, so that they fit after any crop; ``bbox``
    is used only where ``masks`` is false. Objects that cannot be used are left out, and a warning says how
    many: those whose polygons all have fewer than three points, and, without masks, boxes without width or
    height inside the image. A mask that covers no pixel is left out when its image is read.

    A large file is parsed once; see :func:`detrex.data.annotation_cache.open_annotations`.

    Args:
        images: folder of the images.
        annotations: JSON file.
        masks: whether objects need masks; without, targets have boxes only.
        targets: whether to load annotations at all; without, every image has no targets, which is
            faster where they are not used, as in evaluation.
        skip_empty: whether to leave out images without any object to learn from.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the annotation file has errors, or images are missing.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        masks: bool = True,
        targets: bool = True,
        skip_empty: bool = False,
    ):
        super().__init__(images, annotations, _InstanceParser(Path(annotations), masks, targets, skip_empty))
        self.masks = masks

    def _targets(self, entry: dict[str, Any], height: int, width: int) -> Targets:
        if not entry["annotations"]:
            empty = Targets.empty(height, width)
            return empty if self.masks else Targets(empty.labels, empty.boxes, None, empty.is_thing)
        index_of = self.categories.index_of
        labels = torch.tensor([index_of[category_id] for category_id, _ in entry["annotations"]])
        shapes = [shape for _, shape in entry["annotations"]]
        if not self.masks:
            return Targets(labels, torch.tensor(shapes), None, self._is_thing[labels])
        try:
            masks = _rasterise(shapes, height, width)
        except ValueError as error:
            raise DataError(
                f"Image {self.images / entry['file_name']} (image id {entry['image_id']}) has an object "
                f"whose RLE cannot be decoded ({error}). Correct it in the annotation file."
            ) from error
        return self.targets_from_masks(labels, masks)


class _InstanceParser(CocoParser):
    """Keeps (category id, segmentation or box) of each object to learn from."""

    def __init__(self, where: Path, masks: bool, targets: bool, skip_empty: bool):
        super().__init__(where, targets, skip_empty)
        self.masks, self.needed = masks, "segmentation" if masks else "bbox"

    def start(self) -> None:
        super().start()
        self.left_out = Tally(f"objects with a degenerate {self.needed} are left out")

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "masks": self.masks}

    def keep(self, annotation: dict[str, Any]) -> Any | None:
        require_keys(annotation, ("image_id", "category_id"), "annotation", self.where)
        name = f"annotation id {annotation.get('id')} of image id {annotation['image_id']}"
        image = self.images.get(annotation["image_id"])
        if image is None:
            raise DataError(f"{self.where}: the image of {name} is not listed under 'images'.")
        self.use_category(annotation["category_id"], name)
        if annotation.get("iscrowd", 0):
            return None
        if not annotation.get(self.needed):
            raise DataError(_missing(self.where, name, self.needed))
        check = _usable_segmentation if self.masks else _usable_box
        shape = check(annotation[self.needed], (image.height, image.width), f"{self.where}: {name}")
        if shape is None:
            self.left_out.add(name)
            return None
        return annotation["category_id"], shape

    def tallies(self) -> list[Tally]:
        return [self.left_out]


def _missing(where: Path, name: str, key: str) -> str:
    boxes_only = "use boxes only (masks=False for the data set, tasks=['bbox'] for the evaluator)"
    advice = f"Add masks, or {boxes_only}." if key == "segmentation" else "Add it."
    return f"{where}: {name} has no '{key}'. {advice}"


def _usable_segmentation(segmentation: Any, size: tuple[int, int], name: str) -> Any | None:
    """The segmentation without what cannot be used of it; None if nothing is left."""
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation, size, name)
    if not isinstance(segmentation, list) or not all(isinstance(p, list) for p in segmentation):
        raise DataError(f"{name}: 'segmentation' is neither a list of polygons nor an RLE.")
    for polygon in segmentation:
        if len(polygon) % 2 or not _all_finite(polygon):
            raise DataError(f"{name}: a polygon is not a list of finite numbers x, y, x, y, ...")
    return [p for p in segmentation if len(p) >= _MIN_POLYGON] or None


def _all_finite(numbers: list[Any]) -> bool:
    try:
        return math.isfinite(math.fsum(map(abs, numbers)))
    except TypeError:  # something is no number
        return False


def _checked_rle(rle: dict, size: tuple[int, int], name: str) -> dict:
    require_keys(rle, ("size", "counts"), "RLE", name)
    if tuple(rle["size"]) != tuple(size):
        raise DataError(
            f"{name}: the RLE is for {rle['size']} pixels (height, width), the image is listed with "
            f"{list(size)}. Correct one of the two."
        )
    counts = rle["counts"]
    if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
        raise DataError(f"{name}: the runs of the RLE add up to {sum(counts)}, not to {size[0]} x {size[1]}.")
    return {"size": list(rle["size"]), "counts": counts}


def _usable_box(box: Any, size: tuple[int, int], name: str) -> tuple[float, ...] | None:
    """COCO's (x, y, width, height) as xyxy clipped to the image; None if nothing is left."""
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        raise DataError(f"{name}: 'bbox' is not a list of the four numbers x, y, width, height.")
    (x, y, w, h), (height, width) = box, size
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    return (float(x0), float(y0), float(x1), float(y1)) if x1 > x0 and y1 > y0 else None


def _rasterise(segmentations: list[Any], height: int, width: int) -> Tensor:
    """(N, H, W) bool; raises ValueError for an RLE that is not one of such a mask."""
    codes = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            parts = coco_mask.frPyObjects(segmentation, height, width)
            codes.append(coco_mask.merge(parts) if len(parts) > 1 else parts[0])
        elif isinstance(segmentation["counts"], list):
            codes.append(coco_mask.frPyObjects(segmentation, height, width))
        else:
            if (length := rle_length(segmentation["counts"])) != height * width:
                raise ValueError(f"its runs add up to {length}, not to {height} x {width}")
            codes.append(segmentation)
    decoded = coco_mask.decode(codes)  # (H, W, N), column by column in memory
    return torch.from_numpy(np.ascontiguousarray(decoded.transpose(2, 0, 1))).view(torch.bool)
