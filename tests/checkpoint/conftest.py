"""Small Mask DINO models, by overrides of the published configs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from detrex.config import LazyConfig, instantiate
from tests.config_files import config_of

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = [
    "model.num_classes=5",
    "model.backbone.options={channels: [32, 64, 128, 256], stem_width: 8}",
    "model.pixel_head.mask_dim=16",
    "model.encoder={hidden_dim: 64, ffn_dim: 32, num_heads: 4, num_layers: 2}",
    "model.decoder.layers={num_heads: 4, ffn_dim: 32, num_layers: 3}",
    "model.decoder.query_init.num_queries=10",
    "model.denoising.num_queries=12",
]


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """``build(*overrides)`` is a tiny R50-like model with random weights and norms."""

    def build(*overrides: str, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        config = config_of(ROOT / "projects/maskdino/configs/models/maskdino_r50.py")
        model = instantiate(LazyConfig.apply_overrides(config, [*TINY, *overrides]).model).eval()
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.copy_(
                        0.3 * torch.randn_like(value).abs()
                        if value.ndim == 1
                        else torch.randn_like(value) * 0.1
                    )
        return model

    return build
