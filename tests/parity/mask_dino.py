"""Mask DINO against its cases of a parity kit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from agreement import HALF_TOLERANCE, TOLERANCE, Agreement, Arrays, best_order, compare, count
from torch import Tensor, nn

from detrex.checkpoint.published import from_published, published_name
from detrex.structures import Instances, Sample, Targets

# A softmax at the temperature 0.06 makes differences of scores 17 times as large.
SHARP_TOLERANCE = 5e-4
# Of scores in which a pixel at the edge of a mask that is not in the kit may count, or which are the best of
# many and so lie closer together than all.
EDGE_TOLERANCE = 1e-3
# Every eighth channel of feature maps, and every eighth row and column of class scores, is in the kit.
STEP = 8


def evaluation_agreement(model: nn.Module, arrays: Arrays) -> Iterator[Agreement]:
    """Backbone, encoder, proposals, every layer and the results."""
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
    stages = {s.loss_suffix: s.prediction for s in output.supervised}
    if "_interm" in stages:
        # Where two scores tie within rounding, queries change places.
        logits, boxes = stages["_interm"].logits, stages["_interm"].boxes
        order = best_order(
            torch.cat([logits, boxes], -1)[0],
            np.concatenate([arrays["eval.encoder.pred_logits"], arrays["eval.encoder.pred_boxes"]], -1)[0],
        )
        yield compare("encoder.pred_logits", logits[:, order], arrays["eval.encoder.pred_logits"])
        yield compare("encoder.pred_boxes", boxes[:, order], arrays["eval.encoder.pred_boxes"])
    for i in range(len(model.decoder.layers)):
        boxes = stages[f"_{i}"].boxes[:, order]
        yield compare(f"aux.{i}.pred_boxes", boxes, arrays[f"eval.aux.{i}.pred_boxes"])
    yield compare("pred_logits", output.final.logits[:, order], arrays["eval.pred_logits"])
    yield compare("pred_boxes", output.final.boxes[:, order], arrays["eval.pred_boxes"])
    masks = output.final.mask_logits(pixel_embed)[:, order]
    yield compare("pred_masks", masks, arrays["eval.pred_masks"], HALF_TOLERANCE)
    yield from result_agreement(result, arrays)


def result_agreement(result: dict[str, Any], arrays: Arrays) -> Iterator[Agreement]:
    """Instances, segments and semantic scores, as far as the kit has them."""
    for task, name in (("instances", "scores"), ("panoptic", "segments"), ("sem_seg", "argmax")):
        key = {"panoptic": "panoptic_seg"}.get(task, task)
        if f"eval.{task}.{name}" in arrays and key not in result:
            raise ValueError(
                f"the kit has results for '{task}', which the config's postprocess does not make"
            )
    if "eval.instances.scores" in arrays:
        yield from instance_agreement(result["instances"], arrays)
    if "eval.panoptic.segments" in arrays:
        yield from panoptic_agreement(result["panoptic_seg"], arrays)
    if "eval.sem_seg.logits" in arrays:
        scores = result["sem_seg"]
        logits = arrays["eval.sem_seg.logits"]
        ours = scores[:, ::STEP, ::STEP].reshape(logits.shape)
        yield compare("sem_seg.logits", ours, logits, SHARP_TOLERANCE)
        published = torch.from_numpy(arrays["eval.sem_seg.argmax"].astype(np.int64))
        yield count("sem_seg.argmax", scores.argmax(0) != published)


def panoptic_agreement(
    found: tuple[Tensor, list[dict[str, Any]]], arrays: Arrays, name: str = "panoptic"
) -> Iterator[Agreement]:
    """Segments and what they are, against the arrays ``eval.<name>.*``."""
    segments, info = found
    published = torch.from_numpy(arrays[f"eval.{name}.segments"].astype(np.int64))
    yield count(f"{name}.segments", segments != published)
    rows = {(s["id"], s["category_id"], int(s["isthing"])) for s in info}
    other = rows ^ {tuple(int(v) for v in row) for row in arrays[f"eval.{name}.info"]}
    yield Agreement(f"{name}.info", len(other), 1.0, TOLERANCE)


def instance_agreement(found: Instances, arrays: Arrays, name: str = "instances") -> Iterator[Agreement]:
    """Instances against the arrays ``eval.<name>.*``, whose masks may be those of the first only, or none."""
    scores, classes, boxes = (arrays[f"eval.{name}.{k}"] for k in ("scores", "classes", "boxes"))
    if len(found) != len(scores):
        raise ValueError(f"{len(found)} instances, the kit has {len(scores)}")
    # A difference of class counts for more than any of boxes.
    weight = 10 * max(found.image_size)
    order = best_order(
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
    ours, explained = found.scores, 0
    if f"eval.{name}.masks" in arrays:
        masks = np.unpackbits(arrays[f"eval.{name}.masks"], axis=-1)[..., : found.image_size[1]]
        published = torch.from_numpy(masks).bool()
        differs = published != found[: len(published)].pred_masks
        known = _apart_from_edges(found[: len(published)], scores[: len(published)], differs)
        ours, explained = torch.cat([known, ours[len(published) :]]), len(published)
        yield count(f"{name}.masks", differs)
    for rows, tolerance in ((slice(explained), TOLERANCE), (slice(explained, None), EDGE_TOLERANCE)):
        if len(scores[rows]):
            yield compare(f"{name}.scores", ours[rows], scores[rows], tolerance)
    yield compare(f"{name}.boxes", found.pred_boxes, boxes)
    yield count(f"{name}.classes", torch.from_numpy(classes) != found.pred_classes)


def _apart_from_edges(found: Instances, scores: np.ndarray, differs: Tensor) -> Tensor:
    """Scores (N,) without what pixels explain that only one of two masks has, by ``differs`` (N, H, W).

    A score is that of the class times the mean probability p inside the mask. At the mask's edge, where
    rounding decides about a pixel, the probability is 1/2: k of n pixels move the mean by up to
    (p - 1/2) k / n, which is less than p k / n.
    """
    pixels = found.pred_masks.flatten(1).sum(1).clamp(min=1)
    explained = found.scores * differs.flatten(1).sum(1) / pixels
    published = torch.from_numpy(scores)
    return torch.where(
        found.scores > published,
        torch.maximum(found.scores - explained, published),
        torch.minimum(found.scores + explained, published),
    )


def training_samples(arrays: Arrays, case: str = "train", num_things: int | None = None) -> list[Sample]:
    """The kit's batch, ``<case>.<b>.*``; labels from ``num_things`` on are stuff."""
    samples = []
    for b in range(2):
        image = torch.from_numpy(arrays[f"{case}.{b}.image"]).permute(2, 0, 1)
        masks = np.unpackbits(arrays[f"{case}.{b}.masks"], axis=-1)[..., : image.shape[2]]
        labels = torch.from_numpy(arrays[f"{case}.{b}.labels"]).long()
        targets = Targets(
            labels=labels,
            boxes=torch.from_numpy(arrays[f"{case}.{b}.boxes"]),
            masks=torch.from_numpy(masks).bool(),
            is_thing=torch.ones(len(labels), dtype=torch.bool) if num_things is None else labels < num_things,
        )
        samples.append(Sample(image=image, targets=targets))
    return samples


def own_parameters(arrays: Arrays, weights: dict[str, Tensor]) -> dict[str, list[str]]:
    """The model's parameter for each of the kit's."""
    # Levels may change places in the conversion, so their names are found by the tensor itself.
    moved = {id(value): name for name, value in from_published(weights).items()}
    found = {}
    for name in arrays["train.grad.names"].tolist():
        # A shared parameter is listed under one of its aliases.
        weight_name = name.replace("decoder.bbox_embed.0", "_bbox_embed")
        found[name] = [moved.get(id(weights[weight_name])) or published_name(weight_name)]
    return found
