"""OpenSeeD and Semantic-SAM compute what the published models compute, given their weights. Minutes each."""

import pytest
from check import main, parse_arguments

OPENSEED = "projects/openseed/configs/openseed_swin_tiny_coco"
# So that several segments remain.
LOW_OVERLAP = "model.postprocess.panoptic.overlap_threshold=0.1"
CASES = {
    "openseed_swint": [f"{OPENSEED}_panoptic.py", "loss_mask_dice_9_dn", LOW_OVERLAP],
    "openseed_swint_decouple": [
        f"{OPENSEED}_objects365.py",
        "det.scores",
        LOW_OVERLAP,
    ],
    "semantic_sam_swint": [
        "projects/semantic_sam/configs/semantic_sam_swin_tiny_sa1b.py",
        "auto.predicted_iou",
        "model.points_as_boxes=false",
    ],
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_every_array_of_the_kit_agrees(parity, case, capsys):
    config, named, *overrides = CASES[case]
    arguments = ["--kit", str(parity), "--case", case, "--config-file", config]
    status = main(parse_arguments([*arguments, *overrides]))
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert named in printed
