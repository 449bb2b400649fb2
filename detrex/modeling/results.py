"""Turns predictions into results at the size that the user asked for.

Shape letters: Q queries, C classes, N results, h and w cells of predicted masks, H and W output pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

from detrex.layers import at_most, linear
from detrex.modeling.class_score import ClassScore, SigmoidScore
from detrex.modeling.mask_regions import Interpolation, MaskResize, resized
from detrex.runtime.chunking import FLOAT_BYTES, available_bytes, items_in_cache
from detrex.structures import Instances, Prediction, RunLengthMasks

# Results that need fewer bytes are made without checking how much memory is free.
MEMORY_UNCHECKED = 2**30
LARGEST_MASK = 2**32 - 1
"""Largest number of pixels that run-length encoding can count."""


@dataclass
class Frame:
    """Sizes of one image on its way through the model, each (height, width) in pixels.

    Attributes:
        padded: of the batch; predictions are relative to it.
        image: of this image within the batch.
        output: of the results.
        box_size: size that normalised boxes are relative to; None for the padded size.
        interpolation: from the image to the output; ``bicubic`` is antialiased.
    """

    padded: tuple[int, int]
    image: tuple[int, int]
    output: tuple[int, int]
    box_size: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"

    def to_image(self, masks: Tensor) -> Tensor:
        """Resizes mask logits (N, h, w) to the padded input and crops them to the image: (N, image size)."""
        full = F.interpolate(masks[None], self.padded, mode="bilinear", align_corners=False)[0]
        return full[:, : self.image[0], : self.image[1]]

    def to_output(self, masks: Tensor) -> Tensor:
        """Resizes mask logits (N, h, w) to the output size: (N, H, W)."""
        return self.resize(self.to_image(masks))

    def resize(self, maps: Tensor) -> Tensor:
        """Resizes maps (N, image size) to (N, H, W)."""
        if tuple(maps.shape[1:]) == tuple(self.output):
            return maps
        return resized(maps[None], self.output, self.interpolation)[0]

    def chunks(self, masks: QueryMasks) -> Iterator[tuple[slice, Tensor]]:
        """Slices of masks that fit into memory when resized, and the logits (n, h, w) of each."""
        pixels = max(self.padded[0] * self.padded[1], self.output[0] * self.output[1])
        # Four times what fits the cache: the product with the embeddings is slow for a few masks at a time.
        step = items_in_cache(FLOAT_BYTES * pixels // 4, masks.pixels.device)
        for first in range(0, len(masks), step):
            part = slice(first, min(first + step, len(masks)))
            yield part, masks.logits(part)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Converts normalised cxcywh boxes (N, 4) to absolute xyxy in output pixels, without clipping."""
        size = self.box_size or self.padded
        height, width = (s / i * o for s, i, o in zip(size, self.image, self.output, strict=True))
        return box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])


@dataclass
class QueryMasks:
    """Masks of queries of an image, multiplied out only when they are needed.

    Attributes:
        embed: (Q, D).
        pixels: (D, h, w) per-pixel embedding.
    """

    embed: Tensor
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.embed)

    def __getitem__(self, index: Tensor) -> QueryMasks:
        return QueryMasks(self.embed[index], self.pixels)

    def logits(self, part: slice) -> Tensor:
        """Mask logits of a slice of the queries, (n, h, w) float32."""
        logits = linear(self.embed[part], self.pixels.flatten(1).t())
        return logits.float().unflatten(1, self.pixels.shape[1:])

    def resize(self, frame: Frame, output: tuple[int, int]) -> MaskResize:
        """The resizing of an image's masks to (height, width) ``output``."""
        cells = (self.pixels.shape[1], self.pixels.shape[2])
        device = self.pixels.device
        return MaskResize(cells, frame.padded, frame.image, output, device, frame.interpolation)


def _without_autocast(logits: Tensor) -> AbstractContextManager:
    """A context in which products of resized masks keep the precision of the logits."""
    return torch.autocast(logits.device.type, enabled=False)


