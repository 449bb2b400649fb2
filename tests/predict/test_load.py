"""From what may be named to a predictor: the same model each time, with its own classes and preprocessing."""

import json
import logging
import shutil

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf

from detrex.checkpoint import CheckpointError, loading, read_weights, write_weights, zoo
from detrex.config import ConfigError, LazyConfig
from detrex.data import category_file, read_categories
from detrex.engine.folder import checkpoint_metadata
from detrex.predict import load
from tests.predict.tiny_run import CATEGORIES, FIXED, ROOT

MODEL_ALONE = ROOT / "projects/maskdino/configs/models/maskdino_small.py"


@pytest.fixture
def weights(tiny_run):
    return tiny_run.folder / "model_final.safetensors"


@pytest.fixture
def rewrite(tiny_run, tmp_path):
    """``rewrite(**metadata)`` is a file of the same weights with other text beside them."""

    def write(**metadata):
        write_weights(tmp_path / "w.safetensors", tiny_run.weights, metadata)
        return tmp_path / "w.safetensors"

    return write


@pytest.fixture
def zoo_row(tiny_run, tmp_path, monkeypatch):
    """``zoo_row(url)`` makes a model zoo of one row, ``tiny``, with classes of Cityscapes."""
    monkeypatch.setattr(zoo, "projects_directory", lambda: tmp_path / "projects")

    def write(url):
        folder = tmp_path / "projects/mine"
        config = LazyConfig.apply_overrides(tiny_run.config, FIXED)
        LazyConfig.save(config, folder / "configs/tiny.yaml")
        row = {"title": "t", "config": "tiny.yaml", "classes": "cityscapes_semantic", "url": url}
        row |= {"published": {}, "parameters": 1}
        (folder / "zoo.yaml").write_text(json.dumps({"tiny": row}))
        return folder / "configs/tiny.yaml"

    return write


def assert_same(predictor, reference):
    assert predictor.model.state_dict().keys() == reference.state_dict().keys()
    for name, value in reference.state_dict().items():
        assert torch.equal(predictor.model.state_dict()[name].cpu(), value), name


def in_folder(run, _folder):
    return load(run.folder)


def in_checkpoint_folder(run, folder):
    (folder / "iteration_1").mkdir()
    shutil.copy(run.folder / "model_final.safetensors", folder / "iteration_1/model.safetensors")
    return load(str(folder / "iteration_1"))


def in_file(run, _folder):
    return load(run.folder / "model_final.safetensors")


def by_config_file(run, _folder):
    return load(run.folder / "config.yaml", run.folder / "model_final.safetensors")


def by_config(run, _folder):
    return load(run.config, run.folder)


@pytest.mark.parametrize("how", [in_folder, in_checkpoint_folder, in_file, by_config_file, by_config])
def test_every_way_gives_the_model_with_its_classes(how, tiny_run, tmp_path, reference):
    before = OmegaConf.to_yaml(tiny_run.config)
    predictor = how(tiny_run, tmp_path)
    assert_same(predictor, reference)
    assert not predictor.model.training
    assert predictor.categories == CATEGORIES
    assert predictor.model.postprocess.thing_classes == [0, 1]
    assert (predictor.mapper.size, predictor.mapper.max_size) == (64, 96)
    assert OmegaConf.to_yaml(tiny_run.config) == before


def test_overrides_change_the_loaded_config(tiny_run):
    overrides = ["model.postprocess.instance.max_detections=7", "dataloader.test.mapper.size=32"]
    predictor = load(tiny_run.folder, overrides=overrides)
    assert predictor.model.postprocess.instance.max_detections == 7 and predictor.mapper.size == 32
    with pytest.raises(ConfigError, match=r"max_detections"):
        load(tiny_run.folder, overrides=["model.postprocess.instance.max_detection=7"])


