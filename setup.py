"""The steps of the build that are not data: copies of configs and projects, the page of the package, and the
CPU kernel where a compiler is.

Everything else is in ``pyproject.toml``. After ``pip install -e .`` the checkout's own ``configs/`` and
``projects/`` are read, and the kernel's library lies in the checkout's ``detrex/ops/``.
"""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# By path, since a build has neither this project nor the current directory on Python's path.
LINKS = runpy.run_path(str(ROOT / "docs" / "site" / "links.py"))
KERNEL = runpy.run_path(str(ROOT / "ops" / "build.py"))


class BuildPackage(build_py):
    """Compiles the kernel if possible, and copies what the package has outside of its folder.

    ``detrex.config`` finds configs and projects there, and ``detrex.ops.library`` the kernels' sources.
    """

    def run(self) -> None:
        super().run()
        package = ROOT / "detrex" if self.editable_mode else Path(self.build_lib) / "detrex"
        KERNEL["try_to_compile"](package / "ops" / KERNEL["LIBRARY_NAME"])
        if not self.editable_mode:
            for source in (*KERNEL["SOURCES"], KERNEL["CUDA_SOURCE"]):
                shutil.copy(source, package / "ops")
            ignored = shutil.ignore_patterns("__pycache__")
            for folder in ("configs", "projects"):
                shutil.copytree(ROOT / folder, package / folder, dirs_exist_ok=True, ignore=ignored)


class WheelOfOnePlatform(bdist_wheel):
    """A wheel with the kernel in it is for this kind of machine and any Python 3; one without is for all."""

    def run(self) -> None:
        self.run_command("build")  # before the name is chosen; it does not run twice
        library = Path(self.get_finalized_command("build").build_lib, "detrex", "ops", KERNEL["LIBRARY_NAME"])
        self.root_is_pure = not library.exists()
        # What is in the wheel then belongs to the folder of code for one platform.
        self.distribution.has_ext_modules = library.exists
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    cmdclass={"build_py": BuildPackage, "bdist_wheel": WheelOfOnePlatform},
    long_description=LINKS["with_absolute_links"](
        (ROOT / "README.md").read_text(encoding="utf-8"), LINKS["repository_address"]()
    ),
    long_description_content_type="text/markdown",
)
