"""Annotation files as tools write them: read right, refused with the place of the fault, or warned of."""

import copy
import math
import re

import pytest
import torch

from detrex.data import CocoInstances, DataError
from detrex.data.checks import require_objects
from detrex.evaluation import CocoEvaluator
from detrex.structures import Instances

SQUARE = [4, 2, 14, 2, 14, 10, 4, 10]
NAN = math.nan
RUNS = {"size": [20, 30], "counts": [82, 8, *[12, 8] * 9, 330]}


@pytest.fixture
def data(coco):
    """Two images with two objects each, of two classes."""
    coco.content["categories"] = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]
    for _ in range(2):
        image_id = coco.add_image()
        coco.add_object(image_id, (SQUARE,), area=80)
        coco.add_object(
            image_id, ([20, 5, 28, 5, 28, 18, 20, 18],), category_id=7, bbox=[20, 5, 8, 13], area=104
        )
    return coco


def perfect_ap(images, annotations, masks=True, **options):
    """Box and mask AP of the training targets as predictions."""
    dataset = CocoInstances(images, annotations, masks=masks)
    tasks = ["bbox", "segm"] if masks else ["bbox"]
    evaluator = CocoEvaluator(annotations, tasks=tasks, images=images, **options)
    for index, (image_id, _) in enumerate(dataset.image_names()):
        targets = dataset.targets(index)
        found = Instances(
            image_size=dataset.image_size(index),
            pred_boxes=targets.boxes,
            scores=torch.ones(len(targets)),
            pred_classes=targets.labels,
            pred_masks=targets.masks,
        )
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    metrics = evaluator.evaluate()
    return [metrics[f"{task}/AP"] for task in tasks]


def change_all(key, value):
    """Sets a key of every object; a function gets the old value."""

    def change(content):
        for annotation in content["annotations"]:
            old = annotation.get(key)
            annotation[key] = value(old) if callable(value) else copy.deepcopy(value)

    return change


def change_first(**values):
    return lambda content: content["annotations"][0].update(values)


def normalised(content):
    for annotation in content["annotations"]:
        annotation["segmentation"] = [
            [v / (30, 20)[i % 2] for i, v in enumerate(polygon)] for polygon in annotation["segmentation"]
        ]


def corners(content):
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width, y + height]


def text_ids(content):
    for annotation in content["annotations"]:
        annotation.update(image_id=str(annotation["image_id"]), category_id=str(annotation["category_id"]))


def mixed_ids(content):
    content["images"][1]["id"] = "b"
    for annotation in content["annotations"]:
        annotation["image_id"] = "b" if annotation["image_id"] == 2 else 1


