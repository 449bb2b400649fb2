"""Evaluation in a process of its own, of the dummy model, while training goes on."""

import json

import pytest

from detrex.config import ConfigError
from detrex.engine import do_train
from detrex.engine.beside import EvaluationProcess
from tests.engine import runs
from tests.engine.runs import evaluating, load

BESIDE = ("train.eval_beside.enabled=true", "train.eval_beside.threads=1")
BEST = ("train.checkpoint.best_metric=dummy/accuracy", "train.checkpoint.keep=1")
LONG = ("train.max_iter=8", "train.checkpoint.period=2")


def evaluations(folder):
    """Metrics by iteration, as the run keeps them."""
    content = json.loads((folder / "evaluations.json").read_text())
    return {entry["iteration"]: entry["metrics"] for entry in content}


def best(folder):
    return json.loads((folder / "checkpoints" / "best_checkpoint").read_text())


def test_a_run_is_the_same_with_evaluation_beside_it(tmp_path, caplog):
    caplog.set_level("INFO")
    average = ("train.ema.enabled=true", "train.ema.decay=0.5")
    usual, beside = tmp_path / "usual", tmp_path / "beside"
    metrics = [
        do_train(load(folder, *average, *BEST, *more)) for folder, more in ((usual, ()), (beside, BESIDE))
    ]
    assert metrics[0] == metrics[1] and "ema/dummy/accuracy" in metrics[0]
    assert evaluations(beside) == evaluations(usual) and set(evaluations(usual)) == {2, 4, 6}
    assert runs.losses(beside) == runs.losses(usual)
    written = [m["iteration"] for m in runs.metrics(beside) if "dummy/accuracy" in m]
    assert written == [2, 4, 6]
    assert best(beside) == best(usual)
    assert (beside / "checkpoints" / best(beside)["checkpoint"]).is_dir()
    assert "evaluation after iteration 2, beside training" in caplog.text


def test_a_failure_costs_one_evaluation_alone(tmp_path, caplog):
    # Each process counts from the first value on. The second one ends the process.
    metrics = do_train(load(tmp_path, *LONG, *BESIDE, *BEST, evaluating(1.0, None)))
    assert metrics == {"dummy/accuracy": 1.0}
    assert set(evaluations(tmp_path)) == {2, 6, 8}
    assert "the evaluation after iteration 4, beside training, failed: its process has ended" in caplog.text
    caplog.clear()
    broken = "dataloader.evaluators=[{_target_: tests.engine.dummy.Broken}]"
    with pytest.raises(RuntimeError, match="no metrics"):  # at the end, as without a process beside
        do_train(load(tmp_path / "broken", *LONG, *BESIDE, broken))
    assert caplog.text.count("beside training, failed: RuntimeError: no metrics") == 3


def test_a_resumed_run_makes_up_for_what_was_not_done(tmp_path):
    do_train(load(tmp_path, "train.max_iter=4", "train.eval_period=0", "train.checkpoint.period=2"))
    (tmp_path / "evaluations.json").unlink()
    do_train(load(tmp_path, *LONG, *BESIDE), resume=True)
    assert set(evaluations(tmp_path)) == {2, 4, 6, 8}


def test_it_stops_a_run_early(tmp_path):
    stopping = ("train.early_stopping.metric=dummy/accuracy", "train.early_stopping.patience=1")
    do_train(load(tmp_path, "train.max_iter=40", *BESIDE, *stopping, evaluating(2.0, 1.0, 0.5, 0.2)))
    assert max(evaluations(tmp_path)) < 40
    assert (tmp_path / "model_final.safetensors").is_file()


def test_settings_are_checked(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"train\.eval_beside\.threads=0"):
        do_train(load(tmp_path, "train.eval_beside.threads=0"))
    monkeypatch.setattr("detrex.engine.beside.world_size", lambda: 2)
    with pytest.raises(ConfigError, match="runs of one process"):
        EvaluationProcess(load(tmp_path, *BESIDE))
