"""Split weights (FSDP2) in whole runs of two processes on the CPU, against runs of one."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from detrex.checkpoint import read_torch_file, read_weights
from detrex.cli.train import main
from detrex.engine import launch
from detrex.engine.parallel import put_together, shard
from detrex.runtime.distributed import rank
from tests.engine.runs import load, losses, metrics

PLAIN = ("model.dropout=0", "dataloader.train.shuffle=false", "train.accumulation=2")
FSDP = ("train.distributed.fsdp=true", "train.distributed.fsdp_modules=[backbone]")

pytestmark = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"),
    reason="this version of PyTorch splits weights on GPUs only",
)


def evaluate_unevenly() -> None:
    """One process has two batches, the other one."""
    torch.manual_seed(rank())  # the weights of the first process count
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    shard(model, ["0"])
    assert sum(p.to_local().numel() for p in model.parameters()) in (3 * 5 + 2 * 7, 3 * 5 + 1 * 7)
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    put_together(model)
    with torch.inference_mode():
        for _ in range(2 - rank()):
            assert torch.equal(model(torch.ones(2, 4)), expected(torch.ones(2, 4)))


def two_processes(folder: str) -> None:
    evaluate_unevenly()
    main(load(Path(folder, "split"), *PLAIN, *FSDP))
    main(load(Path(folder, "parts"), *PLAIN, *FSDP, "train.max_iter=3", "scheduler.max_iter=6"))
    main(load(Path(folder, "parts"), *PLAIN, *FSDP), resume=True)
    poisoned = ("dataloader.train.poisoned=4", "train.max_skipped_steps=0")
    with pytest.raises(SystemExit):
        main(load(Path(folder, "poisoned"), *PLAIN, *FSDP, *poisoned))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    launch(two_processes, (str(folder),), num_gpus=2)
    main(load(folder / "one", *PLAIN))
    return folder


def test_two_processes_train_like_one(runs):
    for (_, a), (_, b) in zip(losses(runs / "one"), losses(runs / "split"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    evaluated = [[m for m in metrics(runs / d) if "dummy/accuracy" in m] for d in ("one", "split")]
    assert evaluated[0] == evaluated[1] != []


def test_checkpoints_are_those_of_one_process(runs):
    one, split = (runs / name / "checkpoints/iteration_0000006" for name in ("one", "split"))
    whole = [read_weights(path)[0] for path in (one, split)]
    assert whole[0].keys() == whole[1].keys()
    for name, value in whole[0].items():
        torch.testing.assert_close(value, whole[1][name], atol=1e-6, rtol=1e-4)
    first, second = (read_torch_file(path / "state.pt")["optimizer"] for path in (one, split))
    assert first["param_groups"] == second["param_groups"] and first["state"].keys() == second["state"].keys()
    for index, values in first["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(value, second["state"][index][name], atol=1e-6, rtol=1e-3)


def test_a_resumed_run_is_the_uninterrupted_one(runs):
    assert losses(runs / "parts") == losses(runs / "split")


def test_one_process_goes_on_with_the_checkpoint_of_two(runs):
    main(load(runs / "split", *PLAIN, "train.max_iter=8"), resume=True)
    assert [i for i, _ in losses(runs / "split")][-2:] == [7, 8]


def test_a_loss_that_is_not_finite_is_reported_with_whole_weights(runs):
    report = next((runs / "poisoned/nonfinite").glob("*_process_0.pt"))
    content = torch.load(report, weights_only=True)
    assert content["model"]["backbone.weight"].shape == (8, 6)
    summary = json.loads(next((runs / "poisoned/nonfinite").glob("*_process_1.json")).read_text())
    assert "backbone.weight" in summary["gradients_not_finite"]
