"""What lies behind an AP: errors as TIDE finds them, precision and recall, calibration, confusion."""

import importlib
import json
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.evaluation import CocoEvaluator, LvisEvaluator
from detrex.evaluation.analysis import calibration, interpolated
from detrex.evaluation.matching import ERRORS
from detrex.report.detection import draw_error
from detrex.structures import Instances

SIZE = (120, 160)
CLASSES = 4


def imported_without_pictures(name, monkeypatch, missing):
    """A package for evaluation whose drawing needs packages that are not installed here."""
    monkeypatch.setattr(np, "float", float, raising=False)  # a name of old that these packages use
    for module in missing:
        monkeypatch.setitem(sys.modules, module, MagicMock())
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed")


def made_objects(rng, count):
    """(M, 4) boxes xyxy in whole pixels, and (M,) classes."""
    corner = rng.integers(0, (110, 80), (count, 2))
    side = rng.integers(8, 40, (count, 2))
    return np.concatenate([corner, corner + side], 1).astype(float), rng.integers(0, CLASSES, count)


def made_data(seed, images=30, lvis=False):
    """A COCO file, and by image boxes, scores and classes of detections with errors of all kinds."""
    rng = np.random.default_rng(seed)
    annotations, found = [], {}
    for image in range(1, images + 1):
        boxes, labels = made_objects(rng, int(rng.integers(0, 7)))
        for box, label in zip(boxes, labels, strict=True):
            x0, y0, x1, y1 = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
        twice = 2 * len(boxes)
        jitter = np.repeat(boxes, 2, 0) + rng.normal(0, 1, (twice, 4)) * rng.choice([1, 6, 14], (twice, 1))
        moved = np.where(rng.random(twice) < 0.7, np.repeat(labels, 2), rng.integers(0, CLASSES, twice))
        more, more_labels = made_objects(rng, 3)
        all_boxes = np.concatenate([jitter, more]).round()
        all_boxes[:, :2] = np.maximum(all_boxes[:, :2], 0)
        all_boxes[:, 2:] = np.minimum(np.maximum(all_boxes[:, 2:], all_boxes[:, :2] + 2), SIZE[::-1])
        keep = (all_boxes[:, 2:] > all_boxes[:, :2]).all(1)
        scores = rng.random(len(all_boxes))
        found[image] = all_boxes[keep], scores[keep], np.concatenate([moved, more_labels])[keep]
    entries = [
        {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(1, images + 1)
    ]
    categories = [{"id": k + 1, "name": f"class{k}"} for k in range(CLASSES)]
    if lvis:
        for image in entries:
            present = {a["category_id"] for a in annotations if a["image_id"] == image["id"]}
            absent = sorted(set(range(1, CLASSES + 1)) - present)
            image["neg_category_ids"] = absent[: int(rng.integers(0, len(absent) + 1))]
            image["not_exhaustive_category_ids"] = sorted(present)[: int(rng.integers(0, 2))]
        for category, letter in zip(categories, "rccf", strict=True):
            category["frequency"] = letter
    return {"images": entries, "annotations": annotations, "categories": categories}, found


def instances(boxes, scores, classes):
    order = np.argsort(-scores, kind="stable")
    boxes = torch.tensor(boxes[order], dtype=torch.float32).reshape(-1, 4)
    return Instances(
        SIZE,
        boxes,
        torch.tensor(scores[order], dtype=torch.float32),
        torch.tensor(classes[order], dtype=torch.int64),
        masks_of(boxes),
    )


def masks_of(boxes):
    """(N, H, W) bool: the boxes, which end between pixels, filled."""
    x, y = torch.arange(SIZE[1]), torch.arange(SIZE[0])
    columns = (x >= boxes[:, None, 0]) & (x < boxes[:, None, 2])
    rows = (y >= boxes[:, None, 1]) & (y < boxes[:, None, 3])
    return rows[:, :, None] & columns[:, None]


def run(evaluator, found):
    for image_id, detections in found.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances(*detections)}])
    return evaluator.evaluate()


