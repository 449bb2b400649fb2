"""The names of a model's classes, and the sentences that a text encoder reads for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

# Endings of COCO's names of stuff that no reader needs.
_SUFFIXES = re.compile("-other|-merged|-stuff")


@dataclass
class Vocabulary:
    """The classes of a data set that a model learns by their names.

    Attributes:
        names: of the classes.
        style: how names are read in training: ``plain``; ``coco_panoptic`` ("floor-wood" is read as "wood
            floor", and "sky-other-merged" as "sky"); ``alternatives`` ("Street Lights/Lamp", as Objects365
            names its classes, is read as one of the two, drawn anew in each step); or ``attributes`` ("red
            striped star" is read as it is, or without one or both of its first words, which are drawn for all
            names of a step together; names that are then equal are one class).
    """

    names: Sequence[str] = ()
    style: Literal["plain", "coco_panoptic", "alternatives", "attributes"] = "plain"

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: there is no such style.
        """
        styles = ("plain", "coco_panoptic", "alternatives", "attributes")
        if self.style not in styles:
            raise ValueError(f"a vocabulary has one of the styles {', '.join(styles)}, not '{self.style}'")

    def for_training(self) -> Iterator[str]:
        """The name of each class in a step; alternatives are drawn with torch's random numbers."""
        kept = self._kept_attributes() if self.style == "attributes" else []
        for name in self.names:
            if self.style == "alternatives":
                options = name.lower().split("/")
                yield _without_marks(options[int(torch.randint(len(options), ()))].strip())
            elif self.style == "coco_panoptic":
                yield _without_marks(" ".join(reversed(_SUFFIXES.sub("", name).split("-"))))
            elif self.style == "attributes":
                *attributes, noun = name.split()
                chosen = [word for word, keep in zip(attributes, kept, strict=False) if keep]
                yield _without_marks(" ".join([*chosen, noun]))
            else:
                yield _without_marks(name)

    def _kept_attributes(self) -> list[bool]:
        """Whether each of the words before the last is read; in half of the steps, all are."""
        most = max((len(name.split()) for name in self.names), default=1) - 1
        kept = torch.rand(most) < 0.5  # (most,)
        return (kept | (torch.rand(()) < 0.5)).tolist()


def for_evaluation(name: str) -> str:
    """The published reading of a name in evaluation: without COCO's suffixes, otherwise unchanged.

    Unlike in training, "floor-wood" stays as it is; published results were computed so.
    """
    return _SUFFIXES.sub("", name)


def _without_marks(name: str) -> str:
    return name.replace(",", "").replace("+", " ")


@cache
def imagenet_templates() -> tuple[str, ...]:
    """81 sentences with ``{}`` for a name: "{}." and the 80 with which CLIP was evaluated on ImageNet.

    Raises:
        ImportError: ``open_clip_torch``, which has them, is not installed.
    """
    try:
        from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
    except ImportError as error:
        raise ImportError(
            "the sentences about classes come from open_clip_torch, which is not installed: "
            "pip install detrex-maskdino[text], or set model.templates"
        ) from error
    return ("{}.", *(template("{}") for template in OPENAI_IMAGENET_TEMPLATES))
