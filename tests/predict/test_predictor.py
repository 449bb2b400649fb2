"""Predictions against the model called by hand."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.data import DataError, EvalMapper
from detrex.predict import Result, load
from detrex.structures import Instances
from tests.predict.tiny_run import CATEGORIES, noise, save_noise

SIZES = [(40, 60), (60, 40), (40, 60), (30, 50), (40, 60), (52, 40), (64, 64)]
FEW = 0.003  # of the pixels: rounding may decide between two segments


@pytest.fixture
def by_hand(reference):
    """``by_hand(array)`` is the model's output, preprocessed without ``detrex.predict``."""

    def run(*arrays, batched=False):
        samples = []
        for array in arrays:
            image = torch.from_numpy(array).permute(2, 0, 1)
            record = {"image": image, "height": array.shape[0], "width": array.shape[1]}
            samples.append(EvalMapper(64, 96)({**record, "image_id": 0, "file_name": ""}))
        with torch.inference_mode():
            return reference(samples) if batched else [reference([sample])[0] for sample in samples]

    return run


def differing(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one != other).float().mean())


def assert_same(result: Result, output: dict) -> None:
    found: Instances = output["instances"]
    # A pixel at the edge of a mask, which rounding moves to the other side, counts in the mask's quality.
    torch.testing.assert_close(result.scores, found.scores, atol=5e-4, rtol=0)
    torch.testing.assert_close(result.boxes, found.pred_boxes, atol=1e-3, rtol=0)
    assert torch.equal(result.classes, found.pred_classes)
    assert differing(result.masks, found.pred_masks) < FEW
    ids, segments = output["panoptic_seg"]
    assert differing(result.panoptic[0], ids) < FEW
    assert [s["category_id"] for s in result.panoptic[1]] == [s["category_id"] for s in segments]
    assert differing(result.semantic, output["sem_seg"].argmax(0)) < FEW


def assert_equal(one: Result, other: Result) -> None:
    assert one.tasks == other.tasks
    if one.instances is not None:
        assert torch.equal(one.scores, other.scores) and torch.equal(one.classes, other.classes)
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.masks, other.masks)
    if one.panoptic is not None:
        assert torch.equal(one.panoptic[0], other.panoptic[0]) and one.panoptic[1] == other.panoptic[1]


def test_one_image_at_its_original_size(predictor, by_hand):
    result = predictor.predict(noise(40, 60))
    assert isinstance(result, Result)
    assert_same(result, by_hand(noise(40, 60))[0])
    assert len(result) > 5
    assert result.image_size == tuple(result.masks.shape[1:]) == tuple(result.semantic.shape) == (40, 60)
    assert np.array_equal(result.image.permute(1, 2, 0).numpy(), noise(40, 60))
    assert result.categories == CATEGORIES and set(result.class_names) <= {"cat", "dog"}


def test_words_about_a_predictor(predictor, tiny_run):
    assert predictor.names == ("cat", "dog", "sky")
    tasks = "instance, panoptic, semantic"
    assert repr(predictor) == f"<Predictor of 3 classes (cat, dog, sky): {tasks}; on cpu>"
    assert repr(load(tiny_run.folder, device="cpu", amp="bf16")).endswith("on cpu, bf16>")


def test_a_call_predicts(predictor):
    result = predictor(noise(40, 60), score_threshold=0.2, tasks=["instance"])
    assert_equal(result, predictor.predict(noise(40, 60), score_threshold=0.2, tasks=["instance"]))
    assert [r.tasks for r in predictor([noise(40, 60)], tasks=["semantic"])] == [("semantic",)]


def test_a_list_of_different_kinds(predictor, by_hand, tmp_path):
    path = save_noise(tmp_path / "ab.png", 50, 30)
    images = [
        path,
        str(path),
        Image.open(path),
        noise(40, 60),
        torch.from_numpy(noise(40, 60)).permute(2, 0, 1),
    ]
    results = predictor.predict(images)
    hand = by_hand(noise(50, 30, len("ab.png")), noise(40, 60))
    for result, output in zip(results, [hand[0]] * 3 + [hand[1]] * 2, strict=True):
        assert_same(result, output)
    assert [r.file_name for r in results] == [str(path), str(path), "", "", ""]
    assert len(predictor.predict((noise(40, 60),))) == 1 and predictor.predict([]) == []


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_results_do_not_depend_on_their_neighbours(predictor, by_hand, batch_size):
    images = [noise(*size, seed=i) for i, size in enumerate(SIZES)]
    results = predictor.predict(images, batch_size=batch_size)
    for result, output in zip(results, by_hand(*images), strict=True):
        assert_same(result, output)


