"""COCO panoptic files: a JSON file, and a PNG of segment ids for each image."""

from __future__ import annotations

from array import array
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detrex.data.census import ObjectCounts, count_objects
from detrex.data.coco.categories import lists_things
from detrex.data.coco.keys import PANOPTIC, SEGMENT, entry_name, read_entry
from detrex.data.coco.opened import OpenedFile
from detrex.data.coco.reader import CocoReader, ReadOptions, class_index
from detrex.data.errors import DataError
from detrex.data.file_names import check_name
from detrex.data.image_io import read_label_map
from detrex.structures import Categories
from detrex.structures.panoptic import ids_from_rgb


class Segment(msgspec.Struct, array_like=True, frozen=True):
    """A segment as listed in the JSON file.

    Attributes:
        segment_id: the colour in the PNG, R + 256 G + 65536 B.
        category_id: the file's.
        is_crowd: whether it is a crowd.
    """

    segment_id: int
    category_id: int
    is_crowd: bool


class PanopticEntry(msgspec.Struct, array_like=True, frozen=True):
    """The annotation of an image: the name of its PNG, and its segments."""

    file_name: str
    segments: list[Segment]


class PanopticFile(OpenedFile[PanopticEntry]):
    """A checked COCO panoptic file (https://cocodataset.org/#format-data, arXiv 1801.00868).

    Args:
        where: JSON file.
        options: how to read it.

    Attributes:
        warnings: for its users.
        counts: of segments, by class and size.

    See :class:`~detrex.data.coco.opened.OpenedFile` for the others, and for errors.
    """

    def __init__(self, where: Path, options: ReadOptions):
        super().__init__(PanopticReader(where, options), PanopticEntry)
        header = self._store.header
        self.warnings: list[str] = header["warnings"]
        self.counts = msgspec.convert(header["counts"], ObjectCounts)

    def entry(self, index: int) -> PanopticEntry | None:
        """The annotation of image ``index``; None if it has none."""
        return next(iter(self._of_image(index)), None)


def read_segment_ids(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads the segment ids, (H, W) int32, 0 for no segment, of a panoptic PNG.

    Args:
        path: of the PNG, which is RGB, or RGBA without transparency.
        size: (height, width) that it must have.

    Raises:
        DataError: the PNG is missing or broken, or has a different size or kind.
    """
    colors = read_label_map(path, size)
    if (
        colors.ndim == 3
        and colors.shape[2] == 4
        and colors.dtype == np.uint8
        and (colors[..., 3] == 255).all()
    ):
        colors = colors[..., :3]
    if colors.ndim != 3 or colors.shape[2] != 3 or colors.dtype != np.uint8:
        raise DataError(f"{path} is not an 8-bit RGB image, as PNGs of segment ids are. Convert it.")
    return ids_from_rgb(colors)


def check_segments(segment_map: np.ndarray, entry: PanopticEntry, path: Path, image_id: int | str) -> None:
    """Raises :class:`DataError` unless PNG and JSON have the same segments.

    Args:
        segment_map: (H, W) integer segment ids.
        entry: the annotation of the image.
        path: of the PNG, for the message.
        image_id: for the message.
    """
    painted = set(np.unique(segment_map).tolist()) - {0}
    listed = {segment.segment_id for segment in entry.segments}
    if painted != listed:
        only_painted, only_listed = sorted(painted - listed)[:5], sorted(listed - painted)[:5]
        raise DataError(
            f"{path} and the annotation of image id {image_id} disagree: segment ids {only_painted} are in "
            f"the PNG only, {only_listed} in 'segments_info' only. Make the two agree."
        )


class PanopticReader(CocoReader):
    """Reads panoptic files; records are :class:`PanopticEntry`."""

    kind = "panoptic"

    def start(self) -> None:
        super().start()
        self._annotated: set[int] = set()
        self._image_of, self._category_ids = array("i"), array("q")
        self._crowd, self._areas = array("b"), array("d")

    def keep(self, annotation: Any) -> tuple[int, PanopticEntry] | None:
        image_id, name, segments = read_entry(annotation, PANOPTIC, "annotation", str(self.where))
        row = self.row_of(image_id, lambda: f"an annotation, image id {image_id},")
        if row.place in self._annotated:
            raise DataError(f"{self.where}: image id {image_id} is annotated twice. Take one of the two out.")
        self._annotated.add(row.place)
        where = f"{self.where}: image id {image_id}"
        check_name(name, where, self.options.leave_folder)
        kept = [self._segment(segment, row.place, where) for segment in segments]
        if len({segment.segment_id for segment in kept}) < len(kept):
            raise DataError(
                f"{where}: 'segments_info' lists a segment id twice. Every segment needs its own."
            )
        return row.place, PanopticEntry(name, kept)

    def check_classes(self, content: dict[str, Any]) -> None:
        """Warns if things and stuff are not distinguished."""
        self.tells_things = lists_things(content)
        if not self.tells_things:
            self.warnings.append(
                "not all categories say by 'isthing' (1 or 0) whether they are things or stuff: those are "
                "taken for "
                "things, of which every segment is an object of its own"
            )

    def summary(
        self, categories: Categories, owners: np.ndarray
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        del owners  # images of annotations; here, segments are counted
        bare = self.tally("images have no annotation and are used as empty", "image-unannotated")
        if self.annotated:
            for place, name in enumerate(self.names):
                if place not in self._annotated:
                    bare.add(partial(str, name))
        if bare.count:
            self.warnings.append(bare.message())
        if self.tells_things and all(categories.is_thing) and len(categories) > 1:
            self.warnings.append("all classes are things: there is no stuff, as panoptic data mostly has")
        counts = count_objects(
            len(self.places),
            len(categories),
            np.asarray(self._image_of, np.int64),
            class_index(categories, np.asarray(self._category_ids, np.int64)),
            np.asarray(self._crowd, bool),
            np.asarray(self._areas),
            {},
        )
        return {"counts": msgspec.to_builtins(counts)}, {}

    def _segment(self, entry: Any, image: int, where: str) -> Segment:
        segment_id, category_id, crowd, area = read_entry(entry, SEGMENT, "segment", where)
        self.use_category(
            category_id, lambda: f"{where.removeprefix(f'{self.where}: ')}: {entry_name(entry, 'segment')}"
        )
        self._image_of.append(image)
        self._category_ids.append(category_id)
        self._crowd.append(bool(crowd))
        self._areas.append(np.nan if area is None else area)
        return Segment(segment_id, category_id, bool(crowd))
