"""Looks at large pictures with many small objects tile by tile.

Shape letters: H and W pixels of the image, h and w of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import Tensor

from detrex.modeling.inference.seams import InstanceSeams, PanopticSeams, SemanticSeams, Tile
from detrex.modeling.inference.strategy import (
    Detect,
    Inference,
    grouped,
    original_of,
    output_size,
    resized,
    starts,
)
from detrex.modeling.results import PostProcess
from detrex.structures import Rectangle, Sample, class_map


@dataclass
class Tiles:
    """Cuts the original image, before resizing, into overlapping tiles, and joins their results.

    If an object lies in the overlap of two tiles, both find it, and one of the results is taken; an object
    larger than the overlap is joined from its parts. Segments of things are joined likewise; the segment or
    class of a pixel comes from the tile in which it lies farthest from the edge. Memory is needed for one
    tile, the compressed objects and the image itself; maps of more than 16 million pixels lie in temporary
    files.

    Args:
        size: height and width of a tile in pixels of the original image.
        overlap: of neighbouring tiles in pixels, at least the length of a common object. None: a quarter of
            the size.
        input_size: height and width to which tiles are resized for the model; None: no resizing. Objects
            should then be as large as they were in training.
        iou_threshold: results of two tiles are one object if their IoU in the overlap reaches this.
        batch_size: number of tiles that go through the model together.
        inference: how to look at each tile; None: once.

    A tile has at most ``model.postprocess.instance.max_detections`` objects, the image any number.
    ``sem_seg`` holds classes (H, W) int32 instead of scores.
    """

    size: int = 1024
    overlap: int | None = None
    input_size: int | None = None
    iou_threshold: float = 0.5
    batch_size: int = 1
    inference: Inference | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a setting is out of its range.
        """
        for name in ("size", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.inference.{name}={getattr(self, name)}: expected at least 1")
        if not 0 <= self._overlap < self.size:
            raise ValueError(
                f"model.inference.overlap={self.overlap}: expected at least 0, and less than the size of a "
                f"tile, {self.size}"
            )
        if self.input_size is not None and self.input_size < 1:
            raise ValueError(f"model.inference.input_size={self.input_size}: expected at least 1")
        if not 0 < self.iou_threshold <= 1:
            raise ValueError(
                f"model.inference.iou_threshold={self.iou_threshold}: expected a number above 0, up to 1"
            )

    @property
    def _overlap(self) -> int:
        return self.size // 4 if self.overlap is None else self.overlap

    def tiles(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles of an image of (height, width) ``size``, row by row."""
        rows, columns = (self._along(length) for length in size)
        return [
            Tile(number, Rectangle(top, left, bottom, right), Rectangle(first, begin, last, end))
            for number, ((top, bottom, first, last), (left, right, begin, end)) in enumerate(
                product(rows, columns)
            )
        ]

    def __call__(self, detect: Detect, sample: Sample, postprocess: PostProcess) -> dict[str, Any]:
        """Joined results; see :class:`~detrex.modeling.inference.Inference`."""
        size = output_size(sample)
        image = resized(original_of(sample), size)  # (3, H, W)
        instances = None if postprocess.instance is None else InstanceSeams(size, self.iou_threshold)
        panoptic = None if postprocess.panoptic is None else PanopticSeams(size, self.iou_threshold)
        semantic = None if postprocess.semantic is None else SemanticSeams(size)
        for tile, output in self._outputs(detect, image, postprocess):
            if instances is not None:
                instances.add(tile, output["instances"])
            if panoptic is not None:
                panoptic.add(tile, *output["panoptic_seg"])
            if semantic is not None:
                semantic.add(tile, class_map(output["sem_seg"]))
        result: dict[str, Any] = {}
        if instances is not None:
            result["instances"] = instances.joined()
        if panoptic is not None:
            result["panoptic_seg"] = panoptic.joined()
        if semantic is not None:
            result["sem_seg"] = semantic.joined()
        return result

    def _outputs(
        self, detect: Detect, image: Tensor, postprocess: PostProcess
    ) -> Iterator[tuple[Tile, dict[str, Any]]]:
        height, width = image.shape[-2:]
        tiles = self.tiles((height, width))
        for first in range(0, len(tiles), self.batch_size):
            batch = tiles[first : first + self.batch_size]
            samples = [self._sample(image, tile.place) for tile in batch]
            outputs: dict[int, dict[str, Any]] = {}
            if self.inference is not None:
                outputs = {i: self.inference(detect, sample, postprocess) for i, sample in enumerate(samples)}
            else:
                for group in grouped(samples, self.batch_size):
                    results = detect([samples[i] for i in group], postprocess)
                    outputs.update(zip(group, results, strict=True))
            yield from ((tile, outputs[i]) for i, tile in enumerate(batch))

    def _sample(self, image: Tensor, place: Rectangle) -> Sample:
        part = image[:, place.top : place.bottom, place.left : place.right]  # (3, h, w)
        height, width = part.shape[-2:]
        scale = 1.0 if self.input_size is None else self.input_size / self.size
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return Sample(image=resized(part, size), original=part, height=height, width=width)

    def _along(self, length: int) -> list[tuple[int, int, int, int]]:
        """Begin and end of each tile along one axis, and of its core."""
        size = min(self.size, length)
        begins = starts(length, size, max(1, self.size - self._overlap))
        cuts = [0, *((b + a + size) // 2 for a, b in zip(begins, begins[1:], strict=False)), length]
        return [(b, b + size, cuts[i], cuts[i + 1]) for i, b in enumerate(begins)]
