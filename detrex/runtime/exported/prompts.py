"""Answers clicks, boxes and words with graphs that ``detrex export`` wrote, without PyTorch.

Shape letters: N masks of a prompt, H and W pixels of the picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from detrex.runtime.exported.description import Description, ExportedModelError
from detrex.runtime.exported.pictures import PictureInput, to_array
from detrex.runtime.exported.result import Result
from detrex.runtime.exported.runners import onnx_session

_BETWEEN_WORDS = re.compile(r"[\s,.]+")


@dataclass(frozen=True)
class PromptGraphs:
    """What the files of a model for prompts say in addition to a :class:`Description`.

    Attributes:
        levels: granularities of the masks of a prompt, from 1, the largest, to the smallest.
        words: the words that the model reads, ordered by id from 1 on; None if it reads none.
    """

    levels: tuple[int, ...]
    words: tuple[str, ...] | None

    def to_metadata(self) -> dict[str, str]:
        """The metadata as files hold it: JSON text by key."""
        return {"levels": json.dumps(self.levels), "words": json.dumps(self.words)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str) -> PromptGraphs:
        """The inverse of :meth:`to_metadata`.

        Raises:
            ExportedModelError: the file does not belong to a model for prompts.
        """
        try:
            levels, words = json.loads(metadata["levels"]), json.loads(metadata["words"])
            return cls(tuple(map(int, levels)), None if words is None else tuple(map(str, words)))
        except (KeyError, TypeError, ValueError) as error:
            raise ExportedModelError(
                f"{path} is no part of a model that answers prompts ({error})"
            ) from error


@dataclass(frozen=True)
class Answer:
    """The masks that answer a prompt, ordered by expected IoU, the highest first.

    Attributes:
        masks: (N, H, W) bool.
        quality: (N,) float32, the IoU that the model expects of each; not bounded.
        level: (N,) int64, granularity from 1, the largest, to the smallest.
    """

    masks: np.ndarray
    quality: np.ndarray
    level: np.ndarray


def load_prompts(folder: str | Path, *, threads: int | None = None) -> PromptPredictor:
    """A model that answers prompts, ready for pictures.

    Args:
        folder: the folder that ``detrex export`` wrote; needs onnxruntime.
        threads: number of threads that the runtime uses; None lets it choose.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: onnxruntime is not installed.
        ExportedModelError: a file was not written by ``detrex export``, or does not fit the others.
    """
    folder = Path(folder)
    sessions: dict[str, Any] = {}
    metadata: dict[str, dict[str, str]] = {}
    for kind in ("picture", "prompts", "words"):
        path = folder / f"{kind}.onnx"
        if kind == "words" and PromptGraphs.from_metadata(metadata["prompts"], str(folder)).words is None:
            continue
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}: 'detrex export' writes it for models that answer clicks"
            )
        sessions[kind], metadata[kind] = onnx_session(path, threads)
        if metadata[kind].get("graph") != json.dumps(kind):
            raise ExportedModelError(f"{path} is not the graph of its name, as 'detrex export' writes it")
    return PromptPredictor(
        sessions,
        Description.from_metadata(metadata["picture"], str(folder)),
        PromptGraphs.from_metadata(metadata["prompts"], str(folder)),
    )


class PromptPredictor:
    """A model that answers prompts; made by :func:`load_prompts`.

    Args:
        sessions: of onnxruntime, by the name of the graph.
        description: of the model.
        graphs: the levels and words of the graphs.
    """

    def __init__(self, sessions: Mapping[str, Any], description: Description, graphs: PromptGraphs):
        self.sessions, self.description, self.graphs = sessions, description, graphs

    def look_at(self, image: PictureInput) -> SeenPicture:
        """Encodes a picture once, for any number of prompts.

        Args:
            image: see :func:`detrex.runtime.exported.pictures.to_array`.

        Raises:
            ValueError, TypeError: the picture is not as described.
        """
        pixels = to_array(image, self.description.value_range)
        for side, (low, high) in zip(pixels.shape, self.description.sides, strict=False):
            if not low <= side <= high:
                raise ValueError(f"the picture has a side of {side} pixels; the model takes {low} to {high}")
        return SeenPicture(self, pixels, _run(self.sessions["picture"], {"images": pixels[None]}))


class SeenPicture:
    """An encoded picture that answers prompts; made by :meth:`PromptPredictor.look_at`."""

    def __init__(self, model: PromptPredictor, pixels: np.ndarray, memory: dict[str, np.ndarray]):
        self._model, self._memory, self.image = model, memory, pixels

    def prompt(
        self,
        points: Sequence[tuple[float, float]] | np.ndarray = (),
        boxes: Sequence[tuple[float, float, float, float]] | np.ndarray = (),
    ) -> list[Answer]:
        """All masks that answer each prompt.

        Args:
            points: clicks (x, y) in pixels.
            boxes: absolute xyxy in pixels.

        Returns:
            An answer for each click, then one for each box.

        Raises:
            ValueError: no prompt is given, a prompt lies outside the picture, or a box has no area.
        """
        clicks = np.asarray(points, np.float32).reshape(-1, 2)
        corners = np.asarray(boxes, np.float32).reshape(-1, 4)
        if not len(clicks) + len(corners):
            raise ValueError("give points=[(x, y), ...] or boxes=[(x0, y0, x1, y1), ...], in pixels")
        if (corners[:, 2:] <= corners[:, :2]).any():
            raise ValueError("boxes are (x0, y0, x1, y1) with x0 < x1 and y0 < y1")
        asked = np.concatenate([np.concatenate([clicks, clicks], 1), corners])
        height, width = self.image.shape[:2]
        if not ((asked >= 0) & (asked <= [width, height, width, height])).all():
            raise ValueError(f"a prompt is not within the picture of {width} x {height} pixels")
        found = _run(self._model.sessions["prompts"], {"prompts": asked, **self._memory})
        levels = np.array(self._model.graphs.levels)
        orders = [np.argsort(-quality, kind="stable") for quality in found["quality"]]
        return [
            Answer(masks[order].astype(bool), quality[order], levels[order])
            for masks, quality, order in zip(found["masks"], found["quality"], orders, strict=True)
        ]

    def find(self, classes: Sequence[str], score_threshold: float = 0.5) -> Result:
        """Finds the objects that the given words name.

        Args:
            classes: texts that consist of words which the model knows.
            score_threshold: objects with lower scores are left out.

        Raises:
            ValueError: the model reads no words, it does not know one of these, or no class is given.
        """
        if self._model.graphs.words is None:
            raise ValueError("this model answers clicks and boxes, and reads no words")
        ids = _ids(classes, self._model.graphs.words)
        threshold = np.array(score_threshold, np.float32)
        inputs = {"words": ids, "score_threshold": threshold, **self._memory}
        found = {name: value[0] for name, value in _run(self._model.sessions["words"], inputs).items()}
        count = len(classes)
        known = replace(
            self._model.description,
            class_names=tuple(classes),
            category_ids=tuple(range(count)),
            is_thing=(True,) * count,
            colors=tuple(_color(k) for k in range(count)),
            class_thresholds=None,
        )
        kept = found["scores"] >= 0
        result = Result(self.image, known, "")
        result.boxes, result.scores = found["boxes"][kept], found["scores"][kept]
        result.classes, result.masks = found["classes"][kept], found["masks"][kept].astype(bool)
        return result


def _ids(texts: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """The ids (C, T) int64 of the words in texts, filled up with 0."""
    if isinstance(texts, str) or not len(texts):
        raise ValueError("expected a list with the names of classes")
    read = [text.casefold() for text in texts]
    if len(set(read)) < len(read):
        raise ValueError(f"classes are named more than once: {', '.join(texts)}")
    known = {word: number for number, word in enumerate(vocabulary, start=1)}
    split = [[word for word in _BETWEEN_WORDS.split(text.lower()) if word] for text in texts]
    unknown = [word for words in split for word in words if word not in known]
    if unknown or not all(split):
        problem = f"does not know {', '.join(unknown)}" if unknown else "cannot find nothing"
        raise ValueError(f"this model {problem}; the words that it knows are {', '.join(vocabulary)}")
    ids = np.zeros((len(split), max(map(len, split))), np.int64)
    for row, words in zip(ids, split, strict=True):
        row[: len(words)] = [known[word] for word in words]
    return ids


def _color(number: int) -> tuple[int, int, int]:
    """A hue of its own for each class."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.7, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _run(session: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))
