"""Translates names of checkpoint entries by tables of their beginnings."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Renaming:
    """Replaces the beginnings of names by a table, in which ``#`` stands for a number that is kept.

    ``Renaming([("enc.layers.#.norm1.", "encoder.#.norm.")])`` turns ``enc.layers.3.norm1.bias`` into
    ``encoder.3.norm.bias``. If several entries fit, the first one counts.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        self._pairs = tuple(pairs)
        self._rules = [(_pattern(source), target) for source, target in self._pairs]

    def __call__(self, name: str) -> str | None:
        """The new name, or None if no entry of the table fits."""
        for pattern, target in self._rules:
            if match := pattern.match(name):
                numbers = iter(match.groups())
                return re.sub("#", lambda _: next(numbers), target) + name[match.end() :]  # noqa: B023
        return None

    def inverse(self) -> Renaming:
        """The inverse table."""
        return Renaming((target, source) for source, target in self._pairs)


def _pattern(beginning: str) -> re.Pattern:
    return re.compile(re.escape(beginning).replace(r"\#", r"(\d+)"))