def test_padded_beside_a_larger_image_they_would(by_hand):
    images = noise(40, 60), noise(60, 40, 1)
    alone, together = by_hand(*images), by_hand(*images, batched=True)
    gaps = [
        (a["instances"].scores - b["instances"].scores).abs().max()
        for a, b in zip(alone, together, strict=True)
        if len(a["instances"]) == len(b["instances"])
    ]
    assert not gaps or max(gaps) > 1e-3


def test_batches_are_as_large_as_they_may_be(tiny_run):
    sizes = []
    predictor = load(tiny_run.folder, device="cpu")
    predictor.model.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    # Of these, (40, 60) and (41, 60) become 64 x 96 when padded, the other one 96 x 64.
    images = [noise(40, 60), noise(60, 40), noise(41, 60), noise(40, 60), noise(40, 60), noise(60, 40)]
    predictor.predict(images, batch_size=3)
    assert sizes == [3, 1, 2]
    sizes.clear()
    predictor.predict(images)
    assert sizes == [1] * 6


def test_a_threshold_leaves_out_what_is_below(predictor):
    everything = predictor.predict(noise(40, 60))
    middle = float(everything.scores.median())
    above = predictor.predict(noise(40, 60), score_threshold=middle)
    expected = everything.instances[everything.scores >= middle]
    assert 0 < len(above) < len(everything)
    assert torch.equal(above.scores, expected.scores) and torch.equal(above.boxes, expected.pred_boxes)
    assert len(predictor.predict(noise(40, 60), score_threshold=1.0)) == 0
    assert_equal(predictor.predict(noise(40, 60)), everything)


@pytest.mark.parametrize("segments", [None, 0.7])
def test_settings_of_a_call_are_those_of_a_config(tiny_run, predictor, segments):
    middle = float(predictor.predict(noise(40, 60)).scores.median())
    changed = load(
        tiny_run.folder,
        overrides=[
            f"model.postprocess.instance={{max_detections: 5, score_threshold: {middle}}}",
            f"model.postprocess.panoptic.score_threshold={segments or middle}",
        ],
    )
    expected = changed.predict(noise(40, 60))
    assert 0 < len(expected) <= 5
    threshold = {"instance": middle, "panoptic": segments} if segments else middle
    result = predictor.predict(noise(40, 60), score_threshold=threshold, max_detections=5)
    assert_equal(result, expected)


def test_a_threshold_for_one_task(predictor):
    plain = predictor.predict(noise(40, 60))
    result = predictor.predict(noise(40, 60), score_threshold={"instance": 1.0})
    assert len(result) == 0 and torch.equal(result.panoptic[0], plain.panoptic[0])
    result = predictor.predict(noise(40, 60), score_threshold={"panoptic": 1.0})
    assert len(result) == len(plain) and plain.panoptic[1] and not result.panoptic[1]


def test_only_the_tasks_that_are_asked_for(predictor):
    assert predictor.tasks == ("instance", "panoptic", "semantic")
    result = predictor.predict(noise(40, 60), tasks=["panoptic"])
    assert result.tasks == ("panoptic",) and result.instances is None and result.semantic is None
    assert predictor.predict(noise(40, 60)).tasks == predictor.tasks


