"""Checks plain values of a config against the annotation of a parameter, or against the present value.

A config writes some of Python's types differently: tuples and other sequences as lists, paths and devices as
texts, classes, functions, enum members and dtypes by their dotted names, and other objects as nodes.
"""

from __future__ import annotations

import collections.abc
import os
import typing
from collections.abc import Callable
from difflib import get_close_matches
from enum import Enum
from typing import Any, Literal, Union

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex.config.lazy import LOCATE, ConfigError
from detrex.config.signatures import alternatives, signature_of
from detrex.config.torch_types import torch_types
from detrex.config.walking import TARGET, dotted, is_node, join, walk

PLAIN = (bool, int, float, str)
_WRITTEN_AS: dict[Any, tuple[type, ...]] = {
    Callable: (type, Enum),
    bool: (bool,),
    int: (int,),
    float: (float,),
    str: (str, os.PathLike),
    dict: (collections.abc.Mapping,),
    list: (list, tuple, set, frozenset),
}
_TORCH_WRITTEN_AS = {Callable: "dtype", str: "device"}
_ABSTRACT_LISTS = (
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.MutableSequence,
    collections.abc.Sequence,
    collections.abc.Set,
)


class Component:
    """The type of any object that a node builds."""


class _Misfit(Exception):
    def __init__(self, expected: str, value: Any, path: tuple[Any, ...] = ()) -> None:
        super().__init__(expected, value, path)
        self.expected, self.value, self.path = expected, value, path


def fit(annotation: Any, value: Any, where: str, present: Any = None) -> Any:
    """Converts ``value`` to the form in which a config holds values of the type ``annotation``.

    An int becomes a float where floats are expected; a dotted name becomes a node where a class or function
    is expected, which is not looked up. Interpolations and ``???`` fit everywhere.

    Args:
        annotation: the type; ``Any`` fits everything.
        value: a plain value.
        where: beginning of error messages.
        present: the plain value that is replaced, for error messages.

    Raises:
        ConfigError: the value does not fit; the message names the expected type and the value.
    """
    try:
        return _fit(annotation, value)
    except _Misfit as misfit:
        entry = f", entry {'.'.join(map(str, misfit.path))}," if misfit.path else ""
        expected = misfit.expected
        if is_node(present) and not misfit.path:
            node = f"a node like the present {present[TARGET]}"
            others = [option for option in expected.split(" or ") if not option.startswith("a node")]
            expected = " or ".join([*others, node])
        is_text = "str" in expected.split(" or ") and not isinstance(misfit.value, dict | list)
        remedy = f"; for a text, quote the value itself: '\"{misfit.value}\"'" if is_text else ""
        given = f"{misfit.value!r} ({type(misfit.value).__name__})"
        raise ConfigError(f"{where}{entry} expects {expected}, not {given}{remedy}") from None


