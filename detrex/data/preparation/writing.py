"""Writes COCO panoptic and instance files from label maps with numbered objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from detrex.data.errors import DataError
from detrex.runtime.files import replaced_file
from detrex.structures import Categories
from detrex.structures.panoptic import rgb_from_ids


class AnnotationWriter:
    """Gathers the segments of images.

    Args:
        categories: the classes that are kept.
        pngs: folder for PNGs of segment ids; None: no panoptic annotations.
    """

    def __init__(self, categories: Categories, pngs: Path | None = None):
        self.categories, self.pngs = categories, pngs
        self.images: list[dict[str, Any]] = []
        self.instances: list[dict[str, Any]] = []
        self.panoptic: list[dict[str, Any]] = []

    def add(
        self, image_id: int | str, file_name: str, ids: np.ndarray, segments: Mapping[int, tuple[int, bool]]
    ) -> None:
        """Adds an image.

        Args:
            image_id: of the image.
            file_name: relative to the folder of the images.
            ids: (H, W) integers, the segment of each pixel; ids that are not in ``segments`` are void.
            segments: for each id, the category id and whether it is a crowd.
        """
        height, width = ids.shape
        self.images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        kept = {i: s for i, s in segments.items() if s[0] in self.categories.index_of}
        infos = []
        for segment_id in sorted(kept):
            category_id, is_crowd = kept[segment_id]
            rle = coco_mask.encode(np.asfortranarray(ids == segment_id, np.uint8))
            area = int(coco_mask.area(rle))
            if not area:
                continue
            entry = {
                "category_id": category_id,
                "iscrowd": int(is_crowd),
                "area": area,
                "bbox": coco_mask.toBbox(rle).tolist(),
            }
            infos.append({"id": segment_id, **entry})
            if self.pngs is None:
                mask = {"size": [height, width], "counts": rle["counts"].decode("ascii")}
                number = len(self.instances) + 1
                self.instances.append({"id": number, "image_id": image_id, "segmentation": mask, **entry})
        if self.pngs is not None:
            name = f"{str(image_id).replace('/', '_')}.png"
            self.pngs.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb_from_ids(np.where(np.isin(ids, list(kept)), ids, 0))).save(self.pngs / name)
            self.panoptic.append({"image_id": image_id, "file_name": name, "segments_info": infos})

    def write(self, path: Path) -> str:
        """Writes the file and returns a description of its content.

        Raises:
            DataError: no image was added.
        """
        if not self.images:
            raise DataError(f"there are no images of which {path} could be made")
        annotations: Sequence[Any] = self.instances if self.pngs is None else self.panoptic
        rows = zip(self.categories.ids, self.categories.names, self.categories.is_thing, strict=True)
        categories = [{"id": i, "name": name, "isthing": int(thing)} for i, name, thing in rows]
        content = {"images": self.images, "annotations": annotations, "categories": categories}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        objects = (
            len(self.instances) if self.pngs is None else sum(len(a["segments_info"]) for a in self.panoptic)
        )
        return (
            f"{path}: {len(self.images)} images, {objects} {'objects' if self.pngs is None else 'segments'}"
        )
