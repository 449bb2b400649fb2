import json
import logging
import math
from functools import partial

import numpy as np
import pytest
import torch
from made_instances import square_instances
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detrex.data import CocoInstances
from detrex.evaluation import CocoEvaluator
from detrex.structures import Categories, Instances, encode_masks

SIZE = (60, 80)
instances = partial(square_instances, size=SIZE)


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def ground_truth(tmp_path, annotations, categories=((1, "cat"), (7, "dog")), name="gt.json"):
    """Two images of 60 x 80; annotations are (image id, category id, x, y, side)."""
    content = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1], "file_name": f"{i}.png"} for i in (3, 5)],
        "categories": [{"id": i, "name": n} for i, n in categories],
        "annotations": [
            {
                "id": n,
                "image_id": i,
                "category_id": c,
                "bbox": [x, y, s, s],
                "segmentation": [square(x, y, s)],
            }
            for n, (i, c, x, y, s) in enumerate(annotations)
        ],
    }
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def run(evaluator, predictions):
    for image_id, found in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return evaluator.evaluate()


def test_perfect_predictions_give_100(tmp_path):
    path = ground_truth(tmp_path, [(3, 1, 5, 5, 10), (3, 7, 30, 20, 35), (5, 7, 0, 0, 40)])
    metrics = run(
        CocoEvaluator(path),
        {3: instances((0, 0.9, 5, 5, 10), (1, 0.8, 30, 20, 35)), 5: instances((1, 0.3, 0, 0, 40))},
    )
    for task in ("bbox", "segm"):
        for metric in ("AP", "AP50", "AP75", "APs", "APm", "AR"):
            assert metrics[f"{task}/{metric}"] == pytest.approx(100)
        assert math.isnan(metrics[f"{task}/APl"])


def test_hand_computed_ap(tmp_path):
    # Of two objects one is found, with an IoU of 25 / 30 in mask and box, below a false positive.
    path = ground_truth(tmp_path, [(3, 1, 10, 10, 30), (5, 1, 10, 10, 30)])
    narrow = instances((0, 0.5, 10, 10, 30))
    narrow.pred_boxes[:, 2] -= 5
    narrow.pred_masks[:, :, 35:] = False
    metrics = run(CocoEvaluator(path), {3: narrow, 5: instances((0, 0.9, 45, 45, 10))})
    # Precision is 1/2 up to recall 1/2 (51 of 101 recall points), for 7 IoU thresholds: 0.50 to 0.80.
    at_one_threshold = 100 * 0.5 * 51 / 101
    for task in ("bbox", "segm"):
        assert metrics[f"{task}/AP50"] == pytest.approx(at_one_threshold)
        assert metrics[f"{task}/AP"] == pytest.approx(at_one_threshold * 7 / 10)
        assert metrics[f"{task}/AR"] == pytest.approx(50 * 7 / 10)


def test_agrees_with_pycocotools_summary(tmp_path):
    rng = np.random.default_rng(0)
    columns = (
        rng.choice([3, 5], 30),
        rng.choice([1, 7], 30),
        *rng.integers([[0], [0], [4]], [[40], [20], [40]], (3, 30)),
    )
    truth = [tuple(row) for row in np.stack(columns, 1).tolist()]
    path = ground_truth(tmp_path, truth)
    found = {
        image_id: instances(
            *[
                (int(c == 7), float(rng.random()), x + int(rng.integers(3)), y, s)
                for i, c, x, y, s in truth
                if i == image_id
            ]
        )
        for image_id in (3, 5)
    }
    metrics = run(CocoEvaluator(path, output_dir=tmp_path), found)

    content = json.loads(path.read_text())
    for number, annotation in enumerate(content["annotations"], start=1):
        annotation.update(id=number, iscrowd=0, area=annotation["bbox"][2] ** 2)
    complete = tmp_path / "complete.json"
    complete.write_text(json.dumps(content))
    coco = COCO(str(complete))
    results = json.loads((tmp_path / "coco_instances_results.json").read_text())
    for task, unused in (("bbox", "segmentation"), ("segm", "bbox")):
        detected = coco.loadRes([{k: v for k, v in r.items() if k != unused} for r in results])
        reference = COCOeval(coco, detected, task)
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
        names = ["AP", "AP50", "AP75", "APs", "APm", None, None, None, "AR"]
        for name, value in zip(names, reference.stats, strict=False):
            if name is not None:
                assert metrics[f"{task}/{name}"] == pytest.approx(100 * value), (task, name)
    assert 5 < metrics["segm/AP"] < 95


def test_prints_of_pycocotools_do_not_reach_the_terminal(tmp_path, capsys):
    run(CocoEvaluator(ground_truth(tmp_path, [(3, 1, 5, 5, 10)])), {3: instances((0, 0.9, 5, 5, 10))})
    assert capsys.readouterr().out == ""


def test_no_detections_give_zero(tmp_path):
    metrics = run(CocoEvaluator(ground_truth(tmp_path, [(3, 1, 5, 5, 10)])), {3: instances(), 5: instances()})
    assert metrics["bbox/AP"] == metrics["segm/AP"] == 0


