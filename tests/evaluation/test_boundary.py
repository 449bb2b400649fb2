"""Boundaries of masks, checked against erosion step by step and an independent package."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from detrex.evaluation import CocoEvaluator, SemanticEvaluator
from detrex.evaluation.boundary import boundary_width, label_boundary, mask_boundary
from detrex.structures import Categories, Instances, encode_masks

SIZE = (90, 120)


def blob(rng, size=SIZE):
    noise = ndimage.gaussian_filter(rng.normal(size=size), 8)
    return noise > noise.std() * 0.6


def eroded(mask, steps):
    """As the paper's code does it: each step takes off what touches the outside, also of the image."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        neighbours = [np.roll(padded, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        mask = np.logical_and.reduce(neighbours)[1:-1, 1:-1]
    return mask


@pytest.mark.parametrize("width", [1, 3])
def test_boundaries_are_what_erosion_takes_off(width):
    rng = np.random.default_rng(0)
    for mask in (blob(rng), np.ones(SIZE, bool), np.zeros(SIZE, bool)):
        np.testing.assert_array_equal(mask_boundary(mask, width), mask & ~eroded(mask, width))
    labels = blob(rng) + 2 * blob(rng)
    by_class = [(labels == k) & ~eroded(labels == k, width) for k in range(4)]
    np.testing.assert_array_equal(label_boundary(labels, width), np.logical_or.reduce(by_class))
    assert boundary_width((480, 640)) == 16 and boundary_width((5, 5)) == 1


@pytest.fixture
def data(tmp_path):
    """Annotations of six images with two blobs each, and detections with other outlines."""
    rng = np.random.default_rng(3)
    annotations, found = [], {}
    for image in range(1, 7):
        masks = [blob(rng) for _ in range(2)]
        rough = [ndimage.binary_dilation(mask, iterations=int(rng.integers(1, 4))) for mask in masks]
        for k, mask in enumerate(masks):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": k + 1,
                    "segmentation": encode_masks(torch.tensor(mask[None]))[0],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
        stacked = torch.tensor(np.stack([*rough, *masks[:1]]))
        boxes, scores = torch.tensor([[0.0, 0, 9, 9]] * 3), torch.tensor([0.9, 0.8, 0.7])
        found[image] = Instances(SIZE, boxes, scores, torch.tensor([0, 1, 0]), stacked)
    images = [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(1, 7)]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": str(k)} for k in (1, 2)],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    return path, found


def run(evaluator, found):
    for image_id, instances in found.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()


def test_boundary_ap_agrees_with_an_independent_package(data, tmp_path):
    faster = pytest.importorskip("faster_coco_eval")
    path, found = data
    evaluator = CocoEvaluator(path, ["segm", "boundary"], output_dir=tmp_path)
    metrics = run(evaluator, found)
    assert metrics["boundary/AP"] < metrics["segm/AP"]
    results = json.loads((tmp_path / "coco_instances_results.json").read_text())
    truth = faster.COCO(json.loads(path.read_text()))
    other = faster.COCOeval_faster(truth, truth.loadRes(results), "boundary", extra_calc=False)
    other.run()
    expected = dict(zip(("AP", "AP50", "AP75"), 100 * np.asarray(other.stats[:3]), strict=True))
    assert {name: metrics[f"boundary/{name}"] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_semantic_boundary_iou_by_hand(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(1)
    truth, found = blob(rng) + 2 * blob(rng), blob(rng) + 2 * blob(rng)
    truth[:10] = 255
    (tmp_path / "labels").mkdir()
    Image.fromarray(truth.astype(np.uint8)).save(tmp_path / "labels" / "a.png")
    evaluator = SemanticEvaluator(tmp_path / "labels", classes=["0", "1", "2", "3"], boundary=True)
    scores = torch.nn.functional.one_hot(torch.tensor(found), 4).permute(2, 0, 1).float()
    evaluator.process([{"image_id": "a", "file_name": "a.jpg"}], [{"sem_seg": scores}])
    metrics = evaluator.evaluate()
    width, labelled, ious = boundary_width(SIZE), truth != 255, []
    for k in range(4):
        one, two = ((m == k) & ~eroded(m == k, width) & labelled for m in (truth, found))
        ious.append((one & two).sum() / (one | two).sum())
    assert metrics["semantic/boundary_mIoU"] == pytest.approx(100 * np.mean(ious))
    assert set(evaluator.metric_names()) == set(metrics)
    assert evaluator.confusion.sum() == labelled.sum()


def test_panoptic_quality_of_a_semantic_model():
    from detrex.evaluation.panoptic import segments_of

    labels = np.zeros((20, 30), int)
    labels[2:8, 2:8] = labels[2:8, 12:18] = 1  # two things
    labels[15:, :] = 2  # one region of stuff, and a piece
    labels[0, 29] = labels[12, 20] = 1  # too small
    scores = torch.nn.functional.one_hot(torch.tensor(labels), 3).permute(2, 0, 1).float()
    categories = Categories.from_coco(
        [{"id": k, "name": str(k), "isthing": thing} for k, thing in enumerate((0, 1, 0))]
    )
    ids, infos = segments_of(scores, categories, least_area=10)
    assert [info["category_id"] for info in infos] == [0, 1, 1, 2]
    assert (ids[2:8, 2:8] == 2).all() and (ids[2:8, 12:18] == 3).all() and (ids[15:] == 4).all()
    assert ids[0, 29] == 0 and ids[12, 20] == 0
