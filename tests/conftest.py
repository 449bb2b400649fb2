"""What all tests share: the repository on the path, one thread per worker, the folders of real data."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.warm_python import warm_python  # noqa: E402


def pytest_configure() -> None:
    # Workers of pytest-xdist share the cores; a pool of threads in each of them only makes them wait.
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


# Fixtures that take long to make and last for a session: workers of pytest-xdist do not make them twice.
_SHARED_FIXTURES = {
    "python_folder": "shell",
    "compiled": "packaging",
    "plain": "packaging",
    "onnx_file": "export",
}


def _group(item: pytest.Item) -> str | None:
    """The tests that one worker runs, one after another: those that share fixtures, caches or libraries.

    Cases of parity share nothing and take long: they fill up what is left at the end.
    """
    for name, group in _SHARED_FIXTURES.items():
        if name in getattr(item, "fixturenames", ()):
            return group
    return None if item.path.parent.name == "parity" else item.path.name


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = _group(item)
        if group is not None and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))
    # What takes longest starts first.
    first = {None: 2, "test_types.py": 0, **dict.fromkeys(_SHARED_FIXTURES.values(), 0)}
    markers = [item.get_closest_marker("xdist_group") for item in items]
    order = [first.get(marker and marker.args[0], 1) for marker in markers]
    items[:] = [item for _, item in sorted(zip(order, items, strict=True), key=lambda pair: pair[0])]
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def signals_act_as_before() -> Iterator[None]:
    """A test that leaves this process listening to signals would stop the runs of later ones."""
    yield
    interruption = sys.modules.get("detrex.runtime.interruption")
    if interruption is not None and interruption.is_listening():
        interruption.stop_listening()
        pytest.fail("this test leaves the process listening to requests to stop")


@pytest.fixture(scope="session")
def python_folder(tmp_path_factory) -> Iterator[Path]:
    """A folder for the PATH, with a ``python`` that has PyTorch loaded; see :mod:`tests.warm_python`."""
    with warm_python(tmp_path_factory.mktemp("python")) as folder:
        yield folder


@pytest.fixture(scope="session")
def tool(python_folder) -> Callable[..., subprocess.CompletedProcess]:
    """``tool(name, *arguments)`` runs a command of ``tools/`` as from the shell, and returns what it said."""

    def run(name: str, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        python = python_folder / "python"
        # The second is for the processes of torchrun.
        environment = {"PYTHONPATH": str(ROOT), "PYTHON_EXEC": str(python), "OMP_NUM_THREADS": "1"}
        command = [python, *launcher, f"tools/{name}", *arguments]
        return subprocess.run(
            list(map(str, command)),
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def _shared(name: str) -> Path:
    folder = ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and annotations beside the repository."""
    return _shared("data")


@pytest.fixture(scope="session")
def field_cases() -> Path:
    """The folder of annotation files as tools write them, with a table of right outcomes in its README.md."""
    return _shared("field")


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of published models' settings, weights and outputs beside the repository."""
    return _shared("parity")
