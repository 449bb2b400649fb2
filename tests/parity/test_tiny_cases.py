"""Outputs, losses and gradients equal those of a Mask DINO written down literally (``tiny_kit``)."""

from pathlib import Path

import pytest
from check import main, parse_arguments

KIT = Path(__file__).parent / "tiny_kit"
CONFIGS = "projects/maskdino/configs"
SMALL = (
    "+model.backbone.options.layers=[1,2,1,1]",
    "+model.backbone.options.channels=[8,16,24,32]",
    "model.num_classes=5",
    "model.encoder.hidden_dim=64",
    "model.encoder.ffn_dim=96",
    "model.encoder.num_layers=2",
    "model.pixel_head.mask_dim=32",
    "model.decoder.layers.ffn_dim=96",
    "model.decoder.layers.num_layers=2",
    "model.decoder.query_init.num_queries=12",
    "model.denoising.num_queries=8",
)
CASES = {
    "instance": ["maskdino_r50_coco_instance_50ep.py", "model.postprocess.instance.max_detections=15"],
    "panoptic": [
        "maskdino_r50_coco_panoptic_50ep.py",
        "model.postprocess.instance.max_detections=15",
        "model.postprocess.panoptic.overlap_threshold=0.1",
        "model.postprocess.thing_classes=[0,1,2]",
    ],
    "semantic": ["maskdino_r50_ade20k_semantic_160k.py"],
}


def compared(case: str, *changes: str) -> int:
    config, *overrides = CASES[case]
    arguments = ["--kit", str(KIT), "--case", case, "--config-file", f"{CONFIGS}/{config}"]
    return main(parse_arguments([*arguments, *SMALL, *overrides, *changes]))


@pytest.mark.parametrize("case", CASES)
def test_every_array_agrees(case, capsys):
    status = compared(case)
    printed = capsys.readouterr().out
    assert status == 0, printed
    for name in ("pred_masks", "sem_seg.argmax" if case != "instance" else "instances.masks", "loss_dice_dn"):
        assert name in printed
    assert printed.count("gradient of ") > 100


@pytest.mark.parametrize(
    ("case", "setting", "first"),
    [
        ("instance", "model.decoder.query_init.box_init.past_last_pixel=true", "aux.0.pred_boxes"),
        ("semantic", "model.encoder.position_offset=-0.5", "memory.0"),
    ],
)
def test_a_wrong_setting_is_noticed(case, setting, first, capsys):
    """One that weights say nothing about, so that only numbers tell; what comes before it still agrees."""
    assert compared(case, setting) == 1
    off = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "OFF" in line]
    assert first in off[:2] and "pred_boxes" in off and "backbone.res5" not in off
