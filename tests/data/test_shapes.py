import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detrex.data.shapes import ensure_shapes, write_shapes_dataset
from detrex.data.shapes_scene import THINGS, draw_scene

SPLITS = {"train": 6, "val": 3}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_shapes_dataset(tmp_path_factory.mktemp("data") / "shapes", SPLITS, image_size=64, seed=3)


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_same_bytes_for_the_same_seed(shapes, tmp_path):
    again = write_shapes_dataset(tmp_path / "again", SPLITS, image_size=64, seed=3)
    assert files(again) == files(shapes)


def test_other_seed_gives_other_pictures(shapes, tmp_path):
    other = write_shapes_dataset(tmp_path / "other", {"val": 1}, image_size=64, seed=4)
    name = "val/000000.png"
    assert (other / name).read_bytes() != (shapes / name).read_bytes()


def test_splits_differ(shapes):
    assert (shapes / "train/000000.png").read_bytes() != (shapes / "val/000000.png").read_bytes()


def test_instances_panoptic_and_semantic_agree(shapes):
    coco = COCO(shapes / "annotations/instances_train.json")
    panoptic = json.loads((shapes / "annotations/panoptic_train.json").read_text())
    assert len(coco.imgs) == len(panoptic["annotations"]) == SPLITS["train"]
    for entry in panoptic["annotations"]:
        rgb = np.asarray(Image.open(shapes / "panoptic_train" / entry["file_name"]), np.int64)
        ids = rgb @ [1, 256, 256**2]
        semantic = np.asarray(Image.open(shapes / "semantic_train" / entry["file_name"]))
        assert set(np.unique(ids)) - {0} == {s["id"] for s in entry["segments_info"]}
        assert np.array_equal(semantic == 255, ids == 0)
        anns = iter(coco.imgToAnns[entry["image_id"]])
        for segment in entry["segments_info"]:
            mask = ids == segment["id"]
            assert mask.sum() == segment["area"]
            assert (semantic[mask] == segment["category_id"] - 1).all()
            if segment["category_id"] <= len(THINGS):
                ann = next(anns)
                assert np.array_equal(coco.annToMask(ann), mask)
                assert ann["category_id"] == segment["category_id"]
        assert next(anns, None) is None


def test_boxes_are_tight(shapes):
    coco = COCO(shapes / "annotations/instances_val.json")
    for ann in coco.anns.values():
        rows, columns = np.nonzero(coco.annToMask(ann))
        x, y, w, h = ann["bbox"]
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + w, y + h)


def test_a_scene_has_things_and_stuff_and_shows_all_of_them():
    for i in range(20):
        scene = draw_scene(np.random.default_rng(i), 96)
        things = [k for k in scene.classes if k < len(THINGS)]
        assert 1 <= len(things) <= 6
        assert 1 <= len(scene.classes) - len(things) <= 3
        assert np.bincount(scene.segments.ravel())[1:].min() >= 10
        assert (scene.segments == 0).mean() < 0.02


def test_second_call_writes_nothing_and_other_parameters_replace(tmp_path):
    root = write_shapes_dataset(tmp_path / "s", {"val": 2}, image_size=32)
    picture = root / "val/000000.png"
    before = picture.stat().st_mtime_ns
    assert ensure_shapes(root, {"val": 2}, 32, file="val/000000.png") == str(picture)
    assert picture.stat().st_mtime_ns == before
    write_shapes_dataset(root, {"val": 1}, image_size=48)
    assert Image.open(picture).size == (48, 48)
    assert not (root / "val/000001.png").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_does_not_replace_what_it_did_not_write(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="choose another root"):
        write_shapes_dataset(tmp_path, {"val": 1}, image_size=32)
    assert (tmp_path / "thesis.tex").exists()


def test_too_small_an_image_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least 32"):
        write_shapes_dataset(tmp_path / "s", {"val": 1}, image_size=16)
