"""The score threshold with the best F1, against trying all of them."""

import json

import numpy as np
import pytest
import torch

from detrex.evaluation import CocoEvaluator
from detrex.evaluation.thresholds import best_threshold
from detrex.structures import Instances


def f1_from(threshold, scores, right, objects):
    shown = scores >= threshold
    return 2 * (right & shown).sum() / max(1, shown.sum() + objects)


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_has_a_better_f1(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 8, 30) / 8 + 0.05  # with ties
    right = random.random(30) < scores / 1.2
    objects = int(right.sum() + random.integers(0, 5))
    best = best_threshold(scores, right, objects)
    tried = [f1_from(t, scores, right, objects) for t in np.linspace(0, 1.2, 200)]
    assert best.f1 == pytest.approx(max(tried))
    assert f1_from(best.threshold, scores, right, objects) == pytest.approx(best.f1)


@pytest.mark.parametrize(("right", "objects"), [([], 0), ([], 3), ([False], 2), ([True], 0)])
def test_where_nothing_can_be_told(right, objects):
    assert best_threshold(np.full(len(right), 0.5), np.array(right, dtype=bool), objects) is None


def test_thresholds_of_an_evaluation(tmp_path):
    """One class has a good detection of 0.6 above a bad one of 0.2; the other class nothing right."""

    square = {"iscrowd": 0, "area": 100, "image_id": 1}
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 50, "width": 50}],
        "annotations": [
            {"id": 1, "category_id": 3, "bbox": [0, 0, 10, 10], **square},
            {"id": 2, "category_id": 7, "bbox": [30, 30, 10, 10], **square},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    evaluator = CocoEvaluator(path, tasks=["bbox"])
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 30, 10, 40]])
    found = Instances((50, 50), boxes, torch.tensor([0.6, 0.2, 0.9]), torch.tensor([0, 0, 1]))
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    assert evaluator.score_thresholds() == {}
    evaluator.evaluate()
    best = evaluator.score_thresholds()
    assert list(best) == [3]
    assert (best[3].threshold, best[3].f1) == (pytest.approx(0.4), 1.0)


def test_the_lowest_threshold_of_a_precision():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.2])
    right = np.array([True, True, False, True, True, False])
    found = best_threshold(scores, right, 5).for_precision
    # Precisions from the top: 1, 1, 2/3, (two together) 4/5, 4/6.
    assert found[0.99] == found[0.85] == pytest.approx(0.75)
    assert found[0.8] == found[0.7] == pytest.approx(0.4)
    assert found[0.6] == found[0.5] == pytest.approx(0.2)
    wrong_first = best_threshold(np.array([0.9, 0.5]), np.array([False, True]), 1).for_precision
    assert wrong_first == {0.5: 0.5}
