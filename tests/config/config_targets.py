"""Targets for the configs of these tests; a config refers to things by name, so they need a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal


class Color(Enum):
    RED = 1


class Thing:
    """Keeps its arguments."""

    def __init__(self, size: int = 1, name: str = "a", parts: Any = None) -> None:
        self.size, self.name, self.parts = size, name, parts


class Needy:
    """Has arguments without defaults."""

    def __init__(self, size: int, parts: Any) -> None:
        self.size, self.parts = size, parts


def anything(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def count(path: str) -> int:
    return len(path)


def names_or_none(path: str) -> list[str] | None:
    return path.split(",") if path else None


def folder() -> Path:
    return Path("x")


def fail(why: str) -> None:
    raise OSError(why)


@dataclass(frozen=True)
class Points:
    count: int = 10
    share: float = 0.75
    kinds: list[str] = field(default_factory=lambda: ["a"])


class Base:
    def __init__(
        self, width: int, kind: type, depth: int = 2, *, mode: Literal["fast", "exact"] = "fast"
    ) -> None:
        self.width, self.kind, self.depth, self.mode = width, kind, depth, mode


class Middle(Base):
    """Has no constructor of its own."""


class Derived(Middle):
    """Hands what it does not know on to its parents."""

    def __init__(
        self,
        rates: Sequence[float] = (0.1, 0.2),
        points: Points = Points(count=3),  # noqa: B008 # it is frozen
        more_points: Points | None = None,
        limit: float | None = None,
        activation: Callable[..., Any] = count,
        color: Color = Color.RED,
        size: tuple[int, int] = (1, 2),
        options: Mapping[str, int] | None = None,
        where: str | Path = "x",
        thing: Thing | None = None,
        hidden: Any = object(),  # noqa: B008 # a default that no config can hold
        untyped=5,
        **others: Any,
    ) -> None:
        super().__init__(kind=type(self), **others)
        self.rates, self.points, self.more_points, self.limit = rates, points, more_points, limit
        self.activation, self.color, self.size, self.options = activation, color, size, options
        self.where, self.thing, self.hidden, self.untyped = where, thing, hidden, untyped
