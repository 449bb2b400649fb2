import builtins
import json
import logging
from io import BytesIO

import pytest
from PIL import Image

from detrex.config import instantiate
from detrex.engine import JsonLinesWriter, TensorBoardWriter, WandbWriter, Writers
from tests.engine.runs import load
from tests.reliability.disks import files_of_at_most


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


def test_tensorboard_has_scalars_pictures_and_the_config(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = TensorBoardWriter(tmp_path)
    writer.open(0, {"optimizer": {"lr": 0.5}})
    metrics = {"loss": 2.0, "loss_ce": 1.5, "loss_ce_0": 0.5, "loss_ce_dn_0": 0.25, "step_time": 0.125}
    writer.write(10, {**metrics, "lr": 1e-3, "lr/backbone": 1e-4, "process_memory_mb": 7.0})
    writer.write(10, {"val/loss": 3.0, "segm/AP": 40.0, "ema/segm/AP": 41.0, "ema/val/loss": 2.5})
    writer.picture(10, "predictions", Image.new("RGB", (6, 4), (255, 0, 0)))
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    groups = {
        "train": {"loss": 2.0, "loss_ce": 1.5},
        "train_0": {"loss_ce": 0.5},
        "train_dn_0": {"loss_ce": 0.25},
        "val": {"loss": 3.0, "segm/AP": 40.0},
        "val_ema": {"loss": 2.5, "segm/AP": 41.0},
        "optimizer": {"lr": 1e-3, "lr/backbone": 1e-4},
        "time": {"step_time": 0.125},
        "memory": {"process_memory_mb": 7.0},
    }
    expected = {f"{group}/{name}": v for group, values in groups.items() for name, v in values.items()}
    assert set(events.Tags()["scalars"]) == set(expected)
    for tag, value in expected.items():
        assert [(e.step, e.value) for e in events.Scalars(tag)] == [(10, pytest.approx(value))]
    (picture,) = events.Images("predictions")
    found = Image.open(BytesIO(picture.encoded_image_string))
    assert picture.step == 10 and found.size == (6, 4) and found.getpixel((0, 0)) == (255, 0, 0)
    (text,) = events.Tensors("config/text_summary")
    assert '"lr": 0.5' in text.tensor_proto.string_val[0].decode()


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
        writer.picture(iteration + 1, "predictions", Image.new("RGB", (6, 4)))
        writer.close()
    assert made[0]["id"] is None and made[1]["id"] == (tmp_path / "wandb_id.txt").read_text()
    wandb.teardown()  # waits until its service has written all
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2 and all(run.name.endswith(made[1]["id"]) for run in runs)
    assert all(list(run.glob("files/media/images/predictions_*.png")) for run in runs)
    # What `wandb sync` would upload.
    assert all(b"loss" in next(run.glob("*.wandb")).read_bytes() for run in runs)


@pytest.mark.parametrize(
    ("make", "package", "module"),
    [(TensorBoardWriter, "tensorboard", "torch.utils.tensorboard"), (WandbWriter, "wandb", "wandb")],
)
def test_a_missing_package_is_a_warning(tmp_path, monkeypatch, caplog, make, package, module):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    writers = Writers([make(tmp_path)])
    writers.open(0, {})
    writers.write(1, {"loss": 1.0})
    assert f"pip install {package}, or set train.writers.{package}.enabled=false" in caplog.text


class Failing:
    """Fails in one of its methods."""

    shows_pictures = True

    def __init__(self, method):
        self.method, self.called = method, []

    def __getattr__(self, name):
        def call(*_):
            self.called.append(name)
            if name == self.method:
                raise OSError("disk full")

        return call


CALLS = ["open", "write", "write", "picture", "close"]


@pytest.mark.parametrize("method", ["open", "write", "picture", "close"])
def test_a_failing_writer_is_named_once_and_tried_again_if_it_could_be_opened(tmp_path, caplog, method):
    failing = Failing(method)
    writers = Writers([failing, JsonLinesWriter(tmp_path / "m.jsonl")])
    with caplog.at_level(logging.WARNING):
        writers.open(0, {})
        writers.write(1, {"loss": 1.0})
        writers.write(2, {"loss": 1.0})
        assert writers.show_pictures == (method != "open")
        writers.picture(2, "p", Image.new("RGB", (2, 2)))
        writers.close()
    assert failing.called == (["open"] if method == "open" else CALLS)
    assert caplog.text.count("Failing failed") == 1 and "disk full" in caplog.text
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 2


def test_lines_that_did_not_fit_on_the_disk_are_written_later_and_none_is_cut(tmp_path, caplog):
    path = tmp_path / "m.jsonl"
    writers = Writers([JsonLinesWriter(path)])
    writers.open(0, {})
    writers.write(1, {"loss": 1.0})
    room = path.stat().st_size
    with files_of_at_most(room + 10):
        for iteration in (2, 3):
            writers.write(iteration, {"loss": 1.0})
        assert path.stat().st_size == room
    assert caplog.text.count("JsonLinesWriter failed, and is tried again") == 1 and str(path) in caplog.text
    writers.write(4, {"loss": 1.0})
    writers.close()
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_writers_of_the_common_config_can_be_built(tmp_path):
    config = load(tmp_path)
    for name, entry in config.train.writers.items():
        assert not entry.enabled
        pytest.importorskip(name)
        instantiate(entry.writer)
