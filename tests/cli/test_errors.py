"""What users are told: in the words of the command that they run, and how to go on."""

import logging
import shlex

import pytest

from detrex.cli.commands import predict
from detrex.cli.commands.train import resume_command
from detrex.cli.errors import readable_errors
from detrex.cli.train import main
from detrex.config.untrusted import load_config_file
from detrex.runtime.interruption import EXIT_INTERRUPTED, Interrupted
from tests.tools.conftest import SMALL


@pytest.fixture
def message(caplog):
    """``message(error, **options)`` is what is logged of it."""

    def log(error, **options):
        caplog.clear()
        with pytest.raises(SystemExit) as ended, readable_errors(**options):
            raise error
        assert ended.value.code == 1
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        return record.getMessage()

    return log


PICKLE = "give allow_pickle=True (in a config train.allow_pickle=true, in tools --allow-pickle). The reader"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("give trust_code=True (in tools --trust-code)", {}, "give --trust-code"),
        (PICKLE, {}, "give train.allow_pickle=true. The reader"),
        (PICKLE, {"allows_pickle": True}, "give --allow-pickle. The reader"),
        ("weights=, a path, or weights='published'", {}, "--weights, a path, or --weights published"),
        ("both: load(CONFIG_FILE_OR_ZOO_NAME, weights='a b.pth')", {},
         "both: --model CONFIG_FILE_OR_ZOO_NAME --weights a b.pth"),
        ("nothing in it=1", {}, "nothing in it=1"),
    ],
)  # fmt: skip
def test_arguments_are_named_as_flags(message, text, options, expected):
    assert message(ValueError(text), **options) == expected


def test_the_flags_of_prediction(caplog, tmp_path):
    (tmp_path / "x.jpg").touch()
    with pytest.raises(SystemExit):
        predict.run(predict.parse_arguments([str(tmp_path), "--model", "maskdino_r50_coco_instance"]))
    (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "give --weights, the path" in error and "--weights published to download https://" in error


def test_missing_files_name_the_root_of_the_data(message):
    error = FileNotFoundError("Annotation file data/mine/a.json does not exist.")
    assert "dataloader.root=data/mine" in message(error, data_root="data/mine")
    assert message(error, data_root="data/other") == str(error)
    assert message(ValueError("data/mine is odd"), data_root="data/mine") == "data/mine is odd"


def test_a_run_without_its_data_names_the_root(tmp_path, caplog):
    overrides = [*SMALL, f"train.output_dir={tmp_path / 'run'}", f"dataloader.root={tmp_path / 'nothing'}"]
    with pytest.raises(SystemExit):
        main(load_config_file("maskdino_custom_instance", overrides))
    (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert f"dataloader.root={tmp_path / 'nothing'}: set dataloader.root" in error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/venv/bin/detrex", "train", "c", "a=x y"], "detrex train c 'a=x y' --resume"),
        (["tools/train_net.py", "--overwrite", "c"], "python tools/train_net.py c --resume"),
        (["/x/detrex/__main__.py", "train", "c", "--resume"], "python -m detrex train c --resume"),
    ],
)
def test_the_command_to_go_on_with(words, expected):
    assert resume_command(words) == expected
    assert shlex.split(expected)[-1] == "--resume"


def test_an_interrupted_run_says_how_to_go_on(tmp_path, caplog):
    config = load_config_file("maskdino_custom_instance", [f"train.output_dir={tmp_path}"])
    config.dataloader.train = {"_target_": f"{__name__}.interrupted"}
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as ended:
        main(config, resume_command="detrex train c --resume")
    assert ended.value.code == EXIT_INTERRUPTED
    assert "to go on: detrex train c --resume" in caplog.text


def interrupted():
    """Stands for a loader that is being built when the user presses Ctrl-C."""
    raise Interrupted
