"""Detections, losses and gradients equal those of the published DETR family, given its weights."""

import pytest
from check import main, parse_arguments

CASES = {
    "detr_r50": ["detr"],
    "deformable_detr_r50": ["deformable_detr"],
    "deformable_detr_r50_refine": ["deformable_detr"],
    "deformable_detr_r50_two_stage": ["deformable_detr"],
    "conditional_detr_r50": ["conditional_detr"],
    "dab_detr_r50": ["dab_detr"],
    "dn_detr_r50": ["dn_detr"],
    "group_detr_r50": ["group_detr"],
    "dino_r50_4scale": ["dino", "model.decoder.query_init.num_queries=300"],
}
MODELS = {"dino_r50_4scale": "dino_r50"}  # where it is not the name of the case


@pytest.mark.parametrize("case", CASES)
def test_every_array_of_the_kit_agrees(parity, case, capsys):
    project, *overrides = CASES[case]
    config = f"projects/{project}/configs/models/{MODELS.get(case, case)}.py"
    arguments = ["--kit", str(parity), "--case", case, "--config-file", config, *overrides]
    status = main(parse_arguments(arguments))
    printed = capsys.readouterr().out
    assert status == 0, printed
    for name in ("pred_boxes", "1.scores", "loss_giou", "gradient of decoder.heads.sets.0.box"):
        assert name in printed
