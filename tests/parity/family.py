"""The DETR family against its cases of a parity kit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from agreement import Agreement, Arrays, best_order, compare, count
from torch import Tensor, nn

from detrex.checkpoint.family import from_family
from detrex.structures import Sample, Targets

# Results are asked for at this many times the size of the image.
OUTPUT_SCALE = 2


def evaluation_agreement(model: nn.Module, arrays: Arrays) -> Iterator[Agreement]:
    """The last layer and the results.

    The published code sees one image at a time in evaluation and masks no padding there, so that of the
    smaller image in the kit's batch is given as a part of it: pixels of the mean colour.
    """
    model.eval()
    images = _images(arrays)
    height, width = (max(side) for side in zip(*(i.shape[1:] for i in images), strict=True))
    samples = []
    for image in images:
        padded = model.pixel_mean.expand(-1, height, width).clone()
        padded[:, : image.shape[1], : image.shape[2]] = image
        size = [OUTPUT_SCALE * side for side in image.shape[1:]]
        samples.append(Sample(image=padded, height=size[0], width=size[1]))
    decoded = []
    listening = model.decoder.register_forward_hook(lambda _module, _inputs, output: decoded.append(output))
    with listening, torch.inference_mode():
        results = model(samples)
    final = decoded[0].final
    for b, result in enumerate(results):
        # Where two scores tie within rounding, queries change places.
        ours = torch.cat([final.logits[b], final.boxes[b]], -1)
        logits, boxes = arrays["eval.pred_logits"][b], arrays["eval.pred_boxes"][b]
        order = best_order(ours, torch.cat([torch.from_numpy(logits), torch.from_numpy(boxes)], -1).numpy())
        yield compare(f"{b}.pred_logits", final.logits[b, order], logits)
        yield compare(f"{b}.pred_boxes", final.boxes[b, order], boxes)
        found = result["instances"]
        scores, classes, corners = (arrays[f"eval.{b}.{k}"] for k in ("scores", "classes", "boxes"))
        if len(found) != len(scores):
            raise ValueError(f"{len(found)} detections, the kit has {len(scores)}")
        # A difference of class or score counts for more than any of boxes.
        weight = 10.0 * max(found.image_size)
        classes_and_scores = [weight * torch.from_numpy(v)[:, None] for v in (classes, scores)]
        rows = [weight * found.pred_classes[:, None], weight * found.scores[:, None], found.pred_boxes]
        order = best_order(
            torch.cat(rows, 1), torch.cat([*classes_and_scores, torch.from_numpy(corners)], 1).numpy()
        )
        yield compare(f"{b}.scores", found.scores[order], scores)
        yield compare(f"{b}.boxes", found.pred_boxes[order], corners)
        yield count(f"{b}.classes", found.pred_classes[order] != torch.from_numpy(classes))


def training_samples(arrays: Arrays) -> list[Sample]:
    """The kit's batch."""
    samples = []
    for b, image in enumerate(_images(arrays)):
        labels = torch.from_numpy(arrays[f"{b}.labels"])
        things = torch.ones(len(labels), dtype=torch.bool)
        samples.append(
            Sample(image=image, targets=Targets(labels, torch.from_numpy(arrays[f"{b}.boxes"]), None, things))
        )
    return samples


def loss_name(name: str) -> str:
    """The kit's name for a loss."""
    return name.replace("loss_ce", "loss_class").replace("_interm", "_enc")


def own_parameters(
    kit: Path, case: str, weights: dict[str, Tensor], shared_heads: bool
) -> dict[str, list[str]]:
    """The model's parameters that hold each of the kit's, which may be in pieces or under another alias."""
    alias = json.loads((kit / f"{case}.keys.json").read_text())["alias"]
    by_storage = {value.untyped_storage().data_ptr(): name for name, value in weights.items()}
    pieces: dict[str, list[str]] = {}
    for ours, value in from_family(weights, shared_heads).items():
        name = by_storage[value.untyped_storage().data_ptr()]
        pieces.setdefault(alias.get(name, name), []).append(ours)
    return {name: pieces.get(alias.get(name, name), []) for name in weights}


def _images(arrays: Arrays) -> list[Tensor]:
    return [torch.from_numpy(arrays[f"{b}.image"]).permute(2, 0, 1) for b in range(2)]
