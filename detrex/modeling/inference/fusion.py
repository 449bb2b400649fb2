"""Fuses the results of several views of one image.

Shape letters: V views, N objects, C classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.structures import CroppedMask, Instances, RunLengthMasks
from detrex.structures.crops import encode_crops, vote

_SAME_SEGMENT = 0.5  # segments of two views with at least this IoU are one thing
_LEAST_SHARE = 0.5  # a segment that keeps less than this share of its mean area in the views is left out

Panoptic = tuple[Tensor, list[dict[str, Any]]]


def fuse_boxes(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, views: int, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Weighted box fusion (arXiv 1910.13302): replaces the boxes of one object by their score-weighted mean.

    From the best on, each box joins the fused box of its class with the largest IoU, if that is above
    ``iou_threshold``; otherwise it begins a new one. A fused score is the mean of its boxes' scores, lowered
    in proportion if an object has fewer boxes than there are views.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        labels: (N,) class indices.
        views: V.
        iou_threshold: from 0 to 1.

    Returns:
        Fused boxes (M, 4) and scores (M,), best first, and for each of them the indices of its boxes.
    """
    members: list[list[int]] = []
    fused = np.zeros((len(boxes), 4))
    of_class: dict[int, list[int]] = {}
    for i in np.argsort(-scores, kind="stable").tolist():
        places = of_class.setdefault(int(labels[i]), [])
        overlaps = _iou(boxes[i], fused[places]) if places else np.zeros(1)
        best = int(overlaps.argmax())
        if places and overlaps[best] > iou_threshold:
            k = places[best]
            members[k].append(i)
        else:
            k = len(members)
            places.append(k)
            members.append([i])
        weights = scores[members[k]] + np.finfo(float).tiny  # of the boxes in fused box k, (members,)
        fused[k] = (boxes[members[k]] * (weights / weights.sum())[:, None]).sum(0)
    means = np.array([scores[indices].mean() * min(len(indices), views) / views for indices in members])
    order = np.argsort(-means, kind="stable") if members else np.zeros(0, int)  # (M,)
    return fused[order], means[order] if members else means, [members[k] for k in order.tolist()]


def fuse_instances(views: Sequence[Instances], iou_threshold: float) -> Instances:
    """Fuses the objects of all views by their boxes; masks contain pixels that half of the scores vote for.

    Args:
        views: in the frame of one image, all with masks or all without.
        iou_threshold: see :func:`fuse_boxes`.
    """
    boxes, scores, labels = (
        torch.cat([getattr(view, name) for view in views]).cpu().double().numpy()
        for name in ("pred_boxes", "scores", "pred_classes")
    )
    fused, means, members = fuse_boxes(boxes, scores, labels.astype(int), len(views), iou_threshold)
    first = views[0]
    device, size = first.pred_boxes.device, first.image_size
    found = Instances(
        size,
        torch.from_numpy(fused).to(device, torch.float32),
        torch.from_numpy(means).to(device, torch.float32),
        torch.tensor([int(labels[indices[0]]) for indices in members], dtype=torch.int64, device=device),
    )
    if any(view.masks is not None for view in views):
        crops = [
            CroppedMask.decode(rle) for view in views for rle in (view.masks or RunLengthMasks(size, [])).rles
        ]
        voted = [
            vote([crops[i] for i in indices], [float(scores[i]) for i in indices]) for indices in members
        ]
        found.pred_masks = encode_crops(voted, size)
    return found