def check_share(name: str, value: float) -> None:
    """Checks that a setting of ``model.postprocess`` is a number from 0 to 1.

    Raises:
        ValueError: it is not; the message names the setting.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"model.postprocess.{name}={value}: expected a number from 0 to 1")


@dataclass
class InstanceInference:
    """The best (query, class) pairs as instances.

    Attributes:
        max_detections: largest number of results per image.
        score_threshold: results with lower scores are left out.
        one_per_query: only the best class of a query makes a result (DETR), instead of every class.
        clip_boxes: clip boxes to the image.
        num_queries: only the first so many queries make instances; None for all.
        boxes_only: return no masks, and ignore them in scores, even if the model has them.
    """

    max_detections: int = 100
    score_threshold: float = 0.0
    one_per_query: bool = False
    clip_boxes: bool = False
    num_queries: int | None = None
    boxes_only: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number is out of its range.
        """
        check_share("instance.score_threshold", self.score_threshold)
        if self.max_detections < 0:
            raise ValueError(
                f"model.postprocess.instance.max_detections={self.max_detections}: expected at least 0"
            )

    def __call__(
        self,
        scores: Tensor,
        boxes: Tensor,
        masks: QueryMasks | None,
        frame: Frame,
        things: Sequence[int] | None,
    ) -> Instances:
        """Chooses the best results, then resizes only their masks.

        Args:
            scores: (Q, C) class probabilities.
            boxes: (Q, 4) normalised cxcywh.
            masks: of the queries, or None for boxes only.
            frame: sizes.
            things: class indices that have instances; None for all.
        """
        queries = slice(self.num_queries)
        top, query, label = (found[0] for found in self.best(scores[None, queries], boxes[None, queries]))
        # A mask's quality can only lower the score, so results that fail now need not be resized.
        keep = top >= self.score_threshold
        if things is not None:
            keep &= torch.isin(label, torch.tensor(things, device=label.device))
        top, query, label = top[keep], query[keep], label[keep]  # (N,) each
        places = frame.boxes(boxes[query])  # (N, 4)
        if self.clip_boxes:
            places = clip_boxes_to_image(places, frame.output)
        found = Instances(frame.output, places, top, label)
        if masks is None or self.boxes_only:
            return found
        chosen, place = query.unique(return_inverse=True)  # (queries,), (N,)
        compressed, quality = self._masks(masks[chosen], frame)
        found.pred_masks, found.scores = compressed[place], top * quality[place]
        order = found.scores.argsort(descending=True, stable=True)
        return found[order[found.scores[order] >= self.score_threshold]]

    def best(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """Scores, queries and classes of the results (B, N), best first.

        If an image has fewer than N results, the remaining scores are negative.

        Args:
            scores: (B, Q, C) class probabilities.
            boxes: (B, Q, 4) normalised cxcywh.
        """
        label = None
        if self.one_per_query:
            scores, label = scores.max(-1)
            scores = scores[..., None]
        num_classes, scores = scores.shape[2], scores.flatten(1)  # (B, Q * C)
        top, index = scores.topk(at_most(self.max_detections, scores.shape[1]))  # (B, N) each
        query = index // num_classes
        # Not as a remainder, for which ONNX has no operator if the number of classes is open.
        return top, query, index - query * num_classes if label is None else label.gather(1, query)

    def _masks(self, masks: QueryMasks, frame: Frame) -> tuple[RunLengthMasks, Tensor]:
        """The masks of N queries, and their mean probability inside (N,)."""
        _, height, width = masks.pixels.shape
        resize = masks.resize(frame, frame.output)
        step = items_in_cache(FLOAT_BYTES * height * width, masks.pixels.device)
        rles: list[dict[str, Any]] = []
        quality = [masks.pixels.new_zeros(0, dtype=torch.float32)]
        for first in range(0, len(masks), step):
            logits = masks.logits(slice(first, first + step))  # (n, h, w)
            with _without_autocast(logits):
                encoded, inside = resize.encode(logits)
            rles += encoded
            quality.append(inside)
        return RunLengthMasks(frame.output, rles), torch.cat(quality)


@dataclass
class PanopticInference:
    """One segment per pixel, by the largest product of score and mask probability.

    Attributes:
        score_threshold: queries with lower scores are left out.
        overlap_threshold: a segment stays if it keeps at least this share of its own mask.
    """

    score_threshold: float = 0.25
    overlap_threshold: float = 0.8

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a threshold is not from 0 to 1.
        """
        check_share("panoptic.score_threshold", self.score_threshold)
        check_share("panoptic.overlap_threshold", self.overlap_threshold)

    def __call__(
        self,
        certainty: Tensor,
        probabilities: Tensor,
        masks: QueryMasks,
        frame: Frame,
        things: Sequence[int] | None,
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Merges masks.

        Args:
            certainty: (Q,) compared with the threshold; negative if the query says "no object".
            probabilities: (Q, C) from which score and class are taken.
            masks: of the queries.
            frame: sizes.
            things: class indices of things; segments of one stuff class merge. None: all are things.

        Returns:
            Segment ids (H, W) int32, 0 for no segment; and for each segment ``id``, ``category_id`` (class
            index), ``isthing`` and ``score``.
        """
        kept = (certainty > self.score_threshold).nonzero().squeeze(1)  # (N,)
        if len(kept) == 0:
            return torch.zeros(frame.output, dtype=torch.int32, device=certainty.device), []
        scores, labels = probabilities[kept].max(-1)  # (N,) each
        owner, inside, own_area = self._owners(scores, masks[kept], frame)  # (H, W) twice, (N,)
        count = len(kept)
        won_area = torch.bincount(owner.flatten(), minlength=count)  # (N,)
        visible = torch.bincount(owner[inside], minlength=count)  # (N,)
        stays = (visible > 0) & (won_area >= self.overlap_threshold * own_area)
        found, kept_whole = torch.stack([labels, stays.long()]).tolist()
        segment_of, segments = self._number(found, kept_whole, scores.tolist(), things)
        lookup = torch.tensor(segment_of, dtype=torch.int32, device=certainty.device)
        return lookup[owner] * inside, segments

    def _owners(self, scores: Tensor, masks: QueryMasks, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
        """The mask that wins each pixel (H, W), whether it covers the pixel, and areas of masks (N,)."""
        best = torch.full(frame.output, -1.0, device=scores.device)
        owner = torch.zeros(frame.output, dtype=torch.int64, device=scores.device)
        inside = torch.zeros(frame.output, dtype=torch.bool, device=scores.device)
        areas = []
        for part, small in frame.chunks(masks):
            probability = frame.to_output(small).sigmoid()  # (n, H, W)
            covered = probability >= 0.5
            areas.append(covered.sum((1, 2)))
            value, index = (probability * scores[part, None, None]).max(0)  # (H, W) each
            better = value > best
            best = torch.where(better, value, best)
            owner = torch.where(better, index + part.start, owner)
            inside = torch.where(better, covered.gather(0, index[None])[0], inside)
        return owner, inside, torch.cat(areas)

    @staticmethod
    def _number(
        labels: list[int], stays: list[int], scores: list[float], things: Sequence[int] | None
    ) -> tuple[list[int], list[dict[str, Any]]]:
        """Segment id of every mask (0: dropped) and the segments; stuff of one class shares an id."""
        segment_of: list[int] = []
        segments: list[dict[str, Any]] = []
        stuff: dict[int, dict[str, Any]] = {}
        for label, stay, score in zip(labels, stays, scores, strict=True):
            is_thing = things is None or label in things
            known = None if is_thing else stuff.get(label)
            if not stay:
                segment_of.append(0)
            elif known is not None:
                segment_of.append(known["id"])
                known["score"] = max(known["score"], score)
            else:
                segment: dict[str, Any] = {
                    "id": len(segments) + 1,
                    "category_id": label,
                    "isthing": is_thing,
                    "score": score,
                }
                segments.append(segment)
                segment_of.append(segment["id"])
                if not is_thing:
                    stuff[label] = segment
        return segment_of, segments


@dataclass
class SemanticInference:
    """Class scores per pixel, summed over queries.

    Attributes:
        resize_masks: resize masks to the output before the sum (published panoptic models), instead of class
            scores after it (published semantic models).
    """

    resize_masks: bool = True

    def __call__(self, probabilities: Tensor, masks: QueryMasks, frame: Frame) -> Tensor:
        """(C, H, W) float scores for class probabilities (Q, C) and masks of the queries."""
        size = frame.output if self.resize_masks else frame.image
        total = probabilities.new_empty(probabilities.shape[1], *size)
        small = masks.logits(slice(None))  # (Q, h, w)
        with _without_autocast(small):
            for rows, logits in masks.resize(frame, size).strips(small):
                inside = logits.sigmoid_().flatten(1)  # (Q, pixels)
                total[:, rows] = linear(probabilities.T, inside.T).unflatten(1, logits.shape[1:])
        return total if self.resize_masks else frame.resize(total)


class PostProcess:
    """Results of every task that is switched on.

    Args:
        instance, panoptic, semantic: the tasks, or None.
        thing_classes: class indices of the things; None if all classes are. Instances are things only.
        class_score: the meaning of class logits.
        interpolation: how masks are resized from the image to the output: ``bilinear``, or ``bicubic`` with
            antialiasing (OpenSeeD).
    """

    def __init__(
        self,
        instance: InstanceInference | None = None,
        panoptic: PanopticInference | None = None,
        semantic: SemanticInference | None = None,
        thing_classes: Sequence[int] | None = None,
        class_score: ClassScore | None = None,
        interpolation: Interpolation = "bilinear",
    ):
        self.instance, self.panoptic, self.semantic = instance, panoptic, semantic
        self.interpolation = interpolation
        self.thing_classes = None if thing_classes is None else list(thing_classes)
        self.class_score = class_score or SigmoidScore()

    def __call__(
        self, prediction: Prediction, pixel_embed: Tensor | None, frames: list[Frame]
    ) -> list[dict[str, Any]]:
        """One dictionary per image with those of ``instances``, ``panoptic_seg`` and ``sem_seg`` that are on.

        Args:
            prediction: of B images.
            pixel_embed: (B, D, h, w), or None from models without masks.
            frames: sizes of every image.

        Raises:
            ValueError: panoptic or semantic results are wanted from a model without masks, or results do not
                fit into memory.
        """
        frames = [replace(frame, interpolation=self.interpolation) for frame in frames]
        for frame in frames if pixel_embed is not None else ():
            self._check_memory(frame, prediction, pixel_embed)
        masks: Iterable[QueryMasks | None] = [None] * len(frames)
        if prediction.mask_embed is not None and pixel_embed is not None:
            masks = map(QueryMasks, prediction.mask_embed, pixel_embed)
        elif self.panoptic is not None or self.semantic is not None:
            raise ValueError(
                "panoptic and semantic results need masks, which this model has none of: set "
                "model.postprocess.panoptic and model.postprocess.semantic to null"
            )
        rows = zip(prediction.logits.float(), prediction.boxes.float(), strict=True)
        return [
            self._one(logits, boxes, image_masks, frame)
            for (logits, boxes), image_masks, frame in zip(rows, masks, frames, strict=True)
        ]

    def _check_memory(self, frame: Frame, prediction: Prediction, pixel_embed: Tensor | None) -> None:
        """Checks, before they are computed, that the masks of an image fit into memory.

        Raises:
            ValueError: they need more than is free.
        """
        pixels = frame.output[0] * frame.output[1]
        num_classes = prediction.logits.shape[-1]
        needed = {}
        if self.panoptic is not None:
            # Best score, owner and whether it covers the pixel, each twice while they are updated.
            needed["a panoptic map"] = 2 * (FLOAT_BYTES + 8 + 1) * pixels
        if self.semantic is not None:
            needed[f"semantic scores of {num_classes} classes"] = FLOAT_BYTES * num_classes * pixels
        if self.instance is not None and pixels > LARGEST_MASK:
            height, width = frame.output
            raise ValueError(
                f"instance masks of {height} x {width} pixels (height x width): they have at most "
                f"{LARGEST_MASK:,} pixels. Give a smaller image"
            )
        total = sum(needed.values())
        if pixel_embed is None or total < MEMORY_UNCHECKED:
            return
        free = available_bytes(pixel_embed.device)
        if free is not None and total > free:
            height, width = frame.output
            raise ValueError(
                f"results of {height} x {width} pixels (height x width) do not fit the memory: "
                f"{' and '.join(needed)} need {total / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free. "
                "Ask for fewer tasks, or give a smaller image"
            )

    def _one(self, logits: Tensor, boxes: Tensor, masks: QueryMasks | None, frame: Frame) -> dict[str, Any]:
        classes = self.class_score.probabilities(logits)
        result: dict[str, Any] = {}
        if self.instance is not None:
            result["instances"] = self.instance(classes.independent, boxes, masks, frame, self.thing_classes)
        if self.panoptic is not None and masks is not None:
            result["panoptic_seg"] = self.panoptic(
                classes.certainty, classes.exclusive, masks, frame, self.thing_classes
            )
        if self.semantic is not None and masks is not None:
            result["sem_seg"] = self.semantic(classes.exclusive, masks, frame)
        return result
