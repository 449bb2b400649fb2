"""Builds the objects that a config describes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex.config.completion import fill_in
from detrex.config.lazy import ConfigError, locate, to_plain
from detrex.config.signatures import signature_of
from detrex.config.walking import PARTIAL, TARGET, join

Container = DictConfig | ListConfig


class InstantiationError(ConfigError):
    """A node cannot be built: the message has its dotted path and target, ``__cause__`` the reason."""


def instantiate(config: Any, /, **overrides: Any) -> Any:
    """Builds ``config`` and, before that, everything in it.

    A dict with ``_target_`` becomes the result of calling the target with the other entries as keyword
    arguments (``functools.partial`` of it with ``_partial_: true``); other dicts and lists become plain dicts
    and lists of the built values; scalars do not change. A node to which several places refer by
    interpolation is built once for each of them.

    Args:
        config: a config, or any part of one; interpolations are resolved in the whole config.
        **overrides: objects to pass to the target of ``config``, in place of entries of the same name.

    Raises:
        InstantiationError: if a target is not found or fails, or an interpolation or a mandatory value
            (``???``) has no value. An error of the target is its ``__cause__``.
    """
    if isinstance(config, dict | list):
        config = OmegaConf.create(config, flags={"allow_objects": True})
    if not isinstance(config, Container):
        if overrides:
            raise InstantiationError(f"{config!r} is not a node, it takes no arguments {sorted(overrides)}")
        return config
    path = config._get_full_key(None)
    config = _completed(config)
    if overrides and not (isinstance(config, DictConfig) and TARGET in config):
        raise InstantiationError(
            f"{path or 'the config'} has no {TARGET}, it takes no arguments {sorted(overrides)}"
        )
    return _build(config, path, (), overrides)


def _completed(config: Container) -> Container:
    """``config`` itself, or, if defaults are missing, the same part of a completed copy of the whole config.

    Objects in the config are not copied.
    """
    keys: list[Any] = []
    whole: Any = config
    while (parent := whole._get_parent()) is not None:
        keys.insert(0, whole._key())
        whole = parent
    plain = OmegaConf.to_container(whole, resolve=False)
    if not fill_in(plain):
        return config
    completed: Any = OmegaConf.create(plain, flags={"allow_objects": True})
    for key in keys:
        completed = completed[key]
    return completed


def _build(value: Any, path: str, within: tuple[Container, ...], overrides: dict[str, Any]) -> Any:
    """Builds a value. ``within`` holds the surrounding nodes, to detect a node that refers to itself."""
    if not isinstance(value, Container):
        return value
    if any(value is outer for outer in within):
        raise InstantiationError(
            f"{path} refers to {value._get_full_key(None) or 'the config'}, which contains it"
        )
    within = (*within, value)
    if isinstance(value, ListConfig):
        return [_build(_entry(value, i, path), join(path, i), within, {}) for i in range(len(value))]
    entries: dict[Any, Any] = {
        key: _build(_entry(value, key, path), join(path, key), within, {})
        for key in value
        if key not in overrides
    }
    entries |= overrides
    return _call(entries, path) if TARGET in entries else entries


def _entry(container: Container, key: Any, path: str) -> Any:
    try:
        value = container[key]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        written = to_plain(container)[key]
        raise InstantiationError(f"{join(path, key)} = {written}: {reason}") from error
    return value


def _call(entries: dict[str, Any], path: str) -> Any:
    target = entries.pop(TARGET)
    partial = entries.pop(PARTIAL, False)
    where = f"{path or 'the config'} ({getattr(target, '__qualname__', target)})"
    try:
        function = locate(target) if isinstance(target, str) else target
    except Exception as error:  # importing a module can raise anything
        raise InstantiationError(f"{where}: {_describe(error)}") from error
    if not callable(function):
        raise InstantiationError(
            f"{where}: the target is a {type(function).__name__}, which cannot be called"
        )
    _check_arguments(function, entries, where, partial)
    if partial:
        return functools.partial(function, **entries)
    try:
        return function(**entries)
    except Exception as error:
        raise InstantiationError(f"{where}: {_describe(error)}") from error


def _check_arguments(function: Callable, entries: dict[str, Any], where: str, partial: bool) -> None:
    signature = signature_of(function)
    complaint = signature.complaint(entries)
    if complaint:
        raise InstantiationError(f"{where}: {complaint}")
    missing = [k for k, parameter in signature.parameters.items() if parameter.required and k not in entries]
    if missing and not partial:
        raise InstantiationError(f"{where}: missing {', '.join(missing)}")


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
