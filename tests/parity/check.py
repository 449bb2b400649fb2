"""Compares a model, array by array, with a case of a parity kit: what a published model computes.

    python tests/parity/check.py --kit ../shared/parity --case instance_r50 \\
        --config-file projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py

The case's checkpoint is written to a file in its published format and loaded as any checkpoint is; then the
model predicts and, where the kit has training arrays, computes losses and gradients. Every array of the kit
gets a line: its name, the largest error, and the spread of the reference values. Exit code 1 if one is off.

The kit is a folder with ``reference.py`` and, for every case, ``<case>.keys.json`` and ``<case>.npz``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from detrex.checkpoint import load
from detrex.checkpoint.published import from_published, published_name
from detrex.config import LazyConfig, instantiate
from detrex.structures import Instances, Sample, Targets

# Largest errors: of evaluation in spreads (standard deviations) of the kit's array, of losses and gradients
# relative to the kit's number, of masks and maps as the share of pixels that differ.
TOLERANCE, RELATIVE_TOLERANCE = 1e-4, 1e-3
# Masks are stored in half precision, whose own rounding of the largest logits is a few 1e-3 of the spread.
HALF_TOLERANCE = 5e-3
# Every eighth channel of feature maps, and every eighth row and column of class scores, is in the kit.
STEP = 8
# The kit is made without randomness: what is random in training, where a config has it.
FIXED = (
    "model.denoising.label_noise=0.0",
    "model.denoising.box_noise=0.0",
    "model.criterion.points={_target_: detrex.modeling.GridPoints, num_points: 12544}",
    "model.encoder.dropout=0.0",
    "model.decoder.dropout=0.0",
    "model.backbone.options.drop_path_rate=0.0",
)


@dataclass
class Agreement:
    """How far an array is from the kit's.

    Attributes:
        name: of the array.
        error: the largest difference.
        spread: what ``error`` is measured in: the reference's standard deviation, its size, or 1.
        tolerance: on ``error / spread``.
    """

    name: str
    error: float
    spread: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance * self.spread

    def line(self) -> str:
        verdict = "" if self.holds else f"   OFF: more than {self.tolerance:g} of the spread"
        return f"{self.name:<70} {self.error:<12.3e} {self.spread:<12.3e}{verdict}"


class Arrays(dict):
    """The arrays of a case, remembering which were asked for, so that none goes unnoticed."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        super().__init__(arrays)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.used.add(name)
        return super().__getitem__(name)

    def unused(self) -> list[str]:
        """Arrays that nothing was compared with; the case's own weights are read by the kit itself."""
        return [name for name in self if name not in self.used and not name.startswith("weights.")]


def check(kit: Path, case: str, config: DictConfig) -> Iterator[Agreement]:
    """All comparisons of a case.

    Raises:
        ValueError: the kit has arrays that the configured model does not compute, or of other shapes.
    """
    reference = load_reference(kit)
    arrays = Arrays(reference.arrays(case))
    weights = {k: torch.from_numpy(np.asarray(v)) for k, v in reference.state_dict(case).items()}
    model = load_model(without_randomness(config), weights)
    if "image" in arrays:
        yield from evaluation_agreement(model, arrays)
    if "train.loss.names" in arrays:
        yield from training_agreement(model, arrays, weights)
    if arrays.unused():
        raise ValueError(f"the kit has arrays that were not compared: {', '.join(arrays.unused())}")


