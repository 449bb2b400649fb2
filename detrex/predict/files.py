"""Which files are meant, and names for what is made of them."""

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
    """Whether the suffix is a video's."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_files(*sources: str | Path) -> list[Path]:
    """Image and video files, each once, in the order of ``sources`` and by name within one.

    Args:
        sources: files, whatever their suffix; folders, of which the images and videos directly in them count;
            glob patterns such as ``photos/**/*.jpg``, of whose matches the images and videos count.

    Raises:
        FileNotFoundError: for one of ``sources`` there is no file.
    """
    return list(_found(sources))


def output_names(*sources: str | Path) -> dict[Path, Path]:
    """The files of :func:`find_files`, and for each a relative path without suffix that no other one gets.

    A file that is named, or is directly in a folder, goes by its own name. What a pattern such as
    ``photos/**/*.jpg`` finds keeps its folders below the fixed part, ``photos``. Files that differ in nothing
    but their suffix keep it, and others of equal names get numbers: ``x``, ``x.png``, ``x_2``. Names differ
    even where case does not count.

    Raises:
        FileNotFoundError: for one of ``sources`` there is no file.
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
    """Every file, once, and its path within the source that names it first."""
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
    """The folder that all files of a source are in."""
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
