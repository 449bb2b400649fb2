"""Results that evaluators or others have written, read back."""

import json

import numpy as np
import pytest
import torch
from made_instances import square_instances
from PIL import Image
from pycocotools import mask as coco_mask

from detrex.data import DataError
from detrex.evaluation import CocoEvaluator, PanopticEvaluator
from detrex.evaluation.saved_results import SavedInstances, SavedPanoptic, read_mask, read_saved_results
from detrex.structures import Categories
from detrex.structures.panoptic import rgb_from_ids

SIZE = (20, 30)
ENTRIES = [{"id": 3, "name": "cat", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]
CATEGORIES = Categories.from_coco(ENTRIES)
NAMES = {1: "a/one.jpg", 2: "two.jpg"}
RESULT = {"image_id": 1, "category_id": 7, "score": 0.5, "bbox": [1, 2, 3, 4]}


@pytest.fixture
def written(tmp_path):
    """``written(content)`` is the path of a JSON file of it."""

    def write(content, name="results.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def truth(tmp_path):
    """The paths of an instance file, a panoptic one and its PNGs, with one object in each image."""
    images = [{"id": i, "file_name": n, "height": SIZE[0], "width": SIZE[1]} for i, n in NAMES.items()]
    ids = np.zeros(SIZE, np.int32)
    ids[:5, :5] = 9
    instances, panoptic = [], []
    for i in NAMES:
        Image.fromarray(rgb_from_ids(ids)).save(tmp_path / f"{i}.png")
        polygon = [[0, 0, 5, 0, 5, 5, 0, 5]]
        instances.append({"id": i, "image_id": i, "category_id": 3, "segmentation": polygon})
        segments = [{"id": 9, "category_id": 3}]
        panoptic.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
    for name, annotations in (("instances", instances), ("panoptic", panoptic)):
        content = {"images": images, "annotations": annotations, "categories": ENTRIES}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path / "instances.json", tmp_path / "panoptic.json", tmp_path


def test_what_the_coco_evaluator_writes(tmp_path):
    evaluator = CocoEvaluator(truth(tmp_path)[0], output_dir=tmp_path / "out")
    found = square_instances((1, 0.4, 2, 3, 6), (0, 0.9, 1, 1, 5), (1, 0.6, 10, 4, 12), size=SIZE)
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    evaluator.evaluate()
    results = read_saved_results(tmp_path / "out", CATEGORIES, NAMES)
    assert isinstance(results, SavedInstances) and results.image_ids == [1] and results.has_masks
    order = [1, 2, 0]
    read = results.read(1, *SIZE)
    torch.testing.assert_close(read.scores, found.scores[order])
    torch.testing.assert_close(read.pred_boxes, found.pred_boxes[order])
    assert read.pred_classes.tolist() == [0, 1, 1] and read.image_size == SIZE
    assert torch.equal(read.pred_masks, found.pred_masks[order])
    none = results.read(2, *SIZE)
    assert len(none) == 0 and none.pred_masks.shape == (0, *SIZE) and none.pred_boxes.shape == (0, 4)


def test_what_the_panoptic_evaluator_writes(tmp_path):
    _, annotations, segments = truth(tmp_path)
    evaluator = PanopticEvaluator(annotations, segments, output_dir=tmp_path / "out")
    ids = torch.zeros(SIZE, dtype=torch.int32)
    ids[:, 3:9], ids[:, 9:] = 4, 300
    infos = [{"id": 4, "category_id": 1}, {"id": 300, "category_id": 0}]
    evaluator.process([{"image_id": 2}], [{"panoptic_seg": (ids, infos)}])
    evaluator.evaluate()
    results = read_saved_results(tmp_path / "out/panoptic_results.json", CATEGORIES, NAMES)
    assert isinstance(results, SavedPanoptic) and results.image_ids == [2]
    read_ids, read_infos = results.read(2, *SIZE)
    assert torch.equal(read_ids, ids) and read_infos == infos
    with pytest.raises(DataError, match="no result for image id 1"):
        results.read(1, *SIZE)
    with pytest.raises(DataError, match=r"2\.png has 20 x 30"):
        results.read(2, 30, 20)
    (tmp_path / "out/panoptic_results/2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png"):
        results.read(2, *SIZE)


def test_boxes_without_masks(written):
    results = read_saved_results(written([RESULT]), CATEGORIES, NAMES)
    read = results.read(1, *SIZE)
    assert read.pred_masks is None and read.pred_boxes.tolist() == [[1, 2, 4, 6]]
    assert read.pred_classes.tolist() == [1]


def test_masks_in_all_notations(written):
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[3:9, 4:14] = 1
    compressed = coco_mask.encode(mask)
    column_runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.ravel("F"), [2]]))))
    notations = [
        {"size": list(SIZE), "counts": compressed["counts"].decode()},
        {"size": list(SIZE), "counts": column_runs.tolist()},
        [[4, 3, 14, 3, 14, 9, 4, 9]],
    ]
    entries = [
        {"image_id": 1, "category_id": 3, "score": 0.9 - 0.1 * k, "segmentation": notation}
        for k, notation in enumerate(notations)
    ]
    read = read_saved_results(written(entries), CATEGORIES, NAMES).read(1, *SIZE)
    assert (read.pred_masks.numpy() == mask.astype(bool)).all() and len(read) == 3
    # The file has no boxes.
    assert read.pred_boxes.tolist() == [[4, 3, 14, 9]] * 3


