"""Scenes of things with a colour, a texture and a shape, of which some combinations are held out.

The data set is drawn at first use and read as COCO's. Layout under ``root``::

    {split}/000000.png                      pictures
    annotations/instances_{split}.json      things and the badges on them, COCO instance format (RLE masks)
    annotations/pairs_held_out.json         the same things by the two words that are held out

``train`` and ``val`` never show a colour and a shape, or a texture and a shape, of :data:`HELD_OUT` together.
Each picture of ``held_out`` does, among other things; only the held-out ones are annotated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from detrex.data.shapes import save_png, write_generated, write_json
from detrex.data.shapes_scene import (
    THINGS,
    Patch,
    draw_ground,
    leaves_all_visible,
    square_wave,
    turned_axes,
)

HUES = {"red": 0.0, "yellow": 0.15, "green": 0.36, "blue": 0.6, "purple": 0.79}
TEXTURES = ("plain", "striped", "dotted")
HELD_OUT = (("red", "star"), ("blue", "square"), ("striped", "circle"), ("dotted", "triangle"))
"""Words that are never true of one thing in training."""
BADGE = "badge"
WORDS = (*HUES, *TEXTURES, *THINGS, BADGE)

_VERSION = 2  # raised whenever the pictures or files change, so that old copies on disk are replaced
_HUE_SPREAD = 0.025
_SMALLEST = 0.3  # diameter of a thing, in images; textures of smaller ones are hard to see
_MOST_THINGS = 4
_MIN_VISIBLE_BADGE = 0.8  # of a badge's own area


@dataclass(frozen=True)
class Kind:
    """The words that describe a thing."""

    color: str
    texture: str
    shape: str

    @property
    def name(self) -> str:
        """All three words."""
        return f"{self.color} {self.texture} {self.shape}"

    @property
    def is_held_out(self) -> bool:
        """Whether training never shows such a thing."""
        return any(set(pair) <= {self.color, self.texture, self.shape} for pair in HELD_OUT)


_KINDS = [Kind(*words) for words in product(HUES, TEXTURES, THINGS)]
SEEN = [kind for kind in _KINDS if not kind.is_held_out]
UNSEEN = [kind for kind in _KINDS if kind.is_held_out]


@dataclass
class Region:
    """A thing or a badge of a scene.

    Attributes:
        name: of its class.
        mask: (H, W) bool, its visible part; that of a thing includes its badge.
    """

    name: str
    mask: np.ndarray


def draw_scene(
    rng: np.random.Generator, size: int, held_out: bool = False
) -> tuple[np.ndarray, list[Region]]:
    """One scene of ``size`` x ``size`` pixels, which depends only on the state of ``rng``.

    Args:
        rng: random numbers.
        size: height and width in pixels.
        held_out: about half of the things, and at least one, are of :data:`UNSEEN` kinds; otherwise none.

    Returns:
        The picture (H, W, 3) uint8 RGB, and its regions.
    """
    canvas, _ = draw_ground(rng, size)
    numbers = np.zeros((size, size), np.uint8)  # number of the thing seen at each pixel, from 1 on
    areas: list[int] = []
    names: list[str] = []
    badges: list[tuple[int, np.ndarray]] = []  # number of the thing, and what was drawn of the badge
    for index in range(rng.integers(1, _MOST_THINGS + 1)):
        kinds = UNSEEN if held_out and (index == 0 or rng.uniform() < 0.5) else SEEN
        kind = kinds[rng.integers(len(kinds))]
        patch = Patch.draw(rng, THINGS.index(kind.shape), size, _SMALLEST)
        if patch is None or not leaves_all_visible(numbers, patch, areas):
            continue
        patch.paint(rng, canvas, HUES[kind.color], _HUE_SPREAD, _pattern(rng, kind.texture, size))
        names.append(kind.name)
        areas.append(patch.area)
        numbers[patch.window][patch.mask] = len(names)
        if rng.uniform() < 0.5 and (badge := _draw_badge(rng, canvas, numbers == len(names))) is not None:
            badges.append((len(names), badge))
    regions = [Region(name, numbers == number) for number, name in enumerate(names, start=1)]
    for number, drawn in badges:
        mask = drawn & (numbers == number)
        if mask.sum() >= _MIN_VISIBLE_BADGE * drawn.sum():
            regions.append(Region(BADGE, mask))
    canvas += rng.standard_normal((size, size, 1), np.float32) * 3
    return np.clip(canvas, 0, 255).astype(np.uint8), regions


def _pattern(rng: np.random.Generator, texture: str, size: int) -> np.ndarray | None:
    """How white each pixel (H, W) is, in [0, 1]; None for plain things."""
    if texture == "plain":
        return None
    across, along = turned_axes(rng.uniform(0, math.pi), size)
    period = rng.uniform(7, 9) / size
    if texture == "striped":
        return 0.85 * square_wave(rng, across, size, period)
    waves = [np.sin(axis * (2 * math.pi / period) + rng.uniform(0, 2 * math.pi)) for axis in (across, along)]
    return (0.85 * np.clip(2 * (waves[0] + waves[1]) - 1, 0, 1)).astype(np.float32)


def _draw_badge(rng: np.random.Generator, canvas: np.ndarray, thing: np.ndarray) -> np.ndarray | None:
    """Draws a dark disc within a thing (H, W), away from its middle; its mask, or None without room."""
    depth = ndimage.distance_transform_edt(np.pad(thing, 1))[1:-1, 1:-1]
    radius = max(4.0, 0.3 * depth.max())
    rows, columns = np.indices(thing.shape)
    middle = np.unravel_index(depth.argmax(), depth.shape)
    from_middle = np.hypot(rows - middle[0], columns - middle[1])
    places = np.argwhere((depth > radius + 1) & (from_middle > radius + 2))
    if not len(places):
        return None
    row, column = places[rng.integers(len(places))]
    distance = np.hypot(rows - row, columns - column)
    coverage = np.clip(radius + 0.5 - distance, 0, 1)[..., None].astype(np.float32)
    canvas += coverage * (rng.uniform(15, 50) - canvas)
    return distance <= radius


def ensure_scenes(
    root: str,
    splits: Mapping[str, int] | None = None,
    image_size: int = 96,
    seed: int = 0,
    file: str = "",
) -> str:
    """Writes the data set if it is not there yet, and returns the path of ``file`` in it.

    Args:
        root: folder to write.
        splits: number of pictures of each split; the split named ``held_out`` shows combinations that others
            do not. None: ``{"train": 4000, "val": 100, "held_out": 200}``.
        image_size: height and width of the pictures in pixels, at least 64.
        seed: a scene depends on this, on its split's name and on its number.
        file: path within ``root``.

    Raises:
        ValueError: the image size is too small, or ``root`` holds files this function did not write.
    """
    if image_size < 64:
        raise ValueError(f"image_size={image_size} is too small to draw textures: take at least 64")
    splits = dict(splits) if splits is not None else {"train": 4000, "val": 100, "held_out": 200}
    wanted = {"scenes": _VERSION, "splits": splits, "image_size": image_size, "seed": seed}

    def write(new: Path) -> None:
        for split, count in splits.items():
            _write_split(new, split, count, image_size, seed)

    return str(write_generated(Path(root), wanted, write) / file)


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    for folder in (root / split, root / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    held_out = split == "held_out"
    names = [kind.name for kind in UNSEEN] if held_out else [*(kind.name for kind in SEEN), BADGE]
    images, annotations = [], []
    for i in range(count):
        picture, regions = draw_scene(np.random.default_rng([seed, *split.encode(), i]), size, held_out)
        name = f"{i:06d}.png"
        save_png(root / split / name, picture)
        images.append({"id": i + 1, "file_name": name, "height": size, "width": size})
        for region in regions:
            if region.name in names:
                number = len(annotations) + 1
                annotations.append(_annotation(region, number, i + 1, names.index(region.name) + 1))
    _write_annotations(root / "annotations" / f"instances_{split}.json", images, annotations, names)
    if held_out:
        pair_of = [next(i for i, p in enumerate(HELD_OUT, 1) if set(p) <= set(n.split())) for n in names]
        by_pairs = [
            {**annotation, "category_id": pair_of[annotation["category_id"] - 1]}
            for annotation in annotations
        ]
        pairs = [" ".join(pair) for pair in HELD_OUT]
        _write_annotations(root / "annotations" / f"pairs_{split}.json", images, by_pairs, pairs)


def _write_annotations(path: Path, images: list[Any], annotations: list[Any], names: Sequence[str]) -> None:
    categories = [{"id": k, "name": name} for k, name in enumerate(names, start=1)]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})


def _annotation(region: Region, number: int, image_id: int, category_id: int) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(region.mask, np.uint8))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": coco_mask.toBbox(code).tolist(),
        "area": int(region.mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
    }
