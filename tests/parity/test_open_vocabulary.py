"""OpenSeeD computes what the published models compute, given their weights. Minutes each."""

import pytest
from check import main, parse_arguments

OPENSEED = "projects/openseed/configs"
CASES = {
    "openseed_swint": [f"{OPENSEED}/openseed_swin_tiny_coco_panoptic.py", "loss_mask_dice_9_dn"],
    "openseed_swint_decouple": [f"{OPENSEED}/openseed_swin_tiny_coco_objects365.py", "det.scores"],
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_every_array_of_the_kit_agrees(parity, case, capsys):
    config, named = CASES[case]
    arguments = ["--kit", str(parity), "--case", case, "--config-file", config]
    status = main(parse_arguments([*arguments, "model.postprocess.panoptic.overlap_threshold=0.1"]))
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert named in printed and "text.token_ids" in printed
