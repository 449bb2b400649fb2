"""Writes a config as Python text."""

from __future__ import annotations

import inspect
import keyword
import math
from typing import Any

from detrex.config.lazy import ConfigError, locate, name_of
from detrex.config.walking import TARGET, is_node, walk

WIDTH = 100
INDENT = "    "


def to_python(config: dict[str, Any]) -> str:
    """The text of a config file for ``config``, which is plain (see :func:`detrex.config.lazy.to_plain`)."""
    for name in config:
        if not _is_name(name) or name.startswith("_"):
            raise ConfigError(f"'{name}' cannot be the name of a variable in a config file")
    imports = _imports(config)
    printer = _Printer({target: name for target, (_, name) in imports.items()})
    names: dict[str, set[str]] = {"detrex.config": {"LazyCall as L"}}
    for module, name in imports.values():
        names.setdefault(module, set()).add(name.split(".")[0])
    head = "\n".join(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names))
    body = "\n".join(f"{name} = {printer.text(value, 0, len(name) + 3)}" for name, value in config.items())
    return f"{head}\n\n{body}\n"


def _imports(config: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The (module, name in it) of each target that can be imported without hiding another name."""
    found: dict[str, tuple[str, str]] = {}
    owner = {name: "this file" for name in (*config, "L")}
    for target in (node[TARGET] for _, node in walk(config) if is_node(node)):
        try:
            module = _module_of(target)
        except Exception:  # a target that cannot be imported here is written by its name
            continue
        if module is None:
            continue
        name = target.removeprefix(f"{module}.")
        if owner.setdefault(name.split(".")[0], module) == module:
            found[target] = (module, name)
    return found


def _module_of(target: str) -> str | None:
    """The module that defines ``target``; None if ``target`` is another name of it."""
    if name_of(locate(target)) != target:
        return None
    parent = target.rpartition(".")[0]
    while "." in parent and not inspect.ismodule(locate(parent)):
        parent = parent.rpartition(".")[0]
    return parent


class _Printer:
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def text(self, value: Any, depth: int, used: int) -> str:
        """``value`` at indentation ``depth``, on one line if it fits beside ``used`` characters."""
        if not isinstance(value, dict | list):
            return _scalar(value)
        opening, items, closing = self._parts(value)
        nested = [
            (label, self.text(item, depth + 1, len(INDENT) * (depth + 1) + len(label)))
            for label, item in items
        ]
        line = opening + ", ".join(label + text for label, text in nested) + closing
        if "\n" not in line and used + len(line) < WIDTH:
            return line
        inner = "".join(f"{INDENT * (depth + 1)}{label}{text},\n" for label, text in nested)
        return f"{opening}\n{inner}{INDENT * depth}{closing}"

    def _parts(self, value: dict | list) -> tuple[str, list[tuple[str, Any]], str]:
        if isinstance(value, list):
            return "[", [("", item) for item in value], "]"
        arguments = {k: v for k, v in value.items() if k != TARGET}
        as_keywords = all(_is_name(k) for k in arguments)
        labels = [(f"{k}=" if as_keywords else f"{_scalar(k)}: ", v) for k, v in arguments.items()]
        if TARGET not in value:
            return ("dict(", labels, ")") if as_keywords else ("{", labels, "}")
        opening = f"L({self._names.get(value[TARGET]) or _scalar(value[TARGET])})("
        return (opening, labels, ")") if as_keywords else (f"{opening}**{{", labels, "})")


def _scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    text = repr(value)
    if text[0] == "'" and '"' not in text:
        return f'"{text[1:-1]}"'
    return text


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)