@pytest.fixture
def written(tmp_path):
    """``written(seed)``: path of the annotations, and the detections."""

    def write(seed, **options):
        content, found = made_data(seed, **options)
        path = tmp_path / f"{seed}.json"
        path.write_text(json.dumps(content))
        return path, found

    return write


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_ap_of_the_analysis_is_that_of_pycocotools(written, task):
    path, found = written(1)
    evaluator = CocoEvaluator(path, tasks=[task])
    metrics = run(evaluator, found)
    assert evaluator.analysis.task == task
    assert 100 * evaluator.analysis.precision.mean() == pytest.approx(metrics[f"{task}/AP50"], abs=1e-9)
    assert all(evaluator.analysis.counts.values())
    assert {example.kind for example in evaluator.analysis.examples} == set(ERRORS)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_error_pictures_show_what_is_evaluated(written, task):
    path, found = written(1)
    evaluator = CocoEvaluator(path, tasks=[task])
    run(evaluator, found)
    grey = Image.new("RGB", SIZE[::-1], (128, 128, 128))
    for example in evaluator.analysis.examples:
        assert (example.place.mask is None) == (task == "bbox")
        colors = {color for _, color in draw_error(grey, example).getcolors(maxcolors=2**16)}
        tinted = colors - {(128, 128, 128), (227, 73, 72), (27, 175, 122)}  # without image and boxes
        assert bool(tinted) == (task == "segm")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_errors_are_those_of_tide(written, monkeypatch, seed):
    drawing = ["cv2", "seaborn", "matplotlib", "matplotlib.pyplot", "matplotlib.lines", "appdirs"]
    tide = imported_without_pictures("tidecv", monkeypatch, drawing)
    path, found = written(seed)
    evaluator = CocoEvaluator(path, tasks=["bbox"])
    metrics = run(evaluator, found)
    truth, results = tide.Data("truth"), tide.Data("found")
    content = json.loads(path.read_text())
    for category in content["categories"]:
        truth.add_class(category["id"], category["name"])
        results.add_class(category["id"], category["name"])
    for image in content["images"]:
        truth.add_image(image["id"], image["file_name"])
    for a in content["annotations"]:
        truth.add_ground_truth(a["image_id"], a["category_id"], a["bbox"])
    for image_id, (boxes, scores, classes) in found.items():
        for box, score, label in zip(boxes, np.float32(scores), classes, strict=True):
            x0, y0, x1, y1 = box
            results.add_detection(image_id, int(label) + 1, float(score), [x0, y0, x1 - x0, y1 - y0])
    other = tide.TIDE().evaluate(
        truth, results, pos_threshold=0.5, background_threshold=0.1, mode=tide.TIDE.BOX
    )
    assert other.ap == pytest.approx(metrics["bbox/AP50"], abs=1e-6)
    names = dict(
        classification=tide.ClassError, localisation=tide.BoxError, both=tide.OtherError,
        duplicate=tide.DuplicateError, background=tide.BackgroundError, missed=tide.MissedError,
    )  # fmt: skip
    counted = {name: len(other.error_dict[kind]) for name, kind in names.items()}
    assert evaluator.analysis.counts == counted
    fixed = other.fix_main_errors()
    lost = {name: fixed[kind] for name, kind in names.items()}
    # The two round points of recall differently.
    assert evaluator.analysis.lost == pytest.approx(lost, abs=0.01)


