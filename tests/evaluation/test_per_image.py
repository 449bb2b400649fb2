"""Metrics of single images."""

import json

import numpy as np
import pytest
import torch
from made_instances import square_instances
from PIL import Image
from pycocotools.cocoeval import COCOeval

from detrex.evaluation import PanopticEvaluator
from detrex.evaluation.coco_ground_truth import coco_from, logged_prints
from detrex.evaluation.per_image import (
    Matches,
    match_instances,
    panoptic_map,
    panoptic_quality,
    rate,
    semantic_iou,
)
from detrex.structures import Targets, encode_masks
from detrex.structures.panoptic import rgb_from_ids


def targets_of(instances, is_thing=None):
    things = torch.ones(len(instances), dtype=torch.bool) if is_thing is None else torch.tensor(is_thing)
    return Targets(instances.pred_classes, instances.pred_boxes, instances.pred_masks, things)


def test_f1():
    assert Matches(right=3, wrong=1, missed=2).f1 == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert Matches(0, 0, 0).f1 == 1
    assert Matches(0, 0, 2).f1 == Matches(0, 2, 0).f1 == 0


def test_matching_by_hand():
    truth = targets_of(square_instances((0, 1, 0, 0, 10), (0, 1, 30, 0, 10), (1, 1, 0, 30, 10)))
    found = square_instances(
        (0, 0.9, 1, 0, 10),  # IoU 9 / 11 with the first
        (0, 0.8, 0, 0, 10),  # the first is taken
        (0, 0.7, 36, 0, 10),  # IoU 4 / 16 with the second
        (0, 0.6, 0, 30, 10),  # of another class than the third
    )
    assert match_instances(truth, found) == Matches(right=1, wrong=3, missed=2)
    assert match_instances(truth, found[:0]) == Matches(0, 0, 3)
    assert match_instances(truth[torch.zeros(3, dtype=torch.bool)], found) == Matches(0, 4, 0)


def test_masks_count_where_both_sides_have_them():
    truth = targets_of(square_instances((0, 1, 0, 0, 10)))
    found = square_instances((0, 0.9, 0, 0, 10))
    found.pred_masks[:, :, 4:] = False
    assert match_instances(truth, found).right == 0
    found.pred_masks = None
    assert match_instances(truth, found).right == 1


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(5))
def test_matching_agrees_with_pycocotools(task, seed):
    rng = np.random.default_rng(seed)

    def scene(count):
        return square_instances(
            *[
                (int(rng.integers(2)), float(rng.random()), *rng.integers(0, 40, 2).tolist(), 20)
                for _ in range(count)
            ]
        )

    found, real = scene(12), scene(10)

    def entries(instances, first):
        boxes = torch.cat([instances.pred_boxes[:, :2], torch.full((len(instances), 2), 20.0)], 1).tolist()
        return [
            {
                "id": first + i,
                "image_id": 1,
                "category_id": int(instances.pred_classes[i]),
                "score": float(instances.scores[i]),
                "bbox": boxes[i],
                "area": 400,
                "iscrowd": 0,
                "segmentation": rle,
            }
            for i, rle in enumerate(encode_masks(instances.pred_masks))
        ]

    base = {"images": [{"id": 1, "height": 64, "width": 64}], "categories": [{"id": 0}, {"id": 1}]}
    evaluation = COCOeval(
        coco_from({**base, "annotations": entries(real, 1)}),
        coco_from({**base, "annotations": entries(found, 1)}),
        task,
    )
    evaluation.params.iouThrs = np.array([0.5])
    with logged_prints():
        evaluation.evaluate()
    whole = [e for e in evaluation.evalImgs if e is not None and e["aRng"] == evaluation.params.areaRng[0]]
    right = sum(int((e["dtMatches"] > 0).sum()) for e in whole)
    if task == "bbox":
        found.pred_masks = None
    assert 0 < right < 10
    assert match_instances(targets_of(real), found) == Matches(right, 12 - right, 10 - right)


