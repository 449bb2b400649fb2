"""What all tests share: the repository on the path, one thread per worker, the folders of real data."""

import gc
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

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


# Files that take longest. Workers of pytest-xdist run whole files, whose tests share fixtures and caches:
# these first, so that no worker is left alone with one of them at the end.
_LONGEST = (
    "test_docs.py",
    "test_configs.py",
    "test_detr_family.py",
    "test_onnx.py",
    "test_submit.py",
    "test_bad_input.py",
    "test_train_net.py",
    "test_training.py",
    "test_types.py",
    "test_distributed.py",
    "test_notebooks.py",
    "test_signals.py",
    "test_packaging.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    # Modules, configs and models that tests share are a million objects, which do not become garbage. Python
    # would go through all of them again and again: an eighth of the time of the tests of configs.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


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


@pytest.fixture(scope="session")
def build_script() -> SimpleNamespace:
    """The build script of the kernels as a namespace."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "ops" / "build.py")))


@pytest.fixture(scope="session")
def quick_compiler(build_script, tmp_path_factory) -> Path:
    """A C++ compiler that optimises nothing, whatever it is told to: for tests of building."""
    try:
        compiler = shlex.join(build_script.find_compiler())
    except build_script.BuildError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("compiler") / "quick"
    path.write_text(f'#!/bin/sh\nexec {compiler} "$@" -O0\n')
    path.chmod(0o755)
    return path


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
