"""Sliding windows for semantic segmentation.

Shape letters: C classes, H and W pixels of the model's input, h and w of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import Tensor

from detrex.modeling.inference.strategy import Detect, pair, starts
from detrex.modeling.results import Frame, PostProcess
from detrex.structures import Sample


@dataclass
class SlidingWindow:
    """Averages the class scores of overlapping windows over the image.

    This is the usual test setting of models that were trained on crops: windows have the size of these crops,
    on the image as the mapper resizes it. Most published results on ADE20K use windows of 512 pixels with the
    shorter side resized to 512, or 640 for both; on Cityscapes, windows of (512, 1024) or 769 pixels on the
    image of 1024 x 2048. Each window begins two thirds of its size after the previous one.

    Args:
        size: of a window in pixels, one number or (height, width).
        stride: from one window to the next; None for two thirds of the size.
        batch_size: number of windows that go through the model together.
    """

    size: int | Sequence[int] = 512
    stride: int | Sequence[int] | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a setting is out of its range.
        """
        size = pair("size", self.size)
        stride = self._stride
        if stride[0] > size[0] or stride[1] > size[1]:
            raise ValueError(
                f"model.inference.stride={self.stride}: windows of {size} would leave gaps; give at most that"
            )
        if self.batch_size < 1:
            raise ValueError(f"model.inference.batch_size={self.batch_size}: expected at least 1")

    @property
    def _stride(self) -> tuple[int, int]:
        if self.stride is not None:
            return pair("stride", self.stride)
        height, width = pair("size", self.size)
        return max(1, height * 2 // 3), max(1, width * 2 // 3)

    def __call__(self, detect: Detect, sample: Sample, postprocess: PostProcess) -> dict[str, Any]:
        """``sem_seg`` of one image; see :class:`~detrex.modeling.inference.Inference`.

        Raises:
            ValueError: results other than ``sem_seg`` are wanted.
        """
        if postprocess.instance is not None or postprocess.panoptic is not None:
            raise ValueError(
                "sliding windows (model.inference) are for semantic results alone: set "
                "model.postprocess.instance and model.postprocess.panoptic to null, or ask for the task "
                "semantic. For the others there are tiles, detrex.modeling.Tiles"
            )
        image = sample["image"]
        height, width = image.shape[-2:]
        size = pair("size", self.size)
        window = min(size[0], height), min(size[1], width)
        stride = self._stride
        corners = list(product(starts(height, window[0], stride[0]), starts(width, window[1], stride[1])))
        if len(corners) == 1:
            return detect([sample], postprocess)[0]
        total: Tensor | None = None
        count = image.new_zeros((1, height, width), dtype=image.float().dtype)  # (1, H, W)
        for first in range(0, len(corners), self.batch_size):
            places = [
                (slice(top, top + window[0]), slice(left, left + window[1]))
                for top, left in corners[first : first + self.batch_size]
            ]
            crops = [
                Sample(image=image[:, rows, columns], height=window[0], width=window[1])
                for rows, columns in places
            ]
            for (rows, columns), output in zip(places, detect(crops, postprocess), strict=True):
                scores = output["sem_seg"]  # (C, h, w)
                if total is None:
                    total = scores.new_zeros(len(scores), height, width)  # (C, H, W)
                    count = count.to(scores)
                total[:, rows, columns] += scores
                count[:, rows, columns] += 1
        assert total is not None, "there is at least one window"
        wanted = int(sample.get("height", height)), int(sample.get("width", width))
        frame = Frame((height, width), (height, width), wanted)
        return {"sem_seg": frame.resize(total.div_(count))}
