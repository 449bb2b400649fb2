import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.evaluation import PanopticEvaluator
from detrex.evaluation.panoptic_quality import Segmentation, count_matches, quality
from detrex.structures import Categories
from detrex.structures.panoptic import ids_from_rgb, rgb_from_ids


def brute_force(truth, truth_segments, predicted, predicted_segments, num_classes):
    """(tp, sum of IoU, fp, fn) per class, from sets of pixels and the paper's definition, pair by pair.

    ``truth``, ``predicted``: lists of ids per pixel; segments: dict from id to (class, is crowd).
    """

    def pixels(ids, segment_id):
        return {n for n, i in enumerate(ids) if i == segment_id}

    result = [[0, 0.0, 0, 0] for _ in range(num_classes)]
    void = pixels(truth, 0)
    matched_truth, matched_predicted = set(), set()
    for t, (truth_class, crowd) in truth_segments.items():
        for p, (predicted_class, _) in predicted_segments.items():
            a, b = pixels(truth, t), pixels(predicted, p) - void
            if crowd or truth_class != predicted_class or not a & b:
                continue
            iou = len(a & b) / len(a | b)
            if iou > 0.5:
                assert t not in matched_truth and p not in matched_predicted
                matched_truth.add(t)
                matched_predicted.add(p)
                result[truth_class][0] += 1
                result[truth_class][1] += iou
    for t, (truth_class, crowd) in truth_segments.items():
        if not crowd and t not in matched_truth and pixels(truth, t):
            result[truth_class][3] += 1
    for p, (predicted_class, _) in predicted_segments.items():
        segment = pixels(predicted, p)
        excused = set(void)
        for t, (truth_class, crowd) in truth_segments.items():
            if crowd and truth_class == predicted_class:
                excused |= pixels(truth, t)
        if segment and p not in matched_predicted and len(segment & excused) / len(segment) <= 0.5:
            result[predicted_class][2] += 1
    return np.array(result, float)


def blocks(rng, ids):
    """A 12 x 12 map of rectangles, later ones over earlier ones."""
    image = np.zeros((12, 12), np.int32)
    for i in ids:
        y, x = rng.integers(0, 9, 2)
        height, width = rng.integers(3, 9, 2)
        image[y : y + height, x : x + width] = i
    return image


def test_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    seen = np.zeros(4)
    excused = 0
    for _ in range(300):
        classes = 3
        truth_ids, predicted_ids = (
            [7, 300, 70_000, 9, 2][: rng.integers(0, 6)],
            [1, 2, 3, 4][: rng.integers(0, 5)],
        )
        truth = blocks(rng, truth_ids)
        shifted = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
        predicted = blocks(rng, predicted_ids)
        if rng.random() < 0.7:  # mostly near the truth, so that there are matches
            predicted = np.zeros_like(truth)
            for new, old in zip(predicted_ids, truth_ids, strict=False):
                predicted[shifted == old] = new
        truth_segments = {i: (int(rng.integers(classes)), bool(rng.random() < 0.25)) for i in truth_ids}
        same = dict(zip(predicted_ids, [c for c, _ in truth_segments.values()], strict=False))
        predicted_segments = {
            i: (same[i] if i in same and rng.random() < 0.8 else int(rng.integers(classes)), False)
            for i in predicted_ids
        }
        counts = count_matches(
            Segmentation.from_lists(truth, [(i, *s) for i, s in truth_segments.items()]),
            Segmentation.from_lists(predicted, [(i, *s) for i, s in predicted_segments.items()]),
            classes,
        )
        expected = brute_force(
            truth.ravel().tolist(), truth_segments, predicted.ravel().tolist(), predicted_segments, classes
        )
        np.testing.assert_allclose(counts, expected, atol=1e-12)
        seen += counts.sum(0)
        present = sum((predicted == i).any() for i in predicted_ids)
        excused += present - counts[:, 0].sum() - counts[:, 2].sum()
    assert (seen > 30).all() and excused > 30  # every rule was exercised


def segmentation(rows, *segments):
    return Segmentation.from_lists(np.array(rows), [(i, c, crowd) for i, c, crowd in segments])


def test_hand_computed():
    # Class 0: a match of IoU 3/4 (the fourth predicted pixel is void, the fourth true one is missed);
    # class 1: a truth that is missed, and a prediction elsewhere.
    truth = segmentation(
        [[1, 1, 1, 1, 0, 0], [2, 2, 2, 3, 3, 3]], (1, 0, False), (2, 1, False), (3, 0, False)
    )
    predicted = segmentation([[1, 1, 1, 0, 1, 0], [0, 0, 2, 2, 2, 2]], (1, 0, False), (2, 1, False))
    counts = count_matches(truth, predicted, 3)
    np.testing.assert_allclose(counts, [[1, 0.75, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]])
    values = quality(counts)
    np.testing.assert_allclose(values[0], [0.75 / 1.5, 0.75, 1 / 1.5])
    np.testing.assert_allclose(values[1], [0, 0, 0])
    assert np.isnan(values[2]).all()


