"""Boundaries of masks and their IoU (arXiv 2103.16562), which depends more on fine outlines than mask IoU.

Shape letters: H and W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

RATIO = 0.02
"""Width of a boundary, as a share of the image's diagonal."""

_LEAST = 0.5  # if the IoU of masks is lower, the IoU of boundaries makes no difference


def boundary_width(size: tuple[int, int], ratio: float = RATIO) -> int:
    """Width in pixels of boundaries in an image of (height, width) ``size``; at least 1."""
    return max(1, round(ratio * float(np.hypot(*size))))


def mask_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask, (H, W) bool, that are at most ``width`` from its outside.

    Everything beyond the image is outside.

    Args:
        mask: (H, W) bool.
        width: in pixels; diagonal neighbours have the distance 1.
    """
    boundary = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return boundary
    place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = np.pad(mask[place], 1)
    depth = ndimage.distance_transform_cdt(inside, metric="chessboard")[1:-1, 1:-1]
    boundary[place] = mask[place] & (depth <= width)
    return boundary


def label_boundary(labels: np.ndarray, width: int) -> np.ndarray:
    """The pixels, (H, W) bool, that are at most ``width`` from a pixel with another label.

    Everything beyond the image has another label.

    Args:
        labels: (H, W) integers from -1 on.
        width: in pixels; diagonal neighbours have the distance 1.
    """
    size, outside = 2 * width + 1, int(labels.max()) + 1
    highest = ndimage.maximum_filter(labels, size, mode="constant", cval=outside)
    lowest = ndimage.minimum_filter(labels, size, mode="constant", cval=outside)
    return (highest != labels) | (lowest != labels)


class BoundaryEval(COCOeval):
    """COCO's AP with the smaller one of mask IoU and boundary IoU.

    Args:
        truth, found: ground truth and detections, with masks.
    """

    def __init__(self, truth: COCO, found: COCO):
        super().__init__(truth, found, "segm")

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 - pycocotools' names
        ious = super().computeIoU(imgId, catId)
        if not len(ious):
            return ious
        objects = self._gts[imgId, catId]
        order = np.argsort([-d["score"] for d in self._dts[imgId, catId]], kind="mergesort")
        detections = [self._dts[imgId, catId][i] for i in order[: self.params.maxDets[-1]]]
        pairs = [(i, k) for i, k in np.argwhere(ious >= _LEAST).tolist() if not objects[k]["iscrowd"]]
        found = {i: _boundary(detections[i]["segmentation"]) for i in {i for i, _ in pairs}}
        truth = {k: _boundary(objects[k]["segmentation"]) for k in {k for _, k in pairs}}
        for i, k in pairs:
            ious[i, k] = min(ious[i, k], coco_mask.iou([found[i]], [truth[k]], [0])[0, 0])
        return ious


def _boundary(rle: Any) -> Any:
    mask = coco_mask.decode(rle).astype(bool)
    return coco_mask.encode(np.asfortranarray(mask_boundary(mask, boundary_width(mask.shape)), np.uint8))
