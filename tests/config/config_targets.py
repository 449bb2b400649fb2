"""Targets for the configs of these tests; a config refers to things by name, so they need a module."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any


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
