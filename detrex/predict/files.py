"""Finds the files that are meant, and chooses names for outputs made from them."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
VIDEO_SUFFIXES = frozenset(
    (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
)
_WILD = frozenset("*?[")


def is_video(path: str | Path) -> bool:
    """Whether the suffix is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_files(*sources: str | Path) -> list[Path]:
    """Image and video files, each once, in the order of ``sources`` and by name within each source.

    Args:
        sources: files with any suffix; folders, for the images and videos directly in them; and glob patterns
            such as ``photos/**/*.jpg``, for the images and videos among the matches.

    Raises:
        FileNotFoundError: one of ``sources`` has no file.
    """
    return list(_found(sources))


def output_names(*sources: str | Path) -> dict[Path, Path]:
    """The files of :func:`find_files`, each with a unique relative path without suffix.

    A file that is given by name, or lies directly in a folder, has its own name. Files found by a pattern
    such as ``photos/**/*.jpg`` keep their folders below the fixed part, ``photos``. Files that differ only in
    their
    suffix keep it, and other files of equal names get numbers: ``x``, ``x.png``, ``x_2``. Names differ even
        if
    case is ignored.

    Raises:
        FileNotFoundError: one of ``sources`` has no file.
    """
    found = _found(sources)
    names: dict[Path, Path] = {}
    taken: set[str] = set()
    for file, inside in found.items():
        plain = inside.with_suffix("")
        numbered = (plain.with_name(f"{plain.name}_{i}") for i in range(2, len(found) + 2))
        name = next(c for c in (plain, inside, *numbered) if str(c).casefold() not in taken)
        taken.add(str(name).casefold())
        names[file] = name
    return names


def _found(sources: Iterable[str | Path]) -> dict[Path, Path]:
    """Every file once, with its path within the source that names it first."""
    resolved: set[Path] = set()
    found: dict[Path, Path] = {}
    for source in sources:
        top = _fixed_part(source)
        for path in _of_source(source):
            if path.resolve() not in resolved:
                resolved.add(path.resolve())
                parts = path.relative_to(top).parts if top in path.parents else (path.name,)
                found[path] = Path(*(part for part in parts if part != ".."))
    return found


def _fixed_part(source: str | Path) -> Path:
    """The folder that contains all files of a source."""
    path = Path(source)
    if path.exists():
        return path if path.is_dir() else path.parent
    fixed = takewhile(lambda part: not _WILD & set(part), path.parts)
    return Path(*fixed)


def _of_source(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        return _known(path.iterdir(), f"folder {source}", f" (for its subfolders give '{source}/**/*')")
    if _WILD & set(str(source)):
        return _known(map(Path, glob.glob(str(source), recursive=True)), f"pattern '{source}'", "")
    raise FileNotFoundError(f"there is no file, folder or match of a pattern at {source}")


def _known(candidates: Iterable[Path], where: str, remedy: str) -> list[Path]:
    files = [path for path in candidates if path.is_file()]
    known = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    if not known:
        others = f"; there are {len(files)} other files" if files else ""
        raise FileNotFoundError(f"{where}: no image or video{others}{remedy}")
    return known
