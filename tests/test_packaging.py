"""An installed package brings its configs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_a_built_package_has_the_configs(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").touch()
    for name in ("detrex", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(build, cwd=tmp_path, check=True)

    code = "import sys; from detrex.config.loader import configs_directory as d; sys.stdout.write(str(d()))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "built")}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, check=True, text=True
    )
    folder = Path(run.stdout)
    assert folder == tmp_path / "built" / "detrex" / "configs"
    expected = {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.py")}
    assert {p.relative_to(folder) for p in folder.rglob("*.py")} == expected
