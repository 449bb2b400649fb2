"""Two runs in one folder."""

import multiprocessing
import os
import signal
import socket

import pytest

from detrex.cli.train import main
from detrex.runtime.lock import FolderInUseError, locked_folder
from tests.engine.runs import load


def hold(folder, ready, release) -> None:
    with locked_folder(folder):
        if os.fork() == 0:  # a loader's worker, which outlives its parent for a while
            release.poll(30)
            os._exit(0)
        ready.send("locked")
        release.poll(30)


@pytest.fixture
def holder(tmp_path):
    """A process that works in the folder, told by pipes: an event hangs when a process on it is killed."""
    context = multiprocessing.get_context("fork")
    is_ready, ready = context.Pipe(duplex=False)
    until_released, release = context.Pipe(duplex=False)
    process = context.Process(target=hold, args=(tmp_path, ready, until_released))
    process.start()
    assert is_ready.poll(30)
    yield process
    release.send("stop")
    process.join()


def test_the_second_run_ends_at_once_and_names_the_first(tmp_path, holder, caplog):
    for options in ({}, {"resume": True}, {"overwrite": True}, {"eval_only": True}):
        with pytest.raises(SystemExit) as ended:
            main(load(tmp_path), **options)
        assert ended.value.code == 1
    assert f"in use by another run, process {holder.pid} on {socket.gethostname()}, started at" in caplog.text
    assert not (tmp_path / "log.txt").exists() and not (tmp_path / "metrics.jsonl").exists()


def test_what_a_killed_run_leaves_locks_nothing(tmp_path, holder):
    with pytest.raises(FolderInUseError), locked_folder(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with locked_folder(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