def test_deep_images_are_read_as_in_the_data_for_evaluation(tiny_run, rewrite):
    assert load(tiny_run.folder).value_range is None
    text = "dataloader.test.dataset.value_range=[0, 4095]"
    config = LazyConfig.apply_overrides(tiny_run.config, [*FIXED, text])
    predictor = load(rewrite(**checkpoint_metadata(config, CATEGORIES)))
    assert predictor.value_range == (0, 4095)
    dark, light = np.full((32, 48), 4095, np.uint16), np.full((32, 48), 255, np.uint8)
    assert torch.equal(predictor(dark).image, predictor(light).image)
    config.dataloader.test.dataset.value_range = [5]
    with pytest.raises(ConfigError, match=r"value_range is \[5\]: expected are two numbers"):
        load(rewrite(**checkpoint_metadata(config, CATEGORIES)))


def test_the_newest_checkpoint_of_a_run_that_is_not_done(tiny_run, tmp_path, reference):
    newest = tmp_path / "checkpoints/iteration_0000002"
    newest.mkdir(parents=True)
    shutil.copy(tiny_run.folder / "config.yaml", tmp_path)
    shutil.copy(tiny_run.folder / "model_final.safetensors", newest / "model.safetensors")
    weights, metadata = read_weights(newest)
    write_weights(newest / "model.safetensors", weights, {**metadata, "iteration": "2"})
    torch.save({}, newest / "state.pt")
    assert_same(load(tmp_path), reference)


def test_a_data_set_that_would_be_made_is_not(tiny_run, tmp_path):
    config = LazyConfig.load(ROOT / "projects/maskdino/configs/maskdino_shapes.py")
    config.model, config.dataloader.root = tiny_run.config.model, str(tmp_path / "shapes")
    metadata = checkpoint_metadata(config, CATEGORIES)
    path = tmp_path / "w.safetensors"
    write_weights(path, tiny_run.weights, metadata)
    assert load(path).categories == CATEGORIES
    metadata.pop("categories")
    write_weights(path, tiny_run.weights, metadata)
    assert load(path, overrides=FIXED).categories.names == ("class 0", "class 1", "class 2")
    assert not (tmp_path / "shapes").exists()