def fuse_panoptic(views: Sequence[Panoptic], score_threshold: float) -> Panoptic:
    """Fuses the segments of all views; each pixel goes to the segment with the largest sum of scores.

    Things of one class are one segment if their IoU is at least 0.5; stuff of one class is always one
    segment. A pixel that is empty in more than half of the views stays empty. A fused score is the mean over
    views; a view without the segment counts as 0.

    Args:
        views: segment ids (H, W) and segments, see :class:`detrex.modeling.PanopticInference`.
        score_threshold: segments below it are left out.
    """
    groups = _segment_groups(views)
    groups = [group for group in groups if sum(group.scores) / len(views) >= score_threshold]
    first = views[0][0]
    best = torch.zeros(first.shape, device=first.device)  # (H, W)
    owner = torch.zeros_like(first, dtype=torch.int64)  # (H, W)
    for number, group in enumerate(groups, start=1):
        votes = torch.zeros_like(best)  # (H, W)
        for view, segment, score in zip(group.views, group.ids, group.scores, strict=True):
            votes += (views[view][0] == segment) * score
        better = votes > best
        best, owner = torch.where(better, votes, best), torch.where(better, number, owner)
    empty = torch.stack([ids == 0 for ids, _ in views]).sum(0) * 2 > len(views)  # (H, W)
    owner = owner.masked_fill(empty, 0)
    won = torch.bincount(owner.flatten(), minlength=len(groups) + 1).tolist()
    numbers: list[int] = [0]
    segments: list[dict[str, Any]] = []
    for group, area in zip(groups, won[1:], strict=True):
        if area == 0 or area < _LEAST_SHARE * group.area / len(group.views):
            numbers.append(0)
            continue
        segments.append(
            {
                "id": len(segments) + 1,
                "category_id": group.label,
                "isthing": group.is_thing,
                "score": sum(group.scores) / len(views),
            }
        )
        numbers.append(len(segments))
    return torch.tensor(numbers, dtype=torch.int32, device=first.device)[owner], segments


@dataclass
class _SegmentGroup:
    """Segments of several views that are fused into one; the lists have an entry for each of them.

    Attributes:
        label: class index.
        is_thing: whether it is a thing.
        views, ids, scores: the view of each segment, its id there, and its score.
        area: the sum of their areas, in pixels.
    """

    label: int
    is_thing: bool
    views: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    area: int = 0

    def add(self, view: int, segment: dict[str, Any], area: int) -> None:
        self.views.append(view)
        self.ids.append(segment["id"])
        self.scores.append(float(segment["score"]))
        self.area += area


def _segment_groups(views: Sequence[Panoptic]) -> list[_SegmentGroup]:
    maps = [ids.cpu().numpy().astype(np.int64) for ids, _ in views]
    areas = [
        np.bincount(ids.ravel(), minlength=len(found) + 1)
        for ids, (_, found) in zip(maps, views, strict=True)
    ]
    shared: dict[tuple[int, int], np.ndarray] = {}

    def overlap(first: tuple[int, int], second: tuple[int, int]) -> float:
        """IoU of two segments, each a view and an id."""
        if first[0] > second[0]:
            first, second = second, first
        (a, i), (b, j) = first, second
        if (a, b) not in shared:
            width = len(areas[b])
            counts = np.bincount((maps[a] * width + maps[b]).ravel(), minlength=len(areas[a]) * width)
            shared[a, b] = counts.reshape(len(areas[a]), width)
        both = shared[a, b][i, j]
        return both / max(1, areas[a][i] + areas[b][j] - both)

    everyone = [(view, segment) for view, (_, found) in enumerate(views) for segment in found]
    groups: list[_SegmentGroup] = []
    for view, segment in sorted(everyone, key=lambda pair: -pair[1]["score"]):
        label, is_thing, place = segment["category_id"], segment["isthing"], (view, segment["id"])
        best, best_overlap = None, _SAME_SEGMENT
        for group in groups:
            if (group.label, group.is_thing) != (label, is_thing) or (is_thing and view in group.views):
                continue
            value = overlap((group.views[0], group.ids[0]), place) if is_thing else 1.0
            if value >= best_overlap:
                best, best_overlap = group, value
        if best is None:
            best = _SegmentGroup(label, is_thing)
            groups.append(best)
        best.add(view, segment, int(areas[view][segment["id"]]))
    return groups


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of one xyxy box (4,) with others (M, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])  # (M, 2)
    shared = sides.clip(min=0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()  # (M,)
    return shared / np.maximum(areas - shared, np.finfo(float).tiny)
