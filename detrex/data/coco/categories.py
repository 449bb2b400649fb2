"""The classes of COCO files and of plain lists of names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detrex.data.coco.keys import CATEGORY, read_entry
from detrex.data.errors import DataError
from detrex.structures import Categories

CLASS_KEYS = ("categories", "classes", "labels")
"""Keys under which files list their classes; the first one that exists counts."""

_MAPILLARY = "labels"  # the key of the config files of Mapillary Vistas
_HEX_COLOR = re.compile(r"#?([0-9a-fA-F]{6})")


def parse_categories(content: Any, where: str | Path) -> Categories:
    """The classes in the content of a file (see :func:`detrex.data.read_categories`).

    A class that is listed several times with the same id and name counts once. Invalid colours are replaced.

    Args:
        content: a mapping with one of :data:`CLASS_KEYS`, or the list itself.
        where: the file, for messages.

    Raises:
        DataError: there are no classes, an entry has no id or name, or two classes have the same id.
    """
    entries = _listed(content) if isinstance(content, Mapping) else content
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise DataError(
            f"{where} lists no classes: a key 'categories' with at least one entry is needed.",
            "no-categories",
        )
    if isinstance(content, Mapping) and _MAPILLARY in content and "categories" not in content:
        entries = [_of_mapillary(k, entry) for k, entry in enumerate(entries) if _is_evaluated(entry)]
    if all(isinstance(entry, str) for entry in entries):
        return Categories.from_names(entries, thing=False)
    by_id: dict[int, dict[str, Any]] = {}
    for entry in entries:
        category_id, name, is_thing = read_entry(entry, CATEGORY, "category", str(where))
        read = {
            "id": category_id,
            "name": name,
            "isthing": is_thing is not False,
            **_color(entry.get("color")),
        }
        if by_id.setdefault(category_id, read)["name"] != name:
            raise DataError(
                f"{where}: category ids occur more than once: {category_id} is "
                f"{by_id[category_id]['name']!r} and "
                f"{name!r}. Every class needs an id of its own.",
                "category-id-twice",
            )
    return Categories.from_coco(by_id.values())


def category_warnings(categories: Categories) -> list[str]:
    """Warnings about odd classes."""
    twice = [name for name, count in Counter(categories.names).items() if count > 1]
    if not twice:
        return []
    names = ", ".join(map(repr, twice[:5])) + (", ..." if len(twice) > 5 else "")
    return [
        f"{len(twice)} names of classes are listed with several ids, which are classes of their own ({names})"
    ]


def _is_evaluated(entry: Any) -> bool:
    """Whether a label of Mapillary's config is a class of its benchmark; others are ``ignore_label``."""
    return not isinstance(entry, Mapping) or entry.get("evaluate") is not False


def _of_mapillary(value: int, entry: Any) -> Any:
    """A label of Mapillary's config as an entry of COCO; its index in the list is the value of pixels."""
    if not isinstance(entry, Mapping):
        return entry
    name = entry.get("readable", entry.get("name"))
    return {"id": value, "name": name, "isthing": bool(entry.get("instances")), "color": entry.get("color")}


def lists_things(content: Mapping[str, Any]) -> bool:
    """Whether all classes of a file have ``isthing``."""
    entries = _listed(content) or []
    return all(isinstance(entry, Mapping) and entry.get("isthing") is not None for entry in entries)


def _listed(content: Mapping[str, Any]) -> Any:
    return next((content[key] for key in CLASS_KEYS if key in content), None)


def _color(value: Any) -> dict[str, tuple[int, ...]]:
    """An entry ``color`` if ``value`` is valid; an invalid colour is no reason to stop."""
    if isinstance(value, str) and (found := _HEX_COLOR.fullmatch(value.strip())):
        return {"color": tuple(bytes.fromhex(found[1]))}
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int) and 0 <= v <= 255 for v in value)
    ):
        return {"color": tuple(value)}
    return {}
