"""Pictures of predictions and ground truth: masks, boxes and labels over images, and grids of such pictures.

All functions return new RGB :class:`PIL.Image.Image` objects. An image may be a (3, H, W) tensor (uint8, or
float in 0..255), an (H, W, 3) uint8 array or a PIL image. If results are at another size than the image, the
image is resized to theirs. Small images are enlarged by a whole factor before drawing, until their longer
side has ``min_size`` pixels, so that outlines and labels are legible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor

from detrex.structures import Categories, Instances, Targets, distinct_colors

Picture = Tensor | np.ndarray | Image.Image
Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, both ends inclusive

_OPACITY = 0.45  # of an object's mask
_MAP_OPACITY = 0.6  # of segments of a map of the whole image, which has no boxes
_LABEL_SHARE = 0.12  # of a picture's area, at most: many small objects would vanish under their labels
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)
# How instances of one class differ: the class's colour, mixed with some white or black.
_SHADES = ((_WHITE, 0.0), (_WHITE, 0.45), (_BLACK, 0.35), (_WHITE, 0.25), (_BLACK, 0.18))


@dataclass(frozen=True)
class _Region:
    """Something to draw, in pixels of the frame: a (H, W) bool mask, an xyxy box, or both."""

    color: Color
    label: str
    mask: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None

    @property
    def area(self) -> float:
        if self.mask is not None:
            return float(self.mask.sum())
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def draw_instances(
    image: Picture,
    instances: Instances,
    categories: Categories,
    score_threshold: float = 0.3,
    max_detections: int = 100,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """Detections of at least ``score_threshold``, at most the ``max_detections`` of the highest scores."""
    order = instances.scores.argsort(descending=True)[:max_detections]
    chosen = instances[order[instances.scores[order] >= score_threshold]].to("cpu")
    names = [
        f"{categories.names[label]} {score:.0%}"
        for label, score in zip(chosen.pred_classes.tolist(), chosen.scores.tolist(), strict=True)
    ]
    regions = _object_regions(chosen.pred_classes, names, chosen.pred_boxes, chosen.pred_masks, categories)
    return _draw(image, regions, instances.image_size, min_size, labels)


def draw_targets(
    image: Picture,
    targets: Targets,
    categories: Categories,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """Ground truth in the frame of ``image``; stuff is drawn without boxes where there are masks."""
    targets = targets.to("cpu")
    names = [categories.names[label] for label in targets.labels.tolist()]
    regions = _object_regions(targets.labels, names, targets.boxes, targets.masks, categories)
    if targets.masks is not None:
        for i in torch.nonzero(~targets.is_thing).flatten().tolist():
            regions[i] = _Region(categories.colors[targets.labels[i]], names[i], regions[i].mask)
    size = None if targets.masks is None else tuple(targets.masks.shape[-2:])
    return _draw(image, regions, size, min_size, labels)


def draw_panoptic(
    image: Picture,
    panoptic_seg: tuple[Tensor, Sequence[dict[str, Any]]],
    categories: Categories,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """A panoptic segmentation.

    Args:
        image: see the module.
        panoptic_seg: (H, W) integer segment ids, 0 for none, and for every segment a dictionary of ``id`` and
            ``category_id`` (class index).
        categories: the model's classes.
        min_size: see the module.
        labels: whether to write class names.
    """
    ids, infos = panoptic_seg[0].cpu().numpy(), panoptic_seg[1]
    seen: Counter[int] = Counter()
    regions = []
    for info in infos:
        k = info["category_id"]
        color = _instance_color(categories, k, seen[k])
        regions.append(_Region(color, categories.names[k], ids == info["id"]))
        seen[k] += 1
    return _draw(image, regions, ids.shape, min_size, labels)


def draw_semantic(
    image: Picture,
    class_map: Tensor | np.ndarray,
    categories: Categories,
    min_size: int = 512,
    labels: bool = True,
) -> Image.Image:
    """A (H, W) map of class indices; pixels with values that are no class index stay as they are."""
    class_map = class_map.cpu().numpy() if isinstance(class_map, Tensor) else class_map
    present = [k for k in np.unique(class_map).tolist() if 0 <= k < len(categories)]
    regions = [_Region(categories.colors[k], categories.names[k], class_map == k) for k in present]
    return _draw(image, regions, class_map.shape, min_size, labels)


def image_grid(
    rows: Sequence[Sequence[Picture]],
    titles: Sequence[str] = (),
    cell_size: int = 512,
    padding: int = 8,
) -> Image.Image:
    """Pictures in rows and columns on white, ``titles`` above the columns.

    Args:
        rows: pictures; rows may differ in length.
        titles: one for each column, or none.
        cell_size: longer side of every picture in the grid, in pixels.
        padding: pixels between pictures and around them.

    Raises:
        ValueError: there is no picture, or there are titles, but not one for each column.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("image_grid got no pictures")
    if titles and len(titles) != columns:
        raise ValueError(f"image_grid got {len(titles)} titles for {columns} columns")
    cells = [[_fit(_to_pil(picture), cell_size) for picture in row] for row in rows]
    widths = [max(row[k].width for row in cells if k < len(row)) for k in range(columns)]
    heights = [max((cell.height for cell in row), default=0) for row in cells]
    font = _font(max(14, cell_size // 22))
    top = padding + (_text_height(font) + padding if titles else 0)
    grid = Image.new(
        "RGB", (sum(widths) + padding * (columns + 1), top + sum(heights) + padding * len(rows)), _WHITE
    )
    lefts = [padding + sum(widths[:k]) + padding * k for k in range(columns)]
    draw = ImageDraw.Draw(grid)
    for title, left, width in zip(titles, lefts, widths, strict=False):
        draw.text((left + width / 2, padding), title, fill=_BLACK, font=font, anchor="ma")
    for row, height in zip(cells, heights, strict=True):
        for cell, left, width in zip(row, lefts, widths, strict=False):
            grid.paste(cell, (left + (width - cell.width) // 2, top + (height - cell.height) // 2))
        top += height + padding
    return grid


def _object_regions(
    classes: Tensor, names: list[str], boxes: Tensor, masks: Tensor | None, categories: Categories
) -> list[_Region]:
    seen: Counter[int] = Counter()
    regions = []
    for i, k in enumerate(classes.tolist()):
        mask = None if masks is None else masks[i].numpy()
        regions.append(
            _Region(_instance_color(categories, k, seen[k]), names[i], mask, tuple(boxes[i].tolist()))
        )
        seen[k] += 1
    return regions


def _draw(
    image: Picture, regions: Sequence[_Region], size: tuple[int, int] | None, min_size: int, labels: bool
) -> Image.Image:
    canvas = _to_pil(image)
    height, width = size or (canvas.height, canvas.width)
    scale = max(1, math.ceil(min_size / max(height, width)))
    if (canvas.width, canvas.height) != (width * scale, height * scale):
        canvas = canvas.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    # The largest first, so that small objects are not painted over.
    regions = sorted(regions, key=lambda r: -r.area)
    line = max(1, round(max(canvas.size) / 500))
    pixels = np.array(canvas)
    for region in regions:
        if region.mask is not None:
            _paint(pixels, region, scale, line)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    for region in regions:
        if region.box is not None:
            draw.rectangle(_drawable(region.box, scale, canvas.size), outline=region.color, width=line)
    if labels:
        _write_labels(draw, regions, scale, canvas.size)
    return canvas


def _paint(pixels: np.ndarray, region: _Region, scale: int, line: int) -> None:
    """Blends the region's mask into ``pixels`` (in place), with an opaque outline inside of it."""
    opacity = _MAP_OPACITY if region.box is None else _OPACITY
    found = ndimage.find_objects(region.mask.astype(np.uint8))
    if not found:
        return
    rows, columns = found[0]
    inside = region.mask[rows, columns].repeat(scale, 0).repeat(scale, 1)
    view = pixels[
        rows.start * scale : rows.stop * scale,
        columns.start * scale : columns.stop * scale,
    ]
    view[inside] = ((1 - opacity) * view[inside] + opacity * np.array(region.color)).astype(np.uint8)
    view[inside & ~ndimage.binary_erosion(inside, iterations=line)] = region.color


def _write_labels(
    draw: ImageDraw.ImageDraw, regions: Sequence[_Region], scale: int, size: tuple[int, int]
) -> None:
    font = _font(max(14, round(max(size) / 34)))
    extents = [(math.ceil(font.getlength(r.label)) + 4, _text_height(font)) for r in regions]
    for region, place in zip(regions, _place_labels(regions, extents, scale, size), strict=True):
        if place is None:
            continue
        center = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
        draw.rectangle(place, fill=region.color)
        draw.text(center, region.label, fill=_text_color(region.color), font=font, anchor="mm")


def _place_labels(
    regions: Sequence[_Region], extents: Sequence[tuple[int, int]], scale: int, size: tuple[int, int]
) -> list[Rectangle | None]:
    """A rectangle for each region's label, in the order of the regions; None where no place is left.

    They lie in the picture of (width, height) ``size`` and do not overlap. ``extents`` are the labels' widths
    and heights.
    """
    budget = _LABEL_SHARE * size[0] * size[1]
    taken: list[Rectangle] = []
    chosen: list[Rectangle | None] = []
    for region, (width, height) in zip(regions, extents, strict=True):
        budget -= width * height
        wanted = _places(region, scale, width, height) if budget >= 0 else []
        moved = [_inside(x, y, width, height, size) for x, y in wanted]
        # A place that had to move far down or up to be in the picture may cover a small object: last choice.
        order = sorted(range(len(moved)), key=lambda i: abs(moved[i][1] - wanted[i][1]) > 0.75 * height)
        free = (moved[i] for i in order if not any(_overlap(moved[i], other) for other in taken))
        chosen.append(next(free, None))
        taken += [chosen[-1]] if chosen[-1] else []
    return chosen


def _places(region: _Region, scale: int, width: int, height: int) -> list[tuple[float, float]]:
    """Where the label's upper left corner may go, the best first."""
    if region.box is None:
        if not region.mask.any():
            return []
        x, y = (scale * (c + 0.5) for c in _deepest_point(region.mask))
        return [(x - width / 2, y - height / 2 + shift * height) for shift in (0, -1, 1, -2, 2, -3, 3)]
    x0, y0, x1, y1 = (scale * c for c in region.box)
    return [
        (x0, y0 - height),
        (x1 - width, y0 - height),
        (x0, y1),
        (x1 - width, y1),
        (x1, y0),
        (x0 - width, y0),
        (x0, y0),
        (x0, y1 - height),
        ((x0 + x1 - width) / 2, (y0 + y1 - height) / 2),
    ]


def _deepest_point(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel that is farthest from the mask's edge and the image's."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def _inside(x: float, y: float, width: int, height: int, size: tuple[int, int]) -> Rectangle:
    """A label's rectangle with its upper left corner at (x, y), moved into the picture."""
    left = round(max(0, min(x, size[0] - width)))
    top = round(max(0, min(y, size[1] - height)))
    return left, top, left + width - 1, top + height - 1


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _drawable(box: tuple[float, ...], scale: int, size: tuple[int, int]) -> Rectangle:
    """The pixels that a box covers of a picture of (width, height) ``size``."""
    x0, y0 = (round(max(0, min(scale * c, limit - 1))) for c, limit in zip(box[:2], size, strict=True))
    x1, y1 = (round(max(0, min(scale * c, limit))) - 1 for c, limit in zip(box[2:], size, strict=True))
    return x0, y0, max(x0, x1), max(y0, y1)


def _instance_color(categories: Categories, k: int, number: int) -> Color:
    """The colour of instance ``number`` of class ``k``: of its class's hue, unless there is but one class."""
    if len(categories) == 1:
        return distinct_colors(number + 1)[-1]
    other, share = _SHADES[number % len(_SHADES)]
    return tuple(round((1 - share) * c + share * o) for c, o in zip(categories.colors[k], other, strict=True))


def _text_color(background: Color) -> Color:
    red, green, blue = background
    return _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _WHITE


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _text_height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """Height of a line with ascenders and descenders, in pixels, with a little air."""
    _, top, _, bottom = font.getbbox("Ag")
    return math.ceil(bottom - top) + 4


def _fit(picture: Image.Image, size: int) -> Image.Image:
    factor = size / max(picture.size)
    new = tuple(max(1, round(side * factor)) for side in picture.size)
    return picture if new == picture.size else picture.resize(new, Image.Resampling.LANCZOS)


def _to_pil(image: Picture) -> Image.Image:
    """An RGB PIL image of any :data:`Picture`."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"an image tensor must be of shape (3, H, W), not {tuple(image.shape)}")
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"an image array must be of shape (H, W, 3), not {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image).clip(0, 255).astype(np.uint8))
