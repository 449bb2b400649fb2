"""Whole runs of the dummy model in this process."""

import json
import logging
import math

import pytest
import torch

from detrex.checkpoint import CheckpointError, read_weights
from detrex.cli.errors import readable_errors
from detrex.cli.train import main
from detrex.config import ConfigError, LazyConfig, instantiate
from detrex.engine import NonFiniteLossError, do_eval, do_train
from detrex.structures import Categories
from tests.engine import dummy
from tests.engine.runs import evaluating, killed_at, load, losses, metrics


def test_a_run_leaves_all_that_belongs_to_it(tmp_path):
    evaluated = do_train(load(tmp_path, "train.max_iter=4", "train.eval_period=2"))
    assert evaluated.keys() == {"dummy/accuracy"}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "categories.json",
        "checkpoints",
        "config.yaml",
        "environment.txt",
        "evaluations.json",
        "metrics.jsonl",
        "model_final.safetensors",
        "report.html",
        "results.json",
    }
    assert LazyConfig.load(tmp_path / "config.yaml") == load(
        tmp_path, "train.max_iter=4", "train.eval_period=2"
    )
    categories = Categories.from_dict(json.loads((tmp_path / "categories.json").read_text()))
    assert categories.names == ("class 0", "class 1", "class 2")
    environment = (tmp_path / "environment.txt").read_text()
    assert f"torch: {torch.__version__.partition('+')[0]}" in environment and "device: cpu" in environment
    assert json.loads((tmp_path / "results.json").read_text())["metrics"] == evaluated
    evaluations = [m["iteration"] for m in metrics(tmp_path) if "dummy/accuracy" in m]
    assert evaluations == [2, 4]


def test_the_log_says_how_many_images_a_step_sees(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        do_train(load(tmp_path, "train.max_iter=1", "train.accumulation=3"))
    assert "12 images per optimizer step: 4 in a batch of all processes, train.accumulation=3" in caplog.text


def test_a_weights_file_says_its_classes_and_config(tmp_path):
    do_train(load(tmp_path, "train.max_iter=1"))
    _, metadata = read_weights(tmp_path / "model_final.safetensors")
    assert Categories.from_dict(json.loads(metadata["categories"])).names[2] == "class 2"
    assert "max_iter: 1" in metadata["config"] and metadata["iteration"] == "1"


@pytest.mark.parametrize("log_period", [1, 2])
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(tmp_path, log_period):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    period = f"train.log_period={log_period}"
    do_train(load(whole, period))
    with pytest.raises(dummy.Killed):
        do_train(load(parts, period, killed_at(3)))
    assert [i for i, _ in losses(parts)][-1] < 6
    torch.manual_seed(12345)  # another process would be in another state
    do_train(load(parts, period), resume=True)
    assert losses(parts) == losses(whole)  # every number of every step, exactly
    final = [read_weights(d / "model_final.safetensors")[0] for d in (whole, parts)]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])


def test_dropout_and_order_matter_to_the_comparison_of_runs(tmp_path):
    """The test above would see it if random numbers or the order of images were not restored."""
    do_train(load(tmp_path / "a"))
    do_train(load(tmp_path / "b", "train.seed=1"))
    assert losses(tmp_path / "a") != losses(tmp_path / "b")


def test_evaluation_does_not_change_training(tmp_path):
    do_train(load(tmp_path / "a", "train.eval_period=0"))
    do_train(load(tmp_path / "b", "train.eval_period=1"))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_longer_run_drops_the_metrics_after_the_checkpoint(tmp_path):
    with pytest.raises(dummy.Killed):
        do_train(load(tmp_path, killed_at(5)))  # two steps after the checkpoint
    do_train(load(tmp_path), resume=True)
    assert [i for i, _ in losses(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_resume_falls_back_from_a_truncated_checkpoint(tmp_path, caplog):
    overrides = ("train.checkpoint.period=2", "train.max_iter=4")
    do_train(load(tmp_path, *overrides))
    before = losses(tmp_path)
    broken = tmp_path / "checkpoints" / "iteration_0000004" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:100])
    with caplog.at_level(logging.INFO):
        do_train(load(tmp_path, *overrides), resume=True)
    assert str(broken) in caplog.text and "going on after iteration 2" in caplog.text
    assert losses(tmp_path) == before


