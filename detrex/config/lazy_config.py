"""Reads, writes and changes whole configs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from detrex.config.completion import complete, fill_in
from detrex.config.lazy import create_config, to_plain
from detrex.config.loader import load_config
from detrex.config.overrides import apply_override
from detrex.config.printing import to_python


class LazyConfig:
    """The operations on whole configs, in one place."""

    @staticmethod
    def load(path: str | Path) -> DictConfig:
        """The config in a Python file, or in a YAML file written by :meth:`save`.

        A Python file is executed anew, with all the config files that it imports relatively, so the result
        belongs to the caller alone. Its config consists of its top-level names, except modules, classes,
        functions and names that begin with an underscore. ``from .common import x`` and
        ``from ..data.coco import y`` import from config files; all other imports are Python's own.
        Interpolations such as ``${..num_classes}`` stay unresolved until they are read.

        A Python file contains what differs from the defaults of the classes and functions that it names; the
        result is complete (see :func:`detrex.config.complete`). A YAML file is read as it is: nothing that it
        names is imported.

        Raises:
            ConfigError: if a file is missing or imports itself in a circle, a value cannot be held, or a node
                has a key that its target does not take.
        """
        return load_config(path)

    @staticmethod
    def save(config: DictConfig, path: str | Path) -> None:
        """Writes YAML that :meth:`load` reads back to the complete config, creating the folder if need be.

        The file contains all defaults, so that it keeps its meaning if they change one day.

        Raises:
            ConfigError: if the config holds an object that a config file cannot, or a node has a key that its
                target does not take.
        """
        text = OmegaConf.to_yaml(complete(config))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    @staticmethod
    def apply_overrides(config: DictConfig, overrides: Iterable[str]) -> DictConfig:
        """A complete copy of ``config`` changed by ``overrides`` in hydra's grammar, one after another.

        * ``model.encoder.dropout=0.1`` changes a keyword of a node, even if the config does not contain it.
          The value must have the type in the target's signature: an int may stand for a float, a list for a
          sequence, and a node for an object.
        * ``train.max_iter=100`` changes any other existing value, or a keyword without a type; numbers in a
          path index lists (``hooks.0.period=5``). The value must have the type of the value that it replaces:
          an int may stand for a float, ``null`` for anything, and anything for ``null`` or ``???``.
        * A node whose function returns a plain value (``-> int``) may be replaced by such a value, a class or
          function by the name of another one.
        * ``model={a: 1, b: 2}`` changes ``a`` and ``b`` and keeps the rest of ``model``; a dict with another
          ``_target_`` replaces the node. ``model.decoder._target_=...`` keeps values that are not defaults.
        * ``+train.note=x`` adds a key that is missing or at its default, ``++`` adds or changes a key, and
          ``~model.x`` deletes one: a keyword of a node then has its default.

        Raises:
            ConfigError: for an unknown key (naming the nearest), a wrong type, or text that is no override.
        """
        changed = _filled_in(config)
        for override in overrides:
            if apply_override(changed, override):
                changed = _filled_in(changed)
        return complete(changed)

    @staticmethod
    def to_py(config: DictConfig) -> str:
        """The config as the text of a Python config file, for people to read; it loads to an equal config.

        Raises:
            ConfigError: if a top-level key cannot be the name of a variable.
        """
        return to_python(to_plain(config))


def _filled_in(config: DictConfig) -> DictConfig:
    """A copy with defaults, whose names are not checked, because the overrides may remove wrong ones."""
    plain = to_plain(config)
    fill_in(plain)
    return create_config(plain)
