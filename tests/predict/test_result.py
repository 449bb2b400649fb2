"""Results as pictures, and in the formats of other tools, read back by those or by hand."""

import base64
import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from detrex.predict import Result
from detrex.structures import Categories
from detrex.visualization import draw_instances, draw_panoptic, draw_semantic
from tests.made_instances import square_instances

HEIGHT, WIDTH = 48, 64
CATEGORIES = Categories(
    names=("cat", "dog", "sky"),
    ids=(3, 7, 90),
    is_thing=(True, True, False),
    colors=((200, 0, 0), (0, 200, 0), (0, 0, 200)),
)


@pytest.fixture
def result():
    """Two dogs and a cat; of the panoptic segments a dog, the sky and some pixels of none."""
    instances = square_instances(
        (1, 0.9, 2, 3, 10), (0, 0.6, 30, 20, 20), (1, 0.2, 40, 4, 6), size=(HEIGHT, WIDTH)
    )
    ids = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
    ids[3:13, 2:12] = 1
    ids[20:, :] = 300
    segments = [
        {"id": 1, "category_id": 1, "isthing": True, "score": 0.8},
        {"id": 300, "category_id": 2, "isthing": False, "score": 0.7},
    ]
    semantic = torch.full((HEIGHT, WIDTH), 2)
    semantic[3:13, 2:12] = 1
    image = torch.full((3, HEIGHT, WIDTH), 100, dtype=torch.uint8)
    return Result(image, CATEGORIES, "x.jpg", instances, (ids, segments), semantic)


@pytest.fixture
def boxes_alone(result):
    result.instances.pred_masks = result.panoptic = result.semantic = None
    return result


def same_picture(one, other):
    return one.size == other.size and np.array_equal(np.asarray(one), np.asarray(other))


def decode(rle):
    return torch.from_numpy(coco_mask.decode(rle)).bool()


def test_what_is_found_at_a_glance(result, boxes_alone):
    assert boxes_alone is result
    assert result.image_size == (HEIGHT, WIDTH)
    assert result.class_names == ["dog", "cat", "dog"] and result.classes.tolist() == [1, 0, 1]
    assert torch.equal(result.boxes[0], torch.tensor([2.0, 3.0, 12.0, 13.0]))
    assert len(result) == 3 and result.masks is None
    first, *_ = list(result)
    assert first.box == (2, 3, 12, 13) and first.class_name == "dog" and first.mask is None
    assert repr(first) == "<Detection dog 90% at (2.0, 3.0, 12.0, 13.0)>"
    assert repr(result) == "<Result x.jpg, 48 x 64: 2 dog, 1 cat>"


def test_repr_tells_all_kinds(result):
    text = "panoptic segments: 1 dog, 1 sky; semantic classes: dog, sky>"
    assert repr(result) == f"<Result x.jpg, 48 x 64: 2 dog, 1 cat; {text}"
    empty = Result(result.image, CATEGORIES, instances=square_instances(size=(HEIGHT, WIDTH)))
    assert repr(empty) == "<Result image, 48 x 64: no objects>"


def test_objects_by_number(result):
    assert result[0].class_name == "dog" and result[-1].score == pytest.approx(0.2)
    assert torch.equal(result[1].mask, result.masks[1])
    best = result[:2]
    assert isinstance(best, Result) and best.class_names == ["dog", "cat"] and len(result[5:]) == 0
    assert len(result) == 3 and best.panoptic is result.panoptic
    for index in (3, -4):
        with pytest.raises(IndexError, match="there are 3 objects"):
            result[index]
    result.instances = None
    assert len(result[:2]) == 0
    with pytest.raises(IndexError):
        result[0]


@pytest.mark.parametrize(
    ("settings", "objects", "segments"),
    [
        ({}, [0, 1, 2], [1, 300]),
        ({"classes": "dog"}, [0, 2], [1]),
        ({"classes": 0}, [1], []),
        ({"classes": ["cat", 1], "score": 0.5}, [0, 1], [1]),
        ({"classes": {"sky"}}, [], [300]),
        ({"score": 0.75}, [0], [1]),
        ({"classes": []}, [], []),
    ],
)
def test_a_part_of_the_classes_and_scores(result, settings, objects, segments):
    everything = repr(result), result.panoptic[0].clone()
    part = result.filter(**settings)
    assert torch.equal(part.boxes, result.boxes[objects]) and torch.equal(part.masks, result.masks[objects])
    assert [s["id"] for s in part.panoptic[1]] == segments
    for segment in (1, 300):
        inside = result.panoptic[0] == segment
        assert torch.equal(part.panoptic[0] == segment, inside if segment in segments else inside & False)
    assert part.semantic is result.semantic
    assert repr(result) == everything[0] and torch.equal(result.panoptic[0], everything[1])