def test_iou_of_one_half_is_no_match():
    truth = segmentation([[1, 1, 1, 1]], (1, 0, False))
    predicted = segmentation([[1, 1, 0, 0]], (1, 0, False))
    np.testing.assert_allclose(count_matches(truth, predicted, 1), [[0, 0, 1, 1]])


@pytest.mark.parametrize(("crowd_class", "false_positives"), [(0, 0), (1, 1)])
def test_prediction_in_a_crowd(crowd_class, false_positives):
    truth = segmentation([[5, 5, 5, 0]], (5, crowd_class, True))
    predicted = segmentation([[1, 1, 1, 0]], (1, 0, False))
    np.testing.assert_allclose(count_matches(truth, predicted, 2)[0], [0, 0, false_positives, 0])


def test_prediction_in_two_crowds_of_its_class():
    truth = segmentation([[5, 6, 7]], (5, 0, True), (6, 0, True), (7, 1, False))
    predicted = segmentation([[1, 1, 1]], (1, 0, False))
    assert count_matches(truth, predicted, 2)[0, 2] == 0


def test_prediction_half_in_void_is_a_false_positive():
    truth = segmentation([[0, 0, 1, 1, 1]], (1, 1, False))
    predicted = segmentation([[1, 1, 1, 1, 0]], (1, 0, False))
    assert count_matches(truth, predicted, 2)[0, 2] == 1
    assert count_matches(truth, segmentation([[1, 1, 1, 0, 0]], (1, 0, False)), 2)[0, 2] == 0


def write(tmp_path, maps, infos, categories):
    """Panoptic ground truth: image id -> map, image id -> [(segment id, category id, is crowd)]."""
    folder = tmp_path / "panoptic"
    folder.mkdir()
    for image_id, ids in maps.items():
        Image.fromarray(rgb_from_ids(np.array(ids))).save(folder / f"{image_id}.png")
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": len(ids), "width": len(ids[0])}
            for i, ids in maps.items()
        ],
        "annotations": [
            {
                "image_id": i,
                "file_name": f"{i}.png",
                "segments_info": [{"id": s, "category_id": c, "iscrowd": crowd} for s, c, crowd in segments],
            }
            for i, segments in infos.items()
        ],
        "categories": categories,
    }
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(content))
    return path, folder


CATEGORIES = [
    {"id": 4, "name": "sky", "isthing": 0},
    {"id": 2, "name": "cat", "isthing": 1},
    {"id": 9, "name": "dog", "isthing": 1},
]
MAPS = {1: [[300, 300, 8, 8]], 2: [[5, 5, 0, 6]]}
INFOS = {1: [(300, 2, 0), (8, 4, 0)], 2: [(5, 4, 0), (6, 2, 0)]}


@pytest.fixture
def files(tmp_path):
    return write(tmp_path, MAPS, INFOS, CATEGORIES)


def output(rows, *segments):
    infos = [{"id": i, "category_id": c, "isthing": True, "score": 0.5} for i, c in segments]
    return {"panoptic_seg": (torch.tensor(rows, dtype=torch.int32), infos)}


def test_evaluator(files, tmp_path):
    evaluator = PanopticEvaluator(*files, output_dir=tmp_path / "out")
    # Classes by id: cat 0, sky 1, dog 2. Cat: found (IoU 1) and missed; sky: found twice (1 and 2/3).
    evaluator.process(
        [{"image_id": 1}, {"image_id": 2}],
        [output([[1, 1, 2, 2]], (1, 0), (2, 1)), output([[1, 1, 1, 1]], (1, 1))],
    )
    metrics = evaluator.evaluate()
    cat, sky = [100 / 1.5, 100, 100 / 1.5], [100 * (1 + 2 / 3) / 2, 100 * (1 + 2 / 3) / 2, 100]
    for column, metric in enumerate(["PQ", "SQ", "RQ"]):
        assert metrics[f"panoptic/{metric}_things"] == pytest.approx(cat[column])
        assert metrics[f"panoptic/{metric}_stuff"] == pytest.approx(sky[column])
        assert metrics[f"panoptic/{metric}"] == pytest.approx((cat[column] + sky[column]) / 2)
    assert evaluator.per_class["panoptic/PQ"]["cat"] == pytest.approx(cat[0])
    assert math.isnan(evaluator.per_class["panoptic/PQ"]["dog"])

    written = json.loads((tmp_path / "out/panoptic_results.json").read_text())
    assert written["annotations"][0] == {
        "image_id": 1,
        "file_name": "1.png",
        "segments_info": [{"id": 1, "category_id": 2}, {"id": 2, "category_id": 4}],
    }
    pixels = np.asarray(Image.open(tmp_path / "out/panoptic_results/1.png"))
    np.testing.assert_array_equal(ids_from_rgb(pixels), [[1, 1, 2, 2]])


