import json

import numpy as np
import pytest
from PIL import Image


class CocoFiles:
    """A small COCO instance data set that tests build up, break and open."""

    def __init__(self, root):
        self.images = root / "images"
        self.annotations = root / "instances.json"
        self.images.mkdir()
        self.content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}

    def add_image(self, height=20, width=30, name=None, pixels=None):
        image_id = len(self.content["images"]) + 1
        name = name or f"{image_id}.png"
        if pixels is None:
            pixels = np.full((height, width, 3), image_id, np.uint8)
        Image.fromarray(pixels).save(self.images / name)
        entry = {"id": image_id, "file_name": name, "height": height, "width": width}
        self.content["images"].append(entry)
        return image_id

    def add_object(self, image_id, segmentation=((4, 2, 14, 2, 14, 10, 4, 10),), category_id=1, **more):
        if isinstance(segmentation, tuple):
            segmentation = [list(p) for p in segmentation]
        annotation = {
            "id": len(self.content["annotations"]) + 1,
            "image_id": image_id,
            "category_id": category_id,
            "segmentation": segmentation,
            "bbox": [4, 2, 10, 8],
            "iscrowd": 0,
            **more,
        }
        self.content["annotations"].append(annotation)
        return annotation

    def write(self):
        self.annotations.write_text(json.dumps(self.content))
        return self.images, self.annotations


@pytest.fixture
def coco(tmp_path):
    return CocoFiles(tmp_path)
