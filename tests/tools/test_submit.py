"""Jobs of submitit: real ones on this machine, and scripts for a Slurm that only takes notes."""

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from detrex.cli.commands.submit import parse_arguments, run
from detrex.cli.train import main
from detrex.config import LazyCall as L
from detrex.config import LazyConfig
from detrex.runtime.interruption import EXIT_INTERRUPTED
from tests.config_files import config_of
from tests.engine import dummy
from tests.engine.runs import CONFIG, load, losses, metrics
from tests.tools.interrupted_loader import InterruptedLoader

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ("model.dropout=0", "dataloader.train.shuffle=false")
SLURM = {
    "sbatch": '#!/bin/sh\ncp "$1" {folder}/script.sh\necho Submitted batch job 7\n',
    "srun": "#!/bin/sh\n",
}


@pytest.fixture(autouse=True)
def processes_of_jobs(monkeypatch, python_folder):
    """They start fast, and neither detrex nor the tests need be installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "executable", str(python_folder / "python"))


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """Where the script of the submitted job will be."""
    for name, text in SLURM.items():
        command = tmp_path / name
        command.write_text(text.format(folder=tmp_path))
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "script.sh"


def interrupted_config(folder: Path, number: int) -> Path:
    """The dummy's config with a loader that sends the signal."""
    config = config_of(CONFIG)
    dataset = L(dummy.Dataset)(num_classes="${model.num_classes}")
    config.dataloader.train = L(InterruptedLoader)(
        dataset=dataset, folder=str(folder), number=number, total_batch_size=4, shuffle=False
    )
    LazyConfig.save(config, folder / "config.yaml")
    return folder / "config.yaml"


def submit_and_wait(folder: Path, number: int, *arguments: str):
    config = interrupted_config(folder, number)
    command = ["--config-file", str(config), "--executor", "local", *arguments]
    job = run(parse_arguments([*command, f"train.output_dir={folder / 'run'}", *PLAIN]))
    assert job._process.wait(timeout=600) == 0  # of the controller, whatever the tasks did
    return job


def test_a_job_whose_time_is_over_saves_waits_and_goes_on(tmp_path):
    job = submit_and_wait(tmp_path, signal.SIGUSR2, "--num-gpus", "2")
    log = (tmp_path / "run/log.txt").read_text()
    assert "stopped by a signal after iteration 4" in log and "going on after iteration 4" in log
    assert job.results() == [None, None]
    main(load(tmp_path / "whole", *PLAIN))
    for (a, whole), (b, found) in zip(losses(tmp_path / "whole"), losses(tmp_path / "run"), strict=True):
        assert a == b and found == pytest.approx(whole, rel=1e-4)
    evaluated = [[m for m in metrics(tmp_path / d) if "dummy/accuracy" in m] for d in ("whole", "run")]
    assert evaluated[0] == evaluated[1] != []


def test_a_job_that_is_preempted_saves_and_leaves_it_to_slurm_to_start_it_again(tmp_path, monkeypatch):
    job = submit_and_wait(tmp_path, signal.SIGTERM)
    assert [i for i, _ in losses(tmp_path / "run")] == [1, 2, 3, 4]
    assert f"(code {EXIT_INTERRUPTED})" in (tmp_path / "run/log.txt").read_text()
    assert not job.paths.result_pickle.exists()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    submit_and_wait(tmp_path, signal.SIGTERM)
    assert [i for i, _ in losses(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_the_script_for_slurm(slurm, tmp_path, capsys):
    arguments = ["--config-file", str(CONFIG), "--num-machines", "2", "--num-gpus", "8", "--minutes", "90"]
    options = ["--slurm", "partition=big", "--slurm", "account=me"]
    run(parse_arguments([*arguments, *options, f"train.output_dir={tmp_path / 'run'}", "train.device=auto"]))
    said = {line.removeprefix("#SBATCH --") for line in slurm.read_text().splitlines()}
    wanted = {"nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "time=90", "signal=USR2@120", "job-name=run"}
    assert wanted | {"partition=big", "account=me"} <= said
    assert sys.executable in slurm.read_text()
    assert f"submitted job 7; its log is {tmp_path / 'run/submitit'}" in capsys.readouterr().out


def test_without_gpus_none_are_asked_for(slurm, tmp_path):
    run(parse_arguments(["--config-file", str(CONFIG), f"train.output_dir={tmp_path / 'run'}"]))
    assert "gpus-per-node=0" in slurm.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "lsf"], "must be slurm or local, not 'lsf'"),
        (["--executor", "local", "--num-machines", "2"], "only one node"),
        (["--executor", "local", "--slurm", "partition"], "expected KEY=VALUE"),
        (["--executor", "slurm"], "no Slurm on this machine"),
    ],
)
def test_what_cannot_be_is_said(arguments, message, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        command = ["--config-file", str(CONFIG), *arguments, f"train.output_dir={tmp_path / 'run'}"]
        run(parse_arguments(command))
    assert ended.value.code == 1 and message in caplog.text


LOGGED = """
import logging, sys
from detrex.cli.commands.submit import parse_arguments, run

class Handler(logging.Handler):
    closed = False

    def close(self):
        self.closed = True

handler = Handler()
logging.getLogger().addHandler(handler)
run(parse_arguments(sys.argv[1:]))
assert not handler.closed and handler in logging.getLogger().handlers
"""


def test_logging_of_the_process_is_left_alone(slurm, tmp_path):
    command = [sys.executable, "-c", LOGGED, "--config-file", str(CONFIG)]
    subprocess.run([*command, f"train.output_dir={tmp_path / 'run'}"], check=True)
    assert slurm.exists()
