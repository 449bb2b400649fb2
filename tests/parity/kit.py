"""Runs a model on a case of the parity kit and compares every array the kit holds.

The kit is a folder with ``reference.py``, and for every case ``<case>.keys.json`` and ``<case>.npz``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detrex.checkpoint.published import from_published, published_name
from detrex.config import LazyCall as L
from detrex.config import instantiate
from detrex.modeling import GridPoints
from detrex.structures import Instances, Sample, Targets

# Every eighth channel of feature maps and every eighth row and column of class scores are in the kit.
STEP = 8


@dataclass
class Agreement:
    """How far an array is from the kit's: the largest error, in standard deviations of the kit's array."""

    name: str
    error: float


def load_reference(folder: Path) -> ModuleType:
    """The kit's own module."""
    spec = importlib.util.spec_from_file_location("parity_reference", folder / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_weights(reference: ModuleType, case: str) -> dict[str, Tensor]:
    """The case's checkpoint under its published names."""
    return {name: torch.from_numpy(np.asarray(value)) for name, value in reference.state_dict(case).items()}


def build(model_config: Any, weights: dict[str, Tensor]) -> nn.Module:
    """The configured model with published weights and, for training, without randomness."""
    if model_config.denoising is not None:
        model_config.denoising.label_noise = 0.0
        model_config.denoising.box_noise = 0.0
    model_config.criterion.points = L(GridPoints)(num_points=12544)
    model = instantiate(model_config)
    model.load_state_dict(from_published(weights), strict=True)
    return model


def compare(name: str, ours: Tensor, theirs: np.ndarray) -> Agreement:
    theirs = torch.from_numpy(np.asarray(theirs, np.float32))
    assert ours.shape == theirs.shape, f"{name}: shape {tuple(ours.shape)}, the kit has {tuple(theirs.shape)}"
    difference = (ours.detach().float() - theirs).abs()
    return Agreement(name, float(difference.max() / theirs.std().clamp(min=1e-6)))


def evaluation_agreement(model: nn.Module, arrays: dict[str, np.ndarray]) -> Iterator[Agreement]:
    """Backbone, pixel decoder, proposals, every layer and the results."""
    model.eval()
    height, width = (int(side) for side in arrays["output_size"])
    image = torch.from_numpy(arrays["image"]).permute(2, 0, 1)
    sample = Sample(image=image, height=height, width=width)
    with torch.inference_mode():
        images = model.preprocess([sample])
        features = model.backbone(images.tensor)
        memory, pixel_embed = model.pixel_decoder(features)
        output = model.decoder(memory, pixel_embed)
        result = model([sample])[0]
    for i, stride in enumerate((4, 8, 16, 32)):
        yield compare(
            f"backbone.res{i + 2}", features[stride][:, ::STEP], arrays[f"eval.backbone.res{i + 2}"]
        )
    yield compare("mask_features", pixel_embed[:, ::STEP], arrays["eval.mask_features"])
    maps = memory.maps()
    if arrays["eval.memory.0"].shape[2] < arrays["eval.memory.1"].shape[2]:
        maps = maps[::-1]
    for i, level in enumerate(maps):
        yield compare(f"memory.{i}", level[:, ::STEP], arrays[f"eval.memory.{i}"])
    if output.proposals is not None:
        yield compare("encoder.pred_logits", output.proposals.logits, arrays["eval.encoder.pred_logits"])
        yield compare("encoder.pred_boxes", output.proposals.boxes, arrays["eval.encoder.pred_boxes"])
    for i, layer in enumerate(output.layers[:-1]):
        yield compare(f"aux.{i}.pred_boxes", layer.boxes, arrays[f"eval.aux.{i}.pred_boxes"])
    yield compare("pred_logits", output.final.logits, arrays["eval.pred_logits"])
    yield compare("pred_boxes", output.final.boxes, arrays["eval.pred_boxes"])
    # Stored in half precision, whose own rounding of the largest logits is a few 1e-3 of the spread.
    masks = compare("pred_masks", output.final.mask_logits(pixel_embed), arrays["eval.pred_masks"])
    yield Agreement(masks.name, masks.error / 50)
    yield from _result_agreement(result, arrays)


def _result_agreement(result: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[Agreement]:
    if "eval.instances.scores" in arrays:
        yield from _instance_agreement(result["instances"], arrays)
    if "eval.panoptic.segments" in arrays:
        segments, info = result["panoptic_seg"]
        theirs = torch.from_numpy(arrays["eval.panoptic.segments"].astype(np.int64))
        yield Agreement("panoptic.pixels", float((segments != theirs).float().mean()))
        rows = sorted((s["id"], s["category_id"], int(s["isthing"])) for s in info)
        same = rows == sorted(tuple(int(v) for v in row) for row in arrays["eval.panoptic.info"])
        yield Agreement("panoptic.info", 0.0 if same else float("inf"))
    if "eval.sem_seg.logits" in arrays:
        scores = result["sem_seg"]
        logits = arrays["eval.sem_seg.logits"]
        yield compare("sem_seg.logits", scores[:, ::STEP, ::STEP].reshape(logits.shape), logits)
        theirs = torch.from_numpy(arrays["eval.sem_seg.argmax"].astype(np.int64))
        yield Agreement("sem_seg.argmax", float((scores.argmax(0) != theirs).float().mean()))


def _instance_agreement(found: Instances, arrays: dict[str, np.ndarray]) -> Iterator[Agreement]:
    order = np.argsort(-arrays["eval.instances.scores"], kind="stable")
    yield compare("instances.scores", found.scores, arrays["eval.instances.scores"][order])
    yield compare("instances.boxes", found.pred_boxes, arrays["eval.instances.boxes"][order])
    classes = torch.from_numpy(arrays["eval.instances.classes"][order])
    yield Agreement("instances.classes", float((classes != found.pred_classes).float().mean()))
    masks = np.unpackbits(arrays["eval.instances.masks"], axis=-1)[order, :, : found.image_size[1]]
    different = (torch.from_numpy(masks).bool() != found.pred_masks).float().mean()
    yield Agreement("instances.masks", float(different))


def training_agreement(
    model: nn.Module, arrays: dict[str, np.ndarray], weights: dict[str, Tensor]
) -> Iterator[Agreement]:
    """Every weighted loss and every parameter's gradient norm, as relative errors."""
    model.train()
    losses = model(_training_samples(arrays))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    names = arrays["train.loss.names"].tolist()
    assert set(names) == set(losses), f"names of losses differ: {set(names) ^ set(losses)}"
    for name, value in zip(names, arrays["train.loss.values"], strict=True):
        yield _relative(name, losses[name].item(), float(value))
    yield _relative("loss.total", total.item(), float(arrays["train.loss.total"]))
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # Levels may change places in the conversion, so their names are found by the tensor itself.
    moved = {id(value): name for name, value in from_published(weights).items()}
    for name, norm in zip(arrays["train.grad.names"].tolist(), arrays["train.grad.norms"], strict=True):
        # A shared parameter is listed under one of its aliases.
        own = name.replace("decoder.bbox_embed.0", "_bbox_embed")
        ours = moved.get(id(weights[own])) or published_name(own)
        yield _relative(f"grad {ours}", gradients[ours].norm().item(), float(norm))


def _relative(name: str, ours: float, theirs: float) -> Agreement:
    # The smallest figures are sums of cancelling terms, hence the absolute floor.
    return Agreement(name, abs(ours - theirs) / (abs(theirs) + 1e-3))


def _training_samples(arrays: dict[str, np.ndarray]) -> list[Sample]:
    samples = []
    for b in range(2):
        image = torch.from_numpy(arrays[f"train.{b}.image"]).permute(2, 0, 1)
        masks = np.unpackbits(arrays[f"train.{b}.masks"], axis=-1)[..., : image.shape[2]]
        labels = torch.from_numpy(arrays[f"train.{b}.labels"]).long()
        targets = Targets(
            labels=labels,
            boxes=torch.from_numpy(arrays[f"train.{b}.boxes"]),
            masks=torch.from_numpy(masks).bool(),
            is_thing=torch.ones(len(labels), dtype=torch.bool),
        )
        samples.append(Sample(image=image, targets=targets))
    return samples
