"""The command line, as users call it."""

import json
from functools import partial
from pathlib import Path

import pytest

from detrex.cli.commands.train import parse_arguments, run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "tests/engine/dummy_config.py"


@pytest.fixture
def train_net(tool):
    return partial(tool, "train_net.py")


def test_train_resume_and_evaluate(train_net, tmp_path):
    output = f"train.output_dir={tmp_path}"
    done = train_net("--config-file", CONFIG, output, "train.max_iter=3")
    assert done.returncode == 0, done.stderr
    assert "iteration 3/3" in done.stdout and "dummy" in done.stdout

    done = train_net("--config-file", CONFIG, output, "--resume", "train.max_iter=4")
    assert done.returncode == 0, done.stderr
    assert "going on after iteration 3" in done.stdout

    weights = tmp_path / "model_final.safetensors"
    done = train_net(
        "--config-file", CONFIG, f"{output}/eval", "--eval-only", f"train.init_checkpoint={weights}"
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads((d / "results.json").read_text()) for d in (tmp_path, tmp_path / "eval")]
    assert results[0] == results[1]

    saved = ("--config-file", str(tmp_path / "config.yaml"), "--eval-only", "--resume")
    done = train_net(*saved)  # its components are the test's, and not declared
    assert done.returncode == 1 and "--trust-code" in done.stderr
    done = train_net(*saved, "--trust-code")
    assert done.returncode == 0, done.stderr


def test_two_processes(train_net, tmp_path):
    done = train_net("--config-file", CONFIG, "--num-gpus", "2", f"train.output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout and "iteration 6/6" in done.stdout
    assert done.stdout.count("iteration 6/6") == 1


def test_torchrun(train_net, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone")
    done = train_net("--config-file", CONFIG, f"train.output_dir={tmp_path}", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config-file", "missing.py"), "missing.py"),
        (("--config-file", CONFIG, "train.max_itr=3"), "max_iter"),
        (("--config-file", CONFIG, "train.max_iter=many"), "train.max_iter"),
        (("--config-file", CONFIG, "train.amp=half"), "bf16"),
        (("--config-file", CONFIG, "--eval-only"), "train.init_checkpoint=PATH"),
        (("--config-file", CONFIG, "--eval-only", "train.init_checkpoint=no.safetensors"), "no.safetensors"),
        (("--config-file", CONFIG, "--num-machines", "2"), "--dist-url"),
    ],
)
def test_errors_are_one_message_and_exit_code_1(tmp_path, monkeypatch, capsys, caplog, arguments, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        run(parse_arguments([*arguments, f"train.output_dir={tmp_path}"]))
    assert stopped.value.code == 1
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message in error
    assert "Traceback" not in capsys.readouterr().out


def test_an_error_reaches_the_console_without_traceback(train_net, tmp_path):
    done = train_net("--config-file", CONFIG, f"train.output_dir={tmp_path}", "train.max_itr=3")
    assert done.returncode == 1
    assert "max_iter" in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_the_traceback(train_net, tmp_path):
    done = train_net("--config-file", CONFIG, "--debug", f"train.output_dir={tmp_path}", "train.amp=half")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_help_needs_no_config(train_net):
    done = train_net("--help")
    assert done.returncode == 0
    options = ("--config-file", "--eval-only", "--resume", "--overwrite", "--num-gpus")
    for word in (*options, "examples:", "code 75"):
        assert word in done.stdout
