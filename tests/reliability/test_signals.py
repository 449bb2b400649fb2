"""Runs that are asked to stop: at every moment, by every signal, once and twice."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from detrex.checkpoint import read_weights
from detrex.cli.train import main
from detrex.engine import do_train, launch
from detrex.runtime import interruption
from detrex.runtime.interruption import EXIT_INTERRUPTED, Interrupted
from tests.engine.runs import load, losses, metrics
from tests.reliability.programs import ROOT, Program
from tests.reliability.signalled import signalled, signalled_in_evaluation


@pytest.mark.parametrize("number", interruption.SIGNALS)
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


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_during_evaluation_ends_it_at_once_and_nothing_is_lost(tmp_path, number):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    do_train(load(whole))
    began = time.monotonic()
    with pytest.raises(SystemExit) as stopped:
        main(signalled_in_evaluation(parts, number))
    assert stopped.value.code == EXIT_INTERRUPTED and time.monotonic() - began < 30
    assert [p.name for p in (parts / "checkpoints").glob("it*")] == ["iteration_0000002"]
    do_train(load(parts), resume=True)
    assert losses(parts) == losses(whole)


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_ends_an_evaluation_alone(tmp_path, number):
    do_train(load(tmp_path, "train.max_iter=1"))
    config = signalled_in_evaluation(tmp_path, number)
    with pytest.raises(SystemExit) as stopped:
        main(config, resume=True, eval_only=True)
    assert stopped.value.code == EXIT_INTERRUPTED


def go_on_and_train_anew(parts, whole) -> None:
    main(parts, resume=True)
    main(whole)


def test_a_signal_to_one_of_two_processes_stops_both_and_they_resume_exactly(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # fp16 and its scale, averages and micro-batches, dropout and the order of images: all is restored.
    settings = "train.amp=fp16", "train.ema.enabled=true", "train.ema.decay=0.8", "train.accumulation=2"
    with pytest.raises(SystemExit) as stopped:
        launch(main, (signalled(parts, signal.SIGTERM, 7, *settings),), num_gpus=2)
    assert stopped.value.code == EXIT_INTERRUPTED
    (checkpoint,) = (parts / "checkpoints").glob("it*")
    assert checkpoint.name == "iteration_0000004"  # of batches 7 and 8
    launch(go_on_and_train_anew, (load(parts, *settings), load(whole, *settings)), num_gpus=2)
    assert losses(parts) == losses(whole)
    for folder in (parts, whole):  # without the losses of a step that fp16 has left out
        assert [m["iteration"] for m in metrics(folder) if "step_time" in m] == [1, 2, 3, 4, 5, 6]
    for name in ("model_final.safetensors", "model_final_ema.safetensors"):
        one, other = (read_weights(folder / name)[0] for folder in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one), name


ENDLESS = ("train.max_iter=1000000", "train.eval_period=0", "train.checkpoint.period=0")


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_the_launching_process_passes_signals_on_and_has_the_same_exit_code(tmp_path, number, to_all):
    with Program(tmp_path, *ENDLESS, options=["--num-gpus", "2"]) as program:
        program.wait_for("iteration 3/")
        assert program.stop(number, to_all) == EXIT_INTERRUPTED
    assert len(list((tmp_path / "checkpoints").glob("iteration_*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", interruption.SIGNALS)
@pytest.mark.parametrize("seconds", [0.05, 0.5, 2.0])
def test_a_signal_is_obeyed_from_the_first_line_on(tmp_path, number, seconds):
    with Program(tmp_path, *ENDLESS) as program:
        time.sleep(0.3 + seconds)  # Python itself has to start
        assert program.stop(number) == EXIT_INTERRUPTED


LISTEN = """
import signal, sys, time
from detrex.runtime.interruption import listen, deferred, interruptible
listen()
{code}
"""
READY = "print('ready', flush=True)"
FOREVER = "while True: time.sleep(0.01)"


def run_listening(code: str, *numbers: int, pause: float = 0.0) -> tuple[int, str]:
    """The exit code of a program that gets signals, and what it printed."""
    command = [sys.executable, "-c", LISTEN.format(code=code)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
            time.sleep(pause)
        return process.wait(timeout=30), process.stdout.read()


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_program_that_has_nothing_to_lose_ends_at_once(number):
    code, output = run_listening(f"{READY}\n{FOREVER}", number)
    assert code == EXIT_INTERRUPTED and signal.Signals(number).name in output and "Traceback" not in output


def test_a_deferred_block_is_not_cut_through():
    block = f"with deferred():\n {READY}; time.sleep(1); print('complete')\nprint('on')"
    code, output = run_listening(block, signal.SIGTERM)
    assert code == EXIT_INTERRUPTED and "complete" in output and "on" not in output.split()


def test_in_a_deferred_block_only_what_may_be_interrupted_is():
    inner = f"with deferred():\n with interruptible():\n  {READY}\n  {FOREVER}"
    assert run_listening(inner, signal.SIGTERM)[0] == EXIT_INTERRUPTED


def test_the_same_request_twice_is_one_and_a_second_one_ends_at_once():
    block = f"with deferred():\n {READY}; time.sleep(3); print('complete')"
    code, output = run_listening(block, signal.SIGTERM, signal.SIGUSR1, pause=0.1)
    assert code == EXIT_INTERRUPTED and "complete" in output
    code, output = run_listening(block, signal.SIGTERM, signal.SIGTERM, pause=1.2)
    assert code == -signal.SIGTERM and "complete" not in output


def test_signals_act_as_before_after_the_block():
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    with pytest.raises(Interrupted), interruption.listening():
        signal.raise_signal(signal.SIGUSR1)
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before
    assert not interruption.requested() and not interruption.is_listening()


def test_a_forked_process_acts_by_default():
    ready, write = os.pipe()
    with interruption.listening():
        if (child := os.fork()) == 0:
            os.write(write, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(ready, 1)  # Python drops signals that come in the middle of a fork
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
