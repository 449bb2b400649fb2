"""Compiling the kernel, finding its library, choosing an implementation and telling about it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detrex import ops_info
from detrex.ops import dispatch, force_implementation, multi_scale_deformable_attention
from detrex.ops import library as loader
from detrex.ops.library import KernelError

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ((3, 4), (2, 2))


@pytest.fixture
def installed(monkeypatch):
    """A function that makes a file this installation's library; it is loaded at the next use."""

    def install(path):
        monkeypatch.setattr(loader, "LIBRARY", path)
        loader.cpu_library.cache_clear()

    yield install
    loader.cpu_library.cache_clear()


def build_with(monkeypatch, build, target, compiler):
    monkeypatch.setenv("CXX", compiler)
    return build.try_to_compile(target)


def test_it_compiles_from_cxx(build, library, monkeypatch, quick_compiler, tmp_path, capfd):
    target = tmp_path / build.LIBRARY_NAME
    assert build_with(monkeypatch, build, target, f"{quick_compiler} -g0")
    assert loader.open_library(target).flags == library.flags
    assert capfd.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "compiler",
    [
        "/no/such/compiler",
        "false",
        f'{sys.executable} -c \'import sys; sys.exit(chr(10).join(["many", "words"]))\'',
        "an 'unclosed quote",
    ],
)
def test_a_failing_compiler_costs_one_line_and_leaves_no_library(
    build, monkeypatch, tmp_path, capfd, compiler
):
    target = tmp_path / build.LIBRARY_NAME
    target.write_text("of an earlier build")
    assert not build_with(monkeypatch, build, target, compiler)
    words = capfd.readouterr().err
    assert words.count("\n") == 1 and "not built" in words
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_it_says_so(build, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not build_with(monkeypatch, build, tmp_path / build.LIBRARY_NAME, "")
    assert "no C++ compiler" in capfd.readouterr().err


def test_a_compiler_without_openmp_makes_a_library_of_one_thread(
    build, library, monkeypatch, quick_compiler, tmp_path, use_library, make_inputs
):
    compiler = tmp_path / "compiler"
    refuse = 'for a in "$@"; do case "$a" in -fopenmp*) exit 1;; esac; done'
    compiler.write_text(f'#!/bin/sh\n{refuse}\nexec {quick_compiler} "$@"\n')
    compiler.chmod(0o755)
    target = tmp_path / build.LIBRARY_NAME
    assert build_with(monkeypatch, build, target, str(compiler))
    serial = loader.open_library(target)
    assert library.threaded and not serial.threaded
    results = []
    for each in (library, serial):
        use_library(each)
        with force_implementation("kernel"):
            value, locations, weights = make_inputs(SHAPES)
            results.append(multi_scale_deformable_attention(value, SHAPES, locations, weights))
    torch.testing.assert_close(*results)


def test_it_compiles_without_warnings(build, library, tmp_path):
    compiler = build.find_compiler()[0]
    command = [compiler, *library.flags.split(), "-Wall", "-Wextra", "-Werror", *map(str, build.SOURCES)]
    subprocess.run([*command, "-o", str(tmp_path / "library.so")], check=True)


@pytest.mark.usefixtures("library")
def test_a_library_of_another_source_is_stale(
    build, quick_compiler, tmp_path, installed, monkeypatch, caplog, make_inputs
):
    monkeypatch.setenv("CXX", str(quick_compiler))
    source = tmp_path / "other.cpp"
    source.write_text(build.SOURCES[0].read_text() + "// another version\n")
    build.compile_library(tmp_path / "stale.so", (source, *build.SOURCES[1:]))
    with pytest.raises(KernelError, match=r"stale\.so is stale: built from source \w{16}"):
        loader.open_library(tmp_path / "stale.so")

    installed(tmp_path / "stale.so")
    value, locations, weights = make_inputs(SHAPES)
    with caplog.at_level(logging.INFO, "detrex"):
        for _ in range(2):
            multi_scale_deformable_attention(value, SHAPES, locations, weights)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is stale" in caplog.text


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_broken_library_is_not_used(tmp_path, installed, content):
    (tmp_path / "broken.so").write_bytes(content)
    installed(tmp_path / "broken.so")
    with force_implementation("auto"):
        assert "reference (PyTorch), because" in ops_info.report()
        assert "broken.so cannot be loaded" in ops_info.report()


@pytest.mark.usefixtures("library")
def test_a_library_of_something_else_is_not_used(build, tmp_path):
    source = tmp_path / "other.cpp"
    source.write_text("int other() { return 0; }\n")
    build.compile_library(tmp_path / "other.so", (source,))
    with pytest.raises(KernelError, match="cannot be loaded"):
        loader.open_library(tmp_path / "other.so")


def test_without_a_library_the_reference_runs_and_the_report_says_why(tmp_path, installed, make_inputs):
    installed(tmp_path / "missing.so")
    value, locations, weights = make_inputs(SHAPES)
    with force_implementation("auto"):
        assert multi_scale_deformable_attention(value, SHAPES, locations, weights).shape == (2, 3, 4)
        report = ops_info.report()
    assert "reference (PyTorch), because the compiled kernel cannot be used: it is not built" in report
    assert str(tmp_path / "missing.so") in report
    with force_implementation("kernel"):
        with pytest.raises(RuntimeError, match="forced to its kernel, which cannot run: it is not built"):
            multi_scale_deformable_attention(value, SHAPES, locations, weights)
        assert "none: the compiled kernel is asked for" in ops_info.report()


def test_the_report_has_what_runs(library, installed):
    installed(library.path)
    with force_implementation("auto"):
        report = ops_info.report()
    for words in (
        "on the CPU: cpp",
        str(library.path),
        "-O3",
        library.instructions,
        str(torch.get_num_threads()),
    ):
        assert words in report
    with force_implementation("reference"):
        assert "reference (PyTorch), because it is asked for" in ops_info.report()


def test_other_dtypes_and_devices_go_to_the_reference(library, use_library, make_inputs):
    use_library(library)
    value, locations, weights = make_inputs(SHAPES)
    assert dispatch.kernel_obstacle(value, locations) is None
    assert dispatch.kernel_obstacle(value.cfloat(), locations) == "there is no kernel for torch.complex64"
    assert dispatch.kernel_obstacle(value.to("meta"), locations) == "there is no kernel for meta tensors"
    with force_implementation("kernel"), pytest.raises(RuntimeError, match="no kernel for torch.complex64"):
        multi_scale_deformable_attention(value.cfloat(), SHAPES, locations.cfloat(), weights.cfloat())


def test_forced_implementations_nest_and_end():
    before = dispatch.wanted_implementation()
    with force_implementation("kernel"):
        with pytest.raises(ZeroDivisionError), force_implementation("reference"):
            assert dispatch.wanted_implementation() == "reference"
            _ = 1 / 0
        assert dispatch.wanted_implementation() == "kernel"
    assert dispatch.wanted_implementation() == before
    with pytest.raises(ValueError, match="auto, reference, kernel, not 'cuda'"), force_implementation("cuda"):
        pass


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("reference", "reference (PyTorch), because it is asked for"),
        ("fast", "the environment variable DETREX_MSDA must be one of auto, reference, kernel, not 'fast'"),
    ],
)
def test_the_environment_variable_chooses(value, words):
    run = subprocess.run(
        [sys.executable, "-m", "detrex.ops_info"],
        cwd=ROOT,
        env={**os.environ, "DETREX_MSDA": value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode == 0) == (value == "reference")
    assert words in run.stdout + run.stderr
