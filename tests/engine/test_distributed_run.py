"""Runs of two processes on the CPU (gloo)."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from detrex.checkpoint import read_weights
from detrex.cli.train import main
from detrex.engine import Trainer, launch, schedule
from detrex.engine.run_evaluation import Evaluation
from detrex.runtime.distributed import all_gather_objects, rank
from tests.engine import dummy
from tests.engine.runs import load, losses, metrics

PLAIN = ("model.dropout=0", "dataloader.train.shuffle=false")


def fail_on_the_second_process() -> None:
    import torch.distributed as dist

    if dist.get_rank() == 1:
        raise SystemExit(1)
    dist.barrier()


def test_two_processes_train_like_one_with_the_same_batch(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    main(load(one, *PLAIN))
    launch(main, (load(two, *PLAIN),), num_gpus=2)
    for (_, a), (_, b) in zip(losses(one), losses(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    weights = [read_weights(d / "model_final.safetensors")[0] for d in (one, two)]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-6), name
    evaluated = [[m for m in metrics(d) if "dummy/accuracy" in m] for d in (one, two)]
    assert evaluated[0] == evaluated[1] != []


def note_start_method(folder: str) -> None:
    Path(folder, str(rank())).write_text(multiprocessing.get_start_method())


def test_workers_of_loaders_start_as_in_a_run_of_one_process(tmp_path):
    launch(note_start_method, (str(tmp_path),), num_gpus=2)
    expected = multiprocessing.get_start_method()
    assert [path.read_text() for path in tmp_path.iterdir()] == [expected] * 2


def count_exchanges(folder: str) -> None:
    """Three micro-batches per step; every process notes how often gradients were exchanged in two steps."""
    model = dummy.Model(dropout=0)
    wrapped = nn.parallel.DistributedDataParallel(model)
    exchanges = []

    def exchange(_state, bucket):
        exchanges.append(bucket.index())
        return allreduce_hook(None, bucket)

    wrapped.register_comm_hook(None, exchange)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = dummy.TrainLoader(dummy.Dataset())
    settings = {"max_iter": 2, "output_dir": folder, "accumulation": 3}
    Trainer(wrapped, loader, optimizer, schedule.constant(optimizer), **settings).train()
    weights = all_gather_objects(model.head.weight.tolist())
    Path(folder, str(rank())).write_text(f"{exchanges.count(0)} {weights[0] == weights[1]}")


def test_gradients_are_exchanged_once_per_step(tmp_path):
    launch(count_exchanges, (str(tmp_path),), num_gpus=2)
    assert [Path(tmp_path, name).read_text() for name in "01"] == ["2 True", "2 True"]


def test_a_loss_that_is_not_finite_on_one_process_stops_all(tmp_path):
    # On the second process.
    config = load(tmp_path, "dataloader.train.poisoned=4", "train.max_skipped_steps=0")
    with pytest.raises(SystemExit) as stopped:
        launch(main, (config,), num_gpus=2)
    assert stopped.value.code == 1
    summaries = {p.name: json.loads(p.read_text()) for p in (tmp_path / "nonfinite").glob("*.json")}
    assert set(summaries) == {f"iteration_0000005_process_{k}.json" for k in (0, 1)}
    assert summaries["iteration_0000005_process_0.json"]["losses"]["loss_class"] != "nan"
    assert summaries["iteration_0000005_process_1.json"]["losses"]["loss_class"] == "nan"
    log = (tmp_path / "log.txt").read_text()
    poisoned = summaries["iteration_0000005_process_1.json"]["images"]
    assert f"images {poisoned[0]['file_name']}, {poisoned[1]['file_name']}" in log
    assert not Path(tmp_path / "model_final.safetensors").exists()


def evaluate_with_own_statistics(folder):
    norm = nn.BatchNorm1d(1)
    norm.running_mean.fill_(5 + rank())
    data = {"test": [], "evaluators": {}}
    train = {"amp": "off", "validation_loss": {"enabled": False}}
    Evaluation(OmegaConf.create({"dataloader": data, "train": train}), norm).run()
    Path(folder, str(rank())).write_text(str(norm.running_mean.item()))


def test_all_processes_evaluate_with_the_statistics_of_the_first(tmp_path):
    launch(evaluate_with_own_statistics, (str(tmp_path),), num_gpus=2)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"0": "5.0", "1": "5.0"}


def test_a_failing_process_ends_the_others():
    with pytest.raises(SystemExit) as stopped:
        launch(fail_on_the_second_process, num_gpus=2)
    assert stopped.value.code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gpus": 0}, "--num-gpus 0"),
        ({"num_machines": 2}, "--dist-url tcp://HOST:PORT"),
        ({"num_machines": 2, "machine_rank": 2, "dist_url": "tcp://a:1"}, "--machine-rank 2"),
    ],
)
def test_numbers_that_do_not_fit_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        launch(main, **arguments)
