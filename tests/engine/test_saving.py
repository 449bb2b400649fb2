"""Runs on a disk that is full for a while, or at the end."""

import resource
from contextlib import contextmanager

import pytest

from detrex.checkpoint import Checkpointer, CheckpointError, read_weights
from detrex.cli.train import main
from detrex.engine import do_train, launch
from detrex.engine.hooks import checkpoints as saving
from tests.engine.runs import load, losses, metrics

# Weights that are larger than everything else that a run writes, and a limit in between.
LARGE, ROOM = "+model.width=20000", 400_000


@contextmanager
def full_disk():
    """No file can grow beyond ``ROOM`` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def full_at(monkeypatch):
    """``full_at(2, 0)``: the disk is full for these checkpoints; 0 stands for the final weights."""

    def full_at(*iterations: int) -> None:
        save, write_weights = Checkpointer.save, saving.write_weights

        def saved(self, iteration, *args, **kwargs):
            if iteration not in iterations:
                return save(self, iteration, *args, **kwargs)
            with full_disk():
                return save(self, iteration, *args, **kwargs)

        def written(*args):
            if 0 not in iterations:
                return write_weights(*args)
            with full_disk():
                return write_weights(*args)

        monkeypatch.setattr(Checkpointer, "save", saved)
        monkeypatch.setattr(saving, "write_weights", written)

    return full_at


def checkpoints(folder) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*iteration_*"))


def test_a_checkpoint_that_does_not_fit_is_reported_and_the_next_one_counts(tmp_path, full_at, caplog):
    full_at(4)
    do_train(load(tmp_path, LARGE, "train.checkpoint.period=2", "train.checkpoint.keep=9"))
    (error,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert "could not save the last checkpoint: File too large" in error and "going on" in error
    assert checkpoints(tmp_path) == ["iteration_0000002", "iteration_0000006"]
    assert len(losses(tmp_path)) == 6


def test_what_is_missing_at_the_end_is_an_error_after_everything_else_was_done(tmp_path, full_at):
    full_at(6, 0)
    expected = r"the last checkpoint \(File too large\); the final weights \(File too large\).*--resume"
    with pytest.raises(CheckpointError, match=expected):
        do_train(load(tmp_path, LARGE))
    assert (tmp_path / "results.json").is_file()
    assert [m["iteration"] for m in metrics(tmp_path) if "dummy/accuracy" in m] == [2, 4, 6]
    assert checkpoints(tmp_path) == ["iteration_0000003"]


def test_the_repeated_command_completes_the_run(tmp_path, full_at, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    do_train(load(whole, LARGE))
    full_at(6, 0)
    with pytest.raises(CheckpointError):
        do_train(load(parts, LARGE))
    monkeypatch.undo()
    do_train(load(parts, LARGE), resume=True)
    assert losses(parts) == losses(whole)
    assert read_weights(parts / "model_final.safetensors")[0]["head.weight"].shape == (3, 20000)


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
    assert log.count("could not save the last checkpoint: No space left on device") == 2
    assert "could not save the last checkpoint (No space left on device) in" in log
    assert (tmp_path / "model_final.safetensors").is_file() and len(losses(tmp_path)) == 6
