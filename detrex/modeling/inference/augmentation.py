"""Test-time augmentation: results of an image at several sizes and mirrored, fused.

Shape letters: N objects, C classes, H and W pixels of results.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from detrex.modeling.inference.fusion import fuse_instances, fuse_panoptic
from detrex.modeling.inference.strategy import Detect, Inference, original_of, output_size, resized
from detrex.modeling.results import PostProcess
from detrex.structures import CroppedMask, Instances, Sample
from detrex.structures.crops import encode_crops


@dataclass
class TestTimeAugmentation:
    """Looks at an image at several sizes, and mirrored, and fuses the results.

    Boxes are fused by weighted box fusion (arXiv 1910.13302), masks by a vote of their pixels, panoptic
    segments by a vote for each pixel, and class scores of pixels by their mean. The time of one look is
    multiplied by the number of views, weighted by their area.

    Args:
        scales: sizes of the views, as multiples of the size that the mapper gives the image. Views are made
            from the original image.
        flip: also look at each view mirrored left to right.
        iou_threshold: boxes of one class with a larger IoU belong to one object.
        inference: how to look at each view; None: once. :class:`~detrex.modeling.SlidingWindow` gives the
            multi-scale test setting of semantic models.
    """

    __test__ = False  # pytest would take this class for a test because of its name

    scales: Sequence[float] = (0.75, 1.0, 1.25)
    flip: bool = True
    iou_threshold: float = 0.6
    inference: Inference | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a setting is out of its range.
        """
        if not len(self.scales) or not all(0 < scale <= 8 for scale in self.scales):  # noqa: PLR2004
            raise ValueError(
                f"model.inference.scales={list(self.scales)}: expected are numbers above 0, up to 8"
            )
        if not 0 <= self.iou_threshold <= 1:
            raise ValueError(
                f"model.inference.iou_threshold={self.iou_threshold}: expected a number from 0 to 1"
            )

    def __call__(self, detect: Detect, sample: Sample, postprocess: PostProcess) -> dict[str, Any]:
        """Fused results; see :class:`~detrex.modeling.inference.Inference`."""
        for_views = _without_thresholds(postprocess)
        outputs: list[dict[str, Any]] = []
        for scale in self.scales:
            views = self._views(sample, scale)
            if self.inference is None:
                found = detect(views, for_views)
            else:
                found = [self.inference(detect, view, for_views) for view in views]
            outputs += [found[0], *map(_mirrored, found[1:])]
        return self._fused(outputs, postprocess)

    def _views(self, sample: Sample, scale: float) -> list[Sample]:
        """The image at one size, and also mirrored if ``flip`` is set."""
        image = sample["image"]
        height, width = (max(1, round(scale * side)) for side in image.shape[-2:])
        if (height, width) != tuple(image.shape[-2:]):
            image = resized(original_of(sample), (height, width))
        size = output_size(sample)
        images = [image, image.flip(-1)] if self.flip else [image]
        return [Sample(image=view, height=size[0], width=size[1]) for view in images]

    def _fused(self, outputs: Sequence[dict[str, Any]], postprocess: PostProcess) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if postprocess.instance is not None:
            found = fuse_instances([output["instances"] for output in outputs], self.iou_threshold)
            found = found[found.scores >= postprocess.instance.score_threshold]
            result["instances"] = found[: postprocess.instance.max_detections]
        if postprocess.panoptic is not None:
            threshold = postprocess.panoptic.score_threshold
            result["panoptic_seg"] = fuse_panoptic([output["panoptic_seg"] for output in outputs], threshold)
        if postprocess.semantic is not None:
            total = outputs[0]["sem_seg"].clone()  # (C, H, W)
            for output in outputs[1:]:
                total += output["sem_seg"]
            result["sem_seg"] = total / len(outputs)
        return result


def _without_thresholds(postprocess: PostProcess) -> PostProcess:
    """The settings for single views, without thresholds, which only the fused results have to reach."""
    changed = copy.copy(postprocess)
    if changed.instance is not None:
        changed.instance = replace(changed.instance, score_threshold=0.0)
    if changed.panoptic is not None:
        changed.panoptic = replace(changed.panoptic, score_threshold=changed.panoptic.score_threshold / 2)
    return changed


def _mirrored(output: dict[str, Any]) -> dict[str, Any]:
    """Mirrors the results of a mirrored image back."""
    result = dict(output)
    if "instances" in output:
        result["instances"] = _mirrored_instances(output["instances"])
    if "panoptic_seg" in output:
        ids, segments = output["panoptic_seg"]
        result["panoptic_seg"] = ids.flip(-1), segments
    if "sem_seg" in output:
        result["sem_seg"] = output["sem_seg"].flip(-1)
    return result


def _mirrored_instances(found: Instances) -> Instances:
    width = found.image_size[1]
    x0, y0, x1, y1 = found.pred_boxes.unbind(-1)
    boxes = torch.stack([width - x1, y0, width - x0, y1], -1)  # (N, 4)
    masks = found.masks
    if masks is not None:
        crops = [CroppedMask.decode(rle).flipped(width) for rle in masks.rles]
        masks = encode_crops(crops, found.image_size)
    return Instances(found.image_size, boxes, found.scores, found.pred_classes, masks)
