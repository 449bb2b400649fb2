"""A tiny Mask DINO with random weights for all tasks, its run's folder, and pictures of noise."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from detrex.checkpoint import write_weights
from detrex.config import LazyConfig, instantiate
from detrex.engine.folder import checkpoint_metadata, save_run_files
from detrex.structures import Categories
from tests.config_files import config_of

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES = Categories.from_coco(
    [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "sky", "isthing": 0}]
)
SMALL = (
    "dataloader.root=/no/such/data",
    "dataloader.test.mapper.size=64",
    "dataloader.test.mapper.max_size=96",
    "model.backbone.name=test_resnet",
    "model.backbone.options={}",
    "model.encoder.num_layers=1",
    "model.decoder.layers.num_layers=1",
    "model.decoder.query_init.num_queries=10",
    "model.postprocess.instance.max_detections=20",
    "model.postprocess.panoptic={score_threshold: 0.1, overlap_threshold: 0.1}",
)
# What the config reads from the annotation file, which is not there.
FIXED = ("model.num_classes=3", "model.postprocess.thing_classes=[0, 1]")


@dataclass
class TinyRun:
    """A run as it lies on the disk, and what made it."""

    folder: Path
    config: DictConfig
    weights: dict[str, Tensor]


def tiny_config() -> DictConfig:
    """For instance, panoptic and semantic results; its class count is read from a file that is gone."""
    config = config_of(ROOT / "projects/maskdino/configs/maskdino_custom_panoptic.py")
    return LazyConfig.apply_overrides(config, SMALL)


def lively(model: nn.Module) -> nn.Module:
    """``model`` with scores all over the scale, and masks of about half the image."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith("decoder.heads"):
                value.copy_(torch.randn(value.shape, generator=random) * 0.2)
    return model


def write_run(folder: Path, *overrides: str) -> TinyRun:
    torch.manual_seed(0)
    config = LazyConfig.apply_overrides(tiny_config(), overrides)
    model = lively(instantiate(LazyConfig.apply_overrides(config, FIXED).model))
    save_run_files(folder, config, CATEGORIES, torch.device("cpu"))
    metadata = checkpoint_metadata(config, CATEGORIES)
    write_weights(folder / "model_final.safetensors", model.state_dict(), metadata)
    return TinyRun(folder, config, {name: value.clone() for name, value in model.state_dict().items()})


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save_noise(path: Path, height: int = 40, width: int = 60) -> Path:
    """Writes a picture of noise, whose seed is the length of its name, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, len(path.name))).save(path)
    return path


def read_json(path: Path):
    return json.loads(path.read_text())
