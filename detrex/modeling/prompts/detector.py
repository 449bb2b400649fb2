"""A model that answers clicks and boxes with masks.

Shape letters: B images, P prompts of an image, G granularities, N masks, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detrex.modeling.criterion import SetCriterion
from detrex.modeling.decoder import Decoder, DecoderOutput
from detrex.modeling.detector import Detector
from detrex.modeling.prompts.criterion import WithinPrompts
from detrex.modeling.prompts.drawing import DrawnPrompts, RandomPrompts
from detrex.modeling.prompts.everything import AutomaticMasks
from detrex.modeling.prompts.queries import PromptQueries
from detrex.modeling.prompts.regions import mask_boxes, mask_iou, stability, without_small_regions
from detrex.modeling.results import Frame, PostProcess, QueryMasks
from detrex.runtime.chunking import FLOAT_BYTES, items_in_cache
from detrex.structures import (
    BatchTargets,
    Instances,
    PackedMasks,
    PaddedImages,
    PromptedMasks,
    Prompts,
    Pyramid,
    RunLengthMasks,
    Sample,
)
from detrex.structures.prompts import BOX


@dataclass
class EncodedImages:
    """Encoded images, which answer prompts any number of times.

    Attributes:
        memory, pixel_embed: see :class:`~detrex.modeling.DecoderOutput`.
        images: the normalised images and their sizes.
        frames: one for each image.
    """

    memory: Pyramid
    pixel_embed: Tensor
    images: PaddedImages
    frames: list[Frame]

    def of_images(self, index: Sequence[int]) -> EncodedImages:
        """A selection of the images."""
        chosen = torch.tensor(list(index), device=self.pixel_embed.device)  # (images,)
        images = PaddedImages(self.images.tensor[chosen], [self.images.sizes[i] for i in index])
        return EncodedImages(
            self.memory.of_images(index), self.pixel_embed[chosen], images, [self.frames[i] for i in index]
        )


class PromptDetector(Detector):
    """Predicts G masks for each click or box, from whole objects to their parts (Semantic-SAM).

    Without prompts, :meth:`detect` returns the masks of a grid of clicks as instances of one class, so that
    tools for detectors can use the model.

    Args:
        prompts: turns prompts into queries.
        drawing: draws prompts from true masks in training.
        automatic: settings of :meth:`everything`.
        levels: indices of a prompt's queries, from the largest granularity to the smallest.
        isolated: whether prompts of one call do not influence each other's results. In the published demo and
            automatic masks, all prompts see each other, so that results depend on the other prompts.
        points_as_boxes: mark clicks as boxes, as in the published evaluation, but not in its training.
        detector: all other arguments are those of :class:`~detrex.modeling.Detector`.

    Raises:
        ValueError: ``levels`` are not the granularities of ``prompts``.
    """

    def __init__(
        self,
        prompts: PromptQueries,
        drawing: RandomPrompts | None = None,
        automatic: AutomaticMasks | None = None,
        levels: Sequence[int] = (3, 2, 0, 4, 1, 5),
        isolated: bool = True,
        points_as_boxes: bool = False,
        **detector: Any,
    ):
        super().__init__(**detector)
        if sorted(levels) != list(range(prompts.granularities)):
            raise ValueError(
                f"model.levels={list(levels)}: expected each of 0 to {prompts.granularities - 1} once, as "
                f"model.prompts.granularities is {prompts.granularities}"
            )
        self.prompts, self.drawing = prompts, drawing or RandomPrompts()
        self.automatic, self.levels = automatic or AutomaticMasks(), tuple(levels)
        self.isolated, self.points_as_boxes = isolated, points_as_boxes

    def encode_images(self, samples: list[Sample]) -> EncodedImages:
        """Encodes images, once for all prompts.

        Args:
            samples: see :class:`~detrex.structures.Sample`.
        """
        images = self.preprocess(samples)
        features = self.backbone(images.tensor.contiguous(memory_format=self.memory_format))
        memory = self.encode(features, images if self.mask_padding else None)
        assert self.pixel_head is not None, "prompts are answered with masks"
        pixel_embed = self.pixel_head(features, memory)
        return EncodedImages(memory, pixel_embed, images, self.frames(samples, images))

    def answer(self, encoded: EncodedImages, prompts: Prompts, isolated: bool | None = None) -> DecoderOutput:
        """Predictions (B, P * G), prompt by prompt; their logits (B, P * G, 1) are expected IoUs.

        Args:
            encoded: the images.
            prompts: relative to each image.
            isolated: replaces the model's setting.
        """
        if self.points_as_boxes:
            prompts = Prompts(prompts.boxes, torch.full_like(prompts.kind, BOX))
        prompts = prompts.relative_to_padded(encoded.images).to(self.device)
        group = self.prompts(prompts, self.isolated if isolated is None else isolated)
        return self.answering(encoded.memory, encoded.pixel_embed, [group])

    @property
    def answering(self) -> Decoder:
        """The decoder that answers prompts."""
        return self.decoder

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """See :meth:`~detrex.modeling.Detector.losses`, for prompts drawn from the masks of the images.

        Images without masks are left out.

        Raises:
            ValueError: a sample has no targets or no masks, or none of the images has a mask with a pixel.
        """
        samples = [without_classes(sample) for sample in samples]
        self._collate_targets(samples, self.preprocess(samples))  # raises if they are wrong
        drawn = [self.drawing(sample["targets"]) for sample in samples]
        pairs = [(s, d) for s, d in zip(samples, drawn, strict=True) if d is not None]
        if not pairs:
            raise ValueError("no image of this batch has a mask with a pixel: there is nothing to point at")
        samples, asked = [s for s, _ in pairs], [d for _, d in pairs]
        encoded = self.encode_images(samples)
        return self._prompt_losses(self.criterion, samples, asked, encoded)

    def _prompt_losses(
        self,
        criterion: SetCriterion,
        samples: list[Sample],
        asked: list[DrawnPrompts],
        encoded: EncodedImages,
    ) -> dict[str, Tensor]:
        """Losses of the answers to prompts that were drawn for each of the encoded images."""
        prompts = Prompts(torch.stack([d.boxes for d in asked]), torch.stack([d.kind for d in asked]))
        prompts = prompts.relative_to_padded(encoded.images).to(self.device)
        assignment = WithinPrompts([d.prompt for d in asked], self.prompts.granularities)
        group = self.prompts(prompts, isolated=True, assignment=assignment)
        output = self.answering(encoded.memory, encoded.pixel_embed, [group])
        return criterion(output.supervised, output.pixel_embed, self._answers(samples, asked, encoded))

    def _answers(
        self, samples: list[Sample], drawn: list[DrawnPrompts], encoded: EncodedImages
    ) -> BatchTargets:
        """The true masks, each repeated for every prompt that it answers."""
        targets = self._collate_targets(samples, encoded.images)
        assert targets.masks is not None
        first = [sum(targets.counts[:i]) for i in range(len(samples))]
        index = torch.cat([d.mask + start for d, start in zip(drawn, first, strict=True)]).to(self.device)
        return BatchTargets(
            labels=torch.zeros_like(index),
            boxes=targets.boxes[index],
            masks=PackedMasks(targets.masks.rows[index], targets.masks.size),
            is_thing=torch.ones_like(index, dtype=torch.bool),
            image=targets.image[index],
            counts=[len(d.mask) for d in drawn],
        )

    def detect(self, samples: list[Sample], postprocess: PostProcess | None = None) -> list[dict[str, Any]]:
        """Masks for the prompts of samples, or instances for samples without prompts.

        Args:
            samples: each with or without ``prompts``.
            postprocess: its threshold and number of instances replace the model's.

        Returns:
            One dictionary per sample: with ``prompted``, all :class:`~detrex.structures.PromptedMasks` of its
            prompts; or, without prompts, with ``instances``: the masks of :meth:`everything`, of class 0.
        """
        results: list[dict[str, Any]] = []
        for sample in samples:
            if "prompts" in sample:
                results.append({"prompted": self.masks(self.encode_images([sample]), sample["prompts"])})
            else:
                results += super().detect([sample], postprocess)
        return results

    def detect_once(self, samples: list[Sample], postprocess: PostProcess) -> list[dict[str, Any]]:
        """``instances`` like those of :meth:`detect`, from one look at each image."""
        chosen = postprocess.instance
        results: list[dict[str, Any]] = []
        for sample in samples:
            encoded = self.encode_images([sample])
            found = self.everything(encoded)
            scores = found.quality.clamp(0, 1)  # (N,)
            if chosen is not None:
                found = found[scores >= chosen.score_threshold][: chosen.max_detections]
            boxes = found.boxes + found.boxes.new_tensor([0.0, 0.0, 1.0, 1.0])  # (N, 4)
            instances = Instances(
                encoded.frames[0].output, boxes, found.quality.clamp(0, 1), torch.zeros_like(found.prompt)
            )
            instances.pred_masks = found.masks
            results.append({"instances": instances})
        return results

    def masks(self, encoded: EncodedImages, prompts: Prompts, isolated: bool | None = None) -> PromptedMasks:
        """All G masks of every prompt on one image.

        Args:
            encoded: one image.
            prompts: relative to the image; one row.
            isolated: see :meth:`answer`.
        """
        parts = prompts.split(self.automatic.points_per_call)
        found = [self._masks(encoded, part, isolated, quality=None)[0] for part in parts]
        return _numbered(found, [part.boxes.shape[1] for part in parts])

    def ranked(
        self,
        encoded: EncodedImages,
        prompts: Prompts,
        min_quality: float = 0.5,
        duplicate_iou: float = 0.95,
        min_region: int = 100,
        isolated: bool | None = None,
    ) -> list[PromptedMasks]:
        """The masks to show a user for each prompt, ordered by expected IoU, the highest first.

        Args:
            encoded, prompts, isolated: see :meth:`masks`.
            min_quality: masks whose expected IoU, rounded to two digits, is lower are left out.
            duplicate_iou: masks that overlap a better one by more than this IoU are left out. If none would
                be left, the last candidate stays.
            min_region: at the end, holes of fewer pixels are filled and islands of fewer pixels removed.
        """
        found = self.masks(encoded, prompts, isolated)
        return [
            _shown(found[found.prompt == number], min_quality, duplicate_iou, min_region)
            for number in range(prompts.boxes.shape[1])
        ]

    def everything(
        self, encoded: EncodedImages, settings: AutomaticMasks | None = None, isolated: bool | None = None
    ) -> PromptedMasks:
        """The masks of a grid of clicks on one image, ordered by expected IoU, the highest first.

        Args:
            encoded: one image.
            settings: replace the model's.
            isolated: see :meth:`answer`.

        Raises:
            ValueError: the settings name a level that the model does not have.
        """
        settings = settings or self.automatic
        known, levels = set(range(1, len(self.levels) + 1)), settings.levels
        if levels is not None and (not levels or sorted(known.intersection(levels)) != sorted(levels)):
            raise ValueError(
                f"levels={list(levels)}: expected some of 1, the largest, to {len(known)}, each once"
            )
        parts = Prompts.clicks(settings.grid()[None]).split(settings.points_per_call)
        kept = []
        for part in parts:
            found, stable = self._masks(encoded, part, isolated, settings.quality, settings.levels)
            kept.append(found[stable >= settings.stability])
        return settings.choose(_numbered(kept, [part.boxes.shape[1] for part in parts]))

    def _masks(
        self,
        encoded: EncodedImages,
        prompts: Prompts,
        isolated: bool | None,
        quality: float | None,
        levels: Sequence[int] | None = None,
    ) -> tuple[PromptedMasks, Tensor]:
        """Masks with a higher expected IoU than ``quality``, prompt by prompt, and the stability of each."""
        output = self.answer(encoded, prompts, isolated)
        expected = output.final.logits[0, :, 0].float()  # (P * G,)
        index = torch.arange(len(expected), device=expected.device)  # (P * G,)
        level = expected.new_tensor([self.levels.index(g) + 1 for g in range(len(self.levels))]).long()
        level = level[index % len(self.levels)]  # (P * G,)
        kept = torch.ones_like(index, dtype=torch.bool) if quality is None else expected > quality
        if levels is not None:
            kept &= torch.isin(level, level.new_tensor(list(levels)))
        index = index[kept]  # (N,)
        assert output.final.mask_embed is not None
        queries = QueryMasks(output.final.mask_embed[0, index], encoded.pixel_embed[0])
        frame = encoded.frames[0]
        rles: list[Mapping[str, Any]] = []
        boxes, stable = [expected.new_zeros(0, 4)], [expected.new_zeros(0)]
        step = items_in_cache(FLOAT_BYTES * frame.output[0] * frame.output[1], expected.device)
        for first in range(0, len(index), step):
            logits = frame.to_output(queries.logits(slice(first, first + step)))  # (step, H, W)
            rles += RunLengthMasks.encode(logits > 0).rles
            boxes.append(mask_boxes(logits > 0))
            stable.append(stability(logits))
        found = PromptedMasks(
            RunLengthMasks(frame.output, rles),
            expected[index],
            level[index],
            index // len(self.levels),
            torch.cat(boxes),
        )
        return found, torch.cat(stable)


def without_classes(sample: Sample) -> Sample:
    """The sample with class 0 for all objects, because prompts have no classes."""
    if "targets" not in sample:
        return sample
    targets = sample["targets"]
    return Sample(**{**sample, "targets": replace(targets, labels=torch.zeros_like(targets.labels))})


def _numbered(found: Sequence[PromptedMasks], counts: Sequence[int]) -> PromptedMasks:
    """Joins the masks of several calls, which had ``counts`` prompts each."""
    first = [sum(counts[:i]) for i in range(len(counts))]
    return PromptedMasks(
        RunLengthMasks(found[0].masks.size, [rle for part in found for rle in part.masks.rles]),
        torch.cat([part.quality for part in found]),
        torch.cat([part.level for part in found]),
        torch.cat([part.prompt + start for part, start in zip(found, first, strict=True)]),
        torch.cat([part.boxes for part in found]),
    )


def _shown(found: PromptedMasks, min_quality: float, duplicate_iou: float, min_region: int) -> PromptedMasks:
    found = found[found.quality.argsort(descending=True, stable=True)]
    dense = found.masks.dense()  # (N, H, W)
    kept: list[int] = []
    for i, expected in enumerate(found.quality.tolist()):
        last = i == len(found) - 1 and not kept
        overlaps = kept and bool((mask_iou(dense[i], dense[kept]) > duplicate_iou).any())
        if last or (round(expected, 2) >= min_quality and not overlaps):
            kept.append(i)
    shown = found[torch.tensor(kept, dtype=torch.int64, device=found.quality.device)]
    cleaned = [without_small_regions(mask, min_region)[0] for mask in dense[kept]]
    if cleaned:
        masks = torch.stack(cleaned)  # (N, H, W)
        shown.masks, shown.boxes = RunLengthMasks.encode(masks), mask_boxes(masks).to(shown.boxes)
    return shown