def test_what_was_asked_for_is_drawn(result):
    part = result.filter(score=0.1)
    assert same_picture(part.draw("instance"), result.draw("instance", score_threshold=0.1))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("dogs", "no class 'dogs'; did you mean 'dog'"),
        (7, "no class 7; there are cat, dog"),
        (-1, "class -1"),
    ],
)
def test_classes_that_there_are_not(result, classes, message):
    with pytest.raises(ValueError, match=message):
        result.filter(classes)


def test_notebooks_show_the_picture(result):
    result.file_name = "<b>.jpg"
    content = result._repr_png_()
    assert same_picture(Image.open(io.BytesIO(content)), result.draw())
    page = result._repr_html_()
    assert base64.b64encode(content).decode() in page
    assert "&lt;b&gt;.jpg, 48 x 64: 2 dog, 1 cat" in page and "<b>" not in page
    nothing = Result(result.image, CATEGORIES)
    assert nothing._repr_png_() is None and "<img" not in nothing._repr_html_()


def test_showing_a_picture(result, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda picture, title: shown.append((picture, title)))
    result.show("instance", min_size=1)
    ((picture, title),) = shown
    assert same_picture(picture, result.draw("instance", min_size=1)) and title == "x.jpg"
    notebook = SimpleNamespace(get_ipython=object, display=SimpleNamespace(display=shown.append))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    result.show()
    assert same_picture(shown[1], result.draw())


def test_a_table(result):
    pandas = pytest.importorskip("pandas")
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table.iloc[1].to_dict() == pytest.approx(
        dict(
            class_name="cat",
            class_index=0,
            category_id=3,
            score=0.6,
            x0=30,
            y0=20,
            x1=50,
            y1=40,
            mask_area=400,
        )
    )
    result.instances.pred_masks = None
    assert "mask_area" not in result.to_pandas() and len(result.filter("sky").to_pandas()) == 0


def test_detections_have_their_masks(result):
    assert torch.equal(torch.stack([d.mask for d in result]), result.masks)


def test_without_instances_there_are_no_objects(result):
    result.instances = None
    assert len(result) == 0 and list(result) == [] and result.tasks == ("panoptic", "semantic")
    for name in ("boxes", "scores", "classes", "class_names", "masks"):
        with pytest.raises(ValueError, match=r"no instance results here, but panoptic, semantic"):
            getattr(result, name)
    with pytest.raises(ValueError, match=r"no instance results"):
        result.to_coco()


def test_coco_results_are_read_by_pycocotools(result):
    found = json.loads(json.dumps(result.to_coco(image_id=5)))
    images = [{"id": 5, "height": HEIGHT, "width": WIDTH}]
    truth = COCO()
    truth.dataset = {"images": images, "categories": [{"id": i} for i in CATEGORIES.ids], "annotations": []}
    truth.createIndex()
    coco = truth.loadRes(found)
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[5]))
    assert [a["category_id"] for a in annotations] == [7, 3, 7]
    assert [a["bbox"] for a in annotations] == [[2, 3, 10, 10], [30, 20, 20, 20], [40, 4, 6, 6]]
    assert [a["score"] for a in annotations] == pytest.approx([0.9, 0.6, 0.2])
    masks = torch.stack([torch.from_numpy(coco.annToMask(a)).bool() for a in annotations])
    assert torch.equal(masks, result.masks)


def test_coco_results_of_boxes_alone(boxes_alone):
    assert [set(r) for r in boxes_alone.to_coco()] == [{"image_id", "category_id", "bbox", "score"}] * 3


def test_coco_panoptic(result, tmp_path):
    entry, picture = result.to_coco_panoptic(image_id="a", file_name="a.png")
    picture.save(tmp_path / "a.png")
    rgb = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 256 * 256 * rgb[..., 2]
    assert np.array_equal(ids, result.panoptic[0].numpy())
    assert json.loads(json.dumps(entry)) == {
        "image_id": "a",
        "file_name": "a.png",
        "segments_info": [
            {
                "id": 1,
                "category_id": 7,
                "isthing": 1,
                "area": 100,
                "bbox": [2, 3, 10, 10],
                "iscrowd": 0,
                "score": 0.8,
            },
            {
                "id": 300,
                "category_id": 90,
                "isthing": 0,
                "area": 28 * 64,
                "bbox": [0, 20, 64, 28],
                "iscrowd": 0,
                "score": 0.7,
            },
        ],
    }


def test_coco_semantic(result):
    entries = json.loads(json.dumps(result.to_coco_semantic(image_id=5)))
    assert [(e["image_id"], e["category_id"]) for e in entries] == [(5, 7), (5, 90)]
    assert torch.equal(decode(entries[0]["segmentation"]), result.semantic == 1)
    assert torch.equal(decode(entries[1]["segmentation"]), result.semantic == 2)


