"""Reads results from files: COCO's result format for boxes and masks, and its panoptic format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detrex.data.coco.json_stream import read_json
from detrex.data.coco.keys import PANOPTIC, RESULT, SEGMENT, read_entry, short
from detrex.data.coco.object_reader import mask_box
from detrex.data.coco.panoptic import read_segment_ids
from detrex.data.coco.segmentation import Segmentation as Mask
from detrex.data.coco.segmentation import read_segmentation, to_rle
from detrex.data.errors import DataError
from detrex.data.file_names import check_name
from detrex.evaluation.panoptic_quality import Segmentation
from detrex.structures import Categories, Instances, RunLengthMasks

INSTANCE_FILE, PANOPTIC_FILE = "coco_instances_results.json", "panoptic_results.json"
"""Files of :class:`detrex.evaluation.CocoEvaluator` and :class:`detrex.evaluation.PanopticEvaluator`."""

_EXPECTED = (
    "Expected are COCO results, a list of {image_id, category_id, score, bbox and/or segmentation}, or COCO "
    "panoptic results, {annotations: [{image_id, file_name, segments_info}]} with their PNGs in the folder "
    "of the same name. CocoEvaluator and PanopticEvaluator write them to their output_dir."
)


class _Result(NamedTuple):
    """A checked entry of a result file; ``box`` is (x, y, width, height), ``mask`` is as in the JSON file."""

    category_id: int
    score: float
    box: tuple[float, float, float, float] | None
    mask: Any


class SavedInstances:
    """Boxes, masks or both of a COCO result file.

    Attributes:
        path: of the file.
        image_ids: of the images with at least one result, in the file's order.
        has_masks: whether the results have masks.
    """

    def __init__(self, path: Path, entries: Sequence[Any], categories: Categories) -> None:
        self.path = path
        self._categories = categories
        self._results: dict[Hashable, list[_Result]] = defaultdict(list)
        with_masks = 0
        for number, entry in enumerate(entries):
            image_id, result = self._read(entry, number)
            self._results[image_id].append(result)
            with_masks += result.mask is not None
        if with_masks not in (0, len(entries)):
            raise DataError(
                f"{path}: {with_masks} of {len(entries)} results have a 'segmentation'. Give either all of "
                "them one, or none."
            )
        self.has_masks = with_masks > 0
        self.image_ids = list(self._results)

    def read(self, image_id: Hashable, height: int, width: int) -> Instances:
        """The results of an image of ``height`` x ``width`` pixels, by descending score; there may be none.

        Raises:
            DataError: a mask has a different size than the image, or cannot be decoded.
        """
        results = sorted(self._results.get(image_id, []), key=lambda r: -r.score)
        where = f"{self.path}: a result for image id {image_id}"
        masks = [read_mask(r.mask, height, width, where) for r in results] if self.has_masks else []
        boxes = [_corners(r.box) for r in results if r.box is not None]
        if len(boxes) < len(results):
            boxes = [
                mask_box(mask, (height, width)) if r.box is None else _corners(r.box)
                for r, mask in zip(results, masks, strict=True)
            ]
        classes = [self._categories.index_of[r.category_id] for r in results]
        return Instances(
            image_size=(height, width),
            pred_boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            scores=torch.tensor([r.score for r in results], dtype=torch.float32),
            pred_classes=torch.tensor(classes, dtype=torch.int64),
            pred_masks=RunLengthMasks((height, width), [to_rle(m, height, width) for m in masks])
            if self.has_masks
            else None,
        )

    def _read(self, entry: Any, number: int) -> tuple[Hashable, _Result]:
        where = f"{self.path}: result {number}"
        image_id, category_id, score, box, mask = read_entry(entry, RESULT, "entry", where)
        where = f"{where} (image id {image_id})"
        if category_id not in self._categories.index_of:
            raise DataError(_unknown_category(where, category_id))
        if box is None and entry.get("bbox"):
            raise DataError(f"{where} has {short(entry['bbox'])} as 'bbox'; expected are finite numbers.")
        if box is None and mask is None:
            raise DataError(f"{where} has neither 'bbox' nor 'segmentation'.")
        return image_id, _Result(category_id, score, box, mask)


class SavedPanoptic:
    """Segments of a COCO panoptic result file; its PNGs are in the folder of the same name without suffix.

    Attributes:
        path: of the file.
        image_ids: of the images, in the file's order.
    """

    def __init__(self, path: Path, entries: Sequence[Any], categories: Categories) -> None:
        self.path = path
        self._segments: dict[Hashable, tuple[str, list[tuple[int, int, bool]]]] = {}
        self._folder = path.with_suffix("")
        for number, entry in enumerate(entries):
            image_id, name, listed = read_entry(entry, PANOPTIC, "entry", f"{path}: result {number}")
            where = f"{path}: image id {image_id}"
            check_name(name, where)
            segments = []
            for segment in listed:
                segment_id, category_id, _, _ = read_entry(segment, SEGMENT, "segment", where)
                if category_id not in categories.index_of:
                    raise DataError(_unknown_category(where, category_id))
                segments.append((segment_id, categories.index_of[category_id], False))
            self._segments[image_id] = name, segments
        if not self._folder.is_dir():
            raise FileNotFoundError(f"{self._folder}: no such directory (the PNGs of {path})")
        self.image_ids = list(self._segments)

    def read(self, image_id: Hashable, height: int, width: int) -> tuple[Tensor, list[dict[str, int]]]:
        """The result of an image of ``height`` x ``width`` pixels, as a model returns it in ``panoptic_seg``.

        Returns:
            (H, W) int32 segment ids, 0 for no segment; and for each segment ``id`` and ``category_id``, which
            is a class index.

        Raises:
            DataError: there is no result, its PNG is missing or has the wrong size, or contradicts the JSON.
        """
        if image_id not in self._segments:
            raise DataError(f"{self.path} has no result for image id {image_id}.")
        name, segments = self._segments[image_id]
        ids = read_segment_ids(self._folder / name, (height, width))
        try:
            found = Segmentation.from_lists(ids, segments)
        except ValueError as error:
            raise DataError(f"image {image_id} of {self.path} and {self._folder / name}: {error}") from error
        infos = zip(found.segment_ids.tolist(), found.classes.tolist(), strict=True)
        return torch.from_numpy(ids), [{"id": i, "category_id": k} for i, k in infos]


def read_saved_results(
    path: str | Path, categories: Categories, file_names: Mapping[Hashable, str]
) -> SavedInstances | SavedPanoptic:
    """Reads results from a file.

    Args:
        path: JSON file, or the folder in which an evaluator has written one.
        categories: of the data set; their ids are those of the file.
        file_names: of the data set's images by id. If the file lists images, the names are compared.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file holds no results, or they do not fit the data set.
    """
    path = _file(Path(path))
    content = _read(path)
    entries = content.get("annotations") if isinstance(content, Mapping) else content
    if not isinstance(entries, list):
        raise DataError(f"{path} holds no results. {_EXPECTED}")
    if isinstance(content, Mapping):
        _compare_names(content.get("images", []), file_names, path)
    if any(isinstance(entry, Mapping) and "segments_info" in entry for entry in entries):
        return SavedPanoptic(path, entries, categories)
    if entries and not any(isinstance(entry, Mapping) and "score" in entry for entry in entries):
        raise DataError(f"{path} holds no scores: is it an annotation file? {_EXPECTED}")
    return SavedInstances(path, entries, categories)


def read_mask(segmentation: Any, height: int, width: int, where: str) -> Mask:
    """The checked mask of a result; a mask without pixels is an empty RLE.

    Args:
        segmentation: a list of polygons or an RLE, as in the JSON file.
        height, width: of the image in pixels.
        where: for messages.

    Raises:
        DataError: the segmentation is neither, or does not fit the image.
    """
    try:
        found = read_segmentation(segmentation, (height, width))
        return found[0] if found else _empty_mask(height, width)
    except ValueError as error:
        raise DataError(f"{where}: its 'segmentation' {error}. Found: {short(segmentation)}") from error


def _empty_mask(height: int, width: int) -> Mask:
    (rle,) = RunLengthMasks.encode(torch.zeros(1, height, width, dtype=torch.bool)).rles
    return Mask(counts=rle["counts"])


def _corners(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    there = [path / name for name in (INSTANCE_FILE, PANOPTIC_FILE) if (path / name).is_file()]
    if len(there) == 1:
        return there[0]
    if there:
        raise DataError(f"{path} holds {' and '.join(p.name for p in there)}: give the path of one of them.")
    raise DataError(
        f"{path} holds neither {INSTANCE_FILE} nor {PANOPTIC_FILE}, which evaluators write to their "
        "output_dir. Evaluate with dataloader.evaluators.NAME.output_dir=DIR, or give the path of a file."
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {_EXPECTED}")
    try:
        return read_json(path)
    except DataError as error:
        raise DataError(f"{path} is not JSON ({error.__cause__}). {_EXPECTED}") from error


def _compare_names(listed: Sequence[Mapping], file_names: Mapping[Hashable, str], path: Path) -> None:
    for image in listed:
        name, known = image.get("file_name"), file_names.get(image.get("id"))
        if name is not None and known is not None and Path(name).name != Path(known).name:
            raise DataError(
                f"{path}: image id {image['id']} is {name} there, but {known} in the data set. Its image ids "
                "are not those of the data set."
            )


def _unknown_category(where: str, category_id: Any) -> str:
    return (
        f"{where} has category id {category_id}, which the data set does not have. Were the results made for "
        "another data set, or with class indices instead of category ids?"
    )
