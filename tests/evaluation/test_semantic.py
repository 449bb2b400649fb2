import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.evaluation import SemanticEvaluator
from detrex.evaluation.semantic import count_pixels, semantic_metrics
from detrex.structures import Categories
from detrex.structures.panoptic import rgb_from_ids


def scores_of(labels, num_classes):
    """(C, H, W) scores whose arg max is ``labels``."""
    return torch.nn.functional.one_hot(torch.as_tensor(labels).long(), num_classes).permute(2, 0, 1).float()


def write_pngs(folder, labels):
    folder.mkdir(exist_ok=True)
    for name, values in labels.items():
        Image.fromarray(np.array(values, np.uint8)).save(folder / f"{name}.png")
    return folder


def run(evaluator, predictions, num_classes):
    for number, (name, labels) in enumerate(predictions.items()):
        sample = {"image_id": number, "file_name": f"{name}.jpg"}
        evaluator.process([sample], [{"sem_seg": scores_of(labels, num_classes)}])
    return evaluator.evaluate()


def by_sets(images, num_classes):
    """Metrics from sets of pixels, class by class; images are pairs of flat lists, truth -1 = ignored."""
    pixels = [(n, i) for n, (truth, _) in enumerate(images) for i, t in enumerate(truth) if t >= 0]
    ious, weighted, accuracies, right = [], 0, [], 0
    for k in range(num_classes):
        truth = {(n, i) for n, i in pixels if images[n][0][i] == k}
        predicted = {(n, i) for n, i in pixels if images[n][1][i] == k}
        right += len(truth & predicted)
        if truth | predicted:
            ious.append(len(truth & predicted) / len(truth | predicted))
            weighted += ious[-1] * len(truth) / len(pixels)
        if truth:
            accuracies.append(len(truth & predicted) / len(truth))
    return {
        "mIoU": 100 * sum(ious) / len(ious),
        "fwIoU": 100 * weighted,
        "mean_accuracy": 100 * sum(accuracies) / len(accuracies),
        "pixel_accuracy": 100 * right / len(pixels),
    }


def test_agrees_with_sets():
    rng = np.random.default_rng(0)
    for _ in range(20):
        # Of 6 classes, 5 is in neither, 4 only predicted, 3 only in the truth.
        truth = rng.integers(-1, 4, (3, 8, 9))
        predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.choice([0, 1, 2, 4], truth.shape))
        predicted[(predicted == 3) | (predicted < 0)] = 0
        confusion = sum(count_pixels(t, p, 6) for t, p in zip(truth, predicted, strict=True))
        metrics, ious = semantic_metrics(confusion)
        pairs = [(t.ravel().tolist(), p.ravel().tolist()) for t, p in zip(truth, predicted, strict=True)]
        assert metrics == pytest.approx(by_sets(pairs, 6))
        assert ious[3] == ious[4] == 0 and math.isnan(ious[5])


def test_hand_computed(tmp_path):
    segments = write_pngs(tmp_path / "png", {"a": [[0, 0, 1, 255]], "b": [[1, 1, 1, 1]]})
    evaluator = SemanticEvaluator(segments, classes=["sky", "road", "tree"])
    metrics = run(evaluator, {"a": [[0, 1, 1, 2]], "b": [[1, 1, 1, 1]]}, 3)
    assert metrics == {
        "semantic/mIoU": pytest.approx(100 * (1 / 2 + 5 / 6) / 2),
        "semantic/fwIoU": pytest.approx(100 * (2 / 7 * 1 / 2 + 5 / 7 * 5 / 6)),
        "semantic/mean_accuracy": pytest.approx(75),
        "semantic/pixel_accuracy": pytest.approx(100 * 6 / 7),
    }
    ious = evaluator.per_class["semantic/IoU"]
    assert ious["sky"] == pytest.approx(50) and math.isnan(ious["tree"])


def test_pngs_hold_category_ids(tmp_path):
    segments = write_pngs(tmp_path / "png", {"a": [[3, 7, 0, 7]]})
    classes = Categories.from_coco([{"id": 7, "name": "road"}, {"id": 3, "name": "sky"}])
    metrics = run(SemanticEvaluator(segments, classes=classes, ignore_label=0), {"a": [[0, 1, 1, 1]]}, 2)
    assert metrics["semantic/mIoU"] == pytest.approx(100)


