import builtins
import json
import logging

import pytest

from detrex.config import instantiate
from detrex.engine import JsonLinesWriter, TensorBoardWriter, WandbWriter, Writers
from tests.engine.test_run import load


def test_json_lines(tmp_path):
    writer = JsonLinesWriter(tmp_path / "m.jsonl")
    writer.open(0, {})
    writer.write(1, {"loss": 1.5, "AP": float("nan")})
    writer.write(2, {"loss": 1.25})
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert lines == [{"iteration": 1, "loss": 1.5, "AP": None}, {"iteration": 2, "loss": 1.25}]


def test_a_resumed_run_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iteration": 3}\n{"itera')
    JsonLinesWriter(path).open(2, {})
    assert path.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_tensorboard_has_the_scalars(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = TensorBoardWriter(tmp_path)
    writer.open(0, {})
    writer.write(10, {"loss": 2.0})
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 2.0)]


def test_wandb_offline_writes_and_continues_its_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    made = []
    real = wandb.init

    def init(**options):
        made.append(options)
        return real(**options)

    monkeypatch.setattr(wandb, "init", init)
    for iteration in (0, 5):
        writer = WandbWriter(tmp_path, project="p", mode="offline")
        writer.open(iteration, {"lr": 1})
        writer.write(iteration + 1, {"loss": 2.0})
        writer.close()
    assert made[0]["id"] is None and made[1]["id"] == (tmp_path / "wandb_id.txt").read_text()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize(
    ("make", "package", "module"),
    [(TensorBoardWriter, "tensorboard", "torch.utils.tensorboard"), (WandbWriter, "wandb", "wandb")],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, make, package, module):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match=f"pip install {package}, or set train.writers.{package}.enabled=false"
    ):
        make(tmp_path)


class Failing:
    def __init__(self):
        self.calls = 0

    def open(self, iteration, config):
        pass

    def write(self, *_):
        self.calls += 1
        raise OSError("disk full")

    def close(self):
        raise AssertionError("left out already")


def test_a_failing_writer_is_left_out_with_a_warning(tmp_path, caplog):
    failing = Failing()
    writers = Writers([failing, JsonLinesWriter(tmp_path / "m.jsonl")])
    with caplog.at_level(logging.WARNING):
        writers.open(0, {})
        writers.write(1, {"loss": 1.0})
        writers.write(2, {"loss": 1.0})
        writers.close()
    assert failing.calls == 1 and "Failing failed" in caplog.text and "disk full" in caplog.text
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 2


def test_writers_of_the_common_config_can_be_built(tmp_path):
    config = load(tmp_path)
    for name, entry in config.train.writers.items():
        assert not entry.enabled
        pytest.importorskip(name)
        instantiate(entry.writer)
