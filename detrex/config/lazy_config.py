"""Reading, writing and changing whole configs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from detrex.config.lazy import make_config, to_plain
from detrex.config.loader import load_config
from detrex.config.overrides import apply_override
from detrex.config.printing import to_python


class LazyConfig:
    """What can be done with a config, in one place."""

    @staticmethod
    def load(path: str | Path) -> DictConfig:
        """The config in a Python file, or in a YAML file written by :meth:`save`.

        A Python file is executed afresh, with all the config files that it imports relatively, so the result
        belongs to the caller alone. Its config is made of its top-level names, but for modules, classes,
        functions and names that begin with an underscore. ``from .common import x`` and
        ``from ..data.coco import y`` import from config files; all other imports are Python's own.
        Interpolations such as ``${..num_classes}`` stay unresolved until they are read.

        Raises:
            ConfigError: if a file is missing or imports itself in a circle, or a value cannot be held.
        """
        return load_config(path)

    @staticmethod
    def save(config: DictConfig, path: str | Path) -> None:
        """Writes YAML that :meth:`load` reads back to an equal config, creating the folder if need be.

        Raises:
            ConfigError: if the config holds an object that a config file cannot.
        """
        text = OmegaConf.to_yaml(make_config(config))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    @staticmethod
    def apply_overrides(config: DictConfig, overrides: Iterable[str]) -> DictConfig:
        """A copy of ``config`` changed by ``overrides`` in hydra's grammar, one after the other.

        * ``train.max_iter=100`` changes what exists; numbers in a path index lists (``hooks.0.period=5``).
          The value's type must be that of the value replaced: an int may stand for a float, ``null`` for
          anything, and anything for ``null`` or ``???``. A node whose function returns a plain value
          (``-> int``) may be replaced by such a value, a class or function by the name of another one.
        * ``model={a: 1, b: 2}`` changes ``a`` and ``b`` and leaves the rest of ``model``; a dict with another
          ``_target_`` replaces the node.
        * ``+train.note=x`` adds what does not exist, ``++`` adds or changes, ``~model.x`` deletes.

        Raises:
            ConfigError: for an unknown key (naming the nearest), a wrong type, or what is not an override.
        """
        changed = make_config(config)
        for override in overrides:
            apply_override(changed, override)
        return changed

    @staticmethod
    def to_py(config: DictConfig) -> str:
        """The config as the text of a Python config file, for people to read; it loads to an equal config.

        Raises:
            ConfigError: if a top-level key cannot be the name of a variable.
        """
        return to_python(to_plain(config))