def test_scores_of_all_classes_only_if_asked_for(predictor, by_hand):
    assert predictor.predict(noise(40, 60)).semantic_scores is None
    result = predictor.predict(noise(40, 60), keep_scores=True)
    expected = by_hand(noise(40, 60))[0]["sem_seg"]
    torch.testing.assert_close(result.semantic_scores, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(result.semantic_scores.argmax(0), result.semantic)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_threshold": 1.5}, r"score_threshold=1.5.*from 0 to 1"),
        ({"score_threshold": float("nan")}, r"from 0 to 1"),
        ({"score_threshold": {"semantic": 0.5}}, r"'semantic' has none"),
        ({"max_detections": 0}, r"max_detections=0.*at least 1"),
        ({"batch_size": 0}, r"batch_size=0"),
        ({"tasks": ["depth"]}, r"\['depth'\]: this model gives instance, panoptic, semantic"),
        ({"tasks": []}, r"this model gives"),
    ],
)
def test_settings_out_of_range_are_told_before_the_first_image(predictor, settings, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict_iter(iter([]), **settings)


def test_a_task_that_the_model_does_not_give(tiny_run):
    model = load(tiny_run.folder, overrides=["model.postprocess.panoptic=null"])
    assert model.tasks == ("instance", "semantic")
    assert model.predict(noise(40, 60), score_threshold=0.5).panoptic is None
    with pytest.raises(ValueError, match=r"\['panoptic'\]: this model gives instance, semantic"):
        model.predict(noise(40, 60), tasks=["panoptic"])


def test_images_are_read_as_they_are_needed(predictor):
    read = []

    def images():
        for i in range(1000):
            read.append(i)
            yield noise(40, 60, i)

    results = predictor.predict_iter(images())
    assert not read
    next(results)
    assert read == [0]
    next(predictor.predict_iter(images(), batch_size=2))
    assert len(read) - 1 == 8


def test_an_image_that_cannot_be_read_can_be_left_out(predictor, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    images = [save_noise(tmp_path / "a.png"), tmp_path / "bad.png", save_noise(tmp_path / "bb.png")]
    with pytest.raises(DataError, match=r"bad.png cannot be decoded"):
        list(predictor.predict_iter(images))
    told = []
    results = list(predictor.predict_iter(images, on_error=lambda *what: told.append(what), batch_size=2))
    assert [r.file_name for r in results] == [str(images[0]), str(images[2])]
    ((image, error),) = told
    assert image == images[1] and isinstance(error, DataError)


def test_results_are_ordinary_tensors(predictor):
    results = predictor.predict_iter([noise(40, 60)], keep_scores=True)
    result = next(results)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    tensors = (result.boxes, result.scores, result.classes, result.masks, result.panoptic[0], result.semantic)
    for tensor in (*tensors, result.semantic_scores):
        assert not tensor.is_inference()
        tensor[:] = 0


def test_threads_share_a_predictor(predictor):
    images = [noise(40, 60, i) for i in range(3)]
    thresholds = [0.0, 0.3, 0.6, 1.0] * 3
    expected = {t: predictor.predict(images, score_threshold=t) for t in set(thresholds)}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda t: predictor.predict(images, score_threshold=t), thresholds))
    for threshold, results in zip(thresholds, found, strict=True):
        for result, other in zip(results, expected[threshold], strict=True):
            assert_equal(result, other)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 2), (700, 500)])
def test_images_of_unusual_sizes(predictor, size):
    result = predictor.predict(noise(*size))
    assert result.masks.shape[1:] == result.semantic.shape == size
    assert json.dumps(result.to_dict()) and result.draw().size[0] >= size[1]


def test_mixed_precision(tiny_run, predictor):
    exact = predictor.predict(noise(40, 60), keep_scores=True)
    result = load(tiny_run.folder, device="cpu", amp="bf16").predict(noise(40, 60), keep_scores=True)
    assert result.scores.dtype == torch.float32
    gap = (result.semantic_scores - exact.semantic_scores).abs().mean()
    assert 0 < gap < 0.1 * exact.semantic_scores.mean()


@pytest.mark.gpu
def test_on_a_gpu(tiny_run, predictor):
    images = [noise(*size, seed=i) for i, size in enumerate(SIZES)]
    model = load(tiny_run.folder, device="cuda")
    for result, other in zip(model.predict(images, batch_size=4), predictor.predict(images), strict=True):
        assert not result.masks.is_cuda and not result.image.is_cuda
        torch.testing.assert_close(result.scores, other.scores, atol=1e-2, rtol=0)
    on_device = torch.from_numpy(images[0]).permute(2, 0, 1).cuda()
    assert_equal(model.predict(on_device), model.predict(images[0]))


def test_loading_and_predicting_print_nothing(tiny_run, capsys, caplog):
    with caplog.at_level(logging.WARNING):
        load(tiny_run.folder).predict(noise(40, 60))
    assert capsys.readouterr() == ("", "") and not caplog.text