def test_no_prediction_gives_zero(files):
    evaluator = PanopticEvaluator(*files)
    evaluator.process([{"image_id": 1}], [output([[0, 0, 0, 0]])])
    assert evaluator.evaluate()["panoptic/PQ"] == 0
    evaluator.reset()
    assert math.isnan(evaluator.evaluate()["panoptic/PQ"])


def test_classes_of_the_training_file(files):
    classes = Categories.from_coco([*CATEGORIES, {"id": 1, "name": "eel", "isthing": 1}])
    evaluator = PanopticEvaluator(*files, classes=classes)
    evaluator.process([{"image_id": 1}], [output([[1, 1, 2, 2]], (1, 1), (2, 2))])
    assert evaluator.evaluate()["panoptic/PQ"] == pytest.approx(100)


def test_bad_predictions(files):
    evaluator = PanopticEvaluator(*files)
    with pytest.raises(ValueError, match="image id 3 is not in"):
        evaluator.process([{"image_id": 3}], [output([[0, 0, 0, 0]])])
    with pytest.raises(ValueError, match=r"image 1: .*\(1, 3\).*\(1, 4\)"):
        evaluator.process([{"image_id": 1}], [output([[0, 0, 0]])])
    with pytest.raises(ValueError, match=r"image 1: .*\[7\], which are not listed"):
        evaluator.process([{"image_id": 1}], [output([[7, 1, 1, 1]], (1, 0))])
    with pytest.raises(ValueError, match="distinct"):
        evaluator.process([{"image_id": 1}], [output([[1, 1, 1, 1]], (1, 0), (1, 1))])
    with pytest.raises(ValueError, match=r"predicts the class index 40, but the data has \d classes"):
        evaluator.process([{"image_id": 1}], [output([[1, 1, 1, 1]], (1, 40))])
    with pytest.raises(ValueError, match="no 'panoptic_seg'"):
        evaluator.process([{"image_id": 1}], [{}])


def test_bad_ground_truth(tmp_path):
    path, folder = write(tmp_path, {1: [[300, 8]], 2: [[5, 5]]}, {1: [(300, 2, 0)], 2: []}, CATEGORIES)
    evaluator = PanopticEvaluator(path, folder)
    for image_id, message in [(1, r"1\.png.*\[8\] are in the PNG only"), (2, r"2\.png.*\[5\]")]:
        with pytest.raises(ValueError, match=message):
            evaluator.process([{"image_id": image_id}], [output([[0, 0]])])
    with pytest.raises(ValueError, match="nowhere"):
        PanopticEvaluator(path, tmp_path / "nowhere")
    (folder / "2.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 files .*2\.png \(image id 2\)"):
        PanopticEvaluator(path, folder)


@pytest.mark.parametrize("segment", [{"id": 5, "category_id": 3}, {"id": 5}, {"id": -1, "category_id": 2}])
def test_ground_truth_with_wrong_segments_is_refused_at_once(files, segment):
    path, folder = files
    content = json.loads(path.read_text())
    content["annotations"][1]["segments_info"] = [segment]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"panoptic\.json: image id 2: segment"):
        PanopticEvaluator(path, folder)


def test_opaque_pngs_with_alpha_are_read_and_transparent_ones_are_not(files):
    path, folder = files
    for alpha in (255, 7):
        image = Image.open(folder / "1.png").convert("RGB")
        image.putalpha(alpha)
        image.save(folder / "1.png")
        evaluator = PanopticEvaluator(path, folder)
        if alpha == 255:
            evaluator.process([{"image_id": 1}], [output([[1, 1, 2, 2]], (1, 0), (2, 1))])
            assert evaluator.evaluate()["panoptic/PQ"] == pytest.approx(100)
    with pytest.raises(ValueError, match=r"1\.png is not an 8-bit RGB image"):
        evaluator.process([{"image_id": 1}], [output([[1, 1, 2, 2]], (1, 0), (2, 1))])


@pytest.mark.parametrize(
    ("annotations", "segments"),
    [
        ("coco/annotations/panoptic_val2017.json", "coco/annotations/panoptic_val2017"),
        ("panopticapi_sample/panoptic_examples.json", "panopticapi_sample/panoptic_examples"),
    ],
)
def test_perfect_predictions_on_real_data(shared_data, annotations, segments):
    evaluator = PanopticEvaluator(shared_data / annotations, shared_data / segments)
    index_of = evaluator.categories.index_of
    content = json.loads((shared_data / annotations).read_text())
    for entry in content["annotations"]:
        with Image.open(shared_data / segments / entry["file_name"]) as image:
            rgb = torch.from_numpy(np.array(image)).long()
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        infos = [{"id": s["id"], "category_id": index_of[s["category_id"]]} for s in entry["segments_info"]]
        evaluator.process([{"image_id": entry["image_id"]}], [{"panoptic_seg": (ids.int(), infos)}])
    metrics = evaluator.evaluate()
    assert all(value == pytest.approx(100) for value in metrics.values())