def test_no_ground_truth_gives_nan(tmp_path):
    metrics = run(CocoEvaluator(ground_truth(tmp_path, [])), {3: instances((0, 0.9, 5, 5, 10))})
    assert all(math.isnan(value) for value in metrics.values())


def test_only_processed_images_count(tmp_path, caplog):
    path = ground_truth(tmp_path, [(3, 1, 5, 5, 10), (5, 1, 5, 5, 10)])
    with caplog.at_level(logging.WARNING):
        metrics = run(CocoEvaluator(path), {3: instances((0, 0.9, 5, 5, 10))})
    assert metrics["bbox/AP"] == pytest.approx(100)
    assert "1 of its images were not evaluated" in caplog.text


def test_an_image_seen_twice_counts_once(tmp_path):
    path = ground_truth(tmp_path, [(3, 1, 5, 5, 10)])
    evaluator = CocoEvaluator(path)
    for _ in range(2):
        evaluator.process([{"image_id": 3}], [{"instances": instances((0, 0.9, 5, 5, 10))}])
    assert evaluator.evaluate()["bbox/AP"] == pytest.approx(100)
    evaluator.reset()
    assert evaluator.evaluate()["bbox/AP"] != pytest.approx(100)


def test_per_class_ap(tmp_path):
    path = ground_truth(tmp_path, [(3, 1, 5, 5, 10), (3, 7, 30, 20, 30)])
    evaluator = CocoEvaluator(path)
    run(evaluator, {3: instances((0, 0.9, 5, 5, 10)), 5: instances()})
    assert evaluator.per_class["segm/AP"] == {"cat": pytest.approx(100), "dog": 0}


def test_classes_of_another_file(tmp_path):
    path = ground_truth(tmp_path, [(3, 7, 5, 5, 10)], categories=[(7, "dog")])
    classes = Categories.from_coco(
        [{"id": 2, "name": "sky", "isthing": 0}, {"id": 7, "name": "dog"}, {"id": 9, "name": "eel"}]
    )
    found = instances((0, 0.99, 0, 0, 60), (1, 0.9, 5, 5, 10))
    evaluator = CocoEvaluator(path, classes=classes)
    assert run(evaluator, {3: found, 5: instances()})["segm/AP"] == pytest.approx(100)
    assert list(evaluator.per_class["segm/AP"]) == ["dog"]


def test_ground_truth_with_classes_the_model_lacks(tmp_path):
    path = ground_truth(tmp_path, [(3, 7, 5, 5, 10)])
    with pytest.raises(ValueError, match=r"category 1 \('cat'\) is missing"):
        CocoEvaluator(path, classes=Categories.from_coco([{"id": 7, "name": "dog"}]))
    with pytest.raises(ValueError, match=r"category 7 \('dog'\) has the name 'wolf'"):
        CocoEvaluator(
            path, classes=Categories.from_coco([{"id": 1, "name": "cat"}, {"id": 7, "name": "wolf"}])
        )


def test_more_than_100_detections_an_image(tmp_path):
    corners = [(x, y) for x in range(0, 80, 4) for y in range(0, 40, 4)]  # 200 of them
    path = ground_truth(tmp_path, [(3, 1, x, y, 3) for x, y in corners])
    found = {3: instances(*[(0, 0.9, x, y, 3) for x, y in corners]), 5: instances()}
    assert run(CocoEvaluator(path), found)["segm/AR"] == pytest.approx(50)
    assert run(CocoEvaluator(path, max_detections=200), found)["segm/AP"] == pytest.approx(100)


def test_boxes_alone(tmp_path):
    path = ground_truth(tmp_path, [(3, 1, 5, 5, 10)])
    content = json.loads(path.read_text())
    del content["annotations"][0]["segmentation"]
    path.write_text(json.dumps(content))
    found = instances((0, 0.9, 5, 5, 10))
    found.pred_masks = None
    metrics = run(CocoEvaluator(path, tasks=["bbox"]), {3: found})
    assert metrics["bbox/AP"] == pytest.approx(100)
    assert not any(name.startswith("segm") for name in metrics)
    with pytest.raises(ValueError, match="has no 'segmentation'.*tasks="):
        CocoEvaluator(path)


def test_objects_of_no_extent_are_left_out(tmp_path, caplog):
    path = ground_truth(tmp_path, [(3, 1, 5, 5, 10)])
    content = json.loads(path.read_text())
    content["annotations"].append({"id": 9, "image_id": 3, "category_id": 1, "segmentation": [[1, 1, 5, 5]]})
    path.write_text(json.dumps(content))
    assert run(CocoEvaluator(path), {3: instances((0, 0.9, 5, 5, 10))})["segm/AP"] == pytest.approx(100)
    assert "1 objects with a degenerate segmentation are left out (annotation id 9 of" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), "annotations"),
        (
            lambda c: c["annotations"][0].update(category_id=4),
            "annotation id 0 of image id 3 has category id 4, which is not listed",
        ),
        (
            lambda c: c["annotations"][0].update(image_id=4),
            "image of annotation id 0 of image id 4 is not listed",
        ),
        (
            lambda c: c["annotations"][0].update(segmentation={"size": [80, 60], "counts": [4800]}),
            "RLE for .80, 60. pixels",
        ),
    ],
)
def test_bad_ground_truth(tmp_path, change, message):
    path = ground_truth(tmp_path, [(3, 1, 5, 5, 10)])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        CocoEvaluator(path)


