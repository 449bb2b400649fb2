"""Configs as plain Python: nodes that name what to build, loaded afresh, overridden with hydra's grammar."""

from detrex.config.completion import complete
from detrex.config.directories import configs_directory, projects_directory
from detrex.config.fixing import fix_values
from detrex.config.instantiation import InstantiationError, instantiate
from detrex.config.lazy import ConfigError, LazyCall, locate
from detrex.config.lazy_config import LazyConfig
from detrex.config.loader import get_config
from detrex.config.names import find_config, shipped_configs

__all__ = [
    "ConfigError",
    "InstantiationError",
    "LazyCall",
    "LazyConfig",
    "complete",
    "configs_directory",
    "find_config",
    "fix_values",
    "get_config",
    "instantiate",
    "locate",
    "projects_directory",
    "shipped_configs",
]
