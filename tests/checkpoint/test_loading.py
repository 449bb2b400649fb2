"""Where weights may come from: files, folders of runs, the network, the model zoo, pickles if asked for."""

import json
import logging
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from detrex.checkpoint import (
    Checkpointer,
    CheckpointError,
    load_pretrained,
    read_source,
    write_weights,
    zoo,
    zoo_entries,
    zoo_entry,
)
from detrex.checkpoint.published import to_published
from detrex.structures import Categories

CLASSES = Categories.from_names(["a", "b", "c", "d", "e"])
METADATA = {"categories": json.dumps(CLASSES.to_dict())}


@pytest.fixture
def server(tmp_path):
    """Serves ``tmp_path / "served"`` on this machine; yields its URL."""
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A model zoo of the rows that are written to it."""
    (tmp_path / "projects/mine/configs").mkdir(parents=True)
    monkeypatch.setattr(zoo, "projects_directory", lambda: tmp_path / "projects")

    def write(**rows):
        plain = {"title": "t", "config": "c.py", "classes": "cityscapes_semantic", "published": {}}
        content = {name: {**plain, "parameters": 1, **row} for name, row in rows.items()}
        (tmp_path / "projects/mine/zoo.yaml").write_text(json.dumps(content))

    return write


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_own_weights_with_their_classes(build, tmp_path):
    write_weights(tmp_path / "a.safetensors", build().state_dict(), METADATA)
    file = read_source(tmp_path / "a.safetensors")
    assert file.categories == CLASSES and file.state is None
    other = build(seed=1)
    report = load_pretrained(other, file, strict=True)
    assert same(build(), other) and report.complete and report.format == "detrex weights"


def test_a_checkpoint_with_its_training_state(build, tmp_path):
    model = build()
    path = Checkpointer(tmp_path / "checkpoints").save(7, model.state_dict(), {"lr": 0.5}, METADATA)
    other = build(seed=1)
    assert load_pretrained(other, path, strict=True, with_state=True).state == {"lr": 0.5}
    assert same(model, other)
    assert load_pretrained(other, path).state is None
    # The folder of the run stands for its newest checkpoint, until it has final weights.
    assert read_source(tmp_path).path == path
    write_weights(tmp_path / "model_final.safetensors", model.state_dict(), {})
    assert read_source(tmp_path).path == tmp_path / "model_final.safetensors"


def test_a_published_file_is_recognised_and_shown_as_a_table(build, tmp_path, caplog):
    model, other = build(), build(seed=1)
    torch.save({"model": to_published(model.state_dict(), model)}, tmp_path / "p.pth")
    with caplog.at_level(logging.INFO):
        report = load_pretrained(other, tmp_path / "p.pth", strict=True)
    assert same(model, other) and report.format == "published Mask DINO"
    assert "re-initialised" in caplog.text and "published Mask DINO" in caplog.text
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_fine_tuning_with_other_classes_keeps_rows_by_name(build, tmp_path):
    write_weights(tmp_path / "a.safetensors", build().state_dict(), METADATA)
    other = build("model.num_classes=2", seed=1)
    report = load_pretrained(other, tmp_path / "a.safetensors", categories=Categories.from_names(["x", "D"]))
    assert set(report.kept_rows) == {
        "decoder.heads.sets.0.classes.weight",
        "decoder.heads.sets.0.classes.bias",
        "denoising.label_embed.weight",
    }
    weight, source_weight = (
        other.decoder.heads.sets[0].classes.weight,
        build().decoder.heads.sets[0].classes.weight,
    )
    assert torch.equal(weight[1], source_weight[3])


def test_a_url_is_downloaded_once(build, tmp_path, server, monkeypatch):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    model, other = build(), build(seed=1)
    write_weights(tmp_path / "served/a.safetensors", model.state_dict(), {})
    load_pretrained(other, f"{server}/a.safetensors", strict=True)
    assert same(model, other)
    (tmp_path / "served/a.safetensors").unlink()
    load_pretrained(build(seed=2), f"{server}/a.safetensors", strict=True)


def test_a_name_in_the_zoo_is_its_file_and_its_classes(build, tmp_path, server, rows, monkeypatch):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    rows(mine={"url": f"{server}/p.pth"}, own={})
    model = build("model.num_classes=19")
    torch.save({"model": to_published(model.state_dict(), model)}, tmp_path / "served/p.pth")
    file = read_source("mine")
    assert file.categories.names[:2] == ("road", "sidewalk")
    # A copy of the published file is known by its name.
    assert read_source(tmp_path / "served/p.pth").categories == file.categories
    with pytest.raises(CheckpointError, match="no address of weights for 'own'.*mine"):
        read_source("own")
    with pytest.raises(CheckpointError, match="no 'mime'.*mine"):
        read_source("mime")


def test_pickles_are_read_only_if_that_is_asked_for(build, tmp_path):
    model, other = build(), build(seed=1)
    arrays = {
        name.removeprefix("backbone."): np.asarray(value)
        for name, value in to_published(model.state_dict(), model).items()
        if name.startswith("backbone.")
    }
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x", "matching_heuristics": True}))
    with pytest.raises(CheckpointError, match="allow_pickle=True"):
        load_pretrained(other, path)
    report = load_pretrained(other, path, allow_pickle=True)
    assert same(model.backbone, other.backbone)
    assert not any(name.startswith("backbone.") for name in report.missing)


@pytest.mark.parametrize("source", ["no.pth", "folder/no", "no.safetensors"])
def test_a_file_that_is_not_there(source):
    with pytest.raises(FileNotFoundError, match=source):
        read_source(source)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of a checkpoint or run"):
        read_source(tmp_path)


def test_every_row_of_the_zoo_has_its_config_and_classes():
    for name, entry in zoo_entries().items():
        assert entry.config.is_file(), name
        assert len(entry.categories()) >= 1
        assert entry.url is None or entry.url.startswith("https://")
        assert zoo_entry(name) == entry
    assert "maskdino_r50_coco_instance" in zoo_entries()
