"""Decides which annotations of a COCO instance file are objects, and with which box, area and mask."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as coco_mask

from detrex.data.census import count_objects
from detrex.data.coco.keys import OBJECT, entry_name, read_entry, short
from detrex.data.coco.reader import CocoReader, Tally, class_index
from detrex.data.coco.segmentation import Box, Extent, Segmentation, read_segmentation, to_rle
from detrex.structures import Categories

# A listed box is accepted if each of its sides is within so many pixels of the segmentation's, or if the IoU
# is so high: tools round in several ways, but a perfect result has to reach COCO's strictest IoU threshold.
_SIDE, _IOU = 1.5, 0.95
# A listed area is accepted if it differs by less than this factor or by fewer square pixels than this.
_AREA_FACTOR, _AREA_SLACK = 1.5, 16.0
_OUTSIDE = 1.0  # pixels by which a box may extend beyond its image without a warning
MANY = 0.2  # a warning if at least this share of objects are crowds, or of boxes extend beyond the image
# Coordinates that never exceed 100 may be per cent, if there are at least so many objects and images are at
# least twice as large.
_PER_CENT, _ENOUGH = 100.0, 10
_CROWD, _MASK = 1, 2  # bits

Name = Callable[[], str]


class CocoObject(msgspec.Struct, array_like=True, frozen=True):
    """A checked object.

    Attributes:
        category_id: the file's.
        is_crowd: whether it is a crowd, which is not a target, and which evaluation ignores.
        box: absolute xyxy in pixels, clipped to the image; the listed box if it fits the segmentation.
        area: in square pixels; the listed area if it fits.
        segmentation: None for an object that has only a box.
    """

    category_id: int
    is_crowd: bool
    box: Box
    area: float
    segmentation: Segmentation | None = None


@dataclass
class View:
    """Facts about a file for users of its masks, or for users of its boxes alone.

    Attributes:
        problem: the first error, if there is one.
        degenerate: objects that are left out.
        normalised: objects that are left out because all their coordinates are in 0..1.
        given: number of objects of this kind.
    """

    degenerate: Tally
    normalised: Tally
    problem: str | None = None
    given: int = 0


class ObjectReader(CocoReader):
    """Reads instance files; records are :class:`CocoObject`.

    The header's ``views`` hold the first error, warnings and numbers of objects, separately for users of
    masks and for users of boxes alone.
    """

    kind = "instances"

    def start(self) -> None:
        super().start()
        unit = "objects have all coordinates between 0 and 1 and are left out: are they normalised?"
        self.masks, self.boxes = (
            View(
                self.tally(f"objects with a degenerate {key} are left out", f"{key}-degenerate"),
                self.tally(unit, "normalised"),
            )
            for key in ("segmentation", "bbox")
        )
        self._unlike = self.tally(
            "objects have a 'bbox' that is not that of their segmentation, which is used instead",
            "bbox-unlike-mask",
        )
        self._wrong_areas = self.tally(
            "objects have an 'area' that cannot be right; it is computed", "area-wrong"
        )
        self._clipped = self.tally(
            "objects have a 'bbox' that reaches out of the image and is clipped", "bbox-outside"
        )
        self._like_corners, self._like_corners_outside, self._highest = 0, 0, 0.0
        self._flags, self._areas = array("B"), array("f")
        self._category_ids, self.digests = array("q"), array("q")

    def keep(self, annotation: Any) -> tuple[int, CocoObject] | None:
        image_id, category_id, crowd, listed, area, raw = read_entry(
            annotation, OBJECT, "annotation", str(self.where)
        )

        def name() -> str:
            return entry_name(annotation, "annotation")

        row = self.row_of(image_id, name)
        self.use_category(category_id, name)
        is_crowd = bool(crowd)
        shape = self._shape(raw, row.size, is_crowd, name)
        box = self._clip(listed, row.size, name)
        if shape is None:
            box = self._without_mask(box, listed, annotation, row.size, name)
            if box is None:
                return None
            segmentation, area = None, self._area(area, (box[2] - box[0]) * (box[3] - box[1]), 0.0, name)
        else:
            segmentation, extent = shape
            if box is None or not _fits(box, extent.box):
                if annotation.get("bbox"):
                    self._unlike.add(name)
                    self._like_corners += listed is not None and _fits(listed, extent.box)
                box = mask_box(segmentation, row.size)
            area = self._area(area, extent.area, extent.area / _AREA_FACTOR - _AREA_SLACK, name)
        self._highest = max(self._highest, max(box))
        self._note(row.place, category_id, is_crowd, box, area, segmentation)
        return row.place, CocoObject(category_id, is_crowd, box, area, segmentation)

    def summary(
        self, categories: Categories, owners: np.ndarray
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        flags = np.asarray(self._flags)
        crowd, with_mask = flags & _CROWD > 0, flags & _MASK > 0
        label = class_index(categories, np.asarray(self._category_ids))
        area = np.asarray(self._areas)
        self._warn(crowd)
        views, arrays = {}, {}
        for view, chosen, name in ((self.masks, with_mask, "masks"), (self.boxes, with_mask | True, "boxes")):
            left_out = {
                "have a degenerate segmentation or bbox": view.degenerate.count,
                "are normalised": view.normalised.count,
            }
            counts = count_objects(
                len(self.places),
                len(categories),
                owners[chosen],
                label[chosen],
                crowd[chosen],
                area[chosen],
                left_out,
            )
            self._check_unit(view, "segmentation" if view is self.masks else "bbox")
            tallies = [t for t in (view.degenerate, view.normalised) if t.count]
            views[name] = {
                "problem": view.problem,
                "warnings": [tally.message() for tally in tallies],
                "counts": msgspec.to_builtins(counts),
            }
            single = owners[chosen & ~crowd]
            arrays[f"learnable_{name}"] = np.bincount(single, minlength=len(self.places)).astype(np.int32)
        return {"views": views}, arrays

    def fail(self, view: View, kind: str, message: str) -> None:
        """Notes an error for users of masks or boxes, if it is the first one.

        Args:
            view: masks or boxes.
            kind: a key of :data:`detrex.data.check.findings.KINDS`.
            message: for users.
        """
        del kind  # used by readers that list all errors
        view.problem = view.problem or message

    def _shape(
        self, raw: Any, size: tuple[int, int], is_crowd: bool, name: Name
    ) -> tuple[Segmentation, Extent] | None:
        """The mask, or None; faults are noted for users of masks."""
        if raw is None or raw in ([], {}):
            if not is_crowd:
                self.fail(
                    self.masks,
                    "segmentation-missing",
                    f"{self.where}: {name()} has no 'segmentation'. Add masks, or use boxes only "
                    "(masks=False for the data set, tasks=['bbox'] for the evaluator).",
                )
            return None
        self.masks.given += 1
        try:
            shape = read_segmentation(raw, size)
        except ValueError as error:
            message = f"{self.where}: the 'segmentation' of {name()} {error}. Found: {short(raw)}"
            self.fail(self.masks, f"{'rle' if isinstance(raw, Mapping) else 'polygon'}-broken", message)
            return None
        if (shape is None or max(shape[1].box) <= 1) and max(size) > 1 and in_unit(raw):
            self.masks.normalised.add(name)
            return None
        if shape is None:
            self.masks.degenerate.add(name)
        return shape

    def _clip(self, listed: Box | None, size: tuple[int, int], name: Name) -> Box | None:
        """COCO's (x, y, width, height) as xyxy clipped to the image; None if nothing is left."""
        if listed is None:
            return None
        (x, y, w, h), (height, width) = listed, size
        x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
        if not (x1 > x0 and y1 > y0 and w > 0 and h > 0):
            return None
        if x0 - x > _OUTSIDE or y0 - y > _OUTSIDE or x + w - x1 > _OUTSIDE or y + h - y1 > _OUTSIDE:
            self._clipped.add(name)
            self._like_corners_outside += w > x and h > y and w <= width + _OUTSIDE and h <= height + _OUTSIDE
        return x0, y0, x1, y1

    def _without_mask(
        self,
        box: Box | None,
        listed: Box | None,
        annotation: Mapping[str, Any],
        size: tuple[int, int],
        name: Name,
    ) -> Box | None:
        """The box of an object that has no usable mask; None if the box cannot be used."""
        if listed is not None:
            self.boxes.given += 1
            if max(size) > 1 and in_unit(
                [[listed[0], listed[1], listed[0] + listed[2], listed[1] + listed[3]]]
            ):
                self.boxes.normalised.add(name)
                return None
            if box is None:
                self.boxes.degenerate.add(name)
        elif annotation.get("bbox"):
            self.fail(
                self.boxes,
                "bbox-broken",
                f"{self.where}: {name()} has {short(annotation['bbox'])} as 'bbox'; expected are four "
                "finite numbers x, y, width, height in pixels.",
            )
        elif annotation.get("segmentation"):
            self.boxes.degenerate.add(name)
        else:
            message = f"{self.where}: {name()} has neither 'bbox' nor 'segmentation'. Add one of them."
            self.fail(self.boxes, "no-shape", message)
        return box

    def _area(self, listed: float | None, computed: float, least: float, name: Name) -> float:
        """The listed area in square pixels if it is plausible, else the computed one."""
        if listed is None:
            return computed
        if 0 < listed <= computed * _AREA_FACTOR + _AREA_SLACK and listed >= least:
            return listed
        self._wrong_areas.add(name)
        return computed

    def _note(
        self,
        image: int,
        category_id: int,
        is_crowd: bool,
        box: Box,
        area: float,
        segmentation: Segmentation | None,
    ) -> None:
        self._flags.append(_CROWD * is_crowd + _MASK * (segmentation is not None))
        self._areas.append(area)
        self._category_ids.append(category_id)
        outline = None if segmentation is None else (segmentation.counts, *segmentation.polygons)
        self.digests.append(hash((image, category_id, box, outline)))

    def _check_unit(self, view: View, key: str) -> None:
        if view.given and view.normalised.count == view.given:
            view.problem = view.problem or (
                f"{self.where}: all {view.given} objects have a '{key}' with all coordinates between 0 and "
                "1: they are normalised. Multiply x by the width and y by the height of the image, as "
                "expected are pixels."
            )

    def _warn(self, crowd: np.ndarray) -> None:
        tallies = [self._unlike, self._wrong_areas, self._clipped]
        self.warnings += [tally.message() for tally in tallies if tally.count]
        count = len(crowd)
        if self.like_corners > MANY * count:
            self.warnings.append(
                f"{self.like_corners} boxes look as if they were x0, y0, x1, y1; expected are x, y, "
                f"width, height"
            )
        if crowd.sum() > MANY * count:
            self.warnings.append(
                f"{crowd.sum()} of {count} objects are crowds (iscrowd 1), which nothing is learned from; "
                "some tools "
                "write it for every mask: set 0 for single objects"
            )
        if twice := count - len(np.unique(np.asarray(self.digests))):
            self.warnings.append(f"{twice} annotations are listed twice: same image, category and shape")
        if self.is_per_cent(count):
            self.warnings.append(
                f"all coordinates are at most {_PER_CENT:g}, though images have at least {min(self.sizes)} "
                "pixels a side: are they per cent? Expected are pixels"
            )

    @property
    def like_corners(self) -> int:
        """Number of boxes that look like x0, y0, x1, y1, judged by their masks or else by where they end."""
        return self._like_corners or self._like_corners_outside

    def is_per_cent(self, objects: int) -> bool:
        """Whether the coordinates, of so many objects, look like per cent of the image's sides."""
        return objects >= _ENOUGH and self._highest <= _PER_CENT and min(self.sizes) >= 2 * _PER_CENT


