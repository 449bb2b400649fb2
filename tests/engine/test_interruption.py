"""Runs that are asked to stop while they train."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import open_dict

from detrex.checkpoint import read_weights
from detrex.cli.train import main
from detrex.engine import do_train, launch
from detrex.engine.hooks import interruption
from detrex.engine.hooks.interruption import EXIT_INTERRUPTED, InterruptionHook
from detrex.runtime.distributed import rank, world_size
from tests.engine import dummy
from tests.engine.runs import load, losses, metrics

ROOT = Path(__file__).resolve().parents[2]


class SignalledLoader(dummy.TrainLoader):
    """The last process gets ``signal`` while it loads batch ``at`` (from 0)."""

    def __init__(self, *args, at: int, signal: int, **kwargs):
        super().__init__(*args, **kwargs)
        self._at, self._signal = at, signal

    def _batch(self, position):
        if position == self._at and rank() == world_size() - 1:
            os.kill(os.getpid(), self._signal)
        return super()._batch(position)


def signalled(output_dir, number=signal.SIGTERM, at=3, *overrides):
    config = load(output_dir, "train.checkpoint.period=0", *overrides)
    with open_dict(config):
        config.dataloader.train._target_ = f"{__name__}.SignalledLoader"
        config.dataloader.train.update(at=at, signal=int(number))
    return config


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_after_the_step_and_the_run_goes_on_as_if_never_stopped(tmp_path, number, caplog):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    do_train(load(whole))
    before = signal.getsignal(number)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as stopped:
        do_train(signalled(parts, number))
    assert stopped.value.code == EXIT_INTERRUPTED == 75
    assert "stopped by a signal after iteration 4" in caplog.text and "code 75" in caplog.text
    assert [p.name for p in (parts / "checkpoints").glob("it*")] == ["iteration_0000004"]
    assert signal.getsignal(number) == before
    do_train(load(parts), resume=True)
    assert losses(parts) == losses(whole)


def test_a_signal_to_one_of_two_processes_stops_both_and_they_resume_exactly(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # fp16 and its scale, averages and micro-batches, dropout and the order of images: all is restored.
    settings = "train.amp=fp16", "train.ema.enabled=true", "train.ema.decay=0.8", "train.accumulation=2"
    with pytest.raises(SystemExit) as stopped:
        launch(main, (signalled(parts, signal.SIGTERM, 7, *settings),), num_gpus=2)
    assert stopped.value.code == EXIT_INTERRUPTED
    (checkpoint,) = (parts / "checkpoints").glob("it*")
    assert checkpoint.name == "iteration_0000004"  # of batches 7 and 8
    launch(main, (load(parts, *settings), False, True), num_gpus=2)
    launch(main, (load(whole, *settings),), num_gpus=2)
    assert losses(parts) == losses(whole)
    for folder in (parts, whole):  # without the losses of a step that fp16 has left out
        assert [m["iteration"] for m in metrics(folder) if "step_time" in m] == [1, 2, 3, 4, 5, 6]
    for name in ("model_final.safetensors", "model_final_ema.safetensors"):
        one, other = (read_weights(folder / name)[0] for folder in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_the_launching_process_passes_signals_on_and_has_the_same_exit_code(tmp_path):
    command = [sys.executable, "tools/train_net.py", "--config-file", "tests/engine/dummy_config.py"]
    command += ["--num-gpus", "2", f"train.output_dir={tmp_path}", "train.max_iter=1000000"]
    command += ["train.eval_period=0", "train.checkpoint.period=0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "iteration 3/" in line:
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
        assert process.wait(timeout=60) == EXIT_INTERRUPTED
    assert len(list((tmp_path / "checkpoints").glob("iteration_*"))) == 1


def test_a_second_signal_ends_the_process_unless_it_is_the_same_request(monkeypatch):
    class Trainer:
        requests = 0

        def request_stop(self):
            self.requests += 1

    now, killed = [100.0], []
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(interruption.os, "kill", lambda _pid, number: killed.append(number))
    trainer, hook = Trainer(), InterruptionHook(checkpoints=None)
    before = signal.getsignal(signal.SIGTERM)
    hook.before_train(trainer)
    signal.raise_signal(signal.SIGTERM)
    now[0] += 0.1  # as when both a batch system and a launcher send it
    signal.raise_signal(signal.SIGTERM)
    assert trainer.requests == 1 and killed == []
    now[0] += 5
    signal.raise_signal(signal.SIGTERM)
    assert killed == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    hook.close()
    assert signal.getsignal(signal.SIGTERM) == before
