"""Hooks, in whole runs of the dummy model and on their own."""

import gzip
import io
import json
import logging
import math
import mmap
import re
import sys

import pytest
import torch
from PIL import Image
from rich.console import Console

from detrex.checkpoint import Checkpointer, CheckpointError
from detrex.cli.train import main
from detrex.engine import do_train, launch
from detrex.engine.hooks import EarlyStopping, EvaluationHistory, Goal
from detrex.runtime.distributed import rank
from tests.engine import dummy
from tests.engine.runs import evaluating, load, losses, metrics

BEST = ("train.checkpoint.best_metric=dummy/accuracy", "train.checkpoint.keep=1")
STOPPING = ("train.early_stopping.metric=dummy/accuracy", "train.early_stopping.patience=2")


def best(output_dir) -> dict:
    return json.loads((output_dir / "checkpoints" / "best_checkpoint").read_text())


@pytest.mark.parametrize(
    ("mode", "value", "other", "by", "expected"),
    [
        ("max", 2.0, 1.0, 0.0, True),
        ("max", 1.0, 1.0, 0.0, False),
        ("max", 2.0, 1.0, 1.0, False),
        ("min", 1.0, 2.0, 0.0, True),
        ("min", 2.0, 1.0, 0.0, False),
        ("min", -1.0, None, 9.0, True),
        ("max", math.nan, None, 0.0, False),
        ("min", math.nan, 1.0, 0.0, False),
    ],
)
def test_improvements(mode, value, other, by, expected):
    assert Goal("m", mode, "key").improves(value, other, by) is expected


def test_smaller_can_be_better(tmp_path):
    values = evaluating(10.0, math.nan, 5.0, 20.0)
    settings = ("train.max_iter=4", "train.eval_period=1", *BEST, "train.checkpoint.best_mode=min")
    do_train(load(tmp_path, values, *settings))
    expected = {"checkpoint": "iteration_0000003", "metric": "dummy/accuracy", "value": 5.0}
    assert best(tmp_path) == expected


def test_an_unknown_mode_is_found_before_training(tmp_path):
    with pytest.raises(ValueError, match="beside train.checkpoint.best_metric must be max or min, not 'up'"):
        do_train(load(tmp_path, *BEST, "train.checkpoint.best_mode=up"))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_another_metric_does_not_compete_with_the_best_value_of_the_first(tmp_path):
    do_train(load(tmp_path, evaluating(90.0, 90.0), "train.max_iter=2", "train.eval_period=1", *BEST))
    other = [*BEST[1:], "train.checkpoint.best_metric=other", evaluating(1.0, 1.0, name="other")]
    do_train(load(tmp_path, "train.max_iter=3", "train.eval_period=1", *other), resume=True)
    assert best(tmp_path)["value"] == 1.0


@pytest.mark.parametrize("killed_at", [2, 3])
def test_the_best_checkpoint_of_a_resumed_run(tmp_path, killed_at):
    """A run that is killed after it saved a checkpoint and before it evaluated makes up for that."""
    settings = ("train.max_iter=5", "train.eval_period=1", "train.checkpoint.period=1", *BEST)
    values = [10.0, 30.0, 20.0, 15.0, 25.0]
    with pytest.raises(dummy.Killed):
        do_train(load(tmp_path, evaluating(*values[: killed_at - 1], None), *settings))
    do_train(load(tmp_path, evaluating(*values[killed_at - 1 :]), *settings), resume=True)
    assert best(tmp_path)["checkpoint"] == "iteration_0000002" and best(tmp_path)["value"] == 30.0
    evaluated = [(m["iteration"], m["dummy/accuracy"]) for m in metrics(tmp_path) if "dummy/accuracy" in m]
    assert evaluated == list(enumerate(values, start=1))


def test_a_best_checkpoint_that_could_not_be_saved_is_not_marked(tmp_path, monkeypatch):
    def save(*_):
        raise OSError(28, "No space left on device")

    settings = (evaluating(1.0, 3.0, 2.0), "train.max_iter=3", "train.eval_period=1", *BEST)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", save)
        with pytest.raises(CheckpointError, match="No space left"):
            do_train(load(tmp_path, *settings))
    assert not (tmp_path / "checkpoints" / "best_checkpoint").exists()


