"""Small models of every project with random weights, and pictures of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from detrex.config import LazyConfig, instantiate
from detrex.data import EvalMapper
from detrex.export.graph import PictureToResults
from detrex.export.half import FEW_WEIGHTS
from detrex.predict import Predictor
from detrex.runtime.exported import Description
from detrex.structures import Categories
from tests.config_files import config_of
from tests.predict.tiny_run import CATEGORIES, lively, noise

ROOT = Path(__file__).resolve().parents[2]
# Results of videos, and of clicks, which no graph takes.
OTHERS = {"co_mot", "promptable", "semantic_sam"}
PROJECTS = sorted(
    {path.name[: -len("_shapes.py")] for path in ROOT.glob("projects/*/configs/*_shapes.py")} - OTHERS
)
SIZES = ((50, 70), (200, 120), (33, 100), (64, 96), (20, 20))
"""(height, width) of pictures that are resized up, down, to the largest length, not at all, and far up."""


def small_model(project: str, categories: Categories = CATEGORIES, *more: str) -> Predictor:
    """The model of the project's config for shapes, with one encoder layer, of three classes.

    Args:
        project: name of its folder.
        categories: of the model.
        more: overrides of the config.
    """
    config = config_of(f"projects/{project}/configs/{project}_shapes.py")
    things = ["model.postprocess.thing_classes=[0, 1]"] if project == "maskdino" else []
    words = []
    if project == "openseed":
        words = [
            f"model.vocabulary.names={list(categories.names)}",
            "model.postprocess.interpolation=bilinear",
            "model.text={width: 8, num_layers: 1, num_heads: 2}",
        ]
    overrides = [f"model.num_classes={len(categories)}", "model.encoder.num_layers=1", *things, *words, *more]
    torch.manual_seed(0)
    model = lively(instantiate(LazyConfig.apply_overrides(config, overrides).model))
    return Predictor(model, EvalMapper(64, 96), categories)


def round_to_half(model: torch.nn.Module) -> None:
    """Rounds the weights of a model as files with weights of 16 bits keep them."""
    for value in (*model.parameters(), *model.buffers()):
        if value.numel() >= FEW_WEIGHTS and value.dtype == torch.float32:
            value.data = value.data.half().float()


def pictures(batch: int, sizes: Sequence[tuple[int, int]] = SIZES) -> list[np.ndarray]:
    """Noise, ``batch`` pictures of each size."""
    return [noise(*size, seed=10 * i + j) for i, size in enumerate(sizes) for j in range(batch)]


class GraphRunner:
    """The graph itself in the place of a runtime."""

    def __init__(self, graph: PictureToResults, description: Description):
        self.graph, self.description = graph, description

    def __call__(self, images: np.ndarray, thresholds: Mapping[str, float]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = self.graph(torch.from_numpy(images), *map(torch.tensor, thresholds.values()))
        return {name: value.numpy() for name, value in found.items()}


def description_of(predictor: Predictor, tasks: Sequence[str]) -> Description:
    categories = predictor.categories
    graph = PictureToResults(predictor.model, predictor.mapper, tasks)
    return Description(
        tasks=tuple(tasks),
        class_names=categories.names,
        category_ids=categories.ids,
        is_thing=categories.is_thing,
        colors=categories.colors,
        thresholds=graph.thresholds,
        class_thresholds=None,
        batch=None,
        sides=((2, 8192), (2, 8192)),
        preprocessing={},
        value_range=None,
        precision="fp32",
        name="",
        detrex_version="0",
    )
