"""The kernel's library, compiled once per session from this source, and the implementations under test."""

import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detrex.ops import cpu, dispatch, force_implementation
from detrex.ops.library import open_library

ROOT = Path(__file__).resolve().parents[2]
IMPLEMENTATIONS = ("reference", "cpp", "cpp-baseline")


@pytest.fixture(scope="session")
def build():
    """The build script as a namespace."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "ops" / "build.py")))


@pytest.fixture(scope="session")
def library(build, tmp_path_factory):
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("kernel") / build.LIBRARY_NAME
    build.compile_library(path)
    return open_library(path)


@pytest.fixture
def use_library(monkeypatch):
    """A function that makes a library, or the error of not having one, this installation's."""

    def use(library):
        for module in (cpu, dispatch):
            monkeypatch.setattr(module, "cpu_library", lambda: library)
        torch.compiler.reset()

    return use


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, use_library):
    """Runs a test with each implementation."""
    name, _, baseline = request.param.partition("-")
    if name == "cpp":
        library = request.getfixturevalue("library")
        use_library(dataclasses.replace(library, baseline=bool(baseline)))
    with force_implementation(name):
        yield request.param


@pytest.fixture
def kernel(library, use_library):
    """Forces the kernel."""
    use_library(library)
    with force_implementation("cpp"):
        yield library


@pytest.fixture
def make_inputs():
    """Value, locations and weights; locations in [-0.3, 1.3]: outside, at the border and inside."""

    def make(shapes, batch=2, queries=3, heads=2, points=2, dim=2, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        tokens = sum(h * w for h, w in shapes)
        value = torch.randn(batch, tokens, heads, dim, dtype=dtype, generator=generator)
        samples = (batch, queries, heads, len(shapes), points)
        locations = torch.rand(*samples, 2, dtype=dtype, generator=generator) * 1.6 - 0.3
        return value, locations, torch.rand(samples, dtype=dtype, generator=generator)

    return make
