"""Errors of all kinds in the middle of a run: what was done is kept, and what happened is said."""

import os
import signal
import time

import pytest
import torch
from omegaconf import open_dict

from detrex.cli.train import main
from detrex.engine import do_train, launch
from detrex.runtime.distributed import rank
from tests.engine import dummy
from tests.engine.runs import load, losses


class FailingLoader(dummy.TrainLoader):
    """The last of ``processes`` fails while it loads batch ``fails_at``."""

    def __init__(self, *args, fails_at: int, processes: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        self._fails_at, self._processes = fails_at, processes

    def batch(self, position):
        if position == self._fails_at and rank() == self._processes - 1:
            raise OSError(5, "Input/output error", "7.png")
        return super().batch(position)


def failing(folder, fails_at, *overrides, processes=1):
    config = load(folder, "train.checkpoint.period=0", "train.eval_period=0", *overrides)
    with open_dict(config):
        config.dataloader.train._target_ = f"{__name__}.FailingLoader"
        config.dataloader.train.update(fails_at=fails_at, processes=processes)
    return config


def saved(folder) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("iteration_*"))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_last_complete_step_is_saved_before_the_error_and_the_run_goes_on_exactly(tmp_path, accumulation):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = (f"train.accumulation={accumulation}", "train.eval_period=0")
    do_train(load(whole, *settings))
    with pytest.raises(OSError, match=r"7\.png"):  # in the middle of the fifth step
        do_train(failing(parts, 5 * accumulation - 1, settings[0]))
    assert saved(parts) == ["iteration_0000004"]
    torch.manual_seed(12345)
    do_train(load(parts, *settings), resume=True)
    assert losses(parts) == losses(whole)


class FailingEvaluator(dummy.Accuracy):
    """Fails at the second evaluation."""

    count = 0

    def evaluate(self):
        self.count += 1
        if self.count == 2:
            raise MemoryError
        return super().evaluate()


def test_a_failing_evaluation_loses_no_step_and_the_first_one_has_a_checkpoint_before_it(tmp_path):
    evaluator = f"dataloader.evaluators=[{{_target_: {__name__}.FailingEvaluator}}]"
    with pytest.raises(MemoryError):
        do_train(load(tmp_path, evaluator, "train.checkpoint.period=0", "train.eval_period=2"))
    assert saved(tmp_path) == ["iteration_0000002", "iteration_0000004"]


def test_an_error_before_the_first_step_saves_nothing(tmp_path):
    with pytest.raises(OSError):
        do_train(failing(tmp_path, 0))
    assert saved(tmp_path) == []


def test_an_error_of_one_of_two_processes_saves_too_and_ends_all(tmp_path):
    with pytest.raises(SystemExit) as ended:
        launch(main, (failing(tmp_path, 4, processes=2),), num_gpus=2)
    assert ended.value.code == 1
    assert saved(tmp_path) == ["iteration_0000004"]


class MortalDataset(dummy.Dataset, torch.utils.data.Dataset):
    """Images whose fifth one ends the worker process that reads it, as the kernel does without memory."""

    def __getitem__(self, index):
        if index == 5 and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class WorkerLoader:
    """Endless batches of one image by a worker process."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        while True:
            yield from torch.utils.data.DataLoader(
                self.dataset, batch_size=1, num_workers=1, collate_fn=lambda samples: samples
            )


def test_a_lost_worker_is_told_as_such_after_saving(tmp_path, capsys):
    config = load(tmp_path, "train.eval_period=0", "train.checkpoint.period=0", "train.max_iter=12")
    with open_dict(config):
        dataset = {"_target_": f"{__name__}.MortalDataset"}
        config.dataloader.train = {"_target_": f"{__name__}.WorkerLoader", "dataset": dataset}
    with pytest.raises(SystemExit) as ended:
        main(config)
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert "worker" in shown and "pid" in shown and "num_workers" in shown and "kill" in shown.lower()
    assert len(saved(tmp_path)) == 1


class StuckLoader(dummy.TrainLoader):
    """Never gives the fourth batch."""

    def batch(self, position):
        if position == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
        return super().batch(position)


def test_a_read_that_never_returns_does_not_keep_a_run_from_saving(tmp_path, monkeypatch):
    monkeypatch.setattr("detrex.runtime.waiting.GRACE", 0.5)
    config = load(tmp_path, "train.eval_period=0", "train.checkpoint.period=0")
    config.dataloader.train._target_ = f"{__name__}.StuckLoader"
    with pytest.raises(SystemExit) as ended:
        do_train(config)
    assert ended.value.code == 75
    assert saved(tmp_path) == ["iteration_0000003"]


class SlowLoader(dummy.TrainLoader):
    """Takes its time for the second batch."""

    def batch(self, position):
        if position == 1:
            time.sleep(2)
        return super().batch(position)


def test_a_long_wait_for_data_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("detrex.runtime.waiting.FIRST_WARNING", 0.2)
    config = load(tmp_path, "train.eval_period=0", "train.max_iter=2")
    config.dataloader.train._target_ = f"{__name__}.SlowLoader"
    do_train(config)
    assert "waiting for training data for" in caplog.text


class StoppingLoader(dummy.TrainLoader):
    """The second process stops itself, as a machine that no longer answers, at the fourth batch."""

    def batch(self, position):
        if position == 3 and rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().batch(position)


@pytest.mark.slow
def test_a_process_that_was_stopped_does_not_keep_the_others(tmp_path):
    config = load(tmp_path, "train.eval_period=0", "train.checkpoint.period=1")
    config.dataloader.train._target_ = f"{__name__}.StoppingLoader"
    started = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        launch(main, (config,), num_gpus=2, timeout=4)
    assert ended.value.code == 1 and time.monotonic() - started < 300
    log = (tmp_path / "log.txt").read_text()
    assert "process 1 (pid " in log and "has given no sign of life for 4 s" in log
    assert saved(tmp_path)[-1] == "iteration_0000003"
