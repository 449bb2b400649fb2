"""Reads JSON annotation files and the classes they list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from detrex.config.lazy import hint
from detrex.config.loader import configs_directory
from detrex.data.annotation_cache import Members, open_annotations, require_file
from detrex.data.annotation_store import StoreWriter
from detrex.data.errors import DataError
from detrex.structures import Categories

CLASS_KEYS = ("categories", "classes")
"""Where files list their classes; the first one that is there counts."""


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is not JSON.
    """
    path = Path(path)
    require_file(path)
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"Annotation file {path} is not JSON: {error}. Was it copied completely?") from error


def read_categories(path: str | Path) -> Categories:
    """The classes that a file lists; read once for each state of the file.

    Args:
        path: a JSON file of one of these kinds: COCO instances or panoptic (``{"categories": [...]}``); a
            list of categories (``[{"id": ..., "name": ...}, ...]``, ``isthing`` and ``color`` optional);
            a list of names, or ``{"classes": [names]}``, for semantic segmentation: ids are 0, 1, ..., and no
            class is a thing.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it lists no classes, or an entry has no id or name, or an id occurs twice.
    """
    path = Path(path).absolute()
    state = path.stat().st_mtime_ns if path.is_file() else None
    return _read_categories(path, state)


def category_file(name: str) -> str:
    """The path of a list of classes that comes with this project, for :func:`read_categories`.

    Args:
        name: ``coco_instance``, ``coco_panoptic``, ``ade20k_semantic`` or ``cityscapes_semantic``.

    Raises:
        DataError: there is no such list; the message names those that there are.
    """
    folder = configs_directory() / "common" / "data" / "categories"
    path = folder / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.json"))
        raise DataError(
            f"There is no list of classes named '{name}'{hint(name, known)}; there are {', '.join(known)}. "
            "For classes of your own, give the path of a JSON file."
        )
    return str(path)


def count_classes(annotations: str | Path) -> int:
    """How many classes a file lists (see :func:`read_categories`); lets a config fit a model to its data."""
    return len(read_categories(annotations))


def thing_classes(annotations: str | Path) -> list[int]:
    """The class indices of the things among the classes a file lists (see :func:`read_categories`)."""
    return read_categories(annotations).thing_classes


@lru_cache(maxsize=16)
def _read_categories(path: Path, _mtime: int | None) -> Categories:
    def parse(members: Members, _writer: StoreWriter) -> dict[str, Any]:
        found = {key: list(v) if isinstance(v, Iterator) else v for key, v in members() if key in CLASS_KEYS}
        categories = parse_categories(found, path) if found else parse_categories(read_json(path), path)
        return {"categories": categories.to_dict()}

    return Categories.from_dict(open_annotations(path, {"parser": "categories"}, parse).header["categories"])


def parse_categories(content: Any, where: str | Path) -> Categories:
    """The classes in ``content`` of a file (see :func:`read_categories`); ``where`` is for messages."""
    entries = content
    if isinstance(content, Mapping):
        entries = next((content[key] for key in CLASS_KEYS if key in content), None)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise DataError(f"{where} lists no classes: a key 'categories' with at least one entry is needed.")
    if all(isinstance(entry, str) for entry in entries):
        return Categories.from_names(entries, thing=False)
    for entry in entries:
        require_keys(entry, ("id", "name"), "category", where)
    try:
        return Categories.from_coco(entries)
    except ValueError as error:
        raise DataError(f"{where}: {error}. Every class needs an id of its own.") from error


def require_keys(entry: Any, keys: Iterable[str], kind: str, where: str | Path) -> None:
    """Raises :class:`DataError` unless ``entry`` is a mapping with ``keys``."""
    missing = [k for k in keys if k not in entry] if isinstance(entry, Mapping) else list(keys)
    if missing:
        raise DataError(f"{where}: {kind} {_short(entry)} has no {', '.join(map(repr, missing))}.")


def _short(entry: Any) -> str:
    text = repr(entry)
    return text if len(text) <= 120 else text[:117] + "..."