def test_panoptic_map():
    targets = targets_of(square_instances((1, 1, 0, 0, 10), (0, 1, 20, 20, 5)))
    ids, infos = panoptic_map(targets)
    assert infos == [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 0}]
    for number, mask in enumerate(targets.masks, start=1):
        assert torch.equal(ids == number, mask)


def test_panoptic_quality_is_the_evaluator_s_of_one_image(tmp_path):
    truth = targets_of(
        square_instances((0, 1, 0, 0, 20), (0, 1, 30, 0, 20), (1, 1, 0, 30, 30), (2, 1, 40, 40, 9))
    )
    found = targets_of(square_instances((0, 1, 2, 0, 20), (0, 1, 44, 0, 20), (1, 1, 0, 32, 30)))
    true_map, found_map = panoptic_map(truth), panoptic_map(found)
    Image.fromarray(rgb_from_ids(true_map[0].numpy())).save(tmp_path / "1.png")
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": true_map[1]}
    categories = [{"id": k, "name": str(k), "isthing": 1} for k in range(4)]
    images = [{"id": 1, "file_name": "1.jpg", "height": 64, "width": 64}]
    content = {"images": images, "annotations": [annotation], "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    evaluator = PanopticEvaluator(tmp_path / "truth.json", tmp_path)
    evaluator.process([{"image_id": 1}], [{"panoptic_seg": found_map}])
    expected = evaluator.evaluate()["panoptic/PQ"] / 100
    assert 0.1 < expected < 0.9
    assert panoptic_quality(true_map, found_map, 4) == pytest.approx(expected)
    assert panoptic_quality(true_map, true_map, 4) == 1
    empty = (torch.zeros(64, 64, dtype=torch.int32), [])
    assert panoptic_quality(true_map, empty, 4) == 0 and panoptic_quality(empty, empty, 4) == 1


def test_semantic_iou_by_hand():
    masks = torch.zeros(2, 2, 4, dtype=torch.bool)
    masks[0, 0], masks[1, 1, :2] = True, True  # the last two pixels have no label
    targets = Targets(torch.tensor([0, 2]), torch.zeros(2, 4), masks, torch.ones(2, dtype=torch.bool))
    found = torch.tensor([[0, 0, 0, 1], [2, 0, 1, 1]])
    # Class 0: 3 of 5 pixels, class 1: 0 of 1, class 2: 1 of 2; class 3 is nowhere.
    assert semantic_iou(targets, found, 4) == pytest.approx((3 / 5 + 0 + 1 / 2) / 3)
    assert semantic_iou(targets[:0], found, 4) == 1


def test_ratings_take_what_results_have():
    truth = targets_of(square_instances((0, 1, 0, 0, 10), (1, 1, 20, 20, 10)), is_thing=[True, False])
    found = square_instances((0, 0.9, 0, 0, 10), (0, 0.2, 40, 0, 10))
    segments = panoptic_map(truth[:1])
    scores = torch.zeros(2, 64, 64)
    scores[1, 20:30, 20:30] = 1
    results = {"instances": found, "panoptic_seg": segments, "sem_seg": scores}
    # Neither the stuff region nor the detection below the threshold counts.
    assert rate(truth, results, 2, 0.5).text == "F1 100.0%: 1 right, 0 wrong, 0 missed"
    assert rate(truth, results, 2, 0.1).value == pytest.approx(2 / 3)
    del results["instances"]
    assert rate(truth, results, 2, 0.5).value == pytest.approx(
        panoptic_quality(panoptic_map(truth), segments, 2)
    )
    del results["panoptic_seg"]
    assert rate(truth, results, 2, 0.5).value == 1
    truth.masks = None
    assert rate(truth, results, 2, 0.5) is None


def test_of_equal_ratings_the_one_with_more_errors_is_worse():
    nothing = square_instances((0, 1, 0, 0, 10))[:0]
    few, many = (
        targets_of(square_instances((0, 1, 0, 0, 10))),
        targets_of(square_instances((0, 1, 0, 0, 10), (0, 1, 30, 0, 10))),
    )
    ratings = [rate(targets, {"instances": nothing}, 1, 0.5) for targets in (few, many)]
    assert ratings[1].order < ratings[0].order