SOUND = {
    "no area": change_all("area", None),
    "area NaN": change_all("area", NAN),
    "area as text": change_all("area", str),
    "iscrowd null": change_all("iscrowd", None),
    "iscrowd NaN": change_all("iscrowd", NAN),
    "iscrowd as text": change_all("iscrowd", "0"),
    "iscrowd false": change_all("iscrowd", False),
    "iscrowd 0.0": change_all("iscrowd", 0.0),
    "no boxes": change_all("bbox", None),
    "empty boxes": change_all("bbox", []),
    "hex colours": lambda c: [k.update(color="#de7ba5") for k in c["categories"]],
    "no colours": lambda c: [k.update(color=None) for k in c["categories"]],
    "colours that are none": lambda c: [k.update(color={"r": 1}) for k in c["categories"]],
    "categories listed twice": lambda c: c["categories"].extend(copy.deepcopy(c["categories"])),
    "no size": lambda c: [i.update(width=None, height=NAN) for i in c["images"]],
    "missing size": lambda c: [(i.pop("width"), i.pop("height")) for i in c["images"]],
    "size as text": lambda c: [i.update(width="30", height=20.0) for i in c["images"]],
    "ids as text": text_ids,
    "image ids as text": lambda c: [i.update(id=str(i["id"])) for i in c["images"]],
    "image ids of two types": mixed_ids,
    "coco_url": lambda c: [i.update(coco_url=f"http://x.org/a/{i.pop('file_name')}") for i in c["images"]],
    "ids as floats": change_all("category_id", float),
    "object ids from 0": lambda c: [a.update(id=k) for k, a in enumerate(c["annotations"])],
    "keys of others": lambda c: c["annotations"][0].update(attributes={"occluded": False}, keypoints=[0, 0]),
    "no object ids": lambda c: [a.pop("id") for a in c["annotations"]],
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_files_are_read_and_evaluated_as_training_sees_them(data, caplog, kind):
    SOUND[kind](data.content)
    assert perfect_ap(*data.write()) == [pytest.approx(100)] * 2
    assert CocoInstances(*data.write()).counts().objects == 4
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


WARNED = {
    "boxes NaN": (change_all("bbox", [NAN] * 4), "4 objects have a 'bbox' that is not that of their"),
    "boxes infinite": (change_all("bbox", [0, 0, math.inf, 1]), "4 objects have a 'bbox' that is not"),
    "boxes of corners": (corners, "boxes look as if they were x0, y0, x1, y1"),
    "one wrong box": (
        change_first(bbox=[0, 0, 3, 3]),
        r"1 objects have a 'bbox' .*annotation id 1 of image id 1",
    ),
    "box without extent": (change_first(bbox=[4, 2, 0, 0]), "1 objects have a 'bbox'"),
    "wrong areas": (change_all("area", 1), "4 objects have an 'area' that cannot be right"),
    "negative area": (change_first(area=-5), "1 objects have an 'area'"),
    "objects twice": (
        lambda c: c["annotations"].extend(copy.deepcopy(c["annotations"])),
        "4 annotations are listed twice",
    ),
    "image twice": (
        lambda c: c["images"].append({**c["images"][0], "id": 9}),
        "1 images are listed under a second id",
    ),
    "some crowds": (change_first(iscrowd=1), "1 of 4 objects are crowds"),
    "a normalised polygon": (
        change_first(segmentation=[[0.1, 0.1, 0.5, 0.1, 0.5, 0.6]]),
        "1 objects have all coordinates between 0 and 1",
    ),
    "a polygon outside": (
        change_first(segmentation=[[40, 2, 50, 2, 50, 9]]),
        "1 objects with a degenerate segmentation",
    ),
    "names twice": (
        lambda c: c["categories"].append({"id": 9, "name": "cat"}),
        "1 names of classes are listed with several ids",
    ),
}


@pytest.mark.parametrize("kind", WARNED)
def test_what_is_odd_is_told_and_evaluation_has_the_boxes_of_training(data, caplog, kind):
    change, message = WARNED[kind]
    change(data.content)
    ap = perfect_ap(*data.write())
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any(re.search(message, text) for text in told), told
    if kind != "objects twice":
        assert ap == [pytest.approx(100)] * 2


WRONG = {
    "polygon NaN": (
        change_first(segmentation=[[NAN, *SQUARE[1:]]]),
        "annotation id 1 of image id 1 .*finite numbers",
    ),
    "polygon infinite": (
        change_first(segmentation=[[math.inf, *SQUARE[1:]]]),
        "annotation id 1 .*finite numbers",
    ),
    "polygon far away": (
        change_first(segmentation=[[1e7, *SQUARE[1:]]]),
        "annotation id 1 .*far outside of the image",
    ),
    "polygon of texts": (change_first(segmentation=[["a", *SQUARE[1:]]]), "annotation id 1 .*finite numbers"),
    "polygon odd": (change_first(segmentation=[SQUARE[:-1]]), "annotation id 1 .*finite numbers"),
    "polygon of null": (change_first(segmentation=[None]), "annotation id 1 .*neither a list of polygons"),
    "flat polygon": (change_all("segmentation", SQUARE), "annotation id 1 .*one flat list"),
    "pairs": (change_all("segmentation", [[4, 2], [14, 2], [14, 10]]), "annotation id 1 .*pairs"),
    "pairs in a list": (change_all("segmentation", [[[4, 2], [14, 2], [14, 10]]]), "annotation id 1 .*pairs"),
    "points as objects": (change_all("segmentation", [{"x": 4, "y": 2}]), "annotation id 1 .*neither a list"),
    "segmentation text": (
        change_first(segmentation="none"),
        "annotation id 1 .*neither a list of polygons nor an RLE",
    ),
    "all normalised": (
        normalised,
        "all 4 objects have a 'segmentation' with all coordinates between 0 and 1",
    ),
    "runs too few": (
        change_first(segmentation={"size": [20, 30], "counts": [100, 50]}),
        "annotation id 1 .*runs add up to 150",
    ),
    "runs negative": (
        change_first(segmentation={"size": [20, 30], "counts": [-5, 605]}),
        "annotation id 1 .*not integers",
    ),
    "runs of floats": (
        change_first(segmentation={"size": [20, 30], "counts": [600.5]}),
        "annotation id 1 .*not integers",
    ),
    "bytes as text": (
        change_first(segmentation={"size": [20, 30], "counts": "b'XYZ'"}),
        "annotation id 1 .*text of Python bytes",
    ),
    "broken RLE": (change_first(segmentation={"size": [20, 30], "counts": "XYZ"}), "annotation id 1 .*RLE"),
    "RLE of another size": (
        change_first(segmentation={**RUNS, "size": [30, 20]}),
        "annotation id 1 .*RLE for .30, 20. pixels",
    ),
    "RLE without counts": (
        change_first(segmentation={"size": [20, 30]}),
        "annotation id 1 .*RLE without 'counts'",
    ),
    "box of two": (
        change_first(bbox=[1, 2]),
        r"annotation id 1 of image id 1 has \[1, 2\] as 'bbox'; expected is a list of the four",
    ),
    "box of five": (change_first(bbox=[1, 2, 3, 4, 5]), "annotation id 1 .*as 'bbox'; expected"),
    "box of texts": (change_first(bbox=["1", "2", "3", "4"]), "annotation id 1 .*as 'bbox'; expected"),
    "box as object": (change_first(bbox={"x": 1}), "annotation id 1 .*as 'bbox'; expected"),
    "iscrowd text": (
        change_first(iscrowd="maybe"),
        "annotation id 1 .*has 'maybe' as 'iscrowd'; expected is 0 or 1",
    ),
    "iscrowd 2": (change_first(iscrowd=2), "annotation id 1 .*has 2 as 'iscrowd'"),
    "area list": (change_first(area=[80]), r"annotation id 1 .*has \[80\] as 'area'; expected is a number"),
    "category null": (change_first(category_id=None), "annotation .*has no 'category_id'"),
    "category name": (
        change_first(category_id="cat"),
        "annotation id 1 .*has 'cat' as 'category_id'; expected is an integer",
    ),
    "category list": (change_first(category_id=[1]), r"annotation id 1 .*has \[1\] as 'category_id'"),
    "image id list": (change_first(image_id=[1]), "annotation id 1 .*as 'image_id'"),
    "annotation text": (lambda c: c["annotations"].insert(0, "x"), "annotation 'x' is not an object"),
    "annotations object": (
        lambda c: c.update(annotations={"1": {}}),
        "'annotations' is .*expected is a list",
    ),
    "images object": (lambda c: c.update(images={"1": {}}), "'images' is .*expected is a list"),
    "image text": (lambda c: c["images"].insert(0, "x"), "image 'x' is not an object"),
    "width text": (
        lambda c: c["images"][0].update(width="wide"),
        "image id 1 .*has 'wide' as 'width'; expected is a number of pixels",
    ),
    "height negative": (lambda c: c["images"][0].update(height=-20), "image id 1 .*has -20 as 'height'"),
    "file name number": (lambda c: c["images"][0].update(file_name=7), "image id 1 .*has 7 as 'file_name'"),
    "file name list": (lambda c: c["images"][0].update(file_name=["1.png"]), "image id 1 .*as 'file_name'"),
    "no file name": (lambda c: c["images"][0].pop("file_name"), "image .*has no 'file_name'"),
    "image id null": (lambda c: c["images"][0].update(id=None), "image .*has no 'id'"),
    "image id true": (lambda c: c["images"][0].update(id=True), "image id True .*as 'id'"),
    "image ids alike": (
        lambda c: c["images"].append({**c["images"][0], "id": "1"}),
        "image id 1 occurs twice",
    ),
    "category id list": (lambda c: c["categories"][0].update(id=[1]), r"category id \[1\] has \[1\] as 'id'"),
    "category unnamed": (lambda c: c["categories"][0].update(name=None), "category .*has no 'name'"),
    "categories differ": (lambda c: c["categories"].append({"id": 1, "name": "eel"}), "1 is 'cat' and 'eel'"),
    "absolute name": (
        lambda c: c["images"][0].update(file_name="/etc/passwd"),
        "image id 1 has '/etc/passwd' as 'file_name', which leads out",
    ),
    "name that leaves": (
        lambda c: c["images"][0].update(file_name="a/../../x.png"),
        "image id 1 .*which leads out",
    ),
    "name of Windows": (
        lambda c: c["images"][0].update(file_name="C:\\x\\1.png"),
        "image id 1 .*which leads out",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_faults_are_named_on_opening_whoever_opens(data, kind):
    change, message = WRONG[kind]
    change(data.content)
    images, annotations = data.write()
    with pytest.raises(DataError, match=f"instances.json: .*{message}"):
        CocoInstances(images, annotations)
    with pytest.raises(DataError, match=f"instances.json: .*{message}"):
        CocoEvaluator(annotations, images=images)


def test_boxes_alone_need_no_right_masks(data):
    change_all("segmentation", SQUARE)(data.content)
    assert perfect_ap(*data.write(), masks=False) == [pytest.approx(100)]


BOXES = {
    "normalised": (
        lambda b: [v / 30 for v in b],
        "all 4 objects have a 'bbox' with all coordinates between 0",
    ),
    "NaN": ([NAN] * 4, "annotation id 1 .*expected are four finite numbers"),
    "none": (None, "annotation id 1 .*has neither 'bbox' nor 'segmentation'"),
}


@pytest.mark.parametrize("kind", BOXES)
def test_boxes_without_masks_that_cannot_be_used(data, kind):
    value, message = BOXES[kind]
    change_all("segmentation", [])(data.content)
    change_all("bbox", value)(data.content)
    images, annotations = data.write()
    with pytest.raises(DataError, match=message):
        CocoInstances(images, annotations, masks=False)
    with pytest.raises(DataError, match=message):
        CocoEvaluator(annotations, tasks=["bbox"])


NOTHING = {
    "crowds": (change_all("iscrowd", 1), "4 are crowds"),
    "outside": (change_all("segmentation", [[40, 2, 50, 2, 50, 9]]), "4 have a degenerate segmentation"),
    "two points": (change_all("segmentation", [[1, 2, 5, 6]]), "4 have a degenerate segmentation"),
    "points": (change_all("segmentation", [[5, 5, 5, 5, 5, 5]]), "4 have a degenerate segmentation"),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_to_learn_from_is_an_error(data, kind):
    change, message = NOTHING[kind]
    change(data.content)
    images, annotations = data.write()
    dataset = CocoInstances(images, annotations)
    with pytest.raises(DataError, match=f"nothing to learn from .*{message}"):
        require_objects(dataset)
    with pytest.raises(DataError, match=f"no object to evaluate: .*{message}"):
        CocoEvaluator(annotations)


def test_names_may_leave_the_folder_where_that_is_wanted(data, tmp_path):
    (data.images / "1.png").rename(tmp_path / "elsewhere.png")
    data.content["images"][0]["file_name"] = "../elsewhere.png"
    dataset = CocoInstances(*data.write(), leave_folder=True)
    assert dataset[0]["file_name"] == "../elsewhere.png"


RENAMED = {
    "slashes": ("sub/1.png", "sub\\1.png"),
    "decoded": ("a b.png", "a%20b.png"),
    "unicode": ("caf\u00e9.png", "cafe\u0301.png"),
    "any_case": ("IMG_1.JPG", "img_1.jpg"),
    "last_part": ("1.png", "data/train/1.png"),
    "any_type": ("1.png", "1.jpg"),
    "loose": ("sub/IMG 1.PNG", "C/img%201.png"),
}


@pytest.mark.parametrize("rewriting", RENAMED)
def test_files_under_other_names_are_found_by_the_rewriting_that_the_error_names(data, rewriting):
    real, listed = RENAMED[rewriting]
    (data.images / "sub").mkdir()
    (data.images / "1.png").rename(data.images / real)
    data.content["images"][0]["file_name"] = listed
    images, annotations = data.write()
    with pytest.raises(DataError, match=f"1 of 2 files .*file_names={rewriting} .*, 1 of them are found"):
        CocoInstances(images, annotations)
    dataset = CocoInstances(images, annotations, file_names=rewriting)
    assert dataset[0]["file_name"] == real and dataset[1]["file_name"] == "2.png"


def test_coordinates_in_per_cent_are_told(coco, caplog):
    coco.add_image(height=300, width=400)
    for k in range(12):
        coco.add_object(1, ([8 * k, 0, 8 * k + 7, 0, 8 * k + 7, 90],), bbox=None)
    CocoInstances(*coco.write())
    assert "are they per cent" in caplog.text


CASES = {
    "area_null": "",
    "backslash_names": "file_names=slashes",
    "bbox_nan": "6 objects have a 'bbox'",
    "bbox_xyxy_with_masks": "6 objects have a 'bbox'",
    "boxes_normalised": "all 6 objects have a 'bbox' with all coordinates between 0 and 1",
    "coco_annotator_hex_color": "",
    "cvat_masks_iscrowd1": "6 are crowds",
    "duplicate_annotation": "6 annotations are listed twice",
    "image_ids_mixed_types": "",
    "iscrowd_null": "",
    "iscrowd_string": "",
    "poly_nan_val": "annotation id 1 of image id 1 .*finite numbers",
    "poly_normalised": "all 6 objects have a 'segmentation' with all coordinates between 0 and 1",
    "poly_pairs": "annotation id 1 .*pairs",
    "rle_bytes_repr_val": "annotation id 1 .*text of Python bytes",
    "rle_runs_short_val": "annotation id 1 .*runs add up to 150",
    "via_flat_val": "annotation id 1 .*one flat list",
    "wh_null": "",
    "xml_voc": "is not JSON: .*XML",
}


@pytest.mark.parametrize("case", CASES)
def test_field_cases(field_cases, caplog, case):
    """Perfect predictions get an AP of 100, with the expected warning if any, or the expected error comes."""
    folder = field_cases / case
    masks = case != "boxes_normalised"
    try:
        ap = perfect_ap(folder / "val", folder / "annotations/instances_val.json", masks)
    except DataError as error:
        assert CASES[case] and re.search(CASES[case], str(error)), error
        return
    told = "\n".join(r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert re.search(CASES[case], told) if CASES[case] else not told, told
    if case != "duplicate_annotation":
        assert ap == [pytest.approx(100)] * 2
