"""Chooses a config and settings that fit the data at a path, for ``detrex train --data PATH``."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import OmegaConf

from detrex.config import LazyConfig, find_config, instantiate
from detrex.config.override_text import overrides_of
from detrex.data import DataError, ImageDataset
from detrex.data.checks import require_objects, spread
from detrex.data.coco.objects import CocoFile
from detrex.data.coco.reader import ReadOptions
from detrex.data.sources import Source, find_sources
from detrex.data.writing import write_coco
from detrex.runtime.files import replaced_file

logger = logging.getLogger(__name__)

CONFIGS = {
    "instance": "maskdino_custom_instance",
    "panoptic": "maskdino_custom_panoptic",
    "semantic": "maskdino_custom_semantic",
    "detection": "dino_custom_detection",
}
_LOOKED_AT = 200  # images whose objects are measured

# Lengths of the longer side in pixels, for a model that trains on a CPU.
_SIZES = range(256, 641, 32)
_PIXELS_OF_OBJECT = 24  # side of a small object in pixels, at that size
_SMALL_OBJECTS = 1 / 200  # share of the image; masks of smaller objects need more points
_FEWEST_STEPS, _EPOCHS = 2400, 12
_BATCH = 2
_VALIDATION_SHARE = 5  # every fifth image, if there are no others
_PLAIN_QUOTES = re.compile(r"='([\w./-]+)'$")  # quotes that a value does not need


@dataclass(frozen=True)
class FoundData:
    """A data set on the disk.

    Attributes:
        kind: for people, such as ``COCO instances``.
        task: a key of :data:`CONFIGS`.
        settings: of the config, in nested dicts: the paths of images and annotations.
    """

    kind: str
    task: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """A config with settings that fit a data set.

    Attributes:
        config: name of the config.
        settings: changes to it, in nested dicts.
        words: lines that describe what was found and what was chosen.
    """

    config: str
    settings: Mapping[str, Any]
    words: Sequence[str]

    @property
    def overrides(self) -> list[str]:
        """The settings in the form of a command line."""
        return overrides_of(self.settings)

    def command(self, more: Sequence[str] = ()) -> str:
        """The equivalent command.

        Args:
            more: further overrides.
        """
        words = [_PLAIN_QUOTES.sub(r"=\1", word) for word in self.overrides]
        return " \\\n    ".join([f"detrex train {self.config}", *map(shlex.quote, [*words, *more])])


def choose(path: Path, overrides: Sequence[str] = ()) -> Choice:
    """Finds the data at ``path`` and chooses a config and settings for training.

    Args:
        path: a folder, or an annotation file.
        overrides: of the user, which have precedence; they may contain the run's folder.

    Raises:
        FileNotFoundError, DataError: see :func:`find_data`; or there is nothing to learn from.
    """
    output_dir = _output_dir(path, overrides)
    found = find_data(path, output_dir)
    config = LazyConfig.load(find_config(CONFIGS[found.task]))
    config = LazyConfig.apply_overrides(config, [*overrides_of(found.settings), *overrides])
    train = instantiate(config.dataloader.train.dataset)
    require_objects(train)
    validation = instantiate(config.dataloader.test.dataset)
    steps = _length(len(train))
    reasons: list[str] = []
    settings: dict[str, Any] = {}
    if found.task != "semantic":  # semantic classes are not counted as objects
        settings, reasons = _fitting_settings(found.task, measure(train))
    settings = _merged(
        settings,
        {
            "dataloader": {"train": {"total_batch_size": _BATCH}},
            "train": {
                "max_iter": steps,
                "checkpoint": {"period": max(200, steps // 10)},
                "output_dir": str(output_dir),
            },
        },
    )
    reasons = [
        *reasons,
        f"{steps} steps of {_BATCH} images: {steps * _BATCH / len(train):.0f} times each image",
        f"{config.model.backbone.name} from nothing: train.init_checkpoint=FILE starts from weights, and "
        "learns sooner",
    ]
    head = f"{path}: {found.kind}, {len(train)} images for training, {len(validation)} for validation"
    return Choice(CONFIGS[found.task], _merged(found.settings, settings), [head, *reasons])


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(first, second)))


def _length(images: int) -> int:
    """The length of the run in steps."""
    return max(_FEWEST_STEPS, _EPOCHS * images // _BATCH)


def _output_dir(path: Path, overrides: Sequence[str]) -> Path:
    key = "train.output_dir="
    chosen = [word.removeprefix(key).strip("'\"") for word in overrides if word.startswith(key)]
    return Path(chosen[-1]) if chosen else Path("output", path.resolve().stem)


@dataclass(frozen=True)
class Measures:
    """Measurements on which the settings of a model depend.

    Attributes:
        images: number of images.
        classes: number of classes.
        most: largest number of objects in an image.
        longer_side: of the median image, in pixels.
        small_side: side of a small object (the lower quartile) as a share of the longer side.
        small_share: its area as a share of the image.
    """

    images: int
    classes: int
    most: int
    longer_side: int
    small_side: float
    small_share: float


def measure(dataset: ImageDataset) -> Measures:
    """Measures the annotations of up to 200 images, without opening the images."""
    indices = spread(len(dataset), _LOOKED_AT)
    sides, shares, longer, most = [], [], [], 0
    for index in indices:
        height, width = dataset.image_size(index)
        targets, _ = dataset.undrawn_targets(index)
        boxes = targets.boxes
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        longer.append(max(height, width))
        sides.append(area.sqrt() / max(height, width))
        shares.append(area / (height * width))
        most = max(most, len(boxes))
    counts = dataset.counts()
    if counts is not None:
        most = max(most, counts.most)
    return Measures(
        images=len(dataset),
        classes=len(dataset.categories),
        most=most,
        longer_side=int(np.median(longer)),
        small_side=float(torch.cat(sides).quantile(0.25)) if most else 1.0,
        small_share=float(torch.cat(shares).quantile(0.25)) if most else 1.0,
    )


def _fitting_settings(task: str, data: Measures) -> tuple[dict[str, Any], list[str]]:
    """The settings that depend on the objects, and their reasons."""
    wanted = _PIXELS_OF_OBJECT / max(data.small_side, 1e-6)
    size = next((s for s in _SIZES if s >= min(wanted, data.longer_side)), _SIZES[-1])
    queries = max(50, -(-data.most * 11 // 100) * 10)
    model: dict[str, Any] = {
        "decoder": {"query_init": {"num_queries": queries}},
        "postprocess": {"instance": {"max_detections": max(100, queries)}},
    }
    if task != "detection":
        small = data.small_share < _SMALL_OBJECTS
        model["criterion"] = {"points": {"num_points": 4096 if small else 2048}}
    reasons = [
        f"{size} pixels for the longer side: images have {data.longer_side}, and three quarters of the "
        f"objects at least {data.small_side:.1%} of that",
        f"{queries} queries: an image has up to {data.most} objects",
    ]
    return {"model": model, "dataloader": {"train": {"mapper": {"image_size": size}}}}, reasons


def find_data(path: Path, output_dir: Path) -> FoundData:
    """The data at a path, in any format that :func:`detrex.data.sources.find_sources` knows.

    If instances are not divided into training and validation, every fifth image is for validation: both lists
    are then written to ``output_dir/data``.

    Raises:
        FileNotFoundError: the path does not exist.
        DataError: the path holds nothing in a known format, or there is no validation data.
    """
    sources = find_sources(path)
    train = sources.get("train") or next(iter(sources.values()))
    others = [source for split in ("val", "test") if (source := sources.get(split)) not in (None, train)]
    if others:
        validation = others[0]
    elif train.task == "instances":
        train, validation = _divided(train, output_dir / "data")
    else:
        raise DataError(
            f"--data {path}: there are {train.task} annotations for training ({train.annotations}), but none "
            "for validation: add a folder or file named 'val'"
        )
    settings: dict[str, Any] = {
        "dataloader": {"train": {"dataset": train.arguments()}, "test": {"dataset": validation.arguments()}}
    }
    task: str = train.task
    if task == "instances":
        task = "instance" if _has_masks(train) else "detection"
    elif task == "semantic":
        del settings["dataloader"]["test"]["dataset"]["classes"]  # the same
    return FoundData(train.format, task, settings)


def _has_masks(source: Source) -> bool:
    return CocoFile(source.annotations, ReadOptions(source.images)).counts(masks=True).objects > 0


def _divided(source: Source, folder: Path) -> tuple[Source, Source]:
    """Every fifth image for validation, the others for training, as two COCO files in ``folder``."""
    whole = folder / "instances.json"
    write_coco(source, whole, overwrite=True)
    content = json.loads(whole.read_text(encoding="utf-8"))
    chosen = {image["id"] for image in content["images"][::_VALIDATION_SHARE]}
    if len(chosen) == len(content["images"]):
        raise DataError(f"--data {source.annotations}: a single image cannot be for training and validation")
    parts = []
    for split in ("train", "val"):
        part = {
            "images": [i for i in content["images"] if (i["id"] in chosen) == (split == "val")],
            "annotations": [
                a for a in content["annotations"] if (a["image_id"] in chosen) == (split == "val")
            ],
            "categories": content["categories"],
        }
        file = folder / f"instances_{split}.json"
        with replaced_file(file) as temporary:
            temporary.write_text(json.dumps(part), encoding="utf-8")
        parts.append(replace(source, split=split, annotations=file))
    whole.unlink()
    logger.info("every %dth image of %s is for validation: %s", _VALIDATION_SHARE, source.annotations, folder)
    return parts[0], parts[1]
