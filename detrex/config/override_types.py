"""Which value may stand in place of another one in a config."""

from __future__ import annotations

import types
import typing
from pathlib import PurePath
from typing import Any

from detrex.config.lazy import TARGET, ConfigError, locate

ANY: frozenset[type] = frozenset()
_WRITTEN_AS = {tuple: list, PurePath: str}


def check_type(old: Any, new: Any, where: str) -> Any:
    """``new`` if its type fits the place of ``old``; an int where floats are expected comes back as a float.

    Args:
        old: the plain value in the config, with interpolations resolved.
        new: the plain value to replace it.
        where: how error messages begin.

    Raises:
        ConfigError: if it does not fit, saying which type is expected and what was given.
    """
    new = _fit(_expected(old), new, where, old)
    if not isinstance(old, list) or not isinstance(new, list):
        return new
    kinds = _entry_types(old)
    return [_fit(kinds, item, f"{where}, entry {i},") for i, item in enumerate(new)]


def returns_plain_value(target: str) -> bool:
    """Whether the function ``target`` says that it returns a number, a text or a list of them."""
    return len(_returned(target)) > 1


def _fit(expected: frozenset[type], new: Any, where: str, old: Any = None) -> Any:
    if not expected or new is None or _is_open(new) or type(new) in expected:
        return new
    if float in expected and type(new) is int:
        return float(new)
    is_text = str in expected and not isinstance(new, dict | list)
    remedy = f"; for a text, quote the value itself: '\"{new}\"'" if is_text else ""
    raise ConfigError(f"{where} expects {_names(expected, old)}, not {new!r} ({type(new).__name__}){remedy}")


def _entry_types(old: list) -> frozenset[type]:
    """The type that all entries have, if there is one: entries in their place must have it too."""
    kinds = frozenset(type(entry) for entry in old)
    if kinds == {int, float}:
        return frozenset({float})
    mixed = len(kinds) != 1 or any(entry is None or _is_open(entry) for entry in old)
    return ANY if mixed else kinds


def _is_open(new: Any) -> bool:
    """Interpolations and mandatory values are known only when they are read."""
    return isinstance(new, str) and ("${" in new or new == "???")


def _expected(old: Any) -> frozenset[type]:
    """The types that may replace ``old``; none stands for all."""
    if old is None or _is_open(old):
        return ANY
    if isinstance(old, dict) and TARGET in old:
        return _returned(old[TARGET])
    return frozenset({type(old)})


def _returned(target: str) -> frozenset[type]:
    """What may replace a node: another one, or a plain value if its function returns such (``-> int``)."""
    component = frozenset({dict})
    try:
        function = locate(target)
    except ConfigError:
        return component
    if isinstance(function, type):
        return component
    try:
        hint = typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError):
        return component
    return frozenset({dict, *_plain_types(hint)})


def _plain_types(hint: Any) -> frozenset[type]:
    """The plain types among those that a type hint allows."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return frozenset().union(*(_plain_types(part) for part in typing.get_args(hint)))
    for kind, written in _WRITTEN_AS.items():
        if isinstance(origin, type) and issubclass(origin, kind):
            origin = written
    return frozenset({origin}) & {bool, int, float, str, list}


def _names(expected: frozenset[type], old: Any) -> str:
    if isinstance(old, dict) and TARGET in old:
        names = sorted(kind.__name__ for kind in expected - {dict})
        node = f"a node like the present {old[TARGET]}"
        return f"{' or '.join(names)} or {node}" if names else node
    return " or ".join(sorted(kind.__name__ for kind in expected))