def test_bad_predictions(tmp_path):
    evaluator = CocoEvaluator(ground_truth(tmp_path, [(3, 1, 5, 5, 10)]))
    with pytest.raises(ValueError, match="image id 4 is not in"):
        evaluator.process([{"image_id": 4}], [{"instances": instances()}])
    with pytest.raises(ValueError, match=r"image 3: detections are in a frame .*\(80, 60\)"):
        evaluator.process([{"image_id": 3}], [{"instances": instances(size=(80, 60))}])
    with pytest.raises(ValueError, match="no 'instances'"):
        evaluator.process([{"image_id": 3}], [{}])
    with pytest.raises(ValueError, match="'image_id'"):
        evaluator.process([{"file_name": "a.png"}], [{"instances": instances()}])
    with pytest.raises(ValueError, match=r"predicts the class index 40, but the data has \d classes"):
        evaluator.process([{"image_id": 3}], [{"instances": instances((40, 0.9, 5, 5, 10))}])
    boxes = instances()
    boxes.pred_masks = None
    with pytest.raises(ValueError, match="no masks"):
        evaluator.process([{"image_id": 3}], [{"instances": boxes}])
    with pytest.raises(ValueError, match="tasks"):
        CocoEvaluator(evaluator.annotations, tasks=["keypoints"])


def test_encode_masks():
    masks = torch.rand(5, 7, 11, generator=torch.Generator().manual_seed(0)) > 0.5
    rles = encode_masks(masks)
    assert json.loads(json.dumps(rles)) == rles
    np.testing.assert_array_equal(coco_mask.decode(rles).transpose(2, 0, 1), masks.numpy())
    assert encode_masks(masks[:0]) == []


def perfect(targets, size):
    return Instances(
        image_size=size,
        pred_boxes=targets.boxes,
        scores=torch.full((len(targets),), 0.9),
        pred_classes=targets.labels,
        pred_masks=targets.masks,
    )


@pytest.mark.parametrize("masks", [True, False])
def test_targets_of_training_are_perfect_predictions(shared_data, masks):
    path = shared_data / "coco/annotations/instances_val2017.json"
    tasks = ["bbox", "segm"] if masks else ["bbox"]
    evaluator = CocoEvaluator(path, tasks=tasks, max_detections=200)
    dataset = CocoInstances(shared_data / "coco/val2017", path, masks=masks)
    for index, (image_id, _) in enumerate(dataset.image_names()):
        found = perfect(dataset.targets(index), dataset.image_size(index))
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    metrics = evaluator.evaluate()
    for task in tasks:
        assert metrics[f"{task}/AP"] == pytest.approx(100)


def test_classes_of_a_file_with_stuff(shared_data):
    path = shared_data / "coco/annotations/instances_val2017.json"
    evaluator = CocoEvaluator(path, classes=shared_data / "coco/annotations/panoptic_val2017.json")
    assert len(evaluator.categories) == 133 and len(evaluator.ground_truth.cats) == 80


@pytest.mark.parametrize("max_detections", [5, 100])
def test_another_backend_gives_the_same_figures(tmp_path, max_detections):
    pytest.importorskip("faster_coco_eval")
    random = np.random.default_rng(0)

    def objects(count):
        return [
            (int(random.integers(2)), int(random.integers(40)), int(random.integers(20)), int(side))
            for side in random.integers(4, 40, count)
        ]

    truth = [(i, (1, 7)[label], *place) for i in (3, 5) for label, *place in objects(8)]
    path = ground_truth(tmp_path, truth)
    content = json.loads(path.read_text())
    content["annotations"][2] |= {"iscrowd": 1}
    path.write_text(json.dumps(content))
    found = {
        i: instances(*((label, float(random.random()), *place) for label, *place in objects(20)))
        for i in (3, 5)
    }
    results = [
        run(CocoEvaluator(path, max_detections=max_detections, backend=backend), found)
        for backend in ("pycocotools", "faster-coco-eval")
    ]
    assert results[1] == pytest.approx(results[0], abs=1e-9, nan_ok=True)
    assert 0 < results[0]["segm/AP50"] < 100
    nothing = {i: instances() for i in (3, 5)}
    assert run(CocoEvaluator(path, backend="faster-coco-eval"), nothing)["bbox/AP"] == 0


def test_an_unknown_backend_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="faster-coco-eval"):
        CocoEvaluator(ground_truth(tmp_path, [(3, 1, 5, 5, 10)]), backend="fast")
