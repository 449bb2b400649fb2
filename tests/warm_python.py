"""A ``python`` that starts at once, for tests that run many commands as users do.

A new interpreter spends most of a small test on importing PyTorch. Here one process imports it, and
each command is a fork of it with its own arguments, folder, environment, input and output. To the command
it is a new process whose imports are fast.

The file is what tests import, the server (``warm_python.py serve ADDRESS``), and the client that stands for
``python`` on the PATH and needs nothing but the standard library.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# In the fork of a command: where its exit code goes, and the code.
_answers: list[tuple[socket.socket, int]] = []
PRELOADED = (
    "torch",
    "torchvision",
    "timm",
    "scipy.optimize",
    "pycocotools.coco",
    "detrex.cli.train",
    "detrex.predict",
)
# Started as they are: submitit names a job by the number of this process, which differs from the fork's.
STARTED_ANEW = (["-m", "submitit.local._local"],)
_LONGEST_MESSAGE = 1 << 20
_CLIENT = """\
#!/bin/sh
exec {python} -I -S {file} ask {address} {first} "$@"
"""


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """A folder for the PATH, with ``python`` and ``detrex``; the server lives as long as the context."""
    address = folder / "socket"
    (folder / "bin").mkdir(parents=True)
    for name, first in (("python", ""), ("detrex", "-m detrex")):
        client = folder / "bin" / name
        client.write_text(_CLIENT.format(python=sys.executable, file=__file__, address=address, first=first))
        client.chmod(0o755)
    # Forks have as many threads as their server, whatever their own environment says.
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(address)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    try:
        yield client.parent
    finally:
        server.terminate()
        server.wait()


def serve(address: str) -> None:
    """Forks a process for every command, until it is ended."""
    atexit.register(_answer)  # before others are registered, and so the last one in a fork
    for name in PRELOADED:
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended forks need no waiting for
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                sys.exit(_be_the_command(connection))
            connection.close()


def _be_the_command(connection: socket.socket) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, _LONGEST_MESSAGE, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(_LONGEST_MESSAGE)
    asked = json.loads(message)
    for target, file in enumerate(files):
        os.dup2(file, target)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[:0] = [p for p in asked["environment"].get("PYTHONPATH", "").split(":") if p]
    code = _run(asked["arguments"])
    _answers.append((connection, code & 0xFF))
    return code


def _answer() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    for connection, code in _answers:
        connection.sendall(bytes([code]))


def _run(arguments: list[str]) -> int:
    """Runs what follows ``python`` on a command line, and returns the exit code."""
    arguments = [a for i, a in enumerate(arguments) if (i, a) != (0, "-u")]
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] in ("-", "-c"):
            given = arguments[0] == "-c"
            sys.argv = ["-c", *arguments[2:]] if given else arguments
            code = arguments[1] if given else sys.stdin.read()
            exec(compile(code, "<string>" if given else "<stdin>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code + "\n")
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def ask(address: str, arguments: list[str]) -> int:
    """Has the server run a command, and returns its exit code."""
    if arguments[:2] in STARTED_ANEW:
        os.execv(sys.executable, [sys.executable, *arguments])
    message = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(message).encode() + b"\n"], [0, 1, 2])
        answer = connection.recv(1)
    return answer[0] if answer else 1  # none from one that was killed


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        serve(sys.argv[2])
    sys.exit(ask(sys.argv[2], sys.argv[3:]))
