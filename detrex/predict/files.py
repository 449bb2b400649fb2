"""Which files are meant, and names for what is made of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
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
    found: dict[Path, Path] = {}
    for source in sources:
        for path in _of_source(source):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def output_names(files: Sequence[Path]) -> dict[Path, Path]:
    """For each file a relative path without suffix that no other one gets, even where case does not count.

    It follows the folders below the one that all ``files`` are in, and keeps the suffix in the name where two
    files differ in nothing else: ``a/x.jpg`` and ``b/x.png`` become ``a/x`` and ``b/x``, but ``x.jpg`` and
    ``x.png`` beside each other ``x`` and ``x.png``.
    """
    if not files:
        return {}
    places = [Path(os.path.abspath(file)) for file in files]
    top = os.path.commonpath([place.parent for place in places])
    names: dict[Path, Path] = {}
    taken: set[str] = set()
    for file, place in zip(files, places, strict=True):
        inside = place.relative_to(top)
        numbered = (inside.with_name(f"{inside.name}_{i}") for i in range(2, len(files) + 2))
        candidates = (inside.with_suffix(""), inside, *numbered)
        name = next(c for c in candidates if str(c).casefold() not in taken)
        taken.add(str(name).casefold())
        names[file] = name
    return names


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
