"""Files of results, read by pycocotools."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detrex.predict.coco_file import CocoFile
from tests.predict.tiny_run import CATEGORIES, noise, read_json


@pytest.fixture
def results(predictor):
    return predictor.predict([noise(40, 60), noise(50, 30, 1)])


def written(path, task, results):
    file = CocoFile(path, task, CATEGORIES)
    for i, result in enumerate(results):
        file.add(result, f"clip {i}.mp4", frame=i)
    assert file.write() == path
    return read_json(path)


def test_instances(tmp_path, results):
    path = tmp_path / "new/found.json"
    content = written(path, "instance", results)
    assert content["images"] == [
        {"id": 1, "file_name": "clip 0.mp4", "height": 40, "width": 60, "frame": 0},
        {"id": 2, "file_name": "clip 1.mp4", "height": 50, "width": 30, "frame": 1},
    ]
    assert [(c["id"], c["name"], c["isthing"]) for c in content["categories"]] == [
        (3, "cat", 1),
        (7, "dog", 1),
        (9, "sky", 0),
    ]
    coco = COCO(path)
    for image_id, result in enumerate(results, start=1):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image_id]))
        assert [a["score"] for a in annotations] == pytest.approx(result.scores.tolist())
        for annotation, mask in zip(annotations, result.masks, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask.numpy())
            assert annotation["area"] == mask.sum()
    assert len(coco.anns) == sum(map(len, results)) > 5


def test_boxes_alone(tmp_path, results):
    for result in results:
        result.instances.pred_masks = None
    content = written(tmp_path / "x.json", "instance", results)
    for annotation in content["annotations"]:
        assert annotation["area"] == pytest.approx(annotation["bbox"][2] * annotation["bbox"][3])


def test_panoptic(tmp_path, results):
    content = written(tmp_path / "x.json", "panoptic", results)
    for entry, result in zip(content["annotations"], results, strict=True):
        rgb = np.asarray(Image.open(tmp_path / "x" / entry["file_name"])).astype(int)
        ids = rgb @ [1, 256, 65536]
        assert np.array_equal(ids, result.panoptic[0].numpy())
        assert {s["id"]: s["area"] for s in entry["segments_info"]} == {
            s["id"]: int((ids == s["id"]).sum()) for s in result.panoptic[1]
        }
    assert [entry["image_id"] for entry in content["annotations"]] == [1, 2]


def test_semantic(tmp_path, results):
    written(tmp_path / "x.json", "semantic", results)
    coco = COCO(tmp_path / "x.json")
    for image_id, result in enumerate(results, start=1):
        label_map = np.full(result.image_size, -1)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image_id])):
            label_map[coco.annToMask(annotation).astype(bool)] = CATEGORIES.index_of[
                annotation["category_id"]
            ]
        assert np.array_equal(label_map, result.semantic.numpy())


def test_a_file_without_images_is_valid(tmp_path):
    content = written(tmp_path / "x.json", "instance", [])
    assert content["images"] == content["annotations"] == [] and json.dumps(content)
