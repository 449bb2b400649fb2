"""An installed package brings its configs and projects, and its kernel where there is a compiler."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "detrex/ops/_msda_cpu.so"

pytest.importorskip("setuptools", minversion="77")
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)


@pytest.fixture
def project(tmp_path):
    """A copy of what the build needs, without libraries of earlier builds."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "README.md").touch()
    for name in ("detrex", "configs", "projects", "ops"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so*", "__pycache__"))
    return folder


def setup(project, *arguments, **environment):
    """Runs ``setup.py`` and returns what it says about errors."""
    run = subprocess.run(
        [sys.executable, "setup.py", "-q", *map(str, arguments)],
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
        text=True,
    )
    return run.stderr


def run_with(package, code):
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        check=True,
        text=True,
    )
    return run.stdout


def files_of_wheel(project, **environment):
    setup(project, "bdist_wheel", "--dist-dir", project / "dist", **environment)
    (wheel,) = (project / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name, archive.namelist()


def shipped(folder):
    """What a package has of ``configs/`` and ``projects/``, as paths in ``folder``."""
    kinds = (".json", ".md", ".py", ".yaml")
    return {
        path.relative_to(folder).as_posix()
        for name in ("configs", "projects")
        for path in (folder / name).rglob("*")
        if path.suffix in kinds
    }


def test_a_built_package_has_configs_projects_and_class_lists(project):
    setup(project, "build_py", "--build-lib", project / "built")
    package = project / "built" / "detrex"
    assert shipped(package) == shipped(ROOT)
    code = (
        "from detrex.config import LazyConfig, instantiate, projects_directory as d; "
        "from detrex.data import count_classes; "
        "path = d() / 'maskdino/configs/maskdino_r50_coco_panoptic_50ep.py'; "
        "classes = instantiate(LazyConfig.load(path).dataloader.categories); "
        "print(path, classes, count_classes(classes), sep='\\n')"
    )
    config, classes, count = run_with(project / "built", code).split()
    assert config == str(package / "projects/maskdino/configs/maskdino_r50_coco_panoptic_50ep.py")
    assert classes == str(package / "configs/common/data/categories/coco_panoptic.json")
    assert count == "133"


@needs_compiler
def test_a_built_package_runs_its_kernel(project):
    setup(project, "build_py", "--build-lib", project / "built")
    report = run_with(project / "built", "from detrex.ops_info import report; sys.stdout.write(report())")
    assert f"library: {project / 'built' / LIBRARY}" in report
    assert "on the CPU: cpp" in report


def test_without_a_working_compiler_the_build_succeeds_with_one_line(project):
    words = setup(project, "build_py", "--build-lib", project / "built", CXX="false")
    assert len([line for line in words.splitlines() if "not built" in line]) == 1
    report = run_with(project / "built", "from detrex.ops_info import report; sys.stdout.write(report())")
    assert "on the CPU: reference" in report and "not built" in report


@needs_compiler
def test_an_editable_build_puts_the_library_into_the_checkout(project):
    code = f"from setuptools import build_meta; build_meta.build_editable({str(project)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, check=True)
    report = run_with(project, "from detrex.ops_info import report; sys.stdout.write(report())")
    assert f"library: {project / LIBRARY}" in report


@needs_compiler
def test_a_wheel_with_the_kernel_is_for_one_platform_and_any_python(project):
    name, files = files_of_wheel(project)
    assert "-py3-none-" in name and not name.endswith("-any.whl")
    sources = {"detrex/ops/msda_cpu.cpp", "detrex/ops/msda_cuda.cu"}
    assert {LIBRARY, "detrex/configs/common/train.py"} | sources <= set(files)
    assert {f"detrex/{path}" for path in shipped(ROOT)} <= set(files)


def test_a_wheel_without_the_kernel_is_for_all(project):
    name, files = files_of_wheel(project, CXX="false")
    assert name.endswith("-py3-none-any.whl")
    assert LIBRARY not in files and "detrex/ops/msda_cpu.cpp" in files


def test_a_source_archive_has_all_that_the_build_needs(project):
    setup(project, "sdist", "--dist-dir", project / "dist")
    (archive,) = (project / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        files = {name.partition("/")[2] for name in tar.getnames()}
    assert {"setup.py", "ops/build.py", "ops/msda_cpu.cpp", "ops/msda_cuda.cu"} | shipped(ROOT) <= files
    assert LIBRARY not in files
