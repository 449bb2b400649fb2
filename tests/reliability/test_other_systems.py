"""Training, evaluation and prediction where functions of Linux are missing, as on Windows and macOS."""

import os
import subprocess
import sys

import pytest

from tests.tools.conftest import ROOT, SMALL, Data

# What Python has on Linux, but not everywhere; emulated by taking it away before anything is imported.
WITHOUT = """
import multiprocessing, os, signal, sys
for module, names in ((signal, ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "pthread_kill")),
                      (os, ("pread", "waitid", "fork", "forkpty", "sched_getaffinity", "getloadavg"))):
    for name in names:
        delattr(module, name)
sys.modules["fcntl"] = sys.modules["resource"] = None
multiprocessing.set_start_method("spawn", force=True)
multiprocessing.get_all_start_methods = lambda: ["spawn"]

import detrex
from detrex.benchmark.machine import describe_machine
import torch

run = detrex.train("maskdino_custom_instance", *sys.argv[1:])
print("metrics", sorted(run.metrics)[0])
result = run.load(device="cpu")(sys.argv[-1].partition("=")[2] + "/train/1.png")
print("result", result.image_size)
print("machine", describe_machine(torch.device("cpu"))["load"])

from detrex.runtime import interruption
from detrex.runtime.lock import locked_folder
with locked_folder(run.folder):
    try:
        with locked_folder(run.folder):
            print("locked twice")
    except OSError as error:
        print("locked:", error)
try:
    with interruption.listening(), interruption.deferred(), interruption.interruptible_by_force():
        interruption.force()
        for _ in range(10_000):
            pass
except SystemExit as ended:
    print("ended", ended.code)
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What a program prints that trains, evaluates and predicts without them."""
    folder = tmp_path_factory.mktemp("elsewhere")
    data = Data(folder / "data")
    overrides = [
        *SMALL,
        "train.max_iter=1",
        f"train.output_dir={folder / 'run'}",
        f"dataloader.root={data.root}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *overrides],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DETREX_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_evaluation_and_prediction(output):
    assert "metrics bbox/AP" in output and "result (48, 64)" in output and "machine None" in output


def test_a_run_has_its_folder_for_itself(output):
    assert "is in use by another run" in output and "locked twice" not in output


def test_a_wait_can_be_ended(output):
    assert "ended 75" in output
