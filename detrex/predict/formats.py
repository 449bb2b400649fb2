"""Converts results to the formats of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torchvision.ops import box_convert

from detrex.structures import Categories, Instances, encode_masks
from detrex.structures.panoptic import rgb_from_ids

if TYPE_CHECKING:
    import pandas
    import supervision

ImageId = int | str


def instances_to_coco(
    instances: Instances, categories: Categories, image_id: ImageId
) -> list[dict[str, Any]]:
    """Converts objects to COCO's result format, ready for JSON.

    Returns:
        For each object ``image_id``, ``category_id`` (that of the annotation file), ``bbox`` (x, y, width,
        height in pixels), ``score`` and, if there are masks, ``segmentation`` (compressed RLE); in videos,
        also ``track_id``.
    """
    boxes = box_convert(instances.pred_boxes, "xyxy", "xywh").tolist()
    masks = instances.masks
    rles = [None] * len(boxes) if masks is None else masks.to_coco()
    tracks = [None] * len(boxes) if instances.track_ids is None else instances.track_ids.tolist()
    rows = zip(boxes, instances.scores.tolist(), instances.pred_classes.tolist(), rles, tracks, strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": categories.ids[label],
            "bbox": box,
            "score": score,
            **({} if rle is None else {"segmentation": rle}),
            **({} if track is None else {"track_id": track}),
        }
        for box, score, label, rle, track in rows
    ]


def panoptic_to_coco(
    ids: Tensor, segments: Sequence[dict[str, Any]], categories: Categories, image_id: ImageId, file_name: str
) -> tuple[dict[str, Any], Image.Image]:
    """Converts segments to COCO's panoptic format: an entry of ``annotations``, ready for JSON, and its PNG.

    Args:
        ids: (H, W) segment ids, 0 for no segment.
        segments: ``id``, ``category_id`` (class index) and ``score`` of each.
        categories: the model's classes.
        image_id: for the entry.
        file_name: of the PNG, for the entry.
    """
    infos = []
    numbers = ids.numpy()
    areas, places = np.bincount(numbers.ravel()), ndimage.find_objects(numbers)
    for segment in segments:
        rows, columns = places[segment["id"] - 1]
        label = segment["category_id"]
        infos.append(
            {
                "id": int(segment["id"]),
                "category_id": categories.ids[label],
                "isthing": int(categories.is_thing[label]),
                "area": int(areas[segment["id"]]),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": 0,
                "score": float(segment["score"]),
            }
        )
    entry = {"image_id": image_id, "file_name": file_name, "segments_info": infos}
    return entry, Image.fromarray(rgb_from_ids(numbers))


def semantic_to_coco(class_map: Tensor, categories: Categories, image_id: ImageId) -> list[dict[str, Any]]:
    """Converts a map of classes to COCO's stuff format, ready for JSON.

    Args:
        class_map: (H, W) class indices.
        categories: the model's classes.
        image_id: for the entries.

    Returns:
        For each class that occurs, ``image_id``, ``category_id`` and ``segmentation`` (compressed RLE).
    """
    present = class_map.unique()
    rles = encode_masks(class_map == present[:, None, None])
    return [
        {"image_id": image_id, "category_id": categories.ids[k], "segmentation": rle}
        for k, rle in zip(present.tolist(), rles, strict=True)
    ]


def instances_to_supervision(instances: Instances, categories: Categories) -> supervision.Detections:
    """Objects as ``supervision.Detections``, with class names in ``data["class_name"]``.

    Raises:
        ImportError: the package supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError(
            "to_supervision() needs the package supervision: pip install supervision"
        ) from error
    classes = instances.pred_classes.numpy()
    return supervision.Detections(
        xyxy=instances.pred_boxes.numpy(),
        mask=None if instances.pred_masks is None else instances.pred_masks.numpy(),
        confidence=instances.scores.numpy(),
        class_id=classes,
        tracker_id=None if instances.track_ids is None else instances.track_ids.numpy(),
        data={"class_name": np.array([categories.names[k] for k in classes], dtype=str)},
    )


def instances_to_pandas(instances: Instances, categories: Categories) -> pandas.DataFrame:
    """Objects as a table, one row each; for the columns, see :meth:`detrex.predict.Result.to_pandas`.

    Raises:
        ImportError: the package pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_pandas() needs the package pandas: pip install pandas") from error
    classes = instances.pred_classes.tolist()
    columns = {
        "class_name": [categories.names[k] for k in classes],
        "class_index": classes,
        "category_id": [categories.ids[k] for k in classes],
        "score": instances.scores.numpy(),
        **dict(zip(("x0", "y0", "x1", "y1"), instances.pred_boxes.numpy().T, strict=True)),
    }
    if (masks := instances.masks) is not None:
        columns["mask_area"] = masks.areas()
    return pandas.DataFrame(columns)
