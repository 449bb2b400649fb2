"""The one step of the build that is not data: an installed package gets a copy of the configs.

Everything else is in ``pyproject.toml``. After ``pip install -e .`` the checkout's own ``configs/`` are read.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Copies ``configs/`` into the package, where ``detrex.config.get_config`` finds it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "detrex" / "configs"
            shutil.copytree(
                ROOT / "configs", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )


setup(cmdclass={"build_py": BuildWithConfigs})
