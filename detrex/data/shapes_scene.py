"""Draws one random scene of shapes on textured ground, with its segmentation.

Things are drawn one after another, so later ones cover earlier ones. Annotations cover what is visible: a
thing that would hide too much of an earlier one is not drawn at all, and only edges in the picture are
anti-aliased. Lengths are fractions of the image side unless a name says pixels.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

THINGS = ("circle", "square", "triangle", "star")
STUFF = ("grass", "stripes", "tiles")
COLORS = (
    (230, 75, 60),
    (65, 125, 225),
    (245, 190, 55),
    (165, 85, 200),
    (110, 160, 90),
    (215, 185, 150),
    (135, 150, 170),
)

_SUPERSAMPLING = 4
_MIN_DIAMETER, _MAX_DIAMETER = 0.24, 0.6
# The hue of a thing differs by at most this from that of its class, which is a quarter of the circle from the
# next: colour distinguishes neighbouring classes in most cases, and shape must do so in the rest.
_HUE_SPREAD = 0.14
_MAX_THINGS = 5
_MIN_VISIBLE = 0.6  # share of a thing's area; with less, its class would be a guess
_MIN_STUFF = 0.01  # share of the image's area; smaller regions of stuff are left unlabelled


@dataclass
class Scene:
    """A picture and its ground truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        segments: (H, W) uint8; 0 is unlabelled, ``s`` is the segment whose class is ``classes[s - 1]``.
        classes: class indices: things first (positions in ``THINGS``), stuff after them.
    """

    image: np.ndarray
    segments: np.ndarray
    classes: list[int]


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """One scene of ``size`` x ``size`` pixels, a function of ``rng``'s state alone."""
    canvas, stuff = draw_ground(rng, size)
    things = np.zeros((size, size), np.uint8)
    areas: list[int] = []
    classes: list[int] = []
    for _ in range(rng.integers(1, _MAX_THINGS + 1)):
        kind = int(rng.integers(len(THINGS)))
        patch = Patch.draw(rng, kind, size)
        if patch is None or not leaves_all_visible(things, patch, areas):
            continue
        patch.paint(rng, canvas, hue=kind / len(THINGS))
        classes.append(kind)
        areas.append(patch.area)
        things[patch.window][patch.mask] = len(classes)
    segments = _number_stuff(things, stuff, classes)
    canvas += rng.standard_normal((size, size, 1), np.float32) * 3
    return Scene(np.clip(canvas, 0, 255).astype(np.uint8), segments, classes)


def _number_stuff(things: np.ndarray, stuff: np.ndarray, classes: list[int]) -> np.ndarray:
    """Things' segments completed by one segment for each stuff class; appends to ``classes``."""
    segments = things.copy()
    for k in range(len(STUFF)):
        mask = (stuff == k) & (things == 0)
        if mask.sum() >= _MIN_STUFF * mask.size:
            classes.append(len(THINGS) + k)
            segments[mask] = len(classes)
    return segments


@dataclass
class Patch:
    """A thing before it is painted: its window of the image and how much it covers of each pixel there."""

    window: tuple[slice, slice]
    coverage: np.ndarray  # (h, w) float32 in [0, 1]
    core: np.ndarray  # the same for the slightly smaller shape inside the rim
    mask: np.ndarray  # (h, w) bool
    area: int

    @classmethod
    def draw(
        cls, rng: np.random.Generator, kind: int, size: int, smallest: float = _MIN_DIAMETER
    ) -> Patch | None:
        """A thing of the class ``kind`` at a random place, or None if nothing of it is in the image."""
        diameter = size * math.exp(rng.uniform(math.log(smallest), math.log(_MAX_DIAMETER)))
        outline = _outline(kind) @ _rotation(rng.uniform(0, 2 * math.pi)) * (diameter / 2)
        center = rng.uniform(diameter * 0.3, size - diameter * 0.3, 2)
        low = np.maximum(np.floor(center - diameter / 2).astype(int), 0)
        high = np.minimum(np.ceil(center + diameter / 2).astype(int) + 1, size)
        width, height = (int(v) for v in high - low)
        coverage = _rasterise(outline + center - low, width, height)
        rim = max(1.0, 0.05 * diameter)
        core = _rasterise(outline * (1 - 2 * rim / diameter) + center - low, width, height)
        mask = coverage >= 0.5
        window = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
        area = int(mask.sum())
        return cls(window, coverage, core, mask, area) if area else None

    def paint(
        self,
        rng: np.random.Generator,
        canvas: np.ndarray,
        hue: float,
        spread: float = _HUE_SPREAD,
        pattern: np.ndarray | None = None,
    ) -> None:
        """Draws the thing over ``canvas``.

        Args:
            rng: of all that is random.
            canvas: (H, W, 3) float32, 0 to 255.
            hue: in [0, 1).
            spread: how far the thing's own hue may be from it.
            pattern: (H, W) in [0, 1], how much of the colour is white at each pixel of the image.
        """
        height, width = self.mask.shape
        hue, saturation, value = rng.uniform([hue - spread, 0.65, 0.75], [hue + spread, 1, 1])
        color = 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)
        angle, depth = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.25)
        x = np.linspace(-1, 1, width, dtype=np.float32) * math.cos(angle)
        y = np.linspace(-1, 1, height, dtype=np.float32) * math.sin(angle)
        light = 1 + depth * (x + y[:, None]) + 0.03 * rng.standard_normal((height, width), np.float32)
        light *= 0.6 + 0.4 * self.core
        target, colors = canvas[self.window], light[..., None] * color
        if pattern is not None:
            colors += pattern[self.window][..., None] * (255 * light[..., None] - colors)
        target += self.coverage[..., None] * (colors - target)