def test_panoptic_ground_truth(tmp_path):
    ids = np.array([[70_000, 70_000, 12, 0, 13]])
    (tmp_path / "png").mkdir()
    Image.fromarray(rgb_from_ids(ids)).save(tmp_path / "png/x.png")
    segments = [
        {"id": 70_000, "category_id": 9},
        {"id": 12, "category_id": 4},
        {"id": 13, "category_id": 9, "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 0, "file_name": "x.jpg", "height": 1, "width": 5}],
        "annotations": [{"image_id": 0, "file_name": "x.png", "segments_info": segments}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "sky", "isthing": 0}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    evaluator = SemanticEvaluator(tmp_path / "png", annotations=tmp_path / "gt.json")
    assert run(evaluator, {"any": [[1, 1, 0, 0, 1]]}, 2)["semantic/mIoU"] == pytest.approx(100)
    assert run(evaluator, {"any": [[1, 0, 0, 0, 1]]}, 2)["semantic/mIoU"] == pytest.approx(
        100 * (2 / 3 + 1 / 2) / 2
    )


def test_names_of_files(tmp_path):
    (tmp_path / "png").mkdir()
    write_pngs(tmp_path / "png/aachen", {"001_gtFine_labelIds": [[0, 1, 7, 255]]})
    evaluator = SemanticEvaluator(
        tmp_path / "png",
        classes=["sky", "road"],
        ignore_label=[7, 255],
        image_suffix="_leftImg8bit.png",
        segment_suffix="_gtFine_labelIds.png",
    )
    sample = {"image_id": "001", "file_name": "aachen/001_leftImg8bit.png"}
    evaluator.process([sample], [{"sem_seg": scores_of([[0, 1, 0, 1]], 2)}])
    assert evaluator.evaluate()["semantic/mIoU"] == pytest.approx(100)


def test_all_pixels_ignored(tmp_path):
    segments = write_pngs(tmp_path / "png", {"a": [[255, 255]]})
    metrics = run(SemanticEvaluator(segments, classes=["sky"]), {"a": [[0, 0]]}, 1)
    assert all(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize("count", [256, 257])
def test_many_classes(tmp_path, count):
    folder = tmp_path / "png"
    folder.mkdir()
    labels = np.array([[0, count - 1, 200]])
    Image.fromarray(labels.astype(np.uint16)).save(folder / "a.png")
    classes = [str(k) for k in range(count)]
    evaluator = SemanticEvaluator(folder, classes=classes, ignore_label=65535)
    assert run(evaluator, {"a": labels}, count)["semantic/mIoU"] == pytest.approx(100)


def test_bad_input(tmp_path):
    segments = write_pngs(tmp_path / "png", {"a": [[0, 1, 9]], "rgb": np.zeros((1, 3, 3))})
    evaluator = SemanticEvaluator(segments, classes=["sky", "road"])
    with pytest.raises(ValueError, match=r"a\.png has the values \[9\]"):
        run(evaluator, {"a": [[0, 1, 1]]}, 2)
    with pytest.raises(ValueError, match="channels"):
        run(evaluator, {"rgb": [[0, 1, 1]]}, 2)
    with pytest.raises(ValueError, match=r"b\.png"):
        run(evaluator, {"b": [[0, 1, 1]]}, 2)
    with pytest.raises(ValueError, match="sem_seg has 3 classes"):
        run(evaluator, {"a": [[0, 1, 1]]}, 3)
    with pytest.raises(ValueError, match="no 'sem_seg'"):
        evaluator.process([{"image_id": 0, "file_name": "a.png"}], [{}])
    write_pngs(segments, {"a": [[0, 1]]})
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(1, 2\)"):
        run(evaluator, {"a": [[0, 1, 1]]}, 2)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SemanticEvaluator(tmp_path / "nowhere", classes=["sky"])
    with pytest.raises(ValueError, match="needs the classes"):
        SemanticEvaluator(segments)


def test_camvid(shared_data):
    folder = shared_data / "camvid/annotations/val"
    evaluator = SemanticEvaluator(folder, classes=shared_data / "camvid/classes.json")
    labels = {path.stem: np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))}
    metrics = run(evaluator, {name: np.where(v == 255, 0, v) for name, v in labels.items()}, 11)
    assert all(value == pytest.approx(100) for value in metrics.values())
    assert run(evaluator, {name: np.zeros_like(v) for name, v in labels.items()}, 11)["semantic/mIoU"] < 5
