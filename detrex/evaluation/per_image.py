"""How good the results of one image are: to find the images where a model fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_iou

from detrex.data.rle import encode_masks
from detrex.evaluation.panoptic_quality import Segmentation, count_matches, quality
from detrex.structures import Instances, Targets


@dataclass(frozen=True)
class Matches:
    """Objects of an image that were found, found wrongly, and missed.

    Attributes:
        right: detections that match an object of their class.
        wrong: other detections.
        missed: other objects.
    """

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """In [0, 1]; 1 if there is nothing to find and nothing was found."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def match_instances(targets: Targets, found: Instances, iou_threshold: float = 0.5) -> Matches:
    """Pairs detections with objects of the same class, one to one.

    By descending score each detection takes the free object with the largest IoU, if that reaches
    ``iou_threshold``. IoU is of the masks if both sides have them, else of the boxes.
    """
    iou = _mask_iou(found, targets) if _both_have_masks(found, targets) else _box_iou(found, targets)
    iou = np.where(found.pred_classes[:, None].numpy() == targets.labels.numpy(), iou, 0.0)  # (N, M)
    right = 0
    for i in found.scores.argsort(descending=True, stable=True).tolist():
        if len(targets) and iou[i].max() >= iou_threshold:
            iou[:, iou[i].argmax()] = 0.0
            right += 1
    return Matches(right, len(found) - right, len(targets) - right)


def panoptic_map(targets: Targets) -> tuple[Tensor, list[dict[str, int]]]:
    """Targets with masks in the form of a model's ``panoptic_seg``: ids are 1, 2, ... in their order.

    Returns:
        (H, W) int32 segment ids, 0 for none; for each segment its ``id`` and ``category_id`` (class index).
    """
    ids = torch.zeros(targets.masks.shape[-2:], dtype=torch.int32)
    for number, mask in enumerate(targets.masks, start=1):
        ids[mask] = number
    infos = [{"id": i, "category_id": k} for i, k in enumerate(targets.labels.tolist(), start=1)]
    return ids, infos


def panoptic_quality(
    truth: tuple[Tensor, Sequence[dict[str, Any]]],
    found: tuple[Tensor, Sequence[dict[str, Any]]],
    num_classes: int,
) -> float:
    """PQ of one image in [0, 1]: the mean over the classes that occur in it; 1 if none does.

    Args:
        truth: (H, W) integer segment ids, 0 for none, and ``id`` and ``category_id`` (class index) of each.
        found: the same, of the prediction.
        num_classes: of the data set.
    """
    counts = count_matches(_segmentation(truth), _segmentation(found), num_classes)
    values = quality(counts)[:, 0]
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else 1.0


def _segmentation(panoptic_seg: tuple[Tensor, Sequence[dict[str, Any]]]) -> Segmentation:
    ids, infos = panoptic_seg
    return Segmentation.from_lists(ids.numpy(), [(info["id"], info["category_id"], False) for info in infos])


def _both_have_masks(found: Instances, targets: Targets) -> bool:
    return found.pred_masks is not None and targets.masks is not None


def _mask_iou(found: Instances, targets: Targets) -> np.ndarray:
    """(N, M) IoU of detections and objects."""
    if not (len(found) and len(targets)):
        return np.zeros((len(found), len(targets)))
    return coco_mask.iou(encode_masks(found.pred_masks), encode_masks(targets.masks), [0] * len(targets))


def _box_iou(found: Instances, targets: Targets) -> np.ndarray:
    return box_iou(found.pred_boxes, targets.boxes).nan_to_num().numpy()
