"""Runs of two machines, here two commands on one machine, by torchrun and by our own options."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from detrex.cli.train import main
from tests.engine.runs import CONFIG, load, losses, metrics

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ("model.dropout=0", "dataloader.train.shuffle=false")
TORCHRUN = (
    "-m torch.distributed.run --nnodes 2 --node-rank {rank} --nproc-per-node 1 --master-addr 127.0.0.1 "
)
COMMANDS = {
    "torchrun": TORCHRUN + "--master-port {port} tools/train_net.py",
    "options": "tools/train_net.py --num-machines 2 --machine-rank {rank} --dist-url tcp://127.0.0.1:{port}",
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_two_machines_train_like_one_with_the_same_batch(python_folder, command, tmp_path):
    python = python_folder / "python"
    # The second is for the processes of torchrun.
    environment = {"PYTHONPATH": str(ROOT), "PYTHON_EXEC": str(python), "CUDA_VISIBLE_DEVICES": ""}
    one, two = tmp_path / "one", tmp_path / "two"
    port = free_port()
    processes = []
    for rank in range(2):
        arguments = [*command.format(rank=rank, port=port).split(), "--config-file", str(CONFIG)]
        processes.append(
            subprocess.Popen(
                [python, *arguments, f"train.output_dir={two}", *PLAIN],
                cwd=ROOT,
                env={**os.environ, **environment},
            )
        )
    main(load(one, *PLAIN))
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    for (a, whole), (b, found) in zip(losses(one), losses(two), strict=True):
        assert a == b and found == pytest.approx(whole, rel=1e-4)
    evaluated = [[m for m in metrics(d) if "dummy/accuracy" in m] for d in (one, two)]
    assert evaluated[0] == evaluated[1] != []
