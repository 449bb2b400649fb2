"""Compiles the CPU kernels with the system's C++ compiler.

``setup.py`` calls it while the package is built; ``python ops/build.py`` does the same for a checkout. It
needs the standard library only, since a build has no torch. The compiler is ``$CXX``, or the first of c++,
g++ and clang++.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = tuple(FOLDER / f"{name}_cpu.cpp" for name in ("msda", "masks", "points"))
CUDA_SOURCE = FOLDER / "msda_cuda.cu"  # compiled where it runs, by detrex/ops/cuda.py
LIBRARY_NAME = "_msda_cpu.so"  # detrex/ops/library.py looks for it in its own folder
PACKAGE_FOLDER = FOLDER.parent / "detrex" / "ops"
BASIC_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared")
# In the order of preference: with threads; one thread, but vectorised sums; what every compiler takes.
VARIANTS = (("-fopenmp",), ("-fopenmp-simd",), ())
TIME_LIMIT = 300  # seconds


class BuildError(RuntimeError):
    """The kernels cannot be compiled here."""


def find_compiler() -> list[str]:
    """The command of the C++ compiler.

    Raises:
        BuildError: if ``$CXX`` is no command, or is not set and there is none on the path.
    """
    if wanted := os.environ.get("CXX"):
        try:
            return shlex.split(wanted)
        except ValueError as error:
            raise BuildError(f"CXX={wanted} is not a command: {error}") from error
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    raise BuildError("there is no C++ compiler (set CXX, or install g++ or clang++)")


def _command(
    compiler: list[str], flags: tuple[str, ...], sources: tuple[Path, ...], target: Path
) -> list[str]:
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    names = [f'-DMSDA_SOURCE="{digest}"', f'-DMSDA_FLAGS="{" ".join(flags)}"']
    return [*compiler, *flags, *names, *map(str, sources), "-o", str(target)]


def compile_library(target: Path, sources: tuple[Path, ...] = SOURCES) -> tuple[str, ...]:
    """Compiles ``sources`` to the library ``target``; a library that was there before is gone in any case.

    Returns:
        The compiler's flags.

    Raises:
        BuildError: if no set of flags works; the message has the compiler's last words.
    """
    target.unlink(missing_ok=True)
    compiler = find_compiler()
    fresh = target.with_name(
        f"{target.name}.{os.getpid()}"
    )  # never a half-written library under the final name
    words = ""
    try:
        for variant in VARIANTS:
            flags = (*BASIC_FLAGS, *variant)
            command = _command(compiler, flags, sources, fresh)
            run = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIME_LIMIT,
                check=False,
            )
            if run.returncode == 0:
                fresh.replace(target)
                return flags
            words = run.stderr.strip() or f"exit status {run.returncode}"
    except (OSError, subprocess.SubprocessError) as error:
        words = str(error)
    finally:
        fresh.unlink(missing_ok=True)
    raise BuildError(f"{shlex.join(compiler)}: {words.splitlines()[-1]}")


def try_to_compile(target: Path) -> bool:
    """Compiles the library if that is possible here and says in one line what happened."""
    try:
        flags = compile_library(target)
    except (BuildError, OSError) as error:
        sys.stderr.write(
            f"detrex: deformable attention and masks use PyTorch, their CPU kernels are not built: {error}\n"
        )
        return False
    sys.stderr.write(f"detrex: built {target} ({' '.join(flags)})\n")
    return True


if __name__ == "__main__":
    sys.exit(0 if try_to_compile(PACKAGE_FOLDER / LIBRARY_NAME) else 1)
