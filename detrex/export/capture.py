"""Captures the graph of a predictor, and the description that travels with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

import detrex
from detrex.data import EvalMapper, OneClickMapper
from detrex.export.graph import PictureToResults
from detrex.modeling import Detector
from detrex.modeling.text import TextDetector
from detrex.ops import force_implementation
from detrex.predict import Predictor
from detrex.runtime.exported import Description

LARGEST_BATCH = 64
SIDES = (2, 8192)
"""Default range of heights and widths of pictures in pixels that a graph takes."""


class ExportError(ValueError):
    """A model cannot be exported with the given options."""


@dataclass
class Captured:
    """A graph that can be written in several formats.

    Attributes:
        program: of ``torch.export``.
        description: stored with the graph.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs.
        example: example inputs of the graph.
    """

    program: ExportedProgram
    description: Description
    inputs: list[str]
    outputs: list[str]
    example: tuple[Tensor, ...]


def capture(
    predictor: Predictor,
    *,
    tasks: Sequence[str] | None = None,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    sides: tuple[int, int] = SIDES,
    name: str = "",
) -> Captured:
    """Traces a model from raw pictures to results.

    Args:
        predictor: the model with its preprocessing, on the CPU.
        tasks: those of the predictor's tasks that the graph performs; None for all.
        batch: number of pictures in each call; None for any up to :data:`LARGEST_BATCH`.
        size: (height, width) of all pictures in pixels; None for any.
        sides: without ``size``, the smallest and the largest height and width of pictures.
        name: of the model, for the description.

    Raises:
        ExportError: the model resizes images differently from :class:`~detrex.data.EvalMapper`, looks at them
            more than once, is on another device, or does not have these tasks; or a number is out of range.
    """
    tasks = predictor.tasks if tasks is None else tuple(tasks)
    check(predictor, tasks, batch, size, sides)
    assert isinstance(predictor.mapper, EvalMapper)
    graph = PictureToResults(predictor.model, predictor.mapper, tasks).eval()
    ranges = [sides, sides] if size is None else [(side, side) for side in size]
    images, dynamic = example_pictures(batch, ranges)
    thresholds = tuple(torch.tensor(value) for value in graph.thresholds.values())
    example = (images, *thresholds)
    # Semantic maps have no threshold, and so no entry.
    shapes = (dynamic, (None,) * len(thresholds)) if thresholds else (dynamic,)
    model = predictor.model
    with model.keeping_words() if isinstance(model, TextDetector) else nullcontext():
        program, outputs = traced(graph, example, shapes)
    description = describe(predictor, tasks, graph.thresholds, batch, ranges, name)
    return Captured(program, description, ["images", *graph.thresholds], list(outputs), example)


def traced(
    graph: nn.Module, example: tuple[Any, ...], shapes: Any
) -> tuple[ExportedProgram, dict[str, Tensor]]:
    """A graph as a program, and its outputs for the example.

    Args:
        graph: returns tensors by name.
        example: its inputs.
        shapes: the axes of the inputs that may change, in the form of ``torch.export``.

    Raises:
        ExportError: a decision in the model depends on the size of a picture.
    """
    with torch.no_grad(), force_implementation("reference"):
        outputs = graph(*example)
        try:
            return torch.export.export(graph, example, dynamic_shapes=shapes, strict=False), outputs
        except GuardOnDataDependentSymNode as error:
            raise ExportError(
                "the model decides something by the size of a picture, so one graph does not fit all sizes: "
                "give the one that your pictures have, --size HxW"
            ) from error


def check(
    predictor: Predictor,
    tasks: Sequence[str],
    batch: int | None,
    size: tuple[int, int] | None,
    sides: tuple[int, int],
    prompts: bool = False,
) -> None:
    """Checks that a model can be exported; arguments and errors are those of :func:`capture`.

    With ``prompts``, a model that answers clicks may be exported, too.
    """
    # Clicks for evaluation do not change how pictures are resized.
    if type(predictor.mapper) not in (EvalMapper, OneClickMapper):
        raise ExportError(
            f"the model's images are prepared by {type(predictor.mapper).__name__}; a graph can do what "
            "detrex.data.EvalMapper does: set dataloader.test.mapper to one"
        )
    kind = type(predictor.model)
    if not prompts and (kind.detect_once is not Detector.detect_once or kind.detect is not Detector.detect):
        raise ExportError(
            f"{kind.__name__} finds objects in its own way, such as by clicks or from picture to picture, "
            "which is no part of a graph: use it by 'detrex predict' or detrex.load"
        )
    if predictor.model.inference is not None:
        raise ExportError(
            "the model looks at each image more than once, which is no part of a graph: give the override "
            "model.inference=null"
        )
    if predictor.model.postprocess.interpolation != "bilinear":
        raise ExportError(
            "the model resizes masks otherwise than linearly, which a graph does not: give the override "
            "model.postprocess.interpolation=bilinear; masks change a little"
        )
    if predictor.device.type != "cpu":
        raise ExportError(f"the model is on {predictor.device}: load it with device='cpu' to export it")
    unknown = sorted(set(tasks) - set(predictor.tasks))
    if unknown or not tasks:
        raise ExportError(f"tasks={list(tasks)}: this model gives {', '.join(predictor.tasks)}")
    if batch is not None and not 1 <= batch <= LARGEST_BATCH:
        raise ExportError(f"batch={batch}: expected 1 to {LARGEST_BATCH} pictures, or None for any number")
    low, high = sides if size is None else (min(size), max(size))
    if not SIDES[0] <= low <= high <= SIDES[1]:
        raise ExportError(
            f"pictures with sides from {low} to {high} pixels: expected are {SIDES[0]} to {SIDES[1]}, the "
            "smaller number first"
        )


def example_pictures(
    batch: int | None, ranges: Sequence[tuple[int, int]]
) -> tuple[Tensor, dict[int, Dim | None]]:
    """Pictures for tracing, and which of their axes may change."""
    dynamic: dict[int, Dim | None] = {}
    # Different numbers, which have no meaning of their own in a model.
    lengths = [2 if batch is None else batch]
    if batch is None:
        dynamic[0] = Dim("batch", min=1, max=LARGEST_BATCH)
    for axis, (low, high), name, usual in zip((1, 2), ranges, ("height", "width"), (150, 210), strict=True):
        lengths.append(min(max(usual, low), high))
        if low != high:
            dynamic[axis] = Dim(name, min=low, max=high)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (*lengths, 3), dtype=torch.uint8, generator=generator)
    return images, dynamic


def describe(
    predictor: Predictor,
    tasks: Sequence[str],
    thresholds: Mapping[str, float],
    batch: int | None,
    ranges: Sequence[tuple[int, int]],
    name: str = "",
) -> Description:
    """The description that is stored with a graph.

    Args:
        predictor: the predictor of the graph; its mapper is an :class:`~detrex.data.EvalMapper`.
        tasks: that the graph performs.
        thresholds: its inputs, with their usual values.
        batch: number of pictures in a call, None for any number.
        ranges: of heights and of widths.
        name: of the model.
    """
    assert isinstance(predictor.mapper, EvalMapper)
    model, categories = predictor.model, predictor.categories
    things = model.postprocess.thing_classes
    kept, precise = predictor.score_thresholds, predictor.precision_thresholds
    return Description(
        tasks=tuple(tasks),
        class_names=categories.names,
        category_ids=categories.ids,
        is_thing=categories.is_thing
        if things is None
        else tuple(k in things for k in range(len(categories))),
        colors=categories.colors,
        thresholds=dict(thresholds),
        class_thresholds=None if kept is None else tuple(kept),
        batch=batch,
        sides=(ranges[0], ranges[1]),
        preprocessing={
            "size": predictor.mapper.size,
            "max_size": predictor.mapper.max_size,
            "mean": [round(value, 4) for value in model.pixel_mean.flatten().tolist()],
            "std": [round(value, 4) for value in model.pixel_std.flatten().tolist()],
            "size_divisor": model.size_divisor,
        },
        value_range=predictor.value_range,
        precision="fp32",
        name=name,
        detrex_version=detrex.__version__,
        precision_thresholds=None if precise is None else tuple(dict(of_class) for of_class in precise),
    )
