"""Five optimizer steps are those of the published trainer: settings, losses, gradients and changes."""

from check import main, parse_arguments

CONFIG = "projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py"


def test_a_published_training_run_is_repeated(parity, capsys):
    arguments = ["--kit", str(parity), "--case", "instance_r50_trajectory", "--config-file", CONFIG]
    status = main(parse_arguments(arguments))
    printed = capsys.readouterr().out
    off = [line for line in printed.splitlines() if "OFF" in line]
    assert status == 0, off
    for what in ("weight decay of", "step 5: learning rate of", "step 5: total loss", "step 5: change of"):
        assert what in printed