def leaves_all_visible(things: np.ndarray, patch: Patch, areas: list[int]) -> bool:
    """Whether every thing drawn so far stays visible enough when ``patch`` is put over it."""
    covered = np.bincount(things[patch.window][patch.mask], minlength=len(areas) + 1)
    visible = np.bincount(things.ravel(), minlength=len(areas) + 1)
    left = (visible - covered)[1:]
    return all(now >= _MIN_VISIBLE * full for now, full in zip(left, areas, strict=True))


@lru_cache
def _outline(kind: int) -> np.ndarray:
    """(P, 2) vertices of a thing in the unit circle."""
    name = THINGS[kind]
    count = {"circle": 48, "square": 4, "triangle": 3, "star": 10}[name]
    angles = np.arange(count) * 2 * math.pi / count
    radius = np.full(count, 0.9 if name == "circle" else 1.0)
    if name == "star":
        radius[1::2] = 0.45
    return np.stack([np.cos(angles) * radius, np.sin(angles) * radius], 1)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _rasterise(outline: np.ndarray, width: int, height: int) -> np.ndarray:
    """How much of each pixel the polygon covers, (height, width) in [0, 1]."""
    image = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    # PIL names a pixel by its centre, hence the half.
    points = outline * _SUPERSAMPLING - 0.5
    ImageDraw.Draw(image).polygon([tuple(p) for p in points.tolist()], fill=255)
    return np.asarray(image.reduce(_SUPERSAMPLING), np.float32) / 255


def draw_ground(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Canvas (H, W, 3) float32 of one to three textures side by side, and (H, W) uint8 positions in STUFF."""
    kinds = rng.permutation(len(STUFF))[: rng.integers(1, len(STUFF) + 1)]
    canvas = _TEXTURES[kinds[0]](rng, size)
    stuff = np.full((size, size), kinds[0], np.uint8)
    for kind in kinds[1:]:
        distance = _distance_to_curve(rng, size)
        coverage = np.clip(distance + 0.5, 0, 1)[..., None]
        canvas += coverage * (_TEXTURES[kind](rng, size) - canvas)
        stuff[distance >= 0] = kind
    return canvas, stuff


def _distance_to_curve(rng: np.random.Generator, size: int) -> np.ndarray:
    """About how many pixels each pixel is beyond a random wavy line, (H, W) float32."""
    across, along = turned_axes(rng.uniform(0, 2 * math.pi), size)
    wave = rng.uniform(0, 0.06) * np.sin(along * rng.uniform(4, 12) + rng.uniform(0, 2 * math.pi))
    return (across + wave - rng.uniform(-0.22, 0.28)) * size


def turned_axes(angle: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of all pixels on two perpendicular axes through the centre: two of (H, W) float32."""
    steps = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return steps * cos + steps[:, None] * sin, steps[:, None] * cos - steps * sin


def _grass(rng: np.random.Generator, size: int) -> np.ndarray:
    meadow = _smooth_noise(rng, size, 8, 8)
    blades = _smooth_noise(rng, size, size // 2, size // 8)
    light = 1 + 0.16 * meadow + 0.2 * blades
    return light[..., None] * _tinted(rng, (105, 145, 80))


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    across, _ = turned_axes(rng.uniform(0, math.pi), size)
    light, dark = _tinted(rng, (225, 200, 165)), _tinted(rng, (190, 150, 120))
    return _blend(square_wave(rng, across, size), light, dark)


def _tiles(rng: np.random.Generator, size: int) -> np.ndarray:
    across, along = turned_axes(rng.uniform(0, math.pi / 2), size)
    period = rng.uniform(0.12, 0.22)
    u, v = (square_wave(rng, axis, size, period) for axis in (across, along))
    return _blend(u * (1 - v) + v * (1 - u), _tinted(rng, (185, 195, 208)), _tinted(rng, (120, 135, 155)))


_TEXTURES: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (_grass, _stripes, _tiles)


def square_wave(
    rng: np.random.Generator, axis: np.ndarray, size: int, period: float | None = None
) -> np.ndarray:
    """0 and 1 in turns along ``axis``, with edges about a pixel wide."""
    period = rng.uniform(0.06, 0.13) if period is None else period
    steepness = period * size / (2 * math.pi)  # a sine crosses zero with slope 2 pi / period per pixel
    phase = np.float32(rng.uniform(0, 2 * math.pi))
    return np.clip(0.5 + steepness * np.sin(axis * np.float32(2 * math.pi / period) + phase), 0, 1)


def _smooth_noise(rng: np.random.Generator, size: int, columns: int, rows: int) -> np.ndarray:
    """(H, W) float32 in [-1, 1], interpolated between ``rows`` x ``columns`` random values."""
    grid = rng.uniform(-1, 1, (max(rows, 2), max(columns, 2))).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BILINEAR))


def _blend(weight: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return b + weight[..., None] * (a - b)


def _tinted(rng: np.random.Generator, color: tuple[int, int, int]) -> np.ndarray:
    return np.array(color, np.float32) * rng.uniform(0.9, 1.08, 3).astype(np.float32)