def test_resume_without_a_checkpoint_starts_anew(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        do_train(load(tmp_path, "train.max_iter=1"), resume=True)
    assert "starting anew" in caplog.text


def test_resume_with_another_config_names_the_differences(tmp_path, caplog):
    do_train(load(tmp_path, "train.max_iter=1"))
    do_train(load(tmp_path, "train.max_iter=2", "optimizer.lr=0.5"), resume=True)
    assert "train.max_iter: 1 -> 2" in caplog.text and "optimizer.lr: 0.01 -> 0.5" in caplog.text


def test_resume_with_another_class_count_is_an_error(tmp_path):
    do_train(load(tmp_path, "train.max_iter=1"))
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        do_train(load(tmp_path, "train.max_iter=2", "model.num_classes=5"), resume=True)


def test_fine_tuning_with_another_class_count(tmp_path, caplog):
    do_train(load(tmp_path / "a", "train.max_iter=1"))
    weights = tmp_path / "a" / "model_final.safetensors"
    tuned = load(
        tmp_path / "b", "model.num_classes=5", f"train.init_checkpoint={weights}", "train.max_iter=1"
    )
    do_train(tuned)
    assert "head.weight, 3x8 in the file, 5x8 in the model" in caplog.text
    with pytest.raises(CheckpointError, match=r"head\.weight, 3x8 in the file, 5x8"):
        do_eval(tuned)


def test_a_class_count_that_is_not_the_data_s_is_found_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"is 4, but the training data has 3 .* model\.num_classes=3"):
        do_train(load(tmp_path, "model.num_classes=4", "dataloader.train.dataset.num_classes=3"))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_other_class_names_are_a_warning(tmp_path, caplog):
    do_train(load(tmp_path / "a", "train.max_iter=1"))
    start = f"train.init_checkpoint={tmp_path / 'a' / 'model_final.safetensors'}"
    do_train(load(tmp_path / "b", start, "train.max_iter=1", "+dataloader.train.dataset.prefix=kind"))
    assert "['class 0', 'class 1', 'class 2'], but the data has ['kind 0', 'kind 1', 'kind 2']" in caplog.text


def test_eval_only_gives_the_figures_of_training(tmp_path):
    trained = do_train(load(tmp_path / "a"))
    weights = tmp_path / "a" / "model_final.safetensors"
    assert do_eval(load(tmp_path / "b", f"train.init_checkpoint={weights}")) == trained
    assert do_eval(load(tmp_path / "a"), resume=True) == trained
    assert json.loads((tmp_path / "b" / "results.json").read_text())["metrics"] == trained


def test_eval_only_needs_weights(tmp_path):
    with pytest.raises(CheckpointError, match="init_checkpoint"):
        do_eval(load(tmp_path))
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        do_eval(load(tmp_path), resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_with_a_report(tmp_path):
    poisoned = ("dataloader.train.poisoned=4", "train.max_skipped_steps=0")
    config = load(tmp_path, *poisoned, "train.log_period=1")
    with pytest.raises(NonFiniteLossError, match=r"at iteration 5: loss_class nan.*images \d+\.png"):
        do_train(config)
    summary_path = tmp_path / "nonfinite" / "iteration_0000005_process_0.json"
    summary = json.loads(summary_path.read_text())
    batch = instantiate(config.dataloader.train).batch(4)
    assert [i["image_id"] for i in summary["images"]] == [s["image_id"] for s in batch]
    assert summary["losses"]["loss_class"] == "nan"
    assert summary["parameters_not_finite"] == [] and "head.weight" in summary["gradients_not_finite"]

    content = torch.load(summary_path.with_suffix(".pt"), weights_only=True)
    assert content["samples"][0]["image"].isnan().all() and content["iteration"] == 5
    assert content["optimizer"]["state"][0]["step"] == 4
    assert math.isnan(content["losses"]["loss_class"])
    # The weights before the step, with which the batch can be run again.
    model = instantiate(config.model)
    model.load_state_dict(content["model"])
    assert all(p.isfinite().all() for p in model.parameters())
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "model_final.safetensors")
    newest = max(p.name for p in (tmp_path / "checkpoints").glob("it*"))
    assert newest == "iteration_0000004"  # the last complete step


def test_the_best_checkpoint_is_kept(tmp_path):
    values = evaluating(10.0, math.nan, 30.0, 20.0, 25.0)
    overrides = (values, "train.max_iter=5", "train.eval_period=1", "train.checkpoint.keep=1")
    do_train(load(tmp_path, *overrides, "train.checkpoint.best_metric=dummy/accuracy"))
    best = json.loads((tmp_path / "checkpoints" / "best_checkpoint").read_text())
    assert best == {"checkpoint": "iteration_0000003", "metric": "dummy/accuracy", "value": 30.0}
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("it*"))
    assert kept == ["iteration_0000003", "iteration_0000005"]


@pytest.mark.parametrize("key", ["checkpoint.best_metric", "early_stopping.metric"])
@pytest.mark.parametrize("name", ["segm/AP", "ema/dummy/accuracy"])
def test_an_unknown_metric_is_found_before_the_first_step_and_names_the_known_ones(tmp_path, key, name):
    message = rf"train\.{key} is '{name}', but evaluation returns dummy/accuracy"
    with pytest.raises(ValueError, match=message):
        do_train(load(tmp_path, f"train.{key}={name}"))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_evaluators_that_do_not_say_what_they_measure_are_asked_at_the_first_evaluation(tmp_path):
    with pytest.raises(ValueError, match="'segm/AP', but evaluation returns dummy/accuracy"):
        do_train(load(tmp_path, evaluating(1.0), "train.max_iter=1", "train.checkpoint.best_metric=segm/AP"))


