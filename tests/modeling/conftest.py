"""A Mask DINO small enough for a CPU, samples for it, and predictions made to order."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from detrex.config import LazyConfig, instantiate
from detrex.modeling import Assignment, OneToOne, SupervisedPrediction
from detrex.structures import BatchTargets, Prediction, Sample, Targets, boxes_from_masks
from tests.config_files import config_of
from tests.modeling.peak_memory import PeakMemory

ROOT = Path(__file__).resolve().parent.parent.parent
CLASSES, QUERIES, POINTS = 5, 10, 64
TINY = [
    f"model.num_classes={CLASSES}",
    "model.backbone.name=test_resnet",
    "model.backbone.frozen_norm=false",
    "model.pixel_head.mask_dim=16",
    "model.encoder={hidden_dim: 64, ffn_dim: 32, num_heads: 4, num_points: 2, num_layers: 1}",
    "model.decoder.layers={num_heads: 4, ffn_dim: 32, num_layers: 2, num_points: 2}",
    f"model.decoder.query_init.num_queries={QUERIES}",
    "model.denoising.num_queries=12",
    f"model.criterion.points.num_points={POINTS}",
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_config() -> DictConfig:
    """The published R50 config, smaller."""
    config = config_of(ROOT / "projects/maskdino/configs/models/maskdino_r50.py")
    return LazyConfig.apply_overrides(config, TINY)


@pytest.fixture
def build(tiny_config) -> Callable[..., nn.Module]:
    """``build(*overrides)`` is the tiny model changed by overrides as on a command line."""

    def build(*overrides: str) -> nn.Module:
        torch.manual_seed(0)
        return instantiate(LazyConfig.apply_overrides(tiny_config, overrides).model)

    return build


@pytest.fixture
def tiny_model(build) -> nn.Module:
    return build()


@pytest.fixture
def make_targets() -> Callable[..., Targets]:
    """``make_targets(labels, height, width)``: a rectangle per label, cut to the frame."""

    def make(labels, height=64, width=64, seed=0, stuff=()) -> Targets:
        random = torch.Generator().manual_seed(seed)
        masks = torch.zeros(len(labels), height, width, dtype=torch.bool)
        for mask in masks:
            y, x = (int(torch.randint(0, side // 2, (), generator=random)) for side in (height, width))
            h, w = (int(torch.randint(4, side // 2, (), generator=random)) for side in (height, width))
            mask[y : y + h, x : x + w] = True
        labels = torch.tensor(labels, dtype=torch.int64)
        thing = torch.tensor([k not in stuff for k in labels.tolist()], dtype=torch.bool)
        return Targets(labels, boxes_from_masks(masks, inclusive=False), masks, thing)

    return make


@pytest.fixture
def make_sample(make_targets) -> Callable[..., Sample]:
    """``make_sample(labels, height, width)``: noise with a rectangle per label."""

    def make(labels=(0, 3), height=64, width=64, seed=0, stuff=(), **more) -> Sample:
        random = torch.Generator().manual_seed(seed)
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=random)
        targets = make_targets(list(labels), height, width, seed, stuff)
        return Sample(image=image, targets=targets, image_id=seed, file_name=f"{seed}.jpg", **more)

    return make


@pytest.fixture
def collate(make_targets) -> Callable[..., BatchTargets]:
    """``collate([labels of image 0], [labels of image 1], ...)``."""

    def collate(*labels, size=(64, 64), stuff=()) -> BatchTargets:
        rows = [make_targets(row, *size, seed=i, stuff=stuff) for i, row in enumerate(labels)]
        return BatchTargets.collate(rows, size, torch.device("cpu"))

    return collate


@pytest.fixture
def random_boxes() -> Callable[..., Prediction]:
    """Predictions without masks."""

    def random(batch=2, queries=QUERIES, classes=CLASSES) -> Prediction:
        boxes = torch.cat([torch.rand(batch, queries, 2), 0.05 + 0.5 * torch.rand(batch, queries, 2)], -1)
        return Prediction(torch.randn(batch, queries, classes), boxes)

    return random


@pytest.fixture
def random_prediction(random_boxes) -> Callable[..., Prediction]:
    """Predictions with mask embeddings of ``dim`` channels."""

    def random(dim=16, **sizes) -> Prediction:
        prediction = random_boxes(**sizes)
        prediction.mask_embed = torch.randn(*prediction.boxes.shape[:2], dim)
        return prediction

    return random


@pytest.fixture
def supervise() -> Callable[..., list[SupervisedPrediction]]:
    """``supervise(prediction, ...)``: each by itself, the last as the last layer, others by number."""

    def supervise(*predictions: Prediction, assignment: Assignment | None = None, suffix: str = ""):
        names = [*(f"{suffix}_{i}" for i in range(len(predictions) - 1)), suffix]
        return [
            SupervisedPrediction(p, assignment or OneToOne(), name)
            for p, name in zip(predictions, names, strict=True)
        ]

    return supervise


@pytest.fixture
def perfect_prediction() -> Callable[..., tuple[Prediction, Tensor]]:
    """A prediction whose first queries are the objects, and the rest empty, and its per-pixel embedding.

    The per-pixel embedding holds the true masks of an image, one channel each, so an embedding that picks
    channel j is a mask logit of ``sharpness`` inside object j and of its negative outside.
    """

    def make(
        targets: BatchTargets, queries=QUERIES, classes=CLASSES, sharpness=20.0, stride=4
    ) -> tuple[Prediction, Tensor]:
        batch = len(targets.counts)
        logits = torch.full((batch, queries, classes), -sharpness)
        boxes = torch.full((batch, queries, 4), 0.5)
        masks = targets.masks.unpack()
        height, width = (side // stride for side in targets.masks.size)
        pixels = torch.full((batch, queries, height, width), -1.0)
        first = 0
        for b, count in enumerate(targets.counts):
            for j in range(count):
                logits[b, j, targets.labels[first + j]] = sharpness
                boxes[b, j] = targets.boxes[first + j]
                inside = masks[first + j, stride // 2 :: stride, stride // 2 :: stride]
                pixels[b, j][inside] = 1.0
            first += count
        embed = sharpness * torch.eye(queries).expand(batch, -1, -1)
        return Prediction(logits, boxes, embed), pixels

    return make


@pytest.fixture
def peak_memory() -> type[PeakMemory]:
    """``with peak_memory() as memory`` finds ``memory.peak``, bytes."""
    return PeakMemory
