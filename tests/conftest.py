"""What all tests share: the repository on the path, one thread per worker, the folders of real data."""

import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def pytest_configure() -> None:
    # Workers of pytest-xdist share the cores; a pool of threads in each of them only makes them wait.
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


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
