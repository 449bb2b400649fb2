"""An installed package brings its configs and projects, and its kernel where there is a compiler."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "detrex/ops/_msda_cpu.so"

pytest.importorskip("setuptools", minversion="77")
REPORT = "from detrex.ops_info import report; sys.stdout.write(report())"


def copy_of_project(folder):
    """Of what the build needs, without libraries of earlier builds."""
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    page = "# Title\n![p](docs/p.png)\n[data](docs/data.md), [web](https://x.org)\n"
    (folder / "README.md").write_text(page)
    (folder / "docs/site").mkdir(parents=True)
    shutil.copy(ROOT / "docs/site/links.py", folder / "docs/site")
    for name in ("detrex", "configs", "projects", "ops"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so*", "__pycache__"))
    return folder


@pytest.fixture
def project(tmp_path):
    return copy_of_project(tmp_path)


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


@dataclass
class Wheel:
    """A wheel, unpacked.

    Attributes:
        name: of its file.
        folder: with its content.
        words: what the build said of errors.
    """

    name: str
    folder: Path
    words: str

    def files(self):
        return {p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()}


def build_wheel(folder, **environment):
    project = folder / "project"
    project.mkdir()
    words = setup(copy_of_project(project), "bdist_wheel", "--dist-dir", folder / "dist", **environment)
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return Wheel(wheel.name, folder / "unpacked", words)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, quick_compiler):
    """The wheel of a machine with a compiler."""
    return build_wheel(tmp_path_factory.mktemp("compiled"), CXX=str(quick_compiler))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The wheel of a machine whose compiler does not work."""
    return build_wheel(tmp_path_factory.mktemp("plain"), CXX="false")


def shipped(folder):
    """What a package has of ``configs/`` and ``projects/``, as paths in ``folder``."""
    kinds = (".json", ".md", ".py", ".yaml")
    return {
        path.relative_to(folder).as_posix()
        for name in ("configs", "projects")
        for path in (folder / name).rglob("*")
        if path.suffix in kinds
    }


def test_a_wheel_with_the_kernel_is_for_one_platform_and_any_python(compiled):
    assert "-py3-none-" in compiled.name and not compiled.name.endswith("-any.whl")
    sources = {
        f"detrex/ops/{name}" for name in ("masks_cpu.cpp", "msda_cpu.cpp", "points_cpu.cpp", "msda_cuda.cu")
    }
    assert {LIBRARY, "detrex/configs/common/train.py", "detrex/py.typed"} | sources <= compiled.files()


def test_a_wheel_has_configs_projects_class_lists_and_the_page_of_exports(plain):
    package = plain.folder / "detrex"
    assert shipped(package) == shipped(ROOT)
    page = {f"detrex/export/page/{file.name}" for file in (ROOT / "detrex/export/page").iterdir()}
    assert page and page <= plain.files()
    code = (
        "from detrex.config import LazyConfig, instantiate, projects_directory as d; "
        "from detrex.data import count_classes; "
        "path = d() / 'maskdino/configs/maskdino_r50_coco_panoptic_50ep.py'; "
        "classes = instantiate(LazyConfig.load(path).dataloader.categories); "
        "print(path, classes, count_classes(classes), sep='\\n')"
    )
    config, classes, count = run_with(plain.folder, code).split()
    assert config == str(package / "projects/maskdino/configs/maskdino_r50_coco_panoptic_50ep.py")
    assert classes == str(package / "configs/common/data/categories/coco_panoptic.json")
    assert count == "133"


def test_a_wheel_has_the_command_and_a_page_without_links_into_the_repository(plain):
    (information,) = plain.folder.glob("*.dist-info")
    assert "detrex = detrex.cli.main:main" in (information / "entry_points.txt").read_text()
    metadata = (information / "METADATA").read_text()
    assert "Description-Content-Type: text/markdown" in metadata
    assert "# Title\n\ndata, [web](https://x.org)\n" in metadata
    shown = run_with(plain.folder, "from detrex.cli.main import main; main(['configs', 'maskdino_shapes'])")
    assert str(plain.folder / "detrex/projects/maskdino/configs/maskdino_shapes.py") in shown


def test_links_lead_to_the_repository_once_it_has_an_address(project):
    pyproject = project / "pyproject.toml"
    address = '[project.urls]\nRepository = "https://example.org/a/b/"\n'
    pyproject.write_text(pyproject.read_text().replace("[project.urls]\n", address))
    setup(project, "egg_info")
    (metadata,) = project.glob("*.egg-info/PKG-INFO")
    assert "![p](https://example.org/a/b/raw/main/docs/p.png)" in metadata.read_text()
    assert "[data](https://example.org/a/b/blob/main/docs/data.md)" in metadata.read_text()


def test_a_wheel_runs_its_kernel(compiled):
    report = run_with(compiled.folder, REPORT)
    assert f"library: {compiled.folder / LIBRARY}" in report
    assert "on the CPU: cpp" in report


def test_a_wheel_without_the_kernel_is_for_all(plain):
    """Its build succeeds, and says in one line that there is no kernel."""
    assert plain.name.endswith("-py3-none-any.whl")
    assert LIBRARY not in plain.files() and {"detrex/ops/msda_cpu.cpp", "detrex/py.typed"} <= plain.files()
    assert len([line for line in plain.words.splitlines() if "not built" in line]) == 1
    report = run_with(plain.folder, REPORT)
    assert "on the CPU: reference" in report and "not built" in report


def test_an_editable_build_puts_the_library_into_the_checkout(project, quick_compiler):
    environment = {**os.environ, "CXX": str(quick_compiler)}
    code = f"from setuptools import build_meta; build_meta.build_editable({str(project)!r})"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=project, env=environment, capture_output=True, check=True)
    assert f"library: {project / LIBRARY}" in run_with(project, REPORT)


def test_a_source_archive_has_all_that_the_build_needs(project):
    setup(project, "sdist", "--dist-dir", project / "dist")
    (archive,) = (project / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        files = {name.partition("/")[2] for name in tar.getnames()}
    sources = {
        "setup.py",
        "docs/site/links.py",
        "ops/build.py",
        "ops/masks_cpu.cpp",
        "ops/msda_cpu.cpp",
        "ops/points_cpu.cpp",
        "ops/msda_cuda.cu",
        "detrex/py.typed",
    }
    assert {"detrex/py.typed"} | sources | shipped(ROOT) <= files
    assert LIBRARY not in files
