import logging
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from detrex.checkpoint import Checkpointer, CheckpointError, checkpointer
from detrex.runtime.files import replaced_file
from tests.reliability.disks import files_of_at_most


def save(saver: Checkpointer, iteration: int) -> None:
    saver.save(iteration, {"w": torch.full((300,), float(iteration))}, {"step": iteration}, {"note": "n"})


def iterations(saver: Checkpointer) -> list[int]:
    return [int(path.name.rpartition("_")[2]) for path in saver.paths()]


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_what_was_saved_comes_back(tmp_path):
    saver = Checkpointer(tmp_path / "c")
    assert saver.resume() is None
    save(saver, 7)
    found = saver.resume()
    assert found.iteration == 7 and found.state == {"step": 7} and found.metadata["note"] == "n"
    assert found.weights["w"].tolist() == [7.0] * 300
    assert found.path == saver.path_of(7)


def test_the_last_k_and_the_best_are_kept(tmp_path):
    saver = Checkpointer(tmp_path, keep=2)
    for iteration in (10, 20, 30):
        save(saver, iteration)
        if iteration == 10:
            saver.mark_best(10, "ap", 31.5)
    assert iterations(saver) == [10, 20, 30]
    save(saver, 40)
    assert iterations(saver) == [10, 30, 40]
    assert saver.best() == {"checkpoint": saver.path_of(10).name, "metric": "ap", "value": 31.5}
    saver.mark_best(40, "ap", 40.0)
    save(saver, 50)
    save(saver, 60)
    save(saver, 70)
    assert iterations(saver) == [40, 60, 70]
    assert (tmp_path / "last_checkpoint").read_text().strip() == saver.path_of(70).name


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep"):
        Checkpointer(tmp_path, keep=0)


@pytest.mark.parametrize("failing", ["write_weights", "save_state"])
def test_a_failure_while_writing_leaves_the_previous_checkpoint(tmp_path, monkeypatch, failing):
    saver = Checkpointer(tmp_path)
    save(saver, 1)

    def fail(*_, **__):
        (tmp_path / ".tmp-part").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    name = "write_weights" if failing == "write_weights" else "write_torch_file"
    with monkeypatch.context() as patch:
        patch.setattr(checkpointer, name, fail)
        with pytest.raises(OSError, match="No space"):
            save(saver, 2)
    assert iterations(saver) == [1]
    assert saver.resume().iteration == 1
    save(saver, 2)
    assert saver.resume().iteration == 2
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("large", ["weights", "state", "average"])
def test_no_room_is_an_error_of_the_disk_and_leaves_the_previous_checkpoint(tmp_path, large):
    saver = Checkpointer(tmp_path, keep=1)
    save(saver, 1)
    parts = {
        name: {"w": torch.zeros(40000 if name == large else 3)} for name in ("weights", "state", "average")
    }
    with files_of_at_most(100_000), pytest.raises(OSError, match="File too large"):
        saver.save(2, parts["weights"], parts["state"], {}, parts["average"])
    assert [p.name for p in tmp_path.glob("*iteration*")] == [saver.path_of(1).name]
    assert saver.resume().iteration == 1


def save_for_ever(directory, announce) -> None:
    torch.set_num_threads(1)  # a forked process has lost the pool of threads
    saver = Checkpointer(directory, keep=2)
    weights = {"w": torch.zeros(100_000)}
    for iteration in range(1, 1_000_000):
        saver.save(iteration, weights, {"w": torch.full((100_000,), iteration)}, {}, weights)
        announce.send(iteration)


@pytest.mark.parametrize("seed", range(8))
def test_a_process_killed_at_any_moment_leaves_its_last_checkpoint(tmp_path, seed):
    context = multiprocessing.get_context("fork")  # no time is lost with imports
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=save_for_ever, args=(tmp_path, sender))
    process.start()
    announced = receiver.recv()
    time.sleep(random.Random(seed).uniform(0, 0.3))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while receiver.poll():
        announced = receiver.recv()
    saver = Checkpointer(tmp_path, keep=2)
    found = saver.resume()
    assert found.iteration in (announced, announced + 1)
    assert (found.state["w"] == found.iteration).all() and found.average["w"].shape == (100_000,)
    save(saver, found.iteration + 1)  # the next run clears up
    assert saver.resume().iteration == found.iteration + 1 and not list(tmp_path.glob(".tmp-*"))


def test_a_killed_write_is_never_taken_for_a_checkpoint(tmp_path):
    saver = Checkpointer(tmp_path)
    save(saver, 1)
    unfinished = tmp_path / ".tmp-99-iteration_0000002"
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes(b"half")
    assert iterations(saver) == [1] and saver.resume().iteration == 1


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt"])
def test_a_truncated_checkpoint_is_skipped_with_a_warning(tmp_path, caplog, file):
    saver = Checkpointer(tmp_path)
    save(saver, 1)
    save(saver, 2)
    truncate(saver.path_of(2) / file)
    assert saver.resume().iteration == 1
    warning = next(r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert str(saver.path_of(2) / file) in warning and "truncated" in warning
    save(saver, 2)  # in its place
    assert saver.resume().iteration == 2


def test_no_readable_checkpoint_is_an_error(tmp_path):
    saver = Checkpointer(tmp_path)
    save(saver, 1)
    truncate(saver.path_of(1) / "state.pt")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        saver.resume()


def test_the_marker_chooses_an_earlier_checkpoint(tmp_path):
    saver = Checkpointer(tmp_path)
    save(saver, 1)
    save(saver, 2)
    (tmp_path / "last_checkpoint").write_text(saver.path_of(1).name + "\n")
    assert saver.resume().iteration == 1


def test_a_marker_of_a_missing_checkpoint_is_named(tmp_path, caplog):
    saver = Checkpointer(tmp_path)
    save(saver, 1)
    (tmp_path / "last_checkpoint").write_text("iteration_0000009\n")
    assert saver.resume().iteration == 1
    assert "iteration_0000009" in caplog.text


def test_a_replaced_file_is_the_old_one_after_a_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced_file(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    with replaced_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
