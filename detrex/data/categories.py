"""Reads lists of classes from files, and finds those that come with this project."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from detrex.config.lazy import hint
from detrex.config.loader import configs_directory
from detrex.data.coco.cache import Content, Members, open_annotations
from detrex.data.coco.categories import CLASS_KEYS, parse_categories
from detrex.data.coco.json_stream import read_json
from detrex.data.coco.store import StoreWriter
from detrex.data.errors import DataError
from detrex.structures import Categories


def read_categories(path: str | Path) -> Categories:
    """The classes that a file lists; the file is read again only if it has changed.

    Args:
        path: a JSON file of one of these kinds: COCO instances or panoptic (``{"categories": [...]}``); a
            list of categories (``[{"id": ..., "name": ...}, ...]``, ``isthing`` and ``color`` optional);
            a list of names, or ``{"classes": [names]}``, for semantic segmentation: ids are 0, 1, ..., and no
            class is a thing.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file lists no classes, an entry has no id or name, or an id is repeated.
    """
    path = Path(path).absolute()
    state = path.stat().st_mtime_ns if path.is_file() else None
    return _read_categories(path, state)


def category_file(name: str) -> str:
    """The path of a list of classes that comes with this project, for :func:`read_categories`.

    Args:
        name: ``coco_instance``, ``coco_panoptic``, ``ade20k_semantic``, ``ade20k_instance``,
            ``ade20k_panoptic``, ``cityscapes_semantic``, ``cityscapes_instance``, ``dancetrack`` or
            ``moving_shapes``.

    Raises:
        DataError: there is no such list; the message names the existing ones.
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


def read_words(words: str | Path) -> Categories:
    """Classes that a model is to look for by their names.

    Args:
        words: the path of a file, or text for :meth:`~detrex.structures.Categories.from_words`. JSON files
            are read by :func:`read_categories`; in other files, each line is a name, such as ``sky:stuff``;
            empty lines and lines that begin with ``#`` are ignored.

    Raises:
        FileNotFoundError: ``words`` looks like a path, but there is no such file.
        DataError: the file lists no classes, or is malformed.
        ValueError: the text names no classes, or is malformed.
    """
    path = Path(words)
    if not _is_file(path):
        if isinstance(words, Path) or path.suffix in (".txt", ".json"):
            raise FileNotFoundError(f"there is no file of classes at {path}")
        return Categories.from_words(words)
    if path.suffix == ".json":
        return read_categories(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        return Categories.from_words([line for line in lines if line and not line.startswith("#")])
    except ValueError as error:
        raise DataError(f"{path} does not list classes, one a line: {error}") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the text cannot be a path
        return False


def count_classes(annotations: str | Path) -> int:
    """How many classes a file lists (see :func:`read_categories`); lets a config fit a model to its data."""
    return len(read_categories(annotations))


def class_names(annotations: str | Path, optional: bool = False) -> list[str]:
    """The names of the classes a file lists (see :func:`read_categories`), for models that read them.

    Args:
        annotations: the file.
        optional: return no names if the file does not exist, because files that only training needs may be
            missing later.
    """
    if optional and not Path(annotations).is_file():
        return []
    return list(read_categories(annotations).names)


def thing_classes(annotations: str | Path) -> list[int]:
    """The class indices of the things among the classes a file lists (see :func:`read_categories`)."""
    return read_categories(annotations).thing_classes


@lru_cache(maxsize=16)
def _read_categories(path: Path, _mtime: int | None) -> Categories:
    def parse(members: Members, _writer: StoreWriter) -> Content:
        found = {key: list(v) if isinstance(v, Iterator) else v for key, v in members() if key in CLASS_KEYS}
        categories = parse_categories(found, path) if found else parse_categories(read_json(path), path)
        return {"categories": categories.to_dict()}, {}

    return Categories.from_dict(open_annotations(path, {"kind": "categories"}, parse).header["categories"])