def history_of(values, path):
    history = EvaluationHistory(path)
    for iteration, value in enumerate(values, start=1):
        history.add(iteration, {"m": value})
    return history


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "stops_after"),
    [
        ("max", 0.0, [1, 2, 1, 2, 3], 4),
        ("max", 0.0, [1, 2, 3, 4, 5], None),
        ("min", 0.0, [3, 2, 2.5, 1, 1, 1], 6),
        ("max", 1.0, [1, 1.5, 2.5, 3, 3.5, 4], 5),  # measured from the best that counted
        ("max", 0.0, [math.nan, math.nan, 5], 2),
    ],
)
def test_early_stopping_by_hand(tmp_path, mode, min_delta, values, stops_after):
    stopping = EarlyStopping(Goal("m", mode, "key"), 2, min_delta)
    reached = [
        stopping.reached(history_of(values[:n], tmp_path / "h.json")) for n in range(1, len(values) + 1)
    ]
    assert (reached.index(True) + 1 if any(reached) else None) == stops_after


@pytest.mark.parametrize(
    ("setting", "message"),
    [("patience=0", "patience must be at least 1"), ("min_delta=-1", "min_delta must not be negative")],
)
def test_settings_of_early_stopping_are_checked(tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        do_train(load(tmp_path, *STOPPING, f"train.early_stopping.{setting}"))


def test_a_run_that_stops_early_ends_like_any_other(tmp_path, caplog):
    settings = ("train.max_iter=9", "train.eval_period=1", "train.checkpoint.period=5", *STOPPING)
    with caplog.at_level(logging.INFO):
        found = do_train(load(tmp_path, evaluating(10.0, 30.0, 20.0, 30.0), *settings))
    assert "training ends after iteration 4: dummy/accuracy has not improved in 2 evaluations" in caplog.text
    assert found == {"dummy/accuracy": 30.0}
    assert Checkpointer(tmp_path / "checkpoints").resume().iteration == 4
    assert (tmp_path / "model_final.safetensors").exists() and (tmp_path / "results.json").exists()
    # Resumed, it is still at its end, and with more patience it goes on.
    do_train(load(tmp_path, evaluating(30.0), *settings), resume=True)
    assert [i for i, _ in losses(tmp_path)] == [1, 2, 3, 4]
    more = [*settings, "train.early_stopping.patience=4"]
    do_train(load(tmp_path, evaluating(20.0, 20.0), *more), resume=True)
    assert [i for i, _ in losses(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_counts_on(tmp_path):
    settings = ("train.eval_period=1", *STOPPING)
    do_train(load(tmp_path, evaluating(30.0, 20.0), "train.max_iter=2", *settings))
    do_train(load(tmp_path, evaluating(20.0), "train.max_iter=9", *settings), resume=True)
    assert [i for i, _ in losses(tmp_path)] == [1, 2, 3]


def stop_with_values_of_their_own(output_dir):
    """Processes whose evaluators disagree, as no evaluator should."""
    values = [[9, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6]][rank()]
    settings = ("train.max_iter=6", "train.eval_period=1", *BEST, *STOPPING)
    main(load(output_dir, evaluating(*values), *settings))


def test_all_processes_stop_together(tmp_path):
    launch(stop_with_values_of_their_own, (tmp_path,), num_gpus=2)
    assert [i for i, _ in losses(tmp_path)] == [1, 2, 3]
    assert best(tmp_path)["value"] == 9


def test_history_survives_and_forgets_what_comes_again(tmp_path):
    history_of([1.0, math.nan, 3.0], tmp_path / "h.json")
    resumed = EvaluationHistory(tmp_path / "h.json")
    resumed.restore(2)
    first, second = resumed.values("m")
    assert first == 1.0 and math.isnan(second) and 2 in resumed and 3 not in resumed
    assert all(math.isnan(value) for value in resumed.values("unknown"))


def test_rates_and_norms_by_part_of_the_model(tmp_path):
    settings = ("train.max_iter=3", "optimizer.lr_factors={backbone: 0.1}", "train.clip_grad.max_norm=1e-3")
    do_train(load(tmp_path, *settings))
    for _, logged in losses(tmp_path):
        assert logged["lr/backbone"] == pytest.approx(0.1 * logged["lr"])
        assert logged["lr/head"] == logged["lr/level_embed"] == pytest.approx(logged["lr"])
        parts = [value for name, value in logged.items() if name.startswith("grad_norm/")]
        # Of the whole gradient before clipping, though clipping has long been done.
        assert math.hypot(*parts) == pytest.approx(logged["grad_norm"], rel=1e-4)
        assert logged["grad_norm"] > 1e-2


def test_steps_left_out_do_not_count_in_what_is_logged(tmp_path, caplog):
    settings = ("dataloader.train.poisoned=4", "train.max_skipped_steps=1", "train.eval_period=0")
    each, few = tmp_path / "each", tmp_path / "few"
    with caplog.at_level(logging.INFO):
        do_train(load(each, *settings), console=Console(file=io.StringIO(), force_terminal=True))
    assert re.search(r"iteration 5/6  eta \S+  no step was taken  lr ", caplog.text)
    do_train(load(few, *settings, "train.log_period=3"))
    assert [iteration for iteration, _ in losses(each)] == [1, 2, 3, 4, 6]
    (skipped,) = [m for m in metrics(each) if m["iteration"] == 5]
    assert "step_time" in skipped and not any(n.startswith(("loss", "grad_norm")) for n in skipped)
    by_step = dict(losses(each))
    for name in ("loss", "loss_class", "grad_norm"):
        expected = (by_step[4][name] + by_step[6][name]) / 2
        assert losses(few)[-1][1][name] == pytest.approx(expected, rel=1e-5)


def test_another_norm(tmp_path):
    config = load(tmp_path, "train.max_iter=1")
    config.train.clip_grad.norm_type = math.inf
    do_train(config)
    ((_, logged),) = losses(tmp_path)
    parts = [value for name, value in logged.items() if name.startswith("grad_norm/")]
    assert max(parts) == pytest.approx(logged["grad_norm"], rel=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a process has")
def test_memory_of_the_process(tmp_path, monkeypatch):
    kept = []
    real = torch.Tensor.backward

    def backward(*args, **kwargs):
        # 200 MiB a step from the system: what tensors left in earlier tests would serve for a tensor.
        kept.append(mmap.mmap(-1, 200 * 2**20))
        kept[-1].write(b"1" * (200 * 2**20))
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    do_train(load(tmp_path, "train.max_iter=3", "train.eval_period=0"))
    found = [m["process_memory_mb"] for m in metrics(tmp_path) if "loss" in m]
    assert 200 < found[2] - found[0] < 600  # the rest of the process grows and shrinks, too


def profiled(output_dir, *settings) -> list[str]:
    do_train(load(output_dir, "train.max_iter=4", "train.profiler.start=2", *settings))
    trace = json.loads(gzip.decompress(next((output_dir / "profile").glob("*.json.gz")).read_bytes()))
    table = next((output_dir / "profile").glob("*.txt")).read_text()
    assert "aten::" in table and "CPU" in table
    return sorted({e["name"] for e in trace["traceEvents"] if e.get("name", "").startswith("step ")})


def test_the_profiler_sees_the_steps_it_is_told(tmp_path):
    assert profiled(tmp_path, "train.profiler.stop=3") == ["step 2", "step 3"]
    assert (tmp_path / "profile" / "steps_2_to_3.json.gz").is_file()


def test_a_profile_of_more_steps_than_there_are(tmp_path):
    assert profiled(tmp_path, "train.profiler.stop=9") == ["step 2", "step 3", "step 4"]


def test_steps_that_cannot_be_profiled(tmp_path):
    with pytest.raises(ValueError, match="no steps from start=3 to stop=2"):
        do_train(load(tmp_path, "train.profiler.start=3", "train.profiler.stop=2"))


class Pictures:
    """A writer that keeps what it is given."""

    shows_pictures = True
    seen: list = []

    def open(self, *_):
        pass

    write = close = open

    def picture(self, iteration, name, image):
        self.seen.append((iteration, name, image.size))


def test_writers_that_show_pictures_get_one_at_every_evaluation(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("tests.engine.test_hooks.Pictures.seen", seen)  # which may not be this module
    monkeypatch.setattr("detrex.engine.run_evaluation.Evaluation.draw", lambda *_: Image.new("RGB", (8, 6)))
    writer = "{enabled: true, writer: {_target_: tests.engine.test_hooks.Pictures}}"
    do_train(load(tmp_path, "train.max_iter=4", "train.eval_period=2", f"+train.writers.own={writer}"))
    assert seen == [(2, "predictions", (8, 6)), (4, "predictions", (8, 6))]


@pytest.mark.gpu
def test_memory_and_profile_of_a_gpu(tmp_path):
    settings = ("train.device=auto", "train.profiler.stop=3")
    assert profiled(tmp_path, *settings) == ["step 2", "step 3"]
    assert "CUDA" in next((tmp_path / "profile").glob("*.txt")).read_text()
    for _, logged in [(m["iteration"], m) for m in metrics(tmp_path) if "loss" in m]:
        assert logged["reserved_memory_mb"] >= logged["max_memory_mb"] > 0
    assert torch.cuda.is_available()
