"""A tiny Mask DINO, batches for it, and its losses and gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from detrex.config import LazyConfig, instantiate
from detrex.structures import Sample, Targets, boxes_from_masks
from tests.config_files import config_of

MODEL = Path(__file__).resolve().parents[2] / "projects/maskdino/configs/models/maskdino_r50.py"
TINY = [
    "model.num_classes=3",
    "model.backbone.name=test_resnet",
    "model.pixel_head.mask_dim=16",
    "model.encoder={hidden_dim: 64, ffn_dim: 32, num_heads: 4}",
    "model.encoder={num_points: 2, num_layers: 1}",
    "model.decoder.layers={num_heads: 4, ffn_dim: 32, num_layers: 2, num_points: 2}",
    "model.decoder.query_init.num_queries=10",
    "model.denoising.num_queries=8",
    "model.criterion.points={_target_: detrex.modeling.GridPoints, num_points: 64}",
]
EXACT = [*TINY, "model.denoising=null"]  # its noise is not that of another batch


def build(overrides: list[str]) -> nn.Module:
    torch.manual_seed(0)
    return instantiate(LazyConfig.apply_overrides(config_of(MODEL), overrides).model).train()


def make_sample(seed: int, objects: int) -> Sample:
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(objects, 64, 64, dtype=torch.bool)
    for k, mask in enumerate(masks):
        mask[8 * k : 8 * k + 20, 10 * seed : 10 * seed + 24] = True
    labels = torch.arange(objects) % 3
    boxes = boxes_from_masks(masks, inclusive=False)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=random)
    return Sample(image=image, targets=Targets(labels, boxes, masks, torch.ones(objects, dtype=torch.bool)))


def batch(counts: tuple[int, ...]) -> list[Sample]:
    return [make_sample(seed, objects) for seed, objects in enumerate(counts)]


def losses_and_gradients(
    model: nn.Module, samples: list[Sample]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    losses = model(samples)
    sum(losses.values()).backward()
    inner = getattr(model, "module", model)
    found = {name: p.grad for name, p in inner.named_parameters() if p.requires_grad}
    return losses, {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in found.items()}
