"""Looks up names from annotation files: checks that they stay in their folder, and finds variants."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from detrex.data.errors import DataError

AS_LISTED = "as_listed"


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _decoded(name: str) -> str:
    parts = urlsplit(name)
    return unquote(parts.path if parts.scheme in ("http", "https", "file", "s3", "gs") else name).lstrip("/")


def _unicode(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _last_part(name: str) -> str:
    return _slashes(_decoded(name)).rsplit("/", 1)[-1]


REWRITINGS: Mapping[str, Callable[[str], str]] = {
    "slashes": _slashes,  # backslashes of Windows
    "decoded": _decoded,  # %20, and addresses
    "unicode": _unicode,  # accents as separate characters, or not
    "any_case": str.casefold,
    "last_part": _last_part,  # another folder, or none
    "any_type": lambda name: os.path.splitext(name)[0],  # .jpg and .png
    "loose": lambda name: _unicode(_last_part(name)).casefold(),  # all of these except the type
}
"""Functions by name that change both listed names and names of files before they are compared."""


def check_name(name: str, where: str, leave_folder: bool = False) -> None:
    """Checks that a name leads to a file inside the folder that it is looked up in.

    Args:
        name: from an annotation file.
        where: the file and the entry, for the message.
        leave_folder: whether all names are allowed.

    Raises:
        DataError: the name is absolute, or leads out of the folder by ``..``.
    """
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    leaves = posix.is_absolute() or bool(windows.root) or ".." in windows.parts
    if leaves and not leave_folder:
        raise DataError(
            f"{where} has {name!r} as 'file_name', which leads out of the folder of the files. Give names "
            "inside "
            "of it; if you trust the file and your files are elsewhere, set leave_folder=True for the data "
            "set and the evaluators.",
            "file-name-leaves-folder",
        )


def find_files(
    folder: Path,
    names: Mapping[str, object],
    where: Path,
    rewriting: str = AS_LISTED,
    argument: str = "file_names",
) -> dict[str, str]:
    """Finds the files of a list.

    Args:
        folder: of the files.
        names: the listed names, each with the id of its image.
        where: the list, for messages.
        rewriting: :data:`AS_LISTED`, or how names are changed before they are compared (:data:`REWRITINGS`).
        argument: the argument of the data set that sets ``rewriting``.

    Returns:
        For each listed name, the name of the file, relative to ``folder``.

    Raises:
        DataError: the folder or files are missing; the message says how many of them a rewriting would find.
    """
    if not folder.is_dir():
        raise DataError(f"Folder {folder}, for the files that {where} lists, does not exist. Check the path.")
    if rewriting not in (AS_LISTED, *REWRITINGS):
        raise DataError(
            f"{argument}={rewriting!r}: expected is one of {', '.join((AS_LISTED, *REWRITINGS))}."
        )
    if rewriting == AS_LISTED:
        missing = _missing(folder, list(names))
        found = {name: name for name in names}
    else:
        found = _rewritten(list(names), _files(folder), REWRITINGS[rewriting])
        missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} files that {where} lists are not in {folder}, the first being "
            f"{missing[0]} (image id {names[missing[0]]}). {_advice(folder, missing, argument)}"
        )
    return found


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    present = {part: _listing(folder / part) for part in {os.path.dirname(name) for name in names}}
    return [name for name in names if os.path.basename(name) not in present[os.path.dirname(name)]]


def near_names(folder: Path, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The rewriting that finds most of the missing names, and the file of each name that it finds.

    Args:
        folder: of the files.
        names: the missing names.
    """
    files = _files(folder)
    found = {kind: _rewritten(names, files, rewrite) for kind, rewrite in REWRITINGS.items()}
    best = max(found, key=lambda kind: len(found[kind]))  # among equals, the first one changes least
    return best, found[best]


def _advice(folder: Path, missing: Sequence[str], argument: str) -> str:
    best, found = near_names(folder, missing)
    if not found:
        return "Check the folder, or take them out of the list."
    name, file = next(iter(found.items()))
    return (
        f"With {argument}={best} for the data set, {len(found)} of them are found ({name} as {file}); "
        f"override it as dataloader.train.dataset.{argument}={best} or for dataloader.test."
    )


def _rewritten(names: Sequence[str], files: Sequence[str], rewrite: Callable[[str], str]) -> dict[str, str]:
    """The file of each name that matches exactly one file."""
    by_name = {rewrite(file): file for file in files}
    several = {name for name, count in Counter(map(rewrite, files)).items() if count > 1}
    pairs = ((name, rewrite(name)) for name in names)
    return {name: by_name[key] for name, key in pairs if key in by_name and key not in several}


def _files(folder: Path) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(path, name), folder).replace(os.sep, "/")
        for path, _, names in os.walk(folder)
        for name in names
    )


def _listing(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()
