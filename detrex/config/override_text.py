"""Writes Python values as overrides in hydra's grammar, like those on a command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from detrex.config.lazy import ConfigError


def overrides_of(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``{"train": {"max_iter": 100}}`` as ``["train.max_iter=100"]``; names may have dots, too.

    Args:
        settings: by key; a dict changes the keys that it contains and keeps others.
        prefix: of all keys.

    Raises:
        ConfigError: a value cannot be written on a command line; the message names its key.
    """
    return list(_overrides(settings, prefix))


def _overrides(settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _overrides(value, f"{key}.")
        else:
            yield f"{key}={_text(value, key)}"


def _text(value: Any, key: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | PurePath):
        return _quoted(str(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(item, key) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quoted(str(k))}:{_text(v, key)}" for k, v in value.items()) + "}"
    raise ConfigError(
        f"{key}: a {type(value).__name__} cannot be given like this; give a number, text, True, False, None, "
        "or lists and dicts of these"
    )


def _quoted(text: str) -> str:
    """Puts text in quotes; backslashes matter only before a quote."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"
