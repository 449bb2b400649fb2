"""Outputs, losses and gradients equal those of the published models, given their weights."""

import pytest
from check import main, parse_arguments

CONFIGS = "projects/maskdino/configs"
CASES = {
    "instance_r50": ["maskdino_r50_coco_instance_50ep.py"],
    "instance_r50_empty_masks": ["maskdino_r50_coco_instance_50ep.py"],
    "panoptic_r50": [
        "maskdino_r50_coco_panoptic_50ep.py",
        "model.postprocess.panoptic.overlap_threshold=0.1",
    ],
    "semantic_ade20k_r50": ["maskdino_r50_ade20k_semantic_160k.py"],
}


@pytest.mark.parametrize("case", CASES)
def test_every_array_of_the_kit_agrees(parity, case, capsys):
    config, *overrides = CASES[case]
    arguments = ["--kit", str(parity), "--case", case, "--config-file", f"{CONFIGS}/{config}", *overrides]
    status = main(parse_arguments(arguments))
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "gradient of decoder.heads.sets.0.box" in printed and "pred_masks" in printed
