"""Checkpoints go from the published format to this toolbox's and back without a bit changing."""

import json
import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

from detrex.checkpoint import CheckpointError, load_pretrained, read_weights
from detrex.checkpoint.published import to_published
from detrex.cli.commands.convert_weights import parse_arguments
from detrex.cli.weight_conversion import convert
from detrex.config import LazyConfig, instantiate
from tests.config_files import config_of

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = [
    "model.num_classes=80",
    "model.backbone.options={channels: [32, 64, 128, 256], stem_width: 8}",
    "model.pixel_head.mask_dim=16",
    "model.encoder={hidden_dim: 64, ffn_dim: 32, num_heads: 4, num_layers: 1}",
    "model.decoder.layers={num_heads: 4, ffn_dim: 32, num_layers: 2}",
]
CONFIG = ROOT / "projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py"


def run(source, output, *arguments):
    """The tool's work, in this process."""
    named = [source, "--config-file", CONFIG, "--output", output, *arguments, *TINY]
    convert(parse_arguments(list(map(str, named))))


@pytest.fixture
def model():
    return instantiate(LazyConfig.apply_overrides(config_of(CONFIG), TINY).model)


def test_a_round_trip_is_exact(model, tmp_path, caplog):
    published = to_published(model.state_dict(), model)
    torch.save({"model": published, "iteration": 7}, tmp_path / "published.pth")
    with caplog.at_level(logging.INFO):
        run(tmp_path / "published.pth", tmp_path / "ours.safetensors")
    assert "published Mask DINO" in caplog.text and "wrote" in caplog.text
    run(tmp_path / "ours.safetensors", tmp_path / "again.pth", "--to", "published")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], published[name]) for name in again)
    weights, metadata = read_weights(tmp_path / "ours.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert OmegaConf.create(metadata["config"]).model.num_classes == 80
    assert json.loads(metadata["categories"])["names"][0] == "person"


def test_a_part_is_converted_only_if_that_is_asked_for(model, tmp_path):
    backbone = {
        name.removeprefix("backbone."): value
        for name, value in to_published(model.state_dict(), model).items()
        if name.startswith("backbone.")
    }
    torch.save(backbone, tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match="missing in the file"):
        run(tmp_path / "backbone.pth", tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()
    run(tmp_path / "backbone.pth", tmp_path / "ours.safetensors", "--partial")
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert set(file.keys()) == {n for n in model.state_dict() if n.startswith("backbone.")}
    report = load_pretrained(model, tmp_path / "ours.safetensors")
    assert len(report.loaded) == len(backbone)


def test_an_output_of_the_wrong_kind_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"end in \.pth"):
        run("maskdino_r50_coco_instance", tmp_path / "ours.safetensors", "--to", "published")
