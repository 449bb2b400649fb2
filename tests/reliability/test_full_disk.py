"""Runs on a disk that is full for a while, or at the end."""

import json

import pytest
from omegaconf import open_dict

from detrex.checkpoint import Checkpointer, CheckpointError, read_weights
from detrex.cli.train import main
from detrex.engine import do_train, launch
from tests.engine.runs import load, losses, metrics
from tests.reliability.disks import FullDiskLoader, limit_files

# Weights that are larger than everything else that a run writes, and a limit in between.
LARGE, ROOM = "+model.width=20000", 400_000


@pytest.fixture(autouse=True)
def room_again():
    yield
    limit_files(None)


def on_full_disk(folder, room, full_at, free_at, *overrides):
    """A run whose disk is full from the loading of batch ``full_at`` to that of ``free_at``."""
    config = load(folder, *overrides)
    with open_dict(config):
        config.dataloader.train._target_ = f"{FullDiskLoader.__module__}.FullDiskLoader"
        config.dataloader.train.update(room=room, full_at=full_at, free_at=free_at)
    return config


def checkpoints(folder) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*iteration_*"))


def test_a_checkpoint_that_does_not_fit_is_reported_and_the_next_one_counts(tmp_path, caplog):
    settings = (LARGE, "train.checkpoint.period=2", "train.checkpoint.keep=9", "train.eval_period=0")
    do_train(on_full_disk(tmp_path, ROOM, 3, 5, *settings))
    (error,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert "could not save the last checkpoint: File too large" in error and "going on" in error
    assert checkpoints(tmp_path) == ["iteration_0000002", "iteration_0000006"]
    assert len(losses(tmp_path)) == 6


def test_a_disk_that_is_full_for_some_steps_loses_no_metrics_and_the_run_succeeds(tmp_path, caplog):
    """Not a single byte fits: of metrics, evaluations, the log."""
    settings = ("train.max_iter=8", "train.eval_period=1", "train.checkpoint.period=2")
    main(on_full_disk(tmp_path, 0, 3, 5, *settings))
    assert [i for i, _ in losses(tmp_path)] == list(range(1, 9))
    evaluated = [m["iteration"] for m in metrics(tmp_path) if "dummy/accuracy" in m]
    assert evaluated == list(range(1, 9))
    kept = [entry["iteration"] for entry in json.loads((tmp_path / "evaluations.json").read_text())]
    assert kept == evaluated
    assert (tmp_path / "report.html").is_file() and (tmp_path / "model_final.safetensors").is_file()
    assert f"File too large: '{tmp_path / 'metrics.jsonl'}'" in caplog.text
    log = (tmp_path / "log.txt").read_text()
    assert "iteration 3/8" in log and "iteration 8/8" in log


def test_a_finished_run_does_not_fail_for_its_report(tmp_path, caplog):
    do_train(load(tmp_path, "train.max_iter=2"))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"iteration": 3, "lo')
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    do_train(load(tmp_path, "train.max_iter=2"), resume=True)
    assert f"{tmp_path / 'report.html'} could not be made" in caplog.text


def test_what_is_missing_at_the_end_is_an_error_after_everything_else_was_done(tmp_path):
    expected = r"the last checkpoint \(File too large\); the final weights \(File too large\).*--resume"
    with pytest.raises(CheckpointError, match=expected):
        do_train(on_full_disk(tmp_path, ROOM, 4, None, LARGE))
    assert (tmp_path / "results.json").is_file()
    assert [m["iteration"] for m in metrics(tmp_path) if "dummy/accuracy" in m] == [2, 4, 6]
    assert checkpoints(tmp_path) == ["iteration_0000002", "iteration_0000003"]
    limit_files(None)
    whole = tmp_path / "whole"  # the repeated command completes the run
    do_train(load(whole, LARGE))
    do_train(load(tmp_path, LARGE), resume=True)
    assert losses(tmp_path) == losses(whole)
    assert read_weights(tmp_path / "model_final.safetensors")[0]["head.weight"].shape == (3, 20000)


def failing_main(config) -> None:
    """Saves nothing on the main process, as on a full disk."""

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    Checkpointer.save = fail
    main(config)


def test_all_processes_go_on_and_end_together(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        launch(failing_main, (load(tmp_path),), num_gpus=2)
    assert stopped.value.code == 1
    log = (tmp_path / "log.txt").read_text()
    assert log.count("could not save the last checkpoint: No space left on device") == 3
    assert "could not save the last checkpoint (No space left on device) in" in log
    assert (tmp_path / "model_final.safetensors").is_file() and len(losses(tmp_path)) == 6
