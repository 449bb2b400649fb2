"""Draws predictions and ground truth over images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detrex.structures import Categories, Instances, Targets
from detrex.visualization.colors import instance_color
from detrex.visualization.labels import write_labels
from detrex.visualization.pictures import Picture, to_pil
from detrex.visualization.regions import Region, paint_box, paint_mask


def draw_instances(
    image: Picture,
    instances: Instances,
    categories: Categories,
    score_threshold: float = 0.3,
    max_detections: int = 100,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """Draws detections with at least ``score_threshold``, at most the best ``max_detections``."""
    order = instances.scores.argsort(descending=True, stable=True)[:max_detections]
    chosen = instances[order[instances.scores[order] >= score_threshold]].to("cpu")
    rows = zip(chosen.pred_classes.tolist(), chosen.scores.tolist(), strict=True)
    names = [f"{categories.names[label]} {score:.0%}" for label, score in rows]
    if chosen.track_ids is not None:
        names = [f"#{track} {name}" for track, name in zip(chosen.track_ids.tolist(), names, strict=True)]
    masks = None if (found := chosen.masks) is None else map(found.one, range(len(found)))
    regions = _object_regions(chosen.pred_classes, names, chosen.pred_boxes, masks, categories)
    if chosen.track_ids is not None:  # an object keeps its colour from frame to frame
        pairs = zip(chosen.pred_classes.tolist(), chosen.track_ids.tolist(), strict=True)
        colors = [instance_color(categories, label, track) for label, track in pairs]
        regions = [replace(region, color=color) for region, color in zip(regions, colors, strict=True)]
    return _draw(image, regions, instances.image_size, min_size, labels)


def draw_targets(
    image: Picture,
    targets: Targets,
    categories: Categories,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """Draws ground truth in the frame of ``image``; if there are masks, stuff has no boxes."""
    targets = targets.to("cpu")
    names = [categories.names[label] for label in targets.labels.tolist()]
    regions = _object_regions(targets.labels, names, targets.boxes, targets.masks, categories)
    if targets.masks is not None:
        for i in torch.nonzero(~targets.is_thing).flatten().tolist():
            regions[i] = Region.from_mask(
                categories.colors[targets.labels[i]], names[i], targets.masks[i].numpy()
            )
    size = None if targets.masks is None else targets.masks.shape[-2:]
    return _draw(image, regions, size, min_size, labels)


def draw_panoptic(
    image: Picture,
    panoptic_seg: tuple[Tensor, Sequence[dict[str, Any]]],
    categories: Categories,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """Draws a panoptic segmentation.

    Args:
        image: see :mod:`detrex.visualization`.
        panoptic_seg: (H, W) integer segment ids, 0 for no segment, and for every segment a dictionary of
            ``id`` and ``category_id`` (class index).
        categories: the model's classes.
        min_size: see :mod:`detrex.visualization`.
        labels: whether to write class names.
    """
    ids, infos = panoptic_seg[0].cpu().numpy(), panoptic_seg[1]
    seen: Counter[int] = Counter()
    regions = []
    for info in infos:
        k = info["category_id"]
        color = instance_color(categories, k, seen[k])
        regions.append(Region.from_mask(color, categories.names[k], ids == info["id"]))
        seen[k] += 1
    return _draw(image, regions, ids.shape, min_size, labels)


def draw_semantic(
    image: Picture,
    class_map: Tensor | np.ndarray,
    categories: Categories,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """Draws an (H, W) map of class indices; pixels whose values are not class indices do not change."""
    class_map = class_map.cpu().numpy() if isinstance(class_map, Tensor) else class_map
    present = [k for k in np.unique(class_map).tolist() if 0 <= k < len(categories)]
    regions = [Region.from_mask(categories.colors[k], categories.names[k], class_map == k) for k in present]
    return _draw(image, regions, class_map.shape, min_size, labels)


def _object_regions(
    classes: Tensor,
    names: list[str],
    boxes: Tensor,
    masks: Iterable[Tensor] | None,
    categories: Categories,
) -> list[Region]:
    seen: Counter[int] = Counter()
    regions = []
    each = repeat(None, len(names)) if masks is None else masks
    for k, name, box, mask in zip(classes.tolist(), names, boxes.tolist(), each, strict=True):
        color = instance_color(categories, k, seen[k])
        regions.append(Region.from_mask(color, name, None if mask is None else mask.numpy(), tuple(box)))
        seen[k] += 1
    return regions


def _draw(
    image: Picture, regions: Sequence[Region], size: Sequence[int] | None, min_size: int, labels: bool
) -> Image.Image:
    canvas = to_pil(image)
    height, width = size or (canvas.height, canvas.width)
    scale = max(1, math.ceil(min_size / max(height, width)))
    if (canvas.width, canvas.height) != (width * scale, height * scale):
        canvas = canvas.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    # The largest first, so that small objects are not painted over.
    regions = sorted(regions, key=lambda r: -r.area)
    for region in regions:
        paint_mask(canvas, region, scale)
    for region in regions:
        paint_box(canvas, region, scale)
    if labels:
        write_labels(canvas, regions, scale)
    return canvas
