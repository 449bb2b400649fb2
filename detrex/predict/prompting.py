"""Answers clicks and boxes on an image that is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detrex.modeling.prompts import PromptDetector
from detrex.runtime.device import autocast
from detrex.structures import PromptedMasks, Prompts, Sample
from detrex.structures.prompts import BOX

Points = Sequence[tuple[float, float]] | Tensor
Boxes = Sequence[tuple[float, float, float, float]] | Tensor


class PromptedImage:
    """An encoded image that answers prompts; made by :meth:`detrex.predict.Predictor.look_at`.

    Args:
        model: answers the prompts.
        sample: the model's input; ``height`` and ``width`` are those of the original image.
        amp: numerical precision, see :class:`~detrex.predict.Predictor`.
    """

    @torch.inference_mode()
    def __init__(self, model: PromptDetector, sample: Sample, amp: str = "off"):
        self.model, self.amp = model, amp
        self.size = sample["height"], sample["width"]
        with autocast(amp, model.device):
            self._encoded = model.encode_images([sample])

    @torch.inference_mode()
    def prompt(
        self, points: Points | None = None, boxes: Boxes | None = None, **options: Any
    ) -> list[PromptedMasks]:
        """The masks that answer each prompt, ordered by expected IoU, the highest first.

        Args:
            points: clicks (x, y) in pixels of the image.
            boxes: absolute xyxy in pixels of the image.
            options: of :meth:`~detrex.modeling.prompts.PromptDetector.ranked`, such as ``isolated=False``.

        Returns:
            Masks for each click, then for each box; ``masks`` have the size of the image.

        Raises:
            ValueError: there is no prompt, a prompt lies outside the image, or a box has no area.
        """
        prompts = self._prompts(points, boxes)
        with autocast(self.amp, self.model.device):
            found = self.model.ranked(self._encoded, prompts, **options)
        return [_on_cpu(masks) for masks in found]

    @torch.inference_mode()
    def everything(self, isolated: bool | None = None, **settings: Any) -> PromptedMasks:
        """The masks of a grid of clicks, ordered by expected IoU, the highest first.

        Args:
            isolated: see :meth:`~detrex.modeling.prompts.PromptDetector.answer`.
            settings: of :class:`~detrex.modeling.prompts.AutomaticMasks`, in place of the model's.
        """
        with autocast(self.amp, self.model.device):
            chosen = replace(self.model.automatic, **settings)
            return _on_cpu(self.model.everything(self._encoded, chosen, isolated))

    def _prompts(self, points: Points | None, boxes: Boxes | None) -> Prompts:
        height, width = self.size
        limits = torch.tensor([width, height], dtype=torch.float32)
        clicks = _rows("points", points, 2)
        corners = _rows("boxes", boxes, 4)
        if not len(clicks) + len(corners):
            raise ValueError("give points=[(x, y), ...] or boxes=[(x0, y0, x1, y1), ...], in pixels")
        for name, given in (("points", clicks), ("boxes", corners)):
            outside = ((given < 0) | (given > limits.repeat(given.shape[1] // 2)) | given.isnan()).any(1)
            if bool(outside.any()):
                wrong = given[outside][0].tolist()
                raise ValueError(f"{name}: {wrong} is not within the image of {width} x {height} pixels")
        if bool((corners[:, 2:] <= corners[:, :2]).any()):
            raise ValueError("boxes are (x0, y0, x1, y1) with x0 < x1 and y0 < y1")
        asked = Prompts.clicks((clicks / limits)[None])
        found = box_convert(corners / limits.repeat(2), "xyxy", "cxcywh")[None]
        kind = torch.full(found.shape[:2], BOX)
        return Prompts(torch.cat([asked.boxes, found], 1), torch.cat([asked.kind, kind], 1))


def _rows(name: str, values: Points | Boxes | None, columns: int) -> Tensor:
    """The values as (N, columns) float32.

    Raises:
        ValueError: they have another shape.
    """
    if values is None:
        return torch.zeros(0, columns)
    try:
        rows = torch.as_tensor(values, dtype=torch.float32).cpu()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected rows of {columns} numbers ({error})") from error
    if rows.numel() and (rows.ndim != 2 or rows.shape[1] != columns):
        raise ValueError(f"{name}: expected rows of {columns} numbers, got shape {tuple(rows.shape)}")
    return rows.reshape(-1, columns)


def _on_cpu(found: PromptedMasks) -> PromptedMasks:
    return PromptedMasks(
        found.masks, found.quality.cpu(), found.level.cpu(), found.prompt.cpu(), found.boxes.cpu()
    )
