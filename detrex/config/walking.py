"""Iterates over all values in a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from omegaconf import DictConfig, ListConfig, OmegaConf

TARGET = "_target_"
PARTIAL = "_partial_"
Keys = tuple[str | int, ...]


def walk(config: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yields each value in ``config`` with the keys that lead to it; containers come before their contents.

    Args:
        config: plain values, or a config, whose interpolations are returned as texts.
        keys: the keys that lead to ``config``.

    With plain values, the container yielded last may be changed, because its contents are read later.
    """
    if isinstance(config, DictConfig | ListConfig):
        config = OmegaConf.to_container(config, resolve=False)
    yield keys, config
    if isinstance(config, dict | list):
        for key, value in list(config.items()) if isinstance(config, dict) else enumerate(config):
            yield from walk(value, (*keys, key))


def is_node(value: Any) -> TypeGuard[dict]:
    """Whether ``value`` is a plain dict with a ``_target_``."""
    return isinstance(value, dict) and TARGET in value


def dotted(keys: Keys) -> str:
    """``("train", "hooks", 0)`` is ``train.hooks.0``."""
    return ".".join(map(str, keys))


def join(path: str, key: Any) -> str:
    """The dotted path of ``key`` below ``path``."""
    return f"{path}.{key}" if path else str(key)
