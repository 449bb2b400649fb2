"""Writes the results of many images to one file in COCO's format."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from detrex.predict.result import Result
from detrex.runtime.files import replaced_file
from detrex.structures import Categories


class CocoFile:
    """Collects results of one task in a temporary file; :meth:`write` writes them as JSON.

    The file has ``images`` (``id``, ``file_name``, ``height``, ``width``), ``categories`` and
    ``annotations``. Instances and semantic classes have an annotation for each mask or box (instances with
    ``score``), as in COCO's instance and stuff files; panoptic results have one for each image, as in COCO's
    panoptic files, with PNGs in the folder that has the file's name without suffix.

    Args:
        path: of the JSON file.
        task: ``instance``, ``panoptic`` or ``semantic``.
        categories: the model's classes.
    """

    def __init__(self, path: str | Path, task: str, categories: Categories):
        self.path, self.task, self.categories = Path(path), task, categories
        self._images: list[dict[str, Any]] = []
        self._count = 0
        # On the disk, because there may be thousands of objects in thousands of images.
        self._annotations = tempfile.TemporaryFile("w+", encoding="utf-8")

    def add(self, result: Result, file_name: str, **details: Any) -> None:
        """Adds the results of an image.

        Args:
            result: with results of the task.
            file_name: of the image.
            details: further entries of the image, such as the number of a frame.
        """
        image_id = len(self._images) + 1
        height, width = result.image_size
        image = {"id": image_id, "file_name": file_name, "height": height, "width": width, **details}
        self._images.append(image)
        if self.task == "panoptic":
            self._keep(self._panoptic(result, image_id))
            return
        found = result.to_coco(image_id) if self.task == "instance" else result.to_coco_semantic(image_id)
        for entry in found:
            self._keep({"id": self._count + 1, **entry, "area": _area(entry), "iscrowd": 0})

    def write(self) -> Path:
        """Writes the file, completely or not at all, and returns its path."""
        names = self.categories
        categories = [
            {"id": i, "name": name, "isthing": int(thing), "color": list(color)}
            for i, name, thing, color in zip(
                names.ids, names.names, names.is_thing, names.colors, strict=True
            )
        ]
        content = json.dumps({"images": self._images, "categories": categories, "annotations": []})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._annotations.seek(0)
        with replaced_file(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(content.removesuffix("]}"))
            shutil.copyfileobj(self._annotations, file)
            file.write("]}")
        return self.path

    def _keep(self, annotation: dict[str, Any]) -> None:
        self._annotations.write(f"{', ' if self._count else ''}{json.dumps(annotation)}")
        self._count += 1

    def _panoptic(self, result: Result, image_id: int) -> dict[str, Any]:
        name = f"{image_id:06d}.png"
        entry, picture = result.to_coco_panoptic(image_id, name)
        folder = self.path.with_suffix("")
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
        return entry


def _area(entry: dict[str, Any]) -> float:
    if "segmentation" in entry:
        return float(coco_mask.area(entry["segmentation"]))
    return entry["bbox"][2] * entry["bbox"][3]