def test_no_weights_are_downloaded_for_a_backbone_that_the_checkpoint_fills(tiny_run, monkeypatch):
    asked = []
    create = timm.create_model

    def spy(*args, pretrained=False, **kwargs):
        asked.append(pretrained)
        return create(*args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", spy)
    load(tiny_run.folder, overrides=["model.backbone.pretrained=true"])
    assert asked and not any(asked)


def test_class_names_from_the_list_that_the_config_names(tiny_run, rewrite, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps(["a", "b", "c"]))
    listed = f"dataloader.categories={tmp_path / 'names.json'}"
    predictor = load(tiny_run.config, rewrite(), overrides=[*FIXED, listed])
    assert predictor.categories.names == ("a", "b", "c")


def test_class_names_from_the_annotation_file_that_is_there(tiny_run, rewrite, tmp_path):
    content = {"categories": [{"id": i, "name": f"kind {i}"} for i in (5, 2, 11)]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    there = f"dataloader.test.dataset.annotations={tmp_path / 'val.json'}"
    predictor = load(tiny_run.config, rewrite(), overrides=[*FIXED, there])
    assert predictor.categories.ids == (2, 5, 11)


def test_classes_get_numbers_where_nothing_names_them(tiny_run, rewrite, caplog):
    with caplog.at_level(logging.WARNING):
        predictor = load(tiny_run.config, rewrite(), overrides=FIXED)
    assert predictor.categories.names == ("class 0", "class 1", "class 2")
    assert "does not name its classes" in caplog.text


def test_more_names_than_classes(tiny_run, rewrite):
    listed = f"dataloader.categories={category_file('cityscapes_semantic')}"
    with pytest.raises(ConfigError, match=r"3 classes .*cityscapes_semantic.json names 19.*num_classes=19"):
        load(tiny_run.config, rewrite(), overrides=[*FIXED, listed])


def test_weights_of_another_class_count(tiny_run):
    with pytest.raises(ConfigError, match=r"model has 5 classes .*names 3.*model.num_classes=3"):
        load(tiny_run.folder, overrides=["model.num_classes=5"])


def test_weights_that_do_not_fit(tiny_run):
    with pytest.raises(CheckpointError, match=r"does not fit the model"):
        load(tiny_run.folder, overrides=["model.decoder.layers.num_layers=2"])


def test_a_name_in_the_zoo_downloads_only_when_asked(zoo_row, weights, monkeypatch, reference):
    config = zoo_row("https://example.org/tiny.safetensors")
    fetched = []
    monkeypatch.setattr(loading, "fetch", lambda url, *_: fetched.append(url) or weights)
    for model in ("tiny", config):
        with pytest.raises(CheckpointError, match=r"give weights=.*'published'.*https://example.org/tiny"):
            load(model)
    assert_same(load("tiny", weights), reference)
    assert not fetched
    assert_same(load("tiny", "published"), reference)
    assert_same(load(config, "published"), reference)
    assert fetched == ["https://example.org/tiny.safetensors"] * 2


def test_a_published_file_brings_the_config_and_classes_of_its_row(zoo_row, tiny_run, tmp_path):
    config = zoo_row("https://example.org/tiny.safetensors")
    path = tmp_path / "tiny.safetensors"
    write_weights(path, tiny_run.weights, {})
    with pytest.raises(ConfigError, match=r"names 19"):  # so the row's list is read
        load(path)
    wider = LazyConfig.apply_overrides(LazyConfig.load(config), ["model.num_classes=19"])
    LazyConfig.save(wider, config)
    with pytest.raises(CheckpointError, match=r"does not fit"):
        load(path)
    assert len(read_categories(category_file("cityscapes_semantic"))) == 19


def test_a_row_without_published_weights(zoo_row):
    zoo_row(None)
    with pytest.raises(CheckpointError, match=r"give weights=(?!.*published)"):
        load("tiny")
    with pytest.raises(CheckpointError, match=r"no address of weights for 'tiny'"):
        load("tiny", "published")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("no/such/run", FileNotFoundError, "no config, weights file or folder of a run at no/such/run"),
        ("model.safetensors", FileNotFoundError, "at model.safetensors"),
        ("tyni", CheckpointError, "no file or folder 'tyni', and .* no 'tyni'.*tiny"),
    ],
)
def test_what_is_not_there(zoo_row, model, error, message):
    zoo_row(None)
    with pytest.raises(error, match=message):
        load(model)


def test_a_config_alone_has_no_weights(tiny_run):
    for model in (tiny_run.config, tiny_run.folder / "config.yaml"):
        with pytest.raises(CheckpointError, match=r"holds no weights: give weights="):
            load(model)
    with pytest.raises(CheckpointError, match=r"goes with a name in the model zoo"):
        load(tiny_run.folder, "published")


def test_weights_alone_have_no_config(rewrite):
    path = rewrite()
    with pytest.raises(ConfigError, match=rf"no config.*load\(CONFIG.*weights='{path}'\)"):
        load(path)


def test_a_config_without_preprocessing(weights):
    with pytest.raises(ConfigError, match=r"no 'dataloader.test.mapper'.*how images are resized"):
        load(MODEL_ALONE, weights)


def test_unknown_device_and_arithmetic(tiny_run):
    with pytest.raises(ValueError, match=r"'tpu9'"):
        load(tiny_run.folder, device="tpu9")
    with pytest.raises(ValueError, match=r"off, bf16, fp16"):
        load(tiny_run.folder, amp="half")


def test_prepared_weights_change_neither_names_nor_results(weights):
    prepared, plain = load(weights), load(weights, prepare=False)
    assert_same(prepared, plain.model)
    image = np.random.default_rng(0).integers(256, size=(48, 64, 3), dtype=np.uint8)
    found, expected = prepared(image), plain(image)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)
    names = {type(m).__name__ for m in prepared.model.backbone.modules()}
    assert "PredictionConv2d" in names
    assert "PredictionConv2d" not in {type(m).__name__ for m in plain.model.modules()}