def test_a_list_without_results_is_one_of_images_without_detections(written):
    results = read_saved_results(written([]), CATEGORIES, NAMES)
    assert results.image_ids == [] and len(results.read(1, *SIZE)) == 0


def test_scored_annotations_with_their_images(written):
    images = [{"id": 1, "file_name": "elsewhere/one.jpg"}]
    results = read_saved_results(written({"images": images, "annotations": [RESULT]}), CATEGORIES, NAMES)
    assert len(results.read(1, *SIZE)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is not JSON .*Expected are COCO results, a list of"),
        ({"metrics": {"bbox/AP": 1.0}}, "holds no results. Expected are COCO results"),
        ("3", "holds no results. Expected"),
        ([{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}], "holds no scores: is it an annotation"),
        ([RESULT, {"image_id": 1, "score": 1.0}], "result 1: .* has no 'category_id'"),
        ([RESULT, 5], "result 1: entry 5 is not an object"),
        ([{**RESULT, "category_id": 1}], r"image id 1\) has category id 1, .*instead of category ids"),
        ([{k: v for k, v in RESULT.items() if k != "bbox"}], "neither 'bbox' nor 'segmentation'"),
        (
            [{**RESULT, "bbox": [1, 2, 3]}],
            r"result 0: entry of image id 1 has \[1, 2, 3\] as 'bbox'; expected",
        ),
        ([{**RESULT, "score": None}], "result 0: .* has no 'score' .expected: a finite number"),
        ([{**RESULT, "score": "high"}], "result 0: .* has 'high' as 'score'; expected is a finite number"),
        ([RESULT, {**RESULT, "segmentation": [[0, 0, 1, 0, 1, 1]]}], "1 of 2 results have a 'segmentation'"),
        (
            {"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": [RESULT]},
            "image id 1 is x.jpg there, but a/one.jpg",
        ),
        ({"annotations": [{"image_id": 1, "segments_info": []}]}, "result 0: .* has no 'file_name'"),
        (
            {"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1}]}]},
            "image id 1: segment .* has no 'category_id'",
        ),
        (
            {
                "annotations": [
                    {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1, "category_id": 0}]}
                ]
            },
            "image id 1 has category id 0",
        ),
    ],
)
def test_what_is_no_result(written, content, message):
    with pytest.raises(DataError, match=message):
        read_saved_results(written(content), CATEGORIES, NAMES)


def test_files_that_are_missing(tmp_path, written):
    with pytest.raises(FileNotFoundError, match="does not exist. Expected"):
        read_saved_results(tmp_path / "no.json", CATEGORIES, NAMES)
    with pytest.raises(DataError, match="holds neither coco_instances_results.json nor panoptic"):
        read_saved_results(tmp_path, CATEGORIES, NAMES)
    for name in ("coco_instances_results.json", "panoptic_results.json"):
        written([], name)
    with pytest.raises(DataError, match="coco_instances_results.json and panoptic_results.json: give the"):
        read_saved_results(tmp_path, CATEGORIES, NAMES)
    entries = {"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": []}]}
    with pytest.raises(FileNotFoundError, match="segments: no such directory"):
        read_saved_results(written(entries, "segments.json"), CATEGORIES, NAMES)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[0, 0, 1]], "list of finite numbers"),
        ("xyz", "neither a list of polygons nor an RLE"),
        ({"counts": [600]}, "RLE without 'size'"),
        ({"size": [30, 20], "counts": [600]}, r"for \[30, 20\] pixels"),
        ({"size": [20, 30], "counts": [599]}, "add up to 599"),
        ({"size": [20, 30], "counts": "0"}, "add up to 0"),
        ({"size": [20, 30], "counts": "T"}, "cannot be decoded: it ends within a number"),
    ],
)
def test_masks_that_are_none(segmentation, message):
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        read_mask(segmentation, *SIZE, "here")


def test_a_mask_of_no_pixel(written):
    entries = [{**RESULT, "segmentation": {"size": list(SIZE), "counts": [600]}}]
    read = read_saved_results(written(entries), CATEGORIES, NAMES).read(1, *SIZE)
    assert len(read) == 1 and not read.pred_masks.any()


def test_names_of_pngs_stay_in_their_folder(written):
    entry = {"image_id": 1, "file_name": "../1.png", "segments_info": []}
    with pytest.raises(DataError, match="image id 1 has '../1.png' as 'file_name', which leads out"):
        read_saved_results(written({"annotations": [entry]}), CATEGORIES, NAMES)