def load_reference(folder: Path) -> ModuleType:
    """The kit's own module."""
    spec = importlib.util.spec_from_file_location("parity_reference", folder / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_randomness(config: DictConfig) -> DictConfig:
    """The config with the values of :data:`FIXED`, as far as it has their keys."""
    present = [o for o in FIXED if OmegaConf.select(config, o.partition("=")[0]) is not None]
    return LazyConfig.apply_overrides(config, present)


def load_model(config: DictConfig, weights: dict[str, Tensor]) -> nn.Module:
    """The configured model, with the weights loaded from a file as published."""
    model = instantiate(config.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "published.pth"
        torch.save({"model": weights}, path)
        load(model, path, strict=True)
    return model


def compare(name: str, ours: Tensor, theirs: np.ndarray, tolerance: float = TOLERANCE) -> Agreement:
    reference = torch.from_numpy(np.asarray(theirs, np.float32))
    if ours.shape != reference.shape:
        raise ValueError(f"{name}: shape {tuple(ours.shape)}, the kit has {tuple(reference.shape)}")
    error = (ours.detach().float() - reference).abs().max()
    return Agreement(name, float(error), float(reference.std().clamp(min=1e-6)), tolerance)


def share(name: str, differs: Tensor) -> Agreement:
    """Of pixels or classes, ``differs`` (bool)."""
    return Agreement(name, float(differs.float().mean()), 1.0, TOLERANCE)


def evaluation_agreement(model: nn.Module, arrays: Arrays) -> Iterator[Agreement]:
    """Backbone, pixel decoder, proposals, every layer and the results."""
    model.eval()
    height, width = (int(side) for side in arrays["output_size"])
    sample = Sample(image=torch.from_numpy(arrays["image"]).permute(2, 0, 1), height=height, width=width)
    with torch.inference_mode():
        images = model.preprocess([sample])
        features = model.backbone(images.tensor)
        memory = model.encoder(features)
        pixel_embed = model.pixel_head(features, memory)
        output = model.decoder(memory, pixel_embed)
        result = model([sample])[0]
    for i, stride in enumerate((4, 8, 16, 32)):
        yield compare(
            f"backbone.res{i + 2}", features[stride][:, ::STEP], arrays[f"eval.backbone.res{i + 2}"]
        )
    yield compare("mask_features", pixel_embed[:, ::STEP], arrays["eval.mask_features"])
    maps = memory.maps()
    if arrays["eval.memory.0"].shape[2:] != maps[0].shape[2:]:
        maps = maps[::-1]
    for i, level in enumerate(maps):
        yield compare(f"memory.{i}", level[:, ::STEP], arrays[f"eval.memory.{i}"])
    order = slice(None)
    if output.proposals is not None:
        # Where two scores tie within rounding, queries change places.
        logits, boxes = output.proposals.logits, output.proposals.boxes
        order = _order(
            torch.cat([logits, boxes], -1)[0],
            np.concatenate([arrays["eval.encoder.pred_logits"], arrays["eval.encoder.pred_boxes"]], -1)[0],
        )
        yield compare("encoder.pred_logits", logits[:, order], arrays["eval.encoder.pred_logits"])
        yield compare("encoder.pred_boxes", boxes[:, order], arrays["eval.encoder.pred_boxes"])
    for i, layer in enumerate(output.layers[:-1]):
        yield compare(f"aux.{i}.pred_boxes", layer.boxes[:, order], arrays[f"eval.aux.{i}.pred_boxes"])
    yield compare("pred_logits", output.final.logits[:, order], arrays["eval.pred_logits"])
    yield compare("pred_boxes", output.final.boxes[:, order], arrays["eval.pred_boxes"])
    masks = output.final.mask_logits(pixel_embed)[:, order]
    yield compare("pred_masks", masks, arrays["eval.pred_masks"], HALF_TOLERANCE)
    yield from _result_agreement(result, arrays)


def _order(ours: Tensor, theirs: np.ndarray) -> Tensor:
    """For each of the kit's rows, (N, D), the row of ``ours`` that is nearest, each used once."""
    distance = cdist(theirs, ours.double().numpy())
    return torch.from_numpy(linear_sum_assignment(distance)[1])


def _result_agreement(result: dict[str, Any], arrays: Arrays) -> Iterator[Agreement]:
    for task, name in (("instances", "scores"), ("panoptic", "segments"), ("sem_seg", "argmax")):
        key = {"panoptic": "panoptic_seg"}.get(task, task)
        if f"eval.{task}.{name}" in arrays and key not in result:
            raise ValueError(
                f"the kit has results for '{task}', which the config's postprocess does not make"
            )
    if "eval.instances.scores" in arrays:
        yield from _instance_agreement(result["instances"], arrays)
    if "eval.panoptic.segments" in arrays:
        segments, info = result["panoptic_seg"]
        theirs = torch.from_numpy(arrays["eval.panoptic.segments"].astype(np.int64))
        yield share("panoptic.segments", segments != theirs)
        rows = {(s["id"], s["category_id"], int(s["isthing"])) for s in info}
        other = rows ^ {tuple(int(v) for v in row) for row in arrays["eval.panoptic.info"]}
        yield Agreement("panoptic.info", len(other), 1.0, TOLERANCE)
    if "eval.sem_seg.logits" in arrays:
        scores = result["sem_seg"]
        logits = arrays["eval.sem_seg.logits"]
        yield compare("sem_seg.logits", scores[:, ::STEP, ::STEP].reshape(logits.shape), logits)
        theirs = torch.from_numpy(arrays["eval.sem_seg.argmax"].astype(np.int64))
        yield share("sem_seg.argmax", scores.argmax(0) != theirs)


def _instance_agreement(found: Instances, arrays: Arrays) -> Iterator[Agreement]:
    scores, classes, boxes = (arrays[f"eval.instances.{k}"] for k in ("scores", "classes", "boxes"))
    if len(found) != len(scores):
        raise ValueError(f"{len(found)} instances, the kit has {len(scores)}")
    # A difference of class counts for more than any of boxes.
    weight = 10 * max(found.image_size)
    order = _order(
        torch.cat(
            [
                weight * found.pred_classes[:, None],
                weight * found.scores[:, None],
                found.pred_boxes,
            ],
            1,
        ),
        np.concatenate([weight * classes[:, None], weight * scores[:, None], boxes], 1),
    )
    found = found[order]
    yield compare("instances.scores", found.scores, scores)
    yield compare("instances.boxes", found.pred_boxes, boxes)
    yield share("instances.classes", torch.from_numpy(classes) != found.pred_classes)
    masks = np.unpackbits(arrays["eval.instances.masks"], axis=-1)[..., : found.image_size[1]]
    yield share("instances.masks", torch.from_numpy(masks).bool() != found.pred_masks)


def training_agreement(model: nn.Module, arrays: Arrays, weights: dict[str, Tensor]) -> Iterator[Agreement]:
    """Every weighted loss and every parameter's gradient norm, as relative errors."""
    model.train()
    losses = model(_training_samples(arrays))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    names = arrays["train.loss.names"].tolist()
    if set(names) != set(losses):
        raise ValueError(f"names of losses differ: {sorted(set(names) ^ set(losses))}")
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
        yield _relative(f"gradient of {ours}", gradients[ours].norm().item(), float(norm))


def _relative(name: str, ours: float, theirs: float) -> Agreement:
    # The smallest figures are sums of cancelling terms, hence the absolute floor.
    return Agreement(name, abs(ours - theirs), abs(theirs) + 1e-3, RELATIVE_TOLERANCE)


def _training_samples(arrays: Arrays) -> list[Sample]:
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


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="Noise, dropout and points, which the kit fixes, are set by the same config values as always: "
        + ", ".join(FIXED),
    )
    parser.add_argument("--kit", type=Path, required=True, metavar="DIR", help="folder with reference.py")
    parser.add_argument("--case", required=True, metavar="NAME", help="such as instance_r50")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config with a `model`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    return parser.parse_intermixed_args(arguments)


def main(arguments: argparse.Namespace) -> int:
    """Prints a line for every array and returns the exit code."""
    config = LazyConfig.apply_overrides(LazyConfig.load(arguments.config_file), arguments.overrides)
    sys.stdout.write(f"{'array':<70} {'max error':<12} {'spread':<12}\n")
    off = count = 0
    for agreement in check(arguments.kit, arguments.case, config):
        sys.stdout.write(agreement.line() + "\n")
        count += 1
        off += not agreement.holds
    sys.stdout.write(f"{count - off} of {count} arrays agree\n")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main(parse_arguments()))