def test_a_longer_resumed_run_has_the_learning_rate_of_its_own_schedule_from_the_first_step(tmp_path):
    do_train(load(tmp_path / "parts", "train.max_iter=4", "train.eval_period=0"))
    do_train(load(tmp_path / "parts", "train.max_iter=8", "train.eval_period=0"), resume=True)
    do_train(load(tmp_path / "whole", "train.max_iter=8", "train.eval_period=0"))
    rates = [[m["lr"] for _, m in losses(tmp_path / name)][4:] for name in ("whole", "parts")]
    assert len(rates[0]) == 4 and rates[0] == rates[1]


@pytest.mark.parametrize("run", [do_train, do_eval])
def test_numbers_out_of_range_are_all_named_before_anything_is_built(tmp_path, run):
    wrong = {"pictures.score_threshold": 1.5, "pictures.count": -1, "eval_period": -1, "max_iter": 0}
    with pytest.raises(ValueError, match="train.max_iter") as raised:
        run(load(tmp_path, *(f"train.{key}={value}" for key, value in wrong.items())))
    assert all(f"train.{key}={value}: expected" in str(raised.value) for key, value in wrong.items())
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_and_resumes(tmp_path, amp):
    do_train(load(tmp_path, f"train.amp={amp}", "train.max_iter=2"))
    do_train(load(tmp_path, f"train.amp={amp}", "train.max_iter=4"), resume=True)
    assert [m["iteration"] for m in metrics(tmp_path) if "step_time" in m] == [1, 2, 3, 4]
    found = losses(tmp_path)  # in fp16 the first steps may be left out, until the scale fits
    assert len(found) > 2 and all(math.isfinite(m["loss"]) for _, m in found)


def test_an_unknown_precision_or_device_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="amp must be one of off, bf16, fp16, not 'half'"):
        do_train(load(tmp_path, "train.amp=half"))
    with pytest.raises(ValueError, match="device 'gpu' cannot be used"):
        do_train(load(tmp_path, "train.device=gpu"))


def test_a_clipping_norm_that_is_not_positive_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="max_norm must be above 0, or null for no clipping, not -1.0"):
        do_train(load(tmp_path, "train.clip_grad.max_norm=-1"))


def test_an_earlier_run_is_not_overwritten_unasked(tmp_path, capsys):
    main(load(tmp_path, "train.max_iter=1"))
    with pytest.raises(SystemExit) as stopped:
        main(load(tmp_path, "train.max_iter=1"))
    assert stopped.value.code == 1
    note = tmp_path / "notes.txt"
    note.write_text("mine")
    (tmp_path / "wandb").mkdir()
    main(load(tmp_path, "train.max_iter=2"), overwrite=True)
    assert [p.name for p in (tmp_path / "checkpoints").glob("it*")] == ["iteration_0000002"]
    assert note.read_text() == "mine" and not (tmp_path / "wandb").exists()
    assert "iteration 2/2" in capsys.readouterr().out


def test_the_log_file_has_the_traceback_of_a_short_message(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(load(tmp_path, "+optimizer.lr_factors.nose=0.1"))
    log = (tmp_path / "log.txt").read_text()
    assert "'nose' fits no parameter" in log and "Traceback" in log
    out = capsys.readouterr().out
    assert "'nose' fits no parameter" in out and "Traceback" not in out


def test_debug_lets_errors_pass(tmp_path):
    with pytest.raises(CheckpointError):
        main(load(tmp_path), eval_only=True, debug=True)


LOST_WORKER = "DataLoader worker (pid 7) is killed by signal: Killed. "


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "Lower dataloader.train.total_batch_size"),
        (RuntimeError(LOST_WORKER), "lower num_workers"),
    ],
)
def test_too_little_memory_is_told_without_traceback(error, message, caplog):
    with pytest.raises(SystemExit), readable_errors():
        raise error
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert message in record.getMessage() and str(error).strip() in record.getMessage()


def test_bugs_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), readable_errors():
        raise RuntimeError("a bug")


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_run_on_a_gpu_resumes(tmp_path, amp):
    overrides = ("train.device=auto", f"train.amp={amp}", "scheduler.max_iter=6")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    do_train(load(whole, *overrides))
    do_train(load(parts, *overrides, "train.max_iter=3"))
    do_train(load(parts, *overrides), resume=True)
    assert [i for i, _ in losses(parts)] == [1, 2, 3, 4, 5, 6]
    for (_, a), (_, b) in zip(losses(whole), losses(parts), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["max_memory_mb"] > 0