def check_types(config: DictConfig | ListConfig) -> None:
    """Checks every keyword of every node by the annotation in its target's signature.

    Args:
        config: a complete node.

    Raises:
        ConfigError: ``config`` is not a node, a value does not fit, or an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    path = config._get_full_key(None)
    if not is_node(plain):
        raise ConfigError(f"{path} has no {TARGET}, which says what to build")
    for keys, node in walk(plain):
        parameters = signature_of(node[TARGET]).parameters if is_node(node) else {}
        for key, parameter in parameters.items():
            if key in node:
                fit(parameter.annotation, node[key], join(join(path, dotted(keys)).rstrip("."), key))


def type_of(present: Any) -> Any:
    """The type of values that may replace ``present``; ``Any`` if it cannot be determined."""
    if present is None or is_open(present):
        return Any
    if is_node(present):
        if present[TARGET] == LOCATE:
            return type
        kinds = (*plain_types(signature_of(present[TARGET]).returned), Component)
        return Union[kinds]  # noqa: UP007
    if not isinstance(present, list):
        return type(present)
    found = {type(entry) for entry in present}
    entry = float if found == {int, float} else found.pop() if len(found) == 1 else Any
    return list if entry not in PLAIN or any(map(is_open, present)) else list[entry]  # type: ignore[valid-type]


def plain_types(annotation: Any) -> list[type]:
    """The types in an annotation that a config holds without a node: numbers, texts, lists."""
    kinds = [_written_as(option) for option in alternatives(annotation)]
    return [kind for kind in kinds if kind in (*PLAIN, list)]


def is_open(value: Any) -> bool:
    """Whether a value is an interpolation or mandatory, so that it is known only when it is read."""
    return isinstance(value, str) and ("${" in value or value == "???")


def _written_as(annotation: Any) -> Any:
    """The type in which a config writes values of this type, which may be the same."""
    if annotation is None:
        return type(None)
    origin = typing.get_origin(annotation) or annotation
    if origin in _ABSTRACT_LISTS:
        return list
    for kind, classes in _WRITTEN_AS.items() if isinstance(origin, type) else ():
        others = torch_types(_TORCH_WRITTEN_AS[kind]) if kind in _TORCH_WRITTEN_AS else ()
        if issubclass(origin, (*classes, *others)):
            return kind
    return origin


def _fit(annotation: Any, value: Any) -> Any:
    options = alternatives(annotation)
    if is_open(value):
        return value
    if len(options) > 1:
        return _fit_one_of(options, value)
    kind, entries = _written_as(annotation), typing.get_args(annotation)
    if kind is Literal:
        return _fit_literal(entries, value)
    if is_node(value):
        _check_node(kind, value, annotation)
        return value
    if kind is float and type(value) is int:
        return float(value)
    if kind is Callable and isinstance(value, str):
        return {TARGET: LOCATE, "name": value}
    if isinstance(value, list | dict) and type(value) is kind:
        return _fit_entries(entries, value)
    if kind in (*PLAIN, type(None)):
        fits = type(value) is kind
    else:  # other classes are built by nodes; nothing is known about annotations that are not classes
        fits = kind in (Any, object) or not isinstance(kind, type)
    if not fits:
        raise _Misfit(_name(annotation), value)
    return value


def _fit_one_of(options: tuple[Any, ...], value: Any) -> Any:
    """Takes the first option that leaves ``value`` as it is or, if there is none, the first that fits."""
    found, misfits = [], []
    for option in options:
        try:
            found.append(_fit(option, value))
        except _Misfit as misfit:
            misfits.append(misfit)
    if found:
        return next((option for option in found if type(option) is type(value)), found[0])
    deeper = [misfit for misfit in misfits if misfit.path]
    raise deeper[0] if deeper else _Misfit(" or ".join(dict.fromkeys(map(_name, options))), value)


def _fit_literal(choices: tuple[Any, ...], value: Any) -> Any:
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return value
    near = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    raise _Misfit(" or ".join(map(repr, choices)) + (f" (did you mean '{near[0]}'?)" if near else ""), value)


def _check_node(kind: Any, value: dict, annotation: Any) -> None:
    """Checks that a node builds a number or text if one is expected; other objects are not compared."""
    returned = signature_of(value[TARGET]).returned
    built = plain_types(returned) if returned is not Any else [kind]
    if kind in PLAIN and kind not in built and not (kind is float and int in built):
        raise _Misfit(_name(annotation), value)
    if kind is type(None):
        raise _Misfit(_name(annotation), value)


def _fit_entries(entries: tuple[Any, ...], value: list | dict) -> list | dict:
    if isinstance(value, dict):
        return {key: _within(key, entries[-1] if entries else Any, item) for key, item in value.items()}
    fixed = entries and entries[-1] is not ... and len(entries) > 1
    if fixed and len(entries) != len(value):
        raise _Misfit(f"a list of {len(entries)} entries", value)
    kinds = entries if fixed else [entries[0] if entries else Any] * len(value)
    return [_within(i, kind, item) for i, (kind, item) in enumerate(zip(kinds, value, strict=True))]


def _within(key: Any, annotation: Any, value: Any) -> Any:
    try:
        return _fit(annotation, value)
    except _Misfit as misfit:
        raise _Misfit(misfit.expected, misfit.value, (key, *misfit.path)) from None


def _name(annotation: Any) -> str:
    """The name by which users know the type."""
    if len(options := alternatives(annotation)) > 1:
        return " or ".join(map(_name, options))
    kind = _written_as(annotation)
    if kind is Literal:
        return " or ".join(map(repr, typing.get_args(annotation)))
    if kind is type(None):
        return "null"
    if kind is Callable:
        return "the dotted name of a class or function"
    if kind in (*PLAIN, list, dict):
        return str(kind.__name__)
    return "a node" if kind is Component else f"a node ({_class_name(kind)})"


def _class_name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
