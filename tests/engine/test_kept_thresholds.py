"""Score thresholds travel from an evaluation into the weights, and from there into predictions."""

import json
import logging

import pytest
import torch
from omegaconf import OmegaConf

from detrex.checkpoint import CheckpointError, add_metadata, read_weights, write_weights
from detrex.engine.thresholds import evaluates_folder, keep_thresholds
from detrex.evaluation.thresholds import BestThreshold
from detrex.predict import Precision, load
from tests.predict.tiny_run import noise, write_run


def test_metadata_is_added_and_tensors_stay(tmp_path):
    weights = {"a": torch.rand(3, 5), "b": torch.arange(4), "tied": None}
    weights["tied"] = weights["a"]
    path = tmp_path / "w.safetensors"
    write_weights(path, weights, {"config": "x"})
    for value in ("short", "long " * 50):
        add_metadata(path, {"more": value})
    read, metadata = read_weights(path)
    assert {"config": "x", "more": "long " * 50}.items() <= metadata.items()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_no_file_of_weights_is_left_as_it_is(tmp_path, caplog):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no weights, but long enough")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        add_metadata(path, {"a": "b"})
    keep_thresholds(path, {1: BestThreshold(0.5, 1.0)})
    assert "could not be kept" in caplog.text and path.read_bytes() == b"no weights, but long enough"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def kept_in(run, thresholds):
    (path,) = run.folder.glob("*.safetensors")
    keep_thresholds(path, {i: BestThreshold(t, 0.5) for i, t in thresholds.items()})
    return load(run.folder, device="cpu")


def test_prediction_from_the_best_thresholds_on(run):
    ids = load(run.folder, device="cpu").categories.ids
    picture = noise(48, 64)
    everything = load(run.folder, device="cpu").predict(picture, tasks=["instance"], score_threshold=0)
    middle = float(everything.scores.median())
    model = kept_in(run, {ids[0]: middle, ids[1]: 1.0})
    assert model.score_thresholds[:2] == [pytest.approx(middle, abs=1e-4), 1.0]
    assert set(model.score_thresholds[2:]) <= {None}
    shown = model.predict(picture, tasks=["instance"], score_threshold="best")
    limits = torch.tensor([0.5 if t is None else t for t in model.score_thresholds])
    expected = everything.scores >= limits[everything.classes]
    assert torch.equal(shown.scores, everything.scores[expected]) and 0 < len(shown) < len(everything)
    assert len(model.predict(picture, tasks=["instance"])) == len(everything)  # unless asked for


def test_damaged_thresholds_are_not_used(run, caplog):
    (path,) = run.folder.glob("*.safetensors")
    add_metadata(path, {"score_thresholds": json.dumps({"1": 7})})
    with caplog.at_level(logging.WARNING):
        assert load(run.folder, device="cpu").score_thresholds is None
    assert "score thresholds are damaged" in caplog.text


def test_a_word_is_no_threshold(run):
    with pytest.raises(ValueError, match="or 'best'"):
        load(run.folder, device="cpu").predict(noise(48, 64), score_threshold="good")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("run", True), ("run/model_final.safetensors", True), ("other", False), (None, False)],
)
def test_thresholds_are_added_to_weights_of_the_run_alone(tmp_path, monkeypatch, source, expected):
    monkeypatch.chdir(tmp_path)
    train = OmegaConf.create({"output_dir": "run", "init_checkpoint": source})
    assert evaluates_folder(train) is expected


def test_a_wanted_precision(run, caplog):
    (path,) = run.folder.glob("*.safetensors")
    plain = load(run.folder, device="cpu")
    with pytest.raises(ValueError, match="no thresholds for it are kept"):
        plain.class_thresholds(0.8)
    ids, picture = plain.categories.ids, noise(48, 64)
    everything = plain.predict(picture, tasks=["instance"], score_threshold=0)
    middle = round(float(everything.scores.median()), 4)
    first = BestThreshold(0.5, 0.5, {0.5: 0.01, 0.9: middle})
    keep_thresholds(path, {ids[0]: first, ids[1]: BestThreshold(0.5, 0.5, {0.5: 0.02})})
    model = load(run.folder, device="cpu")
    assert model.class_thresholds(0.4)[:2].tolist() == pytest.approx([0.01, 0.02])
    limits = model.class_thresholds(0.8)
    assert limits[0].item() == pytest.approx(middle) and limits[1:].isinf().all()
    assert "no threshold has a precision of 0.8: dog, sky" in caplog.text
    shown = model.predict(picture, tasks=["instance"], score_threshold=Precision(0.8))
    expected = (everything.scores >= middle) & (everything.classes == 0)
    assert torch.equal(shown.scores, everything.scores[expected]) and len(shown)
    for wrong, words in ((0.95, "no class reached it"), (0.0, "above 0"), (1.5, "above 0")):
        with pytest.raises(ValueError, match=words):
            model.class_thresholds(wrong)
    add_metadata(path, {"precision_thresholds": '{"3": {"0.5": 7}}'})
    assert load(run.folder, device="cpu").precision_thresholds is None
    assert "thresholds for precisions are damaged" in caplog.text
