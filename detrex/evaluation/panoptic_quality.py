"""Panoptic quality (arXiv 1801.00868), with the COCO panoptic task's rules for void pixels and crowds.

Shape letters: H and W pixels, G and P segments of ground truth and prediction, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOID = 0
TP, IOU, FP, FN = range(4)


@dataclass(frozen=True)
class Segmentation:
    """Segments of one image that do not overlap.

    Attributes:
        ids: (H, W) int, the segment of every pixel; 0 is void.
        segment_ids: (S,) int, the ids that occur. Ids without pixels do not count.
        classes: (S,) int, class indices.
        is_crowd: (S,) bool, whether the segment covers several instances.
    """

    ids: np.ndarray
    segment_ids: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray

    @classmethod
    def from_lists(cls, ids: np.ndarray, segments: list[tuple[int, int, bool]]) -> Segmentation:
        """Makes a segmentation from (segment id, class index, is crowd) of each segment.

        Raises:
            ValueError: a pixel's id is not listed, or a segment is listed twice.
        """
        table = np.array(sorted(segments), np.int64).reshape(-1, 3)
        segment_ids = table[:, 0]
        if len(np.unique(segment_ids)) < len(segment_ids) or VOID in segment_ids:
            raise ValueError(f"segment ids must be distinct and not {VOID}: {segment_ids.tolist()}")
        if unknown := np.setdiff1d(ids, [VOID, *segment_ids]).tolist():
            raise ValueError(f"pixels have segment ids {unknown[:10]}, which are not listed")
        return cls(ids, segment_ids, table[:, 1], table[:, 2].astype(bool))

    def index_map(self) -> np.ndarray:
        """Map (H, W) int: 0 for void, k + 1 for segment k."""
        # Ids are sorted, and only they and void occur.
        return np.searchsorted(np.concatenate([[VOID], self.segment_ids]), self.ids)


def count_matches(truth: Segmentation, prediction: Segmentation, num_classes: int) -> np.ndarray:
    """True positives, the sum of their IoUs, false positives and false negatives of one image.

    A predicted segment matches one of the ground truth of its class if their IoU exceeds 0.5; pixels of the
    predicted segment that are void are ignored. Crowds are neither matched nor missed. An unmatched predicted
    segment is not a false positive if more than half of it is void or crowd of its class.

    Returns:
        (C, 4) float64, columns :data:`TP`, :data:`IOU`, :data:`FP`, :data:`FN`.
    """
    overlap = _overlaps(truth, prediction)  # (G + 1, P + 1)
    truth_area, area = overlap.sum(1)[1:], overlap.sum(0)[1:]
    void, overlap = overlap[0, 1:], overlap[1:, 1:]
    same_class = truth.classes[:, None] == prediction.classes[None]
    union = truth_area[:, None] + (area - void)[None] - overlap
    iou = overlap / np.maximum(union, 1)
    matched = same_class & ~truth.is_crowd[:, None] & (iou > 0.5)

    excused = void + (overlap * (same_class & truth.is_crowd[:, None])).sum(0)
    wrong = ~matched.any(0) & (area > 0) & (2 * excused <= area)
    missed = ~matched.any(1) & ~truth.is_crowd & (truth_area > 0)

    counts = np.zeros((num_classes, 4))
    rows, columns = np.nonzero(matched)
    np.add.at(counts[:, TP], truth.classes[rows], 1)
    np.add.at(counts[:, IOU], truth.classes[rows], iou[rows, columns])
    np.add.at(counts[:, FP], prediction.classes[wrong], 1)
    np.add.at(counts[:, FN], truth.classes[missed], 1)
    return counts


def quality(counts: np.ndarray) -> np.ndarray:
    """Panoptic, segmentation and recognition quality per class, from counts summed over images.

    Args:
        counts: (C, 4) as returned by :func:`count_matches`.

    Returns:
        (C, 3) float64 of PQ, SQ, RQ in [0, 1]; NaN for classes that occur nowhere. SQ of a class without a
        match is 0.
    """
    tp, iou, fp, fn = counts.T
    occurs = tp + fp + fn > 0
    sq = iou / np.maximum(tp, 1)
    rq = tp / np.where(occurs, tp + 0.5 * fp + 0.5 * fn, np.nan)
    return np.stack([sq * rq, np.where(occurs, sq, np.nan), rq], 1)


def _overlaps(truth: Segmentation, prediction: Segmentation) -> np.ndarray:
    """Numbers of pixels (G + 1, P + 1) that each pair of segments shares; row and column 0 are void."""
    shape = len(truth.segment_ids) + 1, len(prediction.segment_ids) + 1
    pairs = truth.index_map() * shape[1] + prediction.index_map()
    return np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
