import json

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.data import CocoPanoptic, DataError


class PanopticFiles:
    def __init__(self, root):
        self.root = root
        for folder in ("images", "segments"):
            (root / folder).mkdir()
        self.content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "car", "isthing": 1}, {"id": 200, "name": "sky", "isthing": 0}],
        }

    def add(self, ids, segments):
        image_id = len(self.content["images"]) + 1
        name = f"{image_id}.png"
        Image.new("RGB", ids.shape[::-1]).save(self.root / "images" / name)
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        Image.fromarray(rgb).save(self.root / "segments" / name)
        height, width = ids.shape
        self.content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        self.content["annotations"].append(
            {"image_id": image_id, "file_name": name, "segments_info": segments}
        )

    def open(self, **options):
        path = self.root / "panoptic.json"
        path.write_text(json.dumps(self.content))
        return CocoPanoptic(self.root / "images", path, self.root / "segments", **options)


IDS = np.zeros((5, 8), int)
IDS[1:3, 2:7] = 70000
IDS[4] = 300


@pytest.fixture
def files(tmp_path):
    files = PanopticFiles(tmp_path)
    files.add(IDS, [{"id": 300, "category_id": 200}, {"id": 70000, "category_id": 3}])
    return files


def test_segments_become_objects(files):
    targets = files.open()[0]["targets"]
    assert targets.labels.tolist() == [1, 0]
    assert targets.is_thing.tolist() == [False, True]
    assert torch.equal(targets.masks, torch.from_numpy(np.stack([IDS == 300, IDS == 70000])))
    assert targets.boxes.tolist() == [[0, 4, 8, 5], [2, 1, 7, 3]]


def test_crowds_are_no_targets(files):
    files.add(IDS, [{"id": 300, "category_id": 200}, {"id": 70000, "category_id": 3, "iscrowd": 1}])
    files.add(IDS * (IDS == 300), [{"id": 300, "category_id": 3, "iscrowd": 1}])
    dataset = files.open()
    assert dataset[1]["targets"].labels.tolist() == [1]
    assert len(dataset[2]["targets"]) == 0 and dataset[2]["targets"].masks.shape == (0, 5, 8)


def test_image_without_segments_and_image_without_entry(files, caplog):
    files.add(IDS * 0, [])
    files.add(IDS * 0, [])
    del files.content["annotations"][2]
    dataset = files.open()
    assert [len(dataset[i]["targets"]) for i in range(3)] == [2, 0, 0]
    assert "1 images have no annotation and are used as empty (3.png)" in caplog.text


def test_evaluation_needs_no_pngs(files):
    (files.root / "segments/1.png").unlink()
    assert len(files.open(targets=False)[0]["targets"]) == 0


def test_missing_png_is_found_on_opening(files):
    (files.root / "segments/1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 1 files .*segments.*1.png \(image id 1\)"):
        files.open()


def test_png_and_json_that_disagree(files):
    files.content["annotations"][0]["segments_info"][0]["id"] = 301
    with pytest.raises(DataError, match=r"image id 1 disagree.*\[300\].*PNG only, \[301\]"):
        files.open()[0]


def test_png_of_another_size(files):
    Image.new("RGB", (9, 5)).save(files.root / "segments/1.png")
    with pytest.raises(DataError, match="segments/1.png has 5 x 9 .* has 5 x 8"):
        files.open()[0]


def test_png_that_is_not_rgb(files):
    Image.new("L", (8, 5)).save(files.root / "segments/1.png")
    with pytest.raises(DataError, match="segments/1.png is not an 8-bit RGB image"):
        files.open()[0]


BROKEN = {
    "segment id 300 has category id 4, which is not": lambda a: a[0]["segments_info"][0].update(
        category_id=4
    ),
    "of an annotation, image id 9, is not listed under 'images'": lambda a: a[0].update(image_id=9),
    "image id 1 is annotated twice": lambda a: a.append(a[0]),
    "annotation .* has no 'segments_info'": lambda a: a[0].pop("segments_info"),
    "segment .* has no 'id'": lambda a: a[0]["segments_info"][0].pop("id"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_errors_in_the_file_are_found_on_opening(files, message):
    BROKEN[message](files.content["annotations"])
    with pytest.raises(DataError, match=f"panoptic.json.*{message}"):
        files.open()


@pytest.mark.parametrize(
    ("images", "annotations", "segments"),
    [
        ("coco/val2017", "coco/annotations/panoptic_val2017.json", "coco/annotations/panoptic_val2017"),
        (
            "ade20k_sample/images/training",
            "ade20k_sample/panoptic_training.json",
            "ade20k_sample/panoptic/training",
        ),
        (
            "panopticapi_sample/input_images",
            "panopticapi_sample/panoptic_examples.json",
            "panopticapi_sample/panoptic_examples",
        ),
    ],
)
def test_real_data_has_the_areas_and_boxes_of_its_file(shared_data, images, annotations, segments):
    dataset = CocoPanoptic(shared_data / images, shared_data / annotations, shared_data / segments)
    content = json.loads((shared_data / annotations).read_text())
    listed = {a["image_id"]: a["segments_info"] for a in content["annotations"]}
    for i in range(min(6, len(dataset))):
        record = dataset[i]
        targets = record["targets"]
        infos = [s for s in listed[record["image_id"]] if not s["iscrowd"]]
        assert [dataset.categories.ids[k] for k in targets.labels] == [s["category_id"] for s in infos]
        assert targets.masks.flatten(1).sum(1).tolist() == [s["area"] for s in infos]
        for box, info in zip(targets.boxes.tolist(), infos, strict=True):
            x, y, w, h = info["bbox"]
            assert box == [x, y, x + w, y + h]


@pytest.mark.parametrize(
    ("is_thing", "stuff", "message"),
    [("0", [1], ""), (0.0, [1], ""), (None, [], "not all categories say"), (1, [], "all classes are things")],
)
def test_things_and_stuff(files, caplog, is_thing, stuff, message):
    files.content["categories"][1]["isthing"] = is_thing
    dataset = files.open()
    assert [k for k, thing in enumerate(dataset.categories.is_thing) if not thing] == stuff
    assert message in caplog.text if message else not caplog.records


SEGMENTS = {
    r"segment id 300 has 'x' as 'category_id'": {"id": 300, "category_id": "x"},
    r"segment id -3 has -3 as 'id'; expected is an integer from 1": {"id": -3, "category_id": 3},
    r"has 'yes' as 'iscrowd'": {"id": 300, "category_id": 3, "iscrowd": "yes"},
    r"segment 7 is not an object": 7,
    r"lists a segment id twice": {"id": 70000, "category_id": 3},
}


@pytest.mark.parametrize("message", SEGMENTS)
def test_wrong_segments_are_found_on_opening(files, message):
    files.content["annotations"][0]["segments_info"][0] = SEGMENTS[message]
    with pytest.raises(DataError, match=f"panoptic.json: image id 1.*{message}"):
        files.open()


@pytest.mark.parametrize("name", ["../1.png", "/1.png", 5, None])
def test_names_of_pngs(files, name):
    files.content["annotations"][0]["file_name"] = name
    with pytest.raises(DataError, match="panoptic.json.*image id 1|panoptic.json.*'image_id': 1"):
        files.open()