def mask_box(segmentation: Segmentation, size: tuple[int, int]) -> Box:
    """Tight box around the pixels of a mask, absolute xyxy; ``size`` is the image's (height, width)."""
    x, y, width, height = coco_mask.toBbox(to_rle(segmentation, *size)).tolist()
    return x, y, x + width, y + height


def _fits(listed: Box, found: Box) -> bool:
    x0, y0, x1, y1 = listed
    if (
        abs(x0 - found[0]) <= _SIDE
        and abs(y0 - found[1]) <= _SIDE
        and abs(x1 - found[2]) <= _SIDE
        and abs(y1 - found[3]) <= _SIDE
    ):
        return True
    width = min(listed[2], found[2]) - max(listed[0], found[0])
    height = min(listed[3], found[3]) - max(listed[1], found[1])
    if width <= 0 or height <= 0:
        return False
    areas = ((b[2] - b[0]) * (b[3] - b[1]) for b in (listed, found))
    return width * height >= _IOU * (sum(areas) - width * height)


def in_unit(polygons: Any) -> bool:
    """Whether all coordinates are in 0..1, and at least one is not an integer."""
    if not isinstance(polygons, list):
        return False
    numbers = [number for polygon in polygons for number in polygon]
    return all(0 <= n <= 1 for n in numbers) and any(n not in (0, 1) for n in numbers)
