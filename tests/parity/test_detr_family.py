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
    "h_deformable_detr_r50_two_stage": [
        "h_deformable_detr",
        "model.decoder.query_init={num_queries: 100, num_extra: 200}",
    ],
    "align_detr_r50_4scale": ["align_detr", "model.decoder.query_init.num_queries=100"],
    "dab_deformable_detr_r50": ["dab_deformable_detr"],
    "dab_deformable_detr_r50_two_stage": ["dab_deformable_detr"],
    "dn_deformable_detr_r50": ["dn_deformable_detr"],
    "sqr_dab_detr_r50": ["sqr_detr"],
    "anchor_detr_r50": ["anchor_detr", "model.decoder.query_init.num_queries=100"],
    "pnp_detr_r50": ["pnp_detr"],
    "focus_detr_r50_4scale": [
        "focus_detr",
        "model.decoder.query_init.num_queries=100",
        "model.encoder.object_tokens=30",
    ],
    "focus_detr_r50_4scale_full": ["focus_detr", "model.decoder.query_init.num_queries=100"],
    "deta_r50_5scale": ["deta", "model.decoder.query_init.num_queries=300"],
    "deta_r50_5scale_low_thresholds": [
        "deta",
        "model.decoder.query_init.num_queries=300",
        "model.decoder.query_init.nms_iou=0.6",
        "model.decoder.query_init.assignment.positive_iou=0.2",
        "model.decoder.query_init.proposal_assignment.positive_iou=0.2",
        "model.postprocess.instance.nms_iou=0.2",
    ],
}
MODELS = {  # where it is not the name of the case
    "dino_r50_4scale": "dino_r50",
    "h_deformable_detr_r50_two_stage": "h_deformable_detr_r50",
    "align_detr_r50_4scale": "align_detr_r50",
    "focus_detr_r50_4scale": "focus_detr_r50",
    "focus_detr_r50_4scale_full": "focus_detr_r50",
    "deta_r50_5scale": "deta_r50",
    "deta_r50_5scale_low_thresholds": "deta_r50",
}


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