def test_confusion_counts_every_object_once(written):
    path, found = written(4)
    evaluator = CocoEvaluator(path, tasks=["bbox"])
    run(evaluator, found)
    content = json.loads(path.read_text())
    matrix = evaluator.analysis.confusion
    sure = sum(int((scores >= 0.3).sum()) for _, scores, _ in found.values())
    assert matrix.shape == (CLASSES + 1, CLASSES + 1)
    assert matrix[:, :CLASSES].sum() == sure
    assert matrix[:CLASSES, CLASSES].sum() <= len(content["annotations"])
    # One object is found, one taken for class 2, one is not found, and one detection is of nothing.
    one = {"image_id": 1, "iscrowd": 0, "area": 100}
    content = {
        "images": content["images"][:1],
        "categories": content["categories"],
        "annotations": [{**one, "id": k, "category_id": 1, "bbox": [30 * k, 0, 10, 10]} for k in (1, 2, 3)],
    }
    path.write_text(json.dumps(content))
    boxes = np.array([[30, 0, 40, 10], [60, 0, 70, 10], [0, 80, 10, 90], [30, 0, 40, 10]], float)
    evaluator = CocoEvaluator(path, tasks=["bbox"])
    run(evaluator, {1: (boxes, np.array([0.9, 0.8, 0.7, 0.2]), np.array([0, 2, 3, 1]))})
    expected = np.zeros((5, 5), int)
    expected[0, 0] = expected[0, 2] = expected[0, 4] = expected[4, 3] = 1
    np.testing.assert_array_equal(evaluator.analysis.confusion, expected)
    assert evaluator.analysis.counts == dict(
        classification=2, localisation=0, both=0, duplicate=0, background=1, missed=1
    )


def test_calibration_and_precision_by_hand():
    scores, right = np.array([0.95, 0.91, 0.42, 0.41, 0.05]), np.array([True, True, True, False, False])
    bins = calibration(scores, right)
    assert [(round(b.score, 3), b.precision, b.count) for b in bins] == [
        (0.05, 0, 1),
        (0.415, 0.5, 2),
        (0.93, 1, 2),
    ]
    # Of four objects, three are found: precision 1 up to a recall of 3/4, then nothing.
    precision = interpolated(scores, right, 4)
    assert precision[:76].tolist() == [1.0] * 76 and precision[76:].sum() == 0
    assert interpolated(np.zeros(0), np.zeros(0, bool), 3).sum() == 0


def test_crowds_are_neither_right_nor_wrong(written):
    path, _ = written(1)
    content = json.loads(path.read_text())
    crowd = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 60, 60], "area": 3600}
    single = {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [80, 0, 20, 20], "area": 400}
    content["annotations"] = [crowd, single]
    path.write_text(json.dumps(content))
    evaluator = CocoEvaluator(path, tasks=["bbox"])
    boxes = np.array([[5, 5, 20, 20], [80, 0, 100, 20]], float)
    metrics = run(evaluator, {1: (boxes, np.array([0.9, 0.8]), np.array([0, 0]))})
    assert metrics["bbox/AP50"] == pytest.approx(100)
    assert sum(evaluator.analysis.counts.values()) == 0
    assert evaluator.analysis.confusion[0, 0] == 1 and evaluator.analysis.confusion.sum() == 1


@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_lvis_agrees_with_its_own_package(written, monkeypatch, seed, task):
    drawing = ["cv2", "matplotlib", "matplotlib.pyplot", "matplotlib.patches", "matplotlib.collections"]
    lvis = imported_without_pictures("lvis", monkeypatch, drawing)
    path, found = written(seed, lvis=True)
    evaluator = LvisEvaluator(path, tasks=[task], max_detections=9, output_dir=path.parent)
    metrics = run(evaluator, found)
    results = json.loads((path.parent / "coco_instances_results.json").read_text())
    truth = lvis.LVIS(str(path))
    other = lvis.LVISEval(truth, lvis.LVISResults(truth, results, max_dets=9), task)
    other.params.max_dets = 9
    other.run()
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APr", "APc", "APf"):
        expected = 100 * other.results[name]
        if expected >= 0:
            assert metrics[f"{task}/{name}"] == pytest.approx(expected, abs=1e-6), name
    plain = run(CocoEvaluator(path, tasks=[task]), found)
    assert plain[f"{task}/AP"] != pytest.approx(metrics[f"{task}/AP"], abs=1e-3)
    assert set(evaluator.metric_names()) == set(metrics)


def test_a_file_of_coco_is_not_one_of_lvis(written):
    path, _ = written(1)
    with pytest.raises(ValueError, match="is not a file of LVIS"):
        LvisEvaluator(path)
