"""Reads results from files: COCO's result format for boxes and masks, and its panoptic format."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from detrex.data.annotation_files import read_json, require_keys
from detrex.data.errors import DataError
from detrex.data.rle import rle_length
from detrex.evaluation.panoptic_files import PanopticFiles
from detrex.structures import Categories, Instances

INSTANCE_FILE, PANOPTIC_FILE = "coco_instances_results.json", "panoptic_results.json"
"""What :class:`detrex.evaluation.CocoEvaluator` and :class:`detrex.evaluation.PanopticEvaluator` write."""

_EXPECTED = (
    "Expected are COCO results, a list of {image_id, category_id, score, bbox and/or segmentation}, or COCO "
    "panoptic results, {annotations: [{image_id, file_name, segments_info}]} with their PNGs in the folder "
    "of the same name. CocoEvaluator and PanopticEvaluator write them to their output_dir."
)


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
        self._entries: dict[Hashable, list[dict]] = defaultdict(list)
        for number, entry in enumerate(entries):
            self._check(entry, number)
            self._entries[entry["image_id"]].append(entry)
        with_masks = sum("segmentation" in entry for entry in entries)
        if with_masks not in (0, len(entries)):
            raise DataError(
                f"{path}: {with_masks} of {len(entries)} results have a 'segmentation'. Give either all of "
                "them one, or none."
            )
        self.has_masks = with_masks > 0
        self.image_ids = list(self._entries)

    def read(self, image_id: Hashable, height: int, width: int) -> Instances:
        """The results of an image of ``height`` x ``width`` pixels, by descending score; maybe none.

        Raises:
            DataError: a mask is for an image of another size, or cannot be decoded.
        """
        entries = sorted(self._entries.get(image_id, []), key=lambda e: -e["score"])
        masks = None
        if self.has_masks:
            where = f"{self.path}: a result for image id {image_id}"
            rles = [to_rle(e["segmentation"], height, width, where) for e in entries]
            decoded = coco_mask.decode(rles) if rles else np.zeros((height, width, 0), np.uint8)
            masks = torch.from_numpy(np.ascontiguousarray(decoded.transpose(2, 0, 1))).view(torch.bool)
            boxes = [
                e.get("bbox") or coco_mask.toBbox(r).tolist() for e, r in zip(entries, rles, strict=True)
            ]
        else:
            boxes = [e["bbox"] for e in entries]
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        classes = [self._categories.index_of[e["category_id"]] for e in entries]
        return Instances(
            image_size=(height, width),
            pred_boxes=corners,
            scores=torch.tensor([e["score"] for e in entries], dtype=torch.float32),
            pred_classes=torch.tensor(classes, dtype=torch.int64),
            pred_masks=masks,
        )

    def _check(self, entry: Any, number: int) -> None:
        require_keys(entry, ("image_id", "category_id", "score"), f"result {number}", self.path)
        where = f"{self.path}: result {number} (image id {entry['image_id']})"
        if entry["category_id"] not in self._categories.index_of:
            raise DataError(_unknown_category(where, entry["category_id"]))
        if not ("bbox" in entry or "segmentation" in entry):
            raise DataError(f"{where} has neither 'bbox' nor 'segmentation'.")
        box = entry.get("bbox", [0, 0, 0, 0])
        if not _numbers(box, 4) or not _numbers([entry["score"]], 1):
            raise DataError(f"{where}: 'score' or 'bbox' (x, y, width, height) is not of finite numbers.")


class SavedPanoptic:
    """Segments of a COCO panoptic result file, whose PNGs are in the folder named as it is, without suffix.

    Attributes:
        path: of the file.
        image_ids: of the images, in the file's order.
    """

    def __init__(self, path: Path, entries: Sequence[Any], categories: Categories) -> None:
        self.path = path
        for number, entry in enumerate(entries):
            require_keys(entry, ("image_id", "file_name", "segments_info"), f"result {number}", path)
            for segment in entry["segments_info"]:
                where = f"{path}: image id {entry['image_id']}"
                require_keys(segment, ("id", "category_id"), "segment", where)
                if segment["category_id"] not in categories.index_of:
                    raise DataError(_unknown_category(where, segment["category_id"]))
        self._files = PanopticFiles(path, path.with_suffix(""), categories)
        self.image_ids = [entry["image_id"] for entry in entries]
        self._known = set(self.image_ids)

    def read(self, image_id: Hashable, height: int, width: int) -> tuple[Tensor, list[dict[str, int]]]:
        """The result of an image of ``height`` x ``width`` pixels, as a model returns it in ``panoptic_seg``.

        Returns:
            (H, W) int32 segment ids, 0 for none; for each segment its ``id`` and ``category_id``, which is a
            class index.

        Raises:
            DataError: there is none, the PNG is missing or of another size, or it contradicts the JSON.
        """
        if image_id not in self._known:
            raise DataError(f"{self.path} has no result for image id {image_id}.")
        found = self._files.read(image_id)
        if found.ids.shape != (height, width):
            raise DataError(
                f"{self.path}: the PNG for image id {image_id} has {found.ids.shape} pixels (height, width), "
                f"but the image has {(height, width)}."
            )
        segments = zip(found.segment_ids.tolist(), found.classes.tolist(), strict=True)
        return torch.from_numpy(found.ids), [{"id": i, "category_id": k} for i, k in segments]


def read_saved_results(
    path: str | Path, categories: Categories, file_names: Mapping[Hashable, str]
) -> SavedInstances | SavedPanoptic:
    """Results from a file.

    Args:
        path: JSON file, or the folder in which an evaluator has written one.
        categories: of the data set; their ids are those of the file.
        file_names: of the data set's images by id. If the file lists images, they are compared.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it holds no results, or ones that do not fit the data set.
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


def to_rle(segmentation: Any, height: int, width: int, where: str) -> dict[str, Any]:
    """COCO's compressed RLE of a polygon list or an RLE; ``where`` is for messages.

    Raises:
        DataError: it is neither, or not of an image of ``height`` x ``width`` pixels.
    """
    polygons = segmentation if isinstance(segmentation, list) else []
    if polygons and all(_numbers(polygon) and len(polygon) >= 6 for polygon in polygons):
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= set(segmentation):
        raise DataError(f"{where} has a segmentation that is neither an RLE nor a list of polygons.")
    counts = segmentation["counts"]
    try:
        pixels = sum(counts) if isinstance(counts, list) else rle_length(counts)
    except ValueError as error:
        raise DataError(f"{where} has an RLE that cannot be decoded: {error}.") from error
    if list(segmentation["size"]) != [height, width] or pixels != height * width:
        raise DataError(
            f"{where} has an RLE of {pixels} pixels for the size {segmentation['size']}, but the image has "
            f"{height} x {width} (height x width)."
        )
    if isinstance(counts, list):
        return coco_mask.frPyObjects(dict(segmentation), height, width)
    return {"size": [height, width], "counts": counts}


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


def _numbers(values: Any, count: int | None = None) -> bool:
    return (
        isinstance(values, list)
        and (len(values) == count if count is not None else len(values) % 2 == 0)
        and all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    )
