"""Run folders whose newest files are damaged in every way: the run goes on from what is whole."""

import json

import pytest
import torch

from detrex.checkpoint import CheckpointError, read_torch_file, read_weights, write_torch_file, write_weights
from detrex.engine import do_eval, do_train
from tests.engine.runs import load, losses

SETTINGS = ("train.checkpoint.period=2", "train.max_iter=4", "train.eval_period=2", "train.ema.enabled=true")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    do_train(load(folder, *SETTINGS))
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of a run with checkpoints after 2 and 4 steps; and the newer one."""
    import shutil

    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run", tmp_path / "run/checkpoints/iteration_0000004"


def flip_a_bit(path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 16
    path.write_bytes(content)


def change_state(path, change) -> None:
    state = read_torch_file(path / "state.pt")
    change(state)
    write_torch_file(path / "state.pt", state)


def change_weights(path, change) -> None:
    weights, metadata = read_weights(path / "model.safetensors")
    change(weights)
    write_weights(path / "model.safetensors", weights, metadata)


def truncated(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "bit in the weights": lambda c: flip_a_bit(c / "model.safetensors", 0.99),
    "bit in the average": lambda c: flip_a_bit(c / "model_ema.safetensors", 0.99),
    "bit in the state": lambda c: flip_a_bit(c / "state.pt", 0.5),
    "cut weights": lambda c: truncated(c / "model.safetensors"),
    "cut average": lambda c: truncated(c / "model_ema.safetensors"),
    "cut state": lambda c: truncated(c / "state.pt"),
    "empty state": lambda c: (c / "state.pt").write_bytes(b""),
    "state of text": lambda c: (c / "state.pt").write_text("nothing"),
    "no weights": lambda c: (c / "model.safetensors").unlink(),
    "no state": lambda c: (c / "state.pt").unlink(),
    "a missing weight": lambda c: change_weights(c, lambda w: w.pop("head.bias")),
    "a weight of another shape": lambda c: change_weights(
        c, lambda w: w.update({"head.bias": torch.ones(7)})
    ),
    "state is a list": lambda c: write_torch_file(c / "state.pt", [1, 2]),
    "no optimizer": lambda c: change_state(c, lambda s: s.pop("optimizer")),
    "optimizer is a list": lambda c: change_state(c, lambda s: s.update(optimizer=[])),
    "optimizer of another model": lambda c: change_state(c, lambda s: s["optimizer"]["param_groups"].pop()),
    "no processes": lambda c: change_state(c, lambda s: s.update(processes=[])),
    "processes of text": lambda c: change_state(c, lambda s: s.update(processes=["x"])),
    "random numbers of text": lambda c: change_state(c, lambda s: s["processes"][0].update(random="x")),
    "another iteration": lambda c: change_state(c, lambda s: s.update(iteration=7)),
    "scheduler is nothing": lambda c: change_state(c, lambda s: s.update(scheduler=None)),
    "hooks are a number": lambda c: change_state(c, lambda s: s["processes"][0].update(hooks=3)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run, whole, damage, caplog):
    folder, newest = run
    damage(newest)
    do_train(load(folder, *SETTINGS), resume=True)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any(str(newest) in text and "Trying the checkpoint before it" in text for text in warnings)
    assert losses(folder) == losses(whole)


def test_evaluation_falls_back_too(run, caplog):
    folder, newest = run
    flip_a_bit(newest / "model.safetensors", 0.99)
    do_eval(load(folder, *SETTINGS), resume=True)
    assert "checksum" in caplog.text and str(newest) in caplog.text


SIDE_FILES = {
    "binary marker": ("checkpoints/last_checkpoint", b"\xff\xfe\x00"),
    "empty marker": ("checkpoints/last_checkpoint", b""),
    "binary best": ("checkpoints/best_checkpoint", b"\xff\xfe\x00"),
    "best is a list": ("checkpoints/best_checkpoint", b"[]"),
    "binary history": ("evaluations.json", b"\xff\xfe\x00"),
    "cut history": ("evaluations.json", b'[{"iteration": 2, "me'),
    "history of numbers": ("evaluations.json", b"[1, 2]"),
    "binary metrics": ("metrics.jsonl", b"\xff\xfe\x00\n"),
}


@pytest.mark.parametrize(("name", "content"), SIDE_FILES.values(), ids=SIDE_FILES)
def test_a_broken_side_file_is_named_and_the_run_goes_on(run, name, content, caplog):
    folder, newest = run
    (folder / name).write_bytes(content)
    more = ("train.max_iter=6", "train.checkpoint.keep=1")
    do_train(load(folder, *SETTINGS, *more), resume=True)
    assert name == "metrics.jsonl" or str(folder / name) in caplog.text
    assert [i for i, _ in losses(folder)][-2:] == [5, 6]
    assert [e["iteration"] for e in json.loads((folder / "evaluations.json").read_text())][-1] == 6


def test_if_none_can_be_used_the_reason_of_the_newest_is_told(run):
    folder, newest = run
    for checkpoint in (folder / "checkpoints").glob("iteration_*"):
        flip_a_bit(checkpoint / "state.pt", 0.5)
    with pytest.raises(
        CheckpointError, match=rf"none of the 2 checkpoints .* of the newest: {newest}.*checksum"
    ):
        do_train(load(folder, *SETTINGS), resume=True)
