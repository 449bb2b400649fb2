"""Rates the results of single images, to find those where a model fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_iou

from detrex.evaluation.panoptic_quality import Segmentation, count_matches, quality
from detrex.structures import Instances, RunLengthMasks, Targets, class_map


@dataclass(frozen=True)
class Matches:
    """Numbers of right and wrong detections and of missed objects in an image.

    Attributes:
        right: detections that match an object of their class.
        wrong: all other detections.
        missed: objects that no detection matches.
    """

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """The F1 score in [0, 1]; 1 if there is nothing to find and nothing was found."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


@dataclass(frozen=True)
class Rating:
    """A rating of the results of one image.

    Attributes:
        value: in [0, 1]; 1 is perfect.
        text: description of what was measured.
        right, errors: numbers of objects, which order images of the same value.
    """

    value: float
    text: str
    right: int = 0
    errors: int = 0

    @property
    def order(self) -> tuple[float, int, int]:
        """A key to sort by: larger for better results."""
        return self.value, -self.errors, self.right


def rate(
    targets: Targets, results: Mapping[str, Any], num_classes: int, score_threshold: float
) -> Rating | None:
    """Rates results by the F1 of instances, or else the panoptic quality, or else the mean IoU of classes.

    Args:
        targets: ground truth in the frame of the results, with the model's class indices.
        results: the model's results for the image.
        num_classes: of the model.
        score_threshold: instances with lower scores count as not found.

    Returns:
        The rating, or None if results and ground truth have nothing in common to compare.
    """
    if "instances" in results:
        found = results["instances"].to("cpu")
        matches = match_instances(targets[targets.is_thing], found[found.scores >= score_threshold])
        text = f"F1 {matches.f1:.1%}: {matches.right} right, {matches.wrong} wrong, {matches.missed} missed"
        return Rating(matches.f1, text, matches.right, matches.wrong + matches.missed)
    if targets.masks is None:
        return None
    if "panoptic_seg" in results:
        ids, infos = results["panoptic_seg"]
        quality_here = panoptic_quality(panoptic_map(targets), (ids.cpu(), infos), num_classes)
        return Rating(quality_here, f"PQ {quality_here:.1%}")
    if "sem_seg" in results:
        iou = semantic_iou(targets, class_map(results["sem_seg"]).cpu(), num_classes)
        return Rating(iou, f"mIoU {iou:.1%}")
    return None


def match_instances(targets: Targets, found: Instances, iou_threshold: float = 0.5) -> Matches:
    """Pairs detections with objects of the same class, one to one.

    By descending score, each detection takes the free object with the largest IoU, if that reaches
    ``iou_threshold``. The IoU is that of masks if both sides have them, else that of boxes.
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
    """Converts targets with masks to the form of a model's ``panoptic_seg``; ids are 1, 2, ... in order.

    Returns:
        (H, W) int32 segment ids, 0 for no segment; and for each segment ``id`` and ``category_id`` (class
        index).
    """
    assert targets.masks is not None, "panoptic maps need masks"
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
        truth: (H, W) integer segment ids, 0 for no segment, and ``id`` and ``category_id`` (class index) of
            each segment.
        found: the same for the prediction.
        num_classes: of the data set.
    """
    counts = count_matches(_segmentation(truth), _segmentation(found), num_classes)
    values = quality(counts)[:, 0]
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else 1.0


def semantic_iou(targets: Targets, found: Tensor, num_classes: int) -> float:
    """Mean IoU in [0, 1] over the classes in ground truth or result; 1 if nothing is labelled.

    Args:
        targets: with masks; pixels outside all masks are ignored.
        found: (H, W) class indices.
        num_classes: of the model.
    """
    assert targets.masks is not None, "semantic maps need masks"
    truth = torch.full(found.shape, -1)
    for label, mask in zip(targets.labels.tolist(), targets.masks, strict=True):
        truth[mask] = label
    labelled = truth >= 0
    pairs = truth[labelled] * num_classes + found[labelled]
    counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    present = union > 0
    return float((counts.diagonal()[present] / union[present]).mean()) if present.any() else 1.0


def _segmentation(panoptic_seg: tuple[Tensor, Sequence[dict[str, Any]]]) -> Segmentation:
    ids, infos = panoptic_seg
    return Segmentation.from_lists(ids.numpy(), [(info["id"], info["category_id"], False) for info in infos])


def _both_have_masks(found: Instances, targets: Targets) -> bool:
    return found.has("pred_masks") and targets.masks is not None


def _mask_iou(found: Instances, targets: Targets) -> np.ndarray:
    """IoU (N, M) of detections and objects."""
    masks = found.masks
    if masks is None or targets.masks is None or not (len(found) and len(targets)):
        return np.zeros((len(found), len(targets)))
    return coco_mask.iou(masks.rles, RunLengthMasks.encode(targets.masks).rles, [0] * len(targets))


def _box_iou(found: Instances, targets: Targets) -> np.ndarray:
    return box_iou(found.pred_boxes, targets.boxes).nan_to_num().numpy()
