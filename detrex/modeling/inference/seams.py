"""Joins the results of overlapping tiles, so that an object that two tiles see becomes one.

Two tiles see the same pixels where they overlap. Two results are one object if they agree *there*; outside
the overlap, each tile may see only a part of the object.

Shape letters: H and W pixels of the whole image, h and w of a tile, P pieces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.structures import CroppedMask, Instances, Rectangle, RunLengthMasks
from detrex.structures.crops import vote

CONTAINED = 0.7
"""An object is part of another one that contains at least this share of its visible part."""

_EDGE = 2.0  # an object may continue beyond the edge of a tile if it comes this close to it, in pixels
MAP_IN_MEMORY = 2**26
"""Size in bytes up to which a map is kept in memory; larger ones are on the disk."""

_ROWS = 256  # rows of a map that are renumbered at a time


@dataclass(frozen=True)
class Tile:
    """A part of the image.

    Attributes:
        number: counted from 0, row by row.
        place: its rectangle in the image.
        core: the part of ``place`` whose pixels are taken from this tile; all cores together are the image.
    """

    number: int
    place: Rectangle
    core: Rectangle


@dataclass(eq=False)
class _Piece:
    """The part of an object that a tile has found, in the frame of the whole image.

    Attributes:
        tile: where it was found.
        box: (4,) xyxy.
        score, label: of the object.
        is_cut: whether it reaches an edge of the tile that is not an edge of the image.
        mask: None if the model has no masks.
    """

    tile: Tile
    box: np.ndarray
    score: float
    label: int
    is_cut: bool
    mask: CroppedMask | None

    @property
    def area(self) -> float:
        """The area in pixels."""
        return float(self.mask.area) if self.mask is not None else _box_area(self.box)

    def shares(self, other: _Piece) -> tuple[float, float, float]:
        """Areas within the overlap of the tiles: of the intersection, of this piece and of the other one."""
        seen = self.tile.place.meet(other.tile.place)
        if seen.is_empty:
            return 0.0, 0.0, 0.0
        if self.mask is not None and other.mask is not None:
            mine, others = self.mask.area_inside(seen), other.mask.area_inside(seen)
            return float(self.mask.intersection(other.mask)), float(mine), float(others)
        region = np.array([seen.left, seen.top, seen.right, seen.bottom], float)
        own_box, other_box = _box_inside(self.box, region), _box_inside(other.box, region)
        return _box_area(_box_inside(own_box, other_box)), _box_area(own_box), _box_area(other_box)


@dataclass(eq=False)
class _Object:
    """Pieces of one object, best first."""

    pieces: list[_Piece]
    tiles: set[int]

    @property
    def whole(self) -> _Piece | None:
        """The best piece that is not cut."""
        return next((piece for piece in self.pieces if not piece.is_cut), None)


class InstanceSeams:
    """Joins objects across tiles.

    Args:
        size: (height, width) of the image in pixels.
        iou_threshold: pieces of two tiles are one object if their IoU in the overlap of the tiles reaches
            this. A piece that its tile cuts also belongs to an object that contains seven tenths of it.
    """

    def __init__(self, size: tuple[int, int], iou_threshold: float = 0.5):
        self.size, self.iou_threshold = size, iou_threshold
        self._pieces: list[_Piece] = []
        self._has_masks = False

    def add(self, tile: Tile, found: Instances) -> None:
        """Adds the objects of a tile, in the frame of the tile."""
        boxes = found.pred_boxes.double().cpu().numpy()  # (objects, 4)
        boxes = boxes + np.array([tile.place.left, tile.place.top] * 2, float)
        masks = found.masks
        self._has_masks |= masks is not None
        rows = zip(boxes, found.scores.tolist(), found.pred_classes.tolist(), strict=True)
        for i, (box, score, label) in enumerate(rows):
            mask = None
            extent = box
            if masks is not None:
                mask = CroppedMask.decode(masks.rles[i]).moved(tile.place.top, tile.place.left)
                if not mask.pixels.size:
                    continue
                inside = mask.rectangle
                extent = np.array([inside.left, inside.top, inside.right, inside.bottom], float)
            self._pieces.append(_Piece(tile, box, score, label, self._is_cut(extent, tile.place), mask))

    def joined(self) -> Instances:
        """All objects in the frame of the image, best first.

        An object with a piece that is not cut is that piece; of other objects, the pieces are joined.
        """
        objects = self._objects()
        boxes, scores, labels, masks = [], [], [], []
        for joined in objects:
            whole = joined.whole
            pieces = joined.pieces if whole is None else [whole]
            corners = np.stack([piece.box for piece in pieces])  # (P, 4)
            boxes.append([*corners[:, :2].min(0), *corners[:, 2:].max(0)])
            scores.append(joined.pieces[0].score)
            labels.append(joined.pieces[0].label)
            crops = [piece.mask for piece in pieces if piece.mask is not None]
            if len(crops) == 1:
                masks.append(crops[0].encode(self.size))
            elif crops:
                masks.append(vote(crops, [1.0] * len(crops), share=0.0).encode(self.size))
        return Instances(
            self.size,
            torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
            torch.tensor(scores, dtype=torch.float32),
            torch.tensor(labels, dtype=torch.int64),
            RunLengthMasks(self.size, masks) if self._has_masks else None,
        )

    def _is_cut(self, box: np.ndarray, place: Rectangle) -> bool:
        x0, y0, x1, y1 = box
        height, width = self.size
        return bool(
            (place.left > 0 and x0 < place.left + _EDGE)
            or (place.top > 0 and y0 < place.top + _EDGE)
            or (place.right < width and x1 > place.right - _EDGE)
            or (place.bottom < height and y1 > place.bottom - _EDGE)
        )

    def _objects(self) -> list[_Object]:
        """Joins pieces by descending score: each joins the objects it is part of, at most one per tile."""
        placed: dict[tuple[int, int], list[_Piece]] = {}  # by tile and class
        owner: dict[int, _Object] = {}
        neighbours = self._neighbours()
        objects: list[_Object] = []
        for piece in sorted(self._pieces, key=lambda piece: -piece.score):
            agreeing = self._agreeing(piece, neighbours[piece.tile.number], placed)
            joined: _Object | None = None
            is_part = False
            for _, other, is_contained in sorted(agreeing, key=lambda pair: -pair[0]):
                found = owner[id(other)]
                if found is joined:
                    continue
                if joined is None and piece.tile.number not in found.tiles:
                    found.pieces.append(piece)
                    found.tiles.add(piece.tile.number)
                    joined = found
                elif joined is not None and joined.tiles.isdisjoint(found.tiles):
                    self._merge(joined, found, owner)
                    objects.remove(found)
                else:
                    is_part |= is_contained
            if joined is None and is_part:
                continue  # a sliver of an object that has another piece in the same tile
            if joined is None:
                joined = _Object([piece], {piece.tile.number})
                objects.append(joined)
            owner[id(piece)] = joined
            placed.setdefault((piece.tile.number, piece.label), []).append(piece)
        return sorted(objects, key=lambda o: -o.pieces[0].score)

    def _neighbours(self) -> dict[int, list[int]]:
        """Numbers of the tiles that overlap each tile."""
        tiles = {piece.tile.number: piece.tile.place for piece in self._pieces}
        return {
            number: [n for n, other in tiles.items() if n != number and not place.meet(other).is_empty]
            for number, place in tiles.items()
        }

    def _agreeing(
        self, piece: _Piece, neighbours: Sequence[int], placed: dict[tuple[int, int], list[_Piece]]
    ) -> Iterator[tuple[float, _Piece, bool]]:
        """Pieces of the same object in other tiles, with their IoU and whether they contain this piece."""
        for number in neighbours:
            others = placed.get((number, piece.label), [])
            if not others:
                continue
            boxes = np.stack([other.box for other in others])  # (others, 4)
            touching = (boxes[:, :2] < piece.box[2:] + 1).all(1) & (boxes[:, 2:] > piece.box[:2] - 1).all(1)
            for i in np.flatnonzero(touching).tolist():
                other = others[i]
                shared, piece_area, other_area = piece.shares(other)
                if shared == 0:
                    continue
                iou = shared / (piece_area + other_area - shared)
                contained = piece.is_cut and shared >= CONTAINED * piece.area
                contains = other.is_cut and shared >= CONTAINED * other.area
                if iou >= self.iou_threshold or contained or contains:
                    yield iou, other, contained

    @staticmethod
    def _merge(into: _Object, other: _Object, owner: dict[int, _Object]) -> None:
        into.pieces = sorted([*into.pieces, *other.pieces], key=lambda piece: -piece.score)
        into.tiles |= other.tiles
        for piece in other.pieces:
            owner[id(piece)] = into


@dataclass
class _Segment:
    """A segment of the whole image, while tiles are being joined.

    Attributes:
        label, is_thing, score: see :class:`detrex.modeling.PanopticInference`.
        tiles: numbers of the tiles that contain it.
    """

    label: int
    is_thing: bool
    score: float
    tiles: set[int] = field(default_factory=set)


class PanopticSeams:
    """Joins segments across tiles; stuff of one class is one segment.

    Args:
        size: (height, width) of the image in pixels.
        iou_threshold: see :class:`InstanceSeams`.
    """

    def __init__(self, size: tuple[int, int], iou_threshold: float = 0.5):
        self.size, self.iou_threshold = size, iou_threshold
        self._canvas = new_map(size, np.int32)
        self._segments: list[_Segment] = []
        self._parents: list[int] = []
        self._recent: list[tuple[Tile, np.ndarray]] = []  # tiles that later ones may overlap

    def add(self, tile: Tile, ids: Tensor, segments: Sequence[dict[str, Any]]) -> None:
        """Adds the segments of a tile, in the frame of the tile; call it row by row.

        Args:
            tile: the tile.
            ids: (h, w) segment ids.
            segments: of the tile.
        """
        numbers = np.zeros(max((s["id"] for s in segments), default=0) + 1, np.int32)
        stuff = {s.label: i for i, s in enumerate(self._segments) if not s.is_thing}
        for segment in segments:
            label, is_thing = segment["category_id"], bool(segment["isthing"])
            if not is_thing and label in stuff:
                number = stuff[label]
                self._segments[number].score = max(self._segments[number].score, float(segment["score"]))
            else:
                number = len(self._segments)
                self._segments.append(_Segment(label, is_thing, float(segment["score"]), {tile.number}))
                self._parents.append(number)
                if not is_thing:
                    stuff[label] = number
            numbers[segment["id"]] = number + 1
        placed = numbers[ids.cpu().numpy()]  # (h, w)
        self._recent = [(t, m) for t, m in self._recent if t.place.bottom > tile.place.top]
        for other, map_ in self._recent:
            self._link(tile, placed, other, map_)
        self._recent.append((tile, placed))
        core, place = tile.core, tile.place
        self._canvas[core.top : core.bottom, core.left : core.right] = _inside(placed, place, core)

    def joined(self) -> tuple[Tensor, list[dict[str, Any]]]:
        """Segment ids (H, W) int32 and segments; see :class:`detrex.modeling.PanopticInference`."""
        roots = np.array([0, *(1 + self._root(i) for i in range(len(self._parents)))], np.int32)
        areas = np.zeros(len(roots), np.int64)  # (segments + 1,)
        for rows in self._bands():
            rows[:] = roots[rows]
            areas += np.bincount(rows.ravel(), minlength=len(roots))
        final = np.zeros(len(roots), np.int32)
        segments: list[dict[str, Any]] = []
        for number in np.flatnonzero(areas[1:]).tolist():
            segment = self._segments[number]
            final[number + 1] = len(segments) + 1
            segments.append(
                {
                    "id": len(segments) + 1,
                    "category_id": segment.label,
                    "isthing": segment.is_thing,
                    "score": segment.score,
                }
            )
        for rows in self._bands():
            rows[:] = final[rows]
        return as_tensor(self._canvas), segments

    def _bands(self) -> Iterator[np.ndarray]:
        yield from (self._canvas[first : first + _ROWS] for first in range(0, self.size[0], _ROWS))

    def _link(self, tile: Tile, ids: np.ndarray, other: Tile, other_ids: np.ndarray) -> None:
        """Joins things that agree in the overlap of two tiles."""
        seen = tile.place.meet(other.place)
        if seen.is_empty:
            return
        ids_seen, other_ids_seen = _inside(ids, tile.place, seen), _inside(other_ids, other.place, seen)
        count = len(self._segments) + 1
        pairs, shared = np.unique(
            ids_seen.astype(np.int64).ravel() * count + other_ids_seen.ravel(), return_counts=True
        )
        own_areas, other_areas = (
            dict(zip(*(a.tolist() for a in np.unique(m, return_counts=True)), strict=True))
            for m in (ids_seen, other_ids_seen)
        )
        agreeing = []
        for pair, both in zip(pairs.tolist(), shared.tolist(), strict=True):
            i, j = divmod(pair, count)
            if i and j and self._may_be_one(i - 1, j - 1):
                union = own_areas[i] + other_areas[j] - both
                smaller = min(own_areas[i], other_areas[j])
                if both >= self.iou_threshold * union or both >= CONTAINED * smaller:
                    agreeing.append((both / union, i - 1, j - 1))
        for _, i, j in sorted(agreeing, reverse=True):
            a, b = self._root(i), self._root(j)
            if a != b and self._segments[a].tiles.isdisjoint(self._segments[b].tiles):
                first, second = min(a, b), max(a, b)
                self._parents[second] = first
                kept, gone = self._segments[first], self._segments[second]
                kept.tiles |= gone.tiles
                kept.score = max(kept.score, gone.score)

    def _may_be_one(self, i: int, j: int) -> bool:
        first, second = self._segments[i], self._segments[j]
        return first.is_thing and second.is_thing and first.label == second.label

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            number = self._parents[number]
        return number


class SemanticSeams:
    """Joins class maps of tiles: the class of a pixel comes from the tile whose core contains it.

    Args:
        size: (height, width) of the image in pixels.
    """

    def __init__(self, size: tuple[int, int]):
        self._canvas = new_map(size, np.int32)

    def add(self, tile: Tile, classes: Tensor) -> None:
        """Adds class indices (h, w) of a tile."""
        core = tile.core
        class_ids = _inside(classes.cpu().numpy(), tile.place, core)  # (rows, columns) of the core
        self._canvas[core.top : core.bottom, core.left : core.right] = class_ids

    def joined(self) -> Tensor:
        """The joined map of class indices, (H, W) int32."""
        return as_tensor(self._canvas)


def new_map(size: tuple[int, int], kind: type) -> np.ndarray:
    """Zeros (H, W); a large map lies in a temporary file, which is deleted with it."""
    if size[0] * size[1] * np.dtype(kind).itemsize <= MAP_IN_MEMORY:
        return np.zeros(size, kind)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=kind, mode="w+", shape=size)


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory and may be changed in place."""
    with torch.inference_mode(False):
        return torch.from_numpy(array)


def _inside(array: np.ndarray, place: Rectangle, part: Rectangle) -> np.ndarray:
    """The pixels of ``part`` of the image, from an array that covers ``place``."""
    return array[
        part.top - place.top : part.bottom - place.top, part.left - place.left : part.right - place.left
    ]


def _box_inside(box: np.ndarray, region: np.ndarray) -> np.ndarray:
    return np.concatenate([np.maximum(box[:2], region[:2]), np.minimum(box[2:], region[2:])])


def _box_area(box: np.ndarray) -> float:
    return float((box[2:] - box[:2]).clip(min=0).prod())
