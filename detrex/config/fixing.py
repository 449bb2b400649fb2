"""Calls in a config that only fetch a value, such as a class count from data, replaced by that value."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf

from detrex.config.instantiation import instantiate
from detrex.config.lazy import TARGET, make_config
from detrex.config.override_types import returns_plain_value


def fix_values(config: DictConfig, part: str) -> DictConfig:
    """A copy of ``config`` in which every node under ``part`` that stands for a plain value is that value.

    A run saves its config so that the model can be built where its data is not.

    Args:
        config: a whole config.
        part: key at its top, such as ``model``.

    Raises:
        InstantiationError: a value cannot be fetched.
    """
    config = make_config(config)
    if part in config:
        _fix(config[part])
    return config


def _fix(container: DictConfig | ListConfig) -> None:
    for key in range(len(container)) if isinstance(container, ListConfig) else list(container):
        if OmegaConf.is_interpolation(container, key) or OmegaConf.is_missing(container, key):
            continue
        value = container[key]
        if not isinstance(value, DictConfig | ListConfig):
            continue
        if isinstance(value, DictConfig) and TARGET in value and returns_plain_value(value[TARGET]):
            container[key] = instantiate(value)
        else:
            _fix(value)
