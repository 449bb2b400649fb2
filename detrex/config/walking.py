"""Going through all that is in a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from omegaconf import DictConfig, ListConfig, OmegaConf

TARGET = "_target_"
PARTIAL = "_partial_"
Keys = tuple[str | int, ...]


def walk(config: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """The keys that lead to each value in ``config``, and that value: containers first, then what they hold.

    Args:
        config: plain, or a config, which is read as it is written: interpolations are texts.
        keys: those that lead to ``config``.

    Whoever walks over plain values may change the container that came last: what it holds is read later.
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
