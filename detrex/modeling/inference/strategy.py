"""Shared code of the ways to look at an image more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detrex.modeling.results import PostProcess
from detrex.structures import Sample

Detect = Callable[[list[Sample], PostProcess], list[dict[str, Any]]]
"""Turns samples into results, like :meth:`detrex.modeling.Detector.detect`."""


class Inference(Protocol):
    """Looks at an image more than once and joins the results; ``model.inference`` of a config."""

    def __call__(self, detect: Detect, sample: Sample, postprocess: PostProcess) -> dict[str, Any]:
        """Results of one image, of the same kinds and size as those of ``detect``.

        Args:
            detect: looks once.
            sample: see :class:`~detrex.structures.Sample`.
            postprocess: makes the results that are wanted.
        """


def original_of(sample: Sample) -> Tensor:
    """The image (3, H, W) before it was resized for the model, or the resized one if that is unknown."""
    return sample.get("original", sample["image"]).as_subclass(Tensor)


def output_size(sample: Sample) -> tuple[int, int]:
    """(height, width) at which results are wanted."""
    height, width = sample["image"].shape[-2:]
    return int(sample.get("height", height)), int(sample.get("width", width))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes an image (3, H, W) to (height, width) ``size``, like :class:`detrex.data.EvalMapper`."""
    return image if tuple(image.shape[-2:]) == size else F.resize(image, list(size), antialias=True)


def pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from a setting of one or two numbers.

    Raises:
        ValueError: the setting is something else, or a number is below 1.
    """
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"model.inference.{name}={value}: expected a number of pixels, or (height, width)")
    return int(sides[0]), int(sides[1])


def starts(length: int, size: int, stride: int) -> list[int]:
    """Begins of windows of ``size`` that cover ``length`` pixels; the last window ends at the last pixel."""
    return [min(i * stride, length - size) for i in range(-(-(length - size) // stride) + 1)]


def grouped(samples: Sequence[Sample], batch_size: int) -> Iterator[list[int]]:
    """Indices of samples of equal size, at most ``batch_size`` together, so that none is padded."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        groups.setdefault(tuple(sample["image"].shape), []).append(i)
    for group in groups.values():
        yield from (group[first : first + batch_size] for first in range(0, len(group), batch_size))