def test_plain_values(result):
    content = json.loads(json.dumps(result.to_dict()))
    assert (content["file_name"], content["height"], content["width"]) == ("x.jpg", HEIGHT, WIDTH)
    dog = content["instances"][0]
    assert (dog["class_name"], dog["category_id"], dog["box"]) == ("dog", 7, [2, 3, 12, 13])
    assert torch.equal(decode(dog["mask"]), result.masks[0])
    segment = content["panoptic"][1]
    assert (segment["class_name"], segment["id"], segment["area"]) == ("sky", 300, 28 * 64)
    assert torch.equal(decode(segment["mask"]), result.panoptic[0] == 300)
    assert [(s["class_name"], s["area"]) for s in content["semantic"]] == [
        ("dog", 100),
        ("sky", HEIGHT * WIDTH - 100),
    ]
    lean = result.to_dict(masks=False)
    parts = [*lean["instances"], *lean["panoptic"], *lean["semantic"]]
    assert not any("mask" in part for part in parts)


def test_plain_values_of_what_there_is(boxes_alone):
    content = boxes_alone.to_dict()
    assert set(content) == {"file_name", "height", "width", "instances"}
    assert "mask" not in content["instances"][0]


def test_supervision(result):
    supervision = pytest.importorskip("supervision")
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 3
    assert np.array_equal(detections.xyxy, result.boxes.numpy())
    assert np.array_equal(detections.mask, result.masks.numpy())
    dogs = detections[detections.data["class_name"] == "dog"]
    assert dogs.class_id.tolist() == [1, 1] and dogs.confidence == pytest.approx([0.9, 0.2])


def test_supervision_of_nothing():
    pytest.importorskip("supervision")
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    nothing = Result(image, CATEGORIES, instances=square_instances(size=(HEIGHT, WIDTH)))
    assert len(nothing.to_supervision()) == 0 and nothing.to_coco() == []


@pytest.mark.parametrize("package", ["supervision", "pandas"])
def test_without_a_package(result, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        getattr(result, f"to_{package}")()


def test_pictures_of_each_kind(result):
    image = result.image
    assert same_picture(
        result.draw("instance", score_threshold=0.1),
        draw_instances(image, result.instances, CATEGORIES, score_threshold=0.1),
    )
    assert same_picture(result.draw("panoptic"), draw_panoptic(image, result.panoptic, CATEGORIES))
    assert same_picture(result.draw("semantic"), draw_semantic(image, result.semantic, CATEGORIES))
    assert same_picture(result.draw(), result.draw("panoptic"))
    result.panoptic = None
    assert same_picture(result.draw(), result.draw("instance"))
    assert result.draw(min_size=1).size == (WIDTH, HEIGHT)


def test_drawn_is_what_was_asked_for(result):
    def drawn(threshold):
        return draw_instances(result.image, result.instances, CATEGORIES, score_threshold=threshold)

    assert not same_picture(drawn(0.1), drawn(0.5))
    assert same_picture(result.draw("instance"), drawn(0.3))
    result.drawn_from = 0.1
    assert same_picture(result.draw("instance"), drawn(0.1))
    assert same_picture(result.draw("instance", score_threshold=0.7), drawn(0.7))


def test_all_objects_are_drawn_where_a_threshold_was_asked_for():
    many = [(0, 0.5, 8 * (i % 16), 8 * (i // 16), 6) for i in range(128)]
    instances = square_instances(*many, size=(64, 128))
    image = torch.full((3, 64, 128), 100, dtype=torch.uint8)
    picture = Result(image, CATEGORIES, instances=instances, drawn_from=0.4).draw(min_size=1, labels=False)
    changed = (np.asarray(picture) != 100).any(-1)
    assert changed[instances.pred_masks.any(0).numpy()].mean() > 0.9
    assert changed[56:, 120:].any()


def test_saving_a_picture(result, tmp_path):
    path = result.save(tmp_path / "new/folder/x.png", kind="semantic")
    assert same_picture(Image.open(path), result.draw("semantic"))
    assert result.save(str(tmp_path / "x.jpg"), min_size=1).is_file()
    with pytest.raises(ValueError, match=r"\.unknown"):
        result.save(tmp_path / "x.unknown")
    assert not (tmp_path / "x.unknown").exists()


def test_pictures_that_there_are_not(boxes_alone):
    with pytest.raises(ValueError, match=r"no panoptic results here, but instance"):
        boxes_alone.draw("panoptic")
    with pytest.raises(ValueError, match=r"no task 'boxes'; there are instance, panoptic, semantic"):
        boxes_alone.draw("boxes")
