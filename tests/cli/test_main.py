"""The command ``detrex``: its commands, what they cost to start, and how they are told what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import detrex
from detrex.cli.arguments import add_config, add_overrides, command_parser, parse
from detrex.cli.commands import eval as evaluation
from detrex.cli.commands import predict
from detrex.cli.main import COMMANDS, main
from detrex.config import ConfigError, find_config, shipped_configs
from detrex.config.untrusted import load_config_file
from detrex.runtime.threads import SETTINGS, WAITING, wait_briefly

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "omegaconf", "PIL", "rich", "scipy")

ALL_HELP = """
import contextlib, io, json, runpy, sys
from pathlib import Path
from detrex.cli.main import COMMANDS, main

def said(action):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        action()
    return text.getvalue()

def tool(path):
    sys.argv = [str(path), "--help"]
    runpy.run_path(str(path), run_name="__main__")

import detrex
found = {"": said(lambda: main([])), "--version": said(lambda: main(["--version"]))}
found |= {name: said(lambda: main([name, "--help"])) for name in COMMANDS}
found |= {p.name: said(lambda: tool(p)) for p in sorted(Path("tools").glob("*.py"))}
found |= {f"view {kind}": said(lambda: main(["view", kind, "--help"])) for kind in ("data", "results")}
print(json.dumps({"help": found, "modules": list(sys.modules)}))
"""


@pytest.fixture(scope="module")
def all_help():
    """What every command and tool says of itself, and the modules that were imported for it."""
    command = [sys.executable, "-c", ALL_HELP]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


def test_help_of_all_commands_loads_nothing_heavy(all_help):
    assert [name for name in HEAVY if name in all_help["modules"]] == []
    for name, text in all_help["help"].items():
        assert text.startswith(("usage:", "detrex-maskdino")), name
    assert f"{detrex.__version__}" in all_help["help"]["--version"]


def test_help_lists_the_commands_that_there_are(all_help):
    for name, command in COMMANDS.items():
        assert f"  {name} " in all_help["help"][""] and command.summary in all_help["help"][""]
        assert f"usage: detrex {name}" in all_help["help"][name]


def test_help_fits_a_terminal(all_help):
    lines = [line for text in all_help["help"].values() for line in text.splitlines()]
    assert [line for line in lines if len(line) > 112] == []


def test_examples_name_the_command_that_was_called(all_help):
    assert "  by a config      detrex train maskdino_custom_instance" in all_help["help"]["train"]
    assert "  by a config      train_net.py maskdino_custom_instance" in all_help["help"]["train_net.py"]


def test_an_unknown_command_gets_the_nearest(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 2 and "did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "config", "overrides"),
    [
        (["c.py", "a=1"], "c.py", ["a=1"]),
        (["a=1", "--config-file", "c.py", "~b"], "c.py", ["a=1", "~b"]),
        (["name", "+a=1", "--debug", "b=2"], "name", ["+a=1", "b=2"]),
    ],
)
def test_the_config_is_the_first_word_or_an_option(words, config, overrides):
    parser = command_parser("x")
    add_config(parser)
    add_overrides(parser)
    parsed = parse(parser, words)
    assert (parsed.config_file, parsed.overrides) == (config, overrides)


def test_a_command_without_config_says_where_they_are(capsys):
    with pytest.raises(SystemExit):
        main(["train", "train.max_iter=1"])
    assert "'detrex configs' lists them" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["maskdino_shapes", "maskdino_shapes.py", "projects/maskdino/configs/maskdino_shapes.py"],
)
def test_configs_are_found_by_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == ROOT / "projects/maskdino/configs/maskdino_shapes.py"


def test_a_file_goes_before_a_config_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("maskdino_shapes.py").write_text("train = dict(seed=5)\n")
    assert load_config_file("maskdino_shapes.py").train.seed == 5


def test_an_unknown_config_gets_the_nearest():
    with pytest.raises(ConfigError, match="did you mean maskdino_custom_instance"):
        find_config("maskdino_custom_instances")


@pytest.mark.parametrize(("columns", "lines_each"), [(80, 2), (160, 1)])
def test_names_of_configs_are_unique_and_each_says_what_it_is(capsys, monkeypatch, columns, lines_each):
    files = [*(ROOT / "projects").glob("*/configs/*.py")]
    assert len(shipped_configs()) == len(files)
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["configs"])
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= columns
    entries = [" ".join(shown[i : i + lines_each]).split() for i in range(0, len(shown), lines_each)]
    assert [words[0] for words in entries] == list(shipped_configs())
    assert all(len(words) > 3 for words in entries)


def test_a_config_is_shown_and_printed_whole(capsys, tmp_path):
    main(["configs", "maskdino_shapes"])
    assert "maskdino_shapes.py" in capsys.readouterr().out
    main(["configs", "maskdino_shapes", "--py"])
    copy = tmp_path / "copy.py"
    copy.write_text(capsys.readouterr().out)
    assert load_config_file(copy) == load_config_file("maskdino_shapes")


@pytest.mark.parametrize("columns", [80, 160])
def test_the_zoo_is_legible(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["zoo"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    row = next(line for line in lines if line.strip().startswith("maskdino_r50_coco_instance "))
    assert "51.7 box AP" in row


def test_a_row_of_the_zoo(capsys):
    main(["zoo", "maskdino_r50_coco_instance"])
    shown = capsys.readouterr().out
    assert "https://" in shown and "maskdino_r50_coco_instance_50ep.py" in shown


def test_info_tells_what_runs_here(capsys):
    main(["info"])
    shown = capsys.readouterr().out
    for word in (
        "torch:",
        "configs:",
        "deformable attention on the CPU",
        "idle threads of OpenMP",
        "TensorBoard:",
    ):
        assert word in shown


def test_inputs_and_overrides_may_be_plain_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b.jpg").touch()
    parsed = predict.parse_arguments(["x.jpg", "--model", "m", "a=b.jpg", "model.x=1", "--output", "o"])
    assert parsed.input == ["x.jpg", "a=b.jpg"] and parsed.overrides == ["model.x=1"]


@pytest.mark.parametrize("words", [["--model", "m"], ["--model", "m", "x.jpg", "--webcam", "0"]])
def test_prediction_needs_one_kind_of_input(words):
    with pytest.raises(SystemExit):
        predict.parse_arguments(words)


def test_evaluation_of_a_run(tmp_path):
    parsed = evaluation.parse_arguments([str(tmp_path), "a.b=1"])
    assert (parsed.config_file, parsed.weights) == (str(tmp_path / "config.yaml"), str(tmp_path))
    assert parsed.output == tmp_path and parsed.overrides == ["a.b=1"]


def test_evaluation_of_a_config_needs_weights(capsys):
    with pytest.raises(SystemExit):
        evaluation.parse_arguments(["maskdino_shapes"])
    assert "--weights" in capsys.readouterr().err


@pytest.fixture
def without_settings(monkeypatch):
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("without_settings")
def test_idle_threads_sleep_soon_unless_the_user_wants_otherwise(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert not wait_briefly() and not WAITING.keys() & os.environ.keys()
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert wait_briefly() and WAITING.items() <= os.environ.items()
