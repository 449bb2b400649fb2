"""Compares an exported file with the original model on the user's pictures.

Shape letters: N objects, H and W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from detrex.predict import Predictor
from detrex.predict import Result as TorchResult
from detrex.predict.inputs import ImageInput
from detrex.runtime.exported import Predictor as ExportedPredictor
from detrex.runtime.exported import PromptPredictor, Result

SCORE_TOLERANCE = 0.01
"""Scores of an object may differ by this much, and objects this near to the threshold may be missing."""
BOX_IOU, MASK_IOU, EQUAL_PIXELS = 0.99, 0.99, 0.999
"""Least agreement of boxes, masks and maps that count as equal."""


@dataclass
class Agreement:
    """How well the results of an exported file agree with the model's.

    Attributes:
        pictures: number of pictures that were compared.
        objects: number of objects that the model found.
        missing: number of these that the file does not find.
        extra: number of objects that only the file finds.
        lowest_mask_iou: of objects that both find.
        largest_score_change: of objects that both find.
        panoptic_pixels, semantic_pixels: lowest share of equal pixels in a picture; None without maps.
    """

    pictures: int = 0
    objects: int = 0
    missing: int = 0
    extra: int = 0
    lowest_mask_iou: float = 1.0
    largest_score_change: float = 0.0
    panoptic_pixels: float | None = None
    semantic_pixels: float | None = None

    @property
    def same(self) -> bool:
        """Whether objects, masks and maps of the two agree within the bounds of this module."""
        maps = [share for share in (self.panoptic_pixels, self.semantic_pixels) if share is not None]
        return (
            self.missing == self.extra == 0
            and self.lowest_mask_iou > MASK_IOU
            and all(share > EQUAL_PIXELS for share in maps)
        )

    def describe(self) -> str:
        """Describes the comparison and its result, for the log."""
        words = [
            f"{self.pictures} pictures: {self.objects} objects, {self.missing} of them missing, {self.extra} "
            f"more; lowest IoU of masks {self.lowest_mask_iou:.4f}, largest change of a score "
            f"{self.largest_score_change:.4f}"
        ]
        for name, share in (("panoptic", self.panoptic_pixels), ("semantic", self.semantic_pixels)):
            if share is not None:
                words.append(f"at least {share:.4%} of the pixels of {name} maps are equal")
        return "; ".join(words)


def verify(
    predictor: Predictor,
    exported: ExportedPredictor,
    images: Iterable[ImageInput],
    *,
    score_threshold: float = 0.1,
    batch_size: int = 1,
) -> Agreement:
    """Predicts with both and compares.

    Args:
        predictor: the model in PyTorch.
        exported: the exported file.
        images: pictures, see :meth:`detrex.Predictor.predict`.
        score_threshold: objects with lower scores are not compared.
        batch_size: number of pictures of one size that go through the exported file together.
    """
    agreement = Agreement()
    options: dict[str, Any] = {"tasks": exported.tasks, "score_threshold": {"instance": score_threshold}}
    if "instance" not in exported.tasks:
        del options["score_threshold"]
    for group in _groups(images, batch_size):
        expected = [predictor.predict(image, **options) for image in group]
        found = exported.predict(list(group), batch_size=batch_size, **options)
        assert isinstance(found, list)
        for original, converted in zip(expected, found, strict=True):
            assert isinstance(original, TorchResult)
            _compare(agreement, original, converted, score_threshold)
    return agreement


@dataclass
class PromptAgreement:
    """How well the masks of exported graphs agree with the model's.

    Attributes:
        pictures, masks: numbers of pictures and masks that were compared.
        lowest_mask_iou: of all masks.
        largest_quality_change: of the expected IoUs of masks.
    """

    pictures: int = 0
    masks: int = 0
    lowest_mask_iou: float = 1.0
    largest_quality_change: float = 0.0

    @property
    def same(self) -> bool:
        """Whether the two agree within the bounds of this module."""
        return self.lowest_mask_iou > MASK_IOU and self.largest_quality_change <= SCORE_TOLERANCE

    def describe(self) -> str:
        """Describes the result, for the log."""
        return (
            f"{self.pictures} pictures: {self.masks} masks of clicks; lowest IoU {self.lowest_mask_iou:.4f}, "
            f"largest change of an expected IoU {self.largest_quality_change:.4f}"
        )


def verify_prompts(
    predictor: Predictor, exported: PromptPredictor, images: Iterable[ImageInput], clicks: int = 3
) -> PromptAgreement:
    """Computes masks for a grid of clicks with both, and compares them.

    Args:
        predictor: the model in PyTorch.
        exported: the exported graphs.
        images: pictures, see :meth:`detrex.Predictor.predict`.
        clicks: number of clicks in each row and column.
    """
    agreement = PromptAgreement()
    everything: dict[str, Any] = {"min_quality": -torch.inf, "duplicate_iou": torch.inf, "min_region": 0}
    for image in images:
        seen = exported.look_at(image)
        height, width = seen.image.shape[:2]
        steps = (np.arange(clicks) + 0.5) / clicks
        points = [(float(x * width), float(y * height)) for y in steps for x in steps]
        expected = predictor.prompt(image, points=points, **everything)
        agreement.pictures += 1
        for original, converted in zip(expected, seen.prompt(points=points), strict=True):
            place = {level: i for i, level in enumerate(converted.level.tolist())}
            for i, level in enumerate(original.level.tolist()):
                index = place[level]
                iou = _mask_iou(original.masks.one(i).numpy(), converted.masks[index])
                change = abs(float(original.quality[i]) - float(converted.quality[index]))
                agreement.masks += 1
                agreement.lowest_mask_iou = min(agreement.lowest_mask_iou, iou)
                agreement.largest_quality_change = max(agreement.largest_quality_change, change)
    return agreement


def _groups(images: Iterable[ImageInput], size: int) -> Iterator[Sequence[ImageInput]]:
    group: list[ImageInput] = []
    for image in images:
        group.append(image)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _compare(agreement: Agreement, expected: TorchResult, found: Result, threshold: float) -> None:
    agreement.pictures += 1
    if expected.instances is not None:
        _compare_objects(agreement, expected, found, threshold)
    if expected.panoptic is not None and found.panoptic is not None:
        share = float((_segments(*expected.panoptic) == _segments(*found.panoptic)).mean())
        agreement.panoptic_pixels = min(
            share, 1.0 if agreement.panoptic_pixels is None else agreement.panoptic_pixels
        )
    if expected.semantic is not None and found.semantic is not None:
        share = float((expected.semantic.numpy() == found.semantic).mean())
        agreement.semantic_pixels = min(
            share, 1.0 if agreement.semantic_pixels is None else agreement.semantic_pixels
        )


def _compare_objects(agreement: Agreement, expected: TorchResult, found: Result, threshold: float) -> None:
    assert found.boxes is not None and found.scores is not None and found.classes is not None
    scores, other_scores = expected.scores.numpy(), found.scores
    overlap = box_iou(expected.boxes, torch.from_numpy(found.boxes)).numpy()
    change = np.abs(scores[:, None] - other_scores)
    allowed = (expected.classes.numpy()[:, None] == found.classes) & (change <= SCORE_TOLERANCE)
    # Queries of poor models have many boxes without area, which overlap nothing, so positions are compared.
    distance = np.abs(expected.boxes.numpy()[:, None] - found.boxes).max(-1, initial=0)
    allowed &= (overlap > BOX_IOU) | (distance < 0.5)
    free = np.ones(len(found), bool)
    masks = expected.masks
    for i in range(len(scores)):
        candidates = np.flatnonzero(allowed[i] & free)
        if not len(candidates):
            agreement.missing += scores[i] >= threshold + SCORE_TOLERANCE
            continue
        match = candidates[np.lexsort((change[i, candidates], -overlap[i, candidates]))[0]]
        free[match] = False
        agreement.largest_score_change = max(agreement.largest_score_change, float(change[i, match]))
        if masks is not None and found.masks is not None:
            iou = _mask_iou(masks[i].numpy(), found.masks[match])
            agreement.lowest_mask_iou = min(agreement.lowest_mask_iou, iou)
    agreement.objects += len(scores)
    agreement.extra += int((free & (other_scores >= threshold + SCORE_TOLERANCE)).sum())


def _mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return 1.0 if union == 0 else int((a & b).sum()) / union


def _segments(ids: torch.Tensor | np.ndarray, segments: Sequence[dict[str, Any]]) -> np.ndarray:
    """A map (H, W) in which segments of the same class and order have the same number; 0 for no segment."""
    lookup = np.zeros(1 + max((s["id"] for s in segments), default=0), np.int64)
    seen: dict[int, int] = {}
    for segment in segments:
        label = segment["category_id"]
        seen[label] = seen.get(label, 0) + 1
        lookup[segment["id"]] = 1 + label * 1000 + seen[label]
    return lookup[np.asarray(ids)]
