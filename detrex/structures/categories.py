"""Names, ids, thing/stuff and colours of a data set's classes; they travel with data and checkpoints."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Categories:
    """The classes of a data set: entry ``k`` of every tuple describes class ``k`` of a model.

    Attributes:
        names: class names.
        ids: the ids that the annotation file uses; they may have gaps.
        is_thing: whether class ``k`` has countable instances (else it is stuff).
        colors: RGB in 0..255.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    is_thing: tuple[bool, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.ids), len(self.is_thing), len(self.colors)}
        if len(lengths) != 1:
            raise ValueError(f"names, ids, is_thing and colors differ in length: {sorted(lengths)}")
        if len(set(self.ids)) != len(self.ids):
            twice = sorted({i for i in self.ids if self.ids.count(i) > 1})
            raise ValueError(f"category ids occur more than once: {twice}")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_coco(cls, entries: Iterable[Mapping[str, Any]]) -> Categories:
        """Reads the ``categories`` of a COCO file, ordered by id; ``isthing`` and ``color`` are optional."""
        ordered = sorted(entries, key=lambda e: e["id"])
        palette = distinct_colors(len(ordered))
        return cls(
            names=tuple(str(e["name"]) for e in ordered),
            ids=tuple(int(e["id"]) for e in ordered),
            is_thing=tuple(bool(e.get("isthing", 1)) for e in ordered),
            colors=tuple(_rgb(e.get("color", color)) for e, color in zip(ordered, palette, strict=True)),
        )

    @classmethod
    def from_names(cls, names: Sequence[str], thing: bool = True) -> Categories:
        """Classes with ids 0, 1, ... and generated colours."""
        return cls.from_coco({"id": i, "name": n, "isthing": thing} for i, n in enumerate(names))

    @classmethod
    def from_words(cls, words: str | Iterable[str]) -> Categories:
        """Classes that someone has typed, with ids 0, 1, ... and generated colours.

        Args:
            words: names of classes, in one text with commas between them, or one by one. ``:stuff`` after a
                name says that it has no countable instances: ``"red car, person, sky:stuff"``.

        Raises:
            ValueError: there is no name, or one is given twice, has no letter or digit, or has another mark.
        """
        given = [w for w in words.split(",") if w.strip()] if isinstance(words, str) else words
        entries = [_entry(word) for word in given]
        names = [entry["name"] for entry in entries]
        if not names:
            raise ValueError('expected names of classes, such as "red car, person, sky:stuff"')
        read = [name.casefold() for name in names]  # text encoders ignore case
        twice = sorted({name for name in read if read.count(name) > 1})
        if twice:
            raise ValueError(f"classes are named more than once: {', '.join(twice)}")
        return cls.from_coco({"id": i, **entry} for i, entry in enumerate(entries))

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence]) -> Categories:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: the data does not describe classes.
        """
        try:
            categories = cls(
                names=tuple(data["names"]),
                ids=tuple(data["ids"]),
                is_thing=tuple(data["is_thing"]),
                colors=tuple((r, g, b) for r, g, b in data["colors"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"classes need lists of names, ids, is_thing and colors ({error})") from error
        types = zip((str, int, bool), (categories.names, categories.ids, categories.is_thing), strict=True)
        parts = itertools.chain.from_iterable(categories.colors)
        plain = all(type(value) is expected for expected, values in types for value in values)
        if not (plain and all(type(part) is int and 0 <= part <= 255 for part in parts)):
            raise ValueError("a class needs text as name, a whole number as id, true or false, and RGB")
        return categories

    def to_dict(self) -> dict[str, list]:
        """Plain lists, for JSON and checkpoints."""
        plain = {key: list(value) for key, value in asdict(self).items()}
        return {**plain, "colors": [list(c) for c in self.colors]}

    @cached_property
    def index_of(self) -> dict[int, int]:
        """Class indices by id in the annotation file."""
        return {category_id: k for k, category_id in enumerate(self.ids)}

    @property
    def thing_classes(self) -> list[int]:
        """Class indices of the things."""
        return [k for k, thing in enumerate(self.is_thing) if thing]


def _entry(word: str) -> dict[str, Any]:
    """Name and kind of a class that was typed."""
    if not isinstance(word, str):
        raise ValueError(f"expected the name of a class, not {word!r}")
    name, _, kind = (part.strip() for part in word.partition(":"))
    if kind not in ("", "thing", "stuff"):
        raise ValueError(f"class '{word.strip()}': after the colon stands 'stuff' or 'thing'")
    if not any(letter.isalnum() for letter in name):
        raise ValueError(f"expected the name of a class, not '{word}'")
    return {"name": name, "isthing": kind != "stuff"}


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """``count`` RGB colours in 0..255, neighbours far apart in hue, the same at every call."""
    golden = 0.618033988749895
    colors = []
    for i in range(count):
        saturation, value = (0.85, 0.95) if i % 2 == 0 else (0.6, 0.8)
        rgb = colorsys.hsv_to_rgb((0.02 + i * golden) % 1.0, saturation, value)
        colors.append(_rgb(round(255 * c) for c in rgb))
    return colors


def _rgb(color: Iterable[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in color)
    return red, green, blue
