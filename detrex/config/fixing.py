"""Replaces calls in a config that only fetch a value, such as a class count from data, by that value."""

from __future__ import annotations

from omegaconf import DictConfig

from detrex.config.completion import complete
from detrex.config.instantiation import instantiate
from detrex.config.signatures import signature_of
from detrex.config.value_types import plain_types
from detrex.config.walking import TARGET, Keys, is_node, walk


def fix_values(config: DictConfig, part: str) -> DictConfig:
    """A complete copy of ``config`` in which nodes under ``part`` that return plain values are these values.

    A run saves its config so that the model can be built where its data does not exist.

    Args:
        config: a whole config.
        part: a top-level key, such as ``model``.

    Raises:
        ConfigError: a value cannot be fetched, or a key is not known.
    """
    config = complete(config)
    fixed: list[Keys] = []
    for keys, value in walk(config.get(part), (part,)):
        inner = any(keys[: len(outer)] == outer for outer in fixed)
        if is_node(value) and not inner and plain_types(signature_of(value[TARGET]).returned):
            *way, last = keys
            container = config
            for key in way:
                container = container[key]
            container[last] = instantiate(container[last])
            fixed.append(keys)
    return config
