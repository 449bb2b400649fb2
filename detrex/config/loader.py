"""Reads config files: Python, executed anew at each load, and YAML."""

from __future__ import annotations

import builtins
import os
import pickle
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from detrex.config.completion import complete
from detrex.config.directories import configs_directory, make_projects_importable
from detrex.config.lazy import FLAGS, ConfigError, LazyCall, hint, make_config, to_plain

YAML_SUFFIXES = (".yaml", ".yml")


def load_config(path: str | Path) -> DictConfig:
    """The config in a ``.py`` or ``.yaml`` file; see :meth:`LazyConfig.load`."""
    path = _existing(Path(path))
    if path.suffix == ".py":
        make_projects_importable()
        names = vars(_execute(path, ()))
        return _complete({name: value for name, value in names.items() if _is_config(name, value)}, path)
    if path.suffix in YAML_SUFFIXES:
        return parse_config(path.read_text(encoding="utf-8"), path)
    raise ConfigError(f"config file {path} is neither Python (.py) nor YAML (.yaml)")


def get_config(name: str) -> DictConfig:
    """A config that comes with this project, by its path in ``configs/``: ``get_config("common/train.py")``.

    It works from any directory, in a checkout and in an installed package (which has a copy of ``configs/``).
    Each call returns a new config. A file is executed again if a file of ``configs/`` or an environment
    variable that begins with ``DETREX_`` or ``DETECTRON2_`` has changed.

    Raises:
        ConfigError: if there is no such file.
    """
    folder = configs_directory()
    files = tuple((file, file.stat().st_mtime_ns) for file in sorted(folder.rglob("*.py")))
    # The variables that name folders of data sets.
    variables = tuple(v for v in sorted(os.environ.items()) if v[0].startswith(("DETREX_", "DETECTRON2_")))
    return pickle.loads(_read(folder / name, (*files, *variables)))


@lru_cache(maxsize=64)
def _read(path: Path, state: tuple[tuple[Any, Any], ...]) -> bytes:  # noqa: ARG001 (part of the key)
    """The pickled config of a file, valid for one ``state`` of everything that it may depend on.

    Unpickling takes a fifth of the time of a deep copy.
    """
    return pickle.dumps(load_config(path))


def _existing(path: Path) -> Path:
    if path.is_file():
        return path.resolve()
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise ConfigError(f"there is no config file {path}{hint(path.name, beside)}")


def _complete(config: dict[str, Any], path: Path) -> DictConfig:
    try:
        return complete(config)
    except ConfigError as error:
        raise ConfigError(f"config file {path}: {error}") from error


def parse_config(text: str, source: str | Path) -> DictConfig:
    """The config in YAML text from ``source``.

    Raises:
        ConfigError: the text is not YAML, or not a mapping.
    """
    try:
        content = OmegaConf.create(text, flags=FLAGS)
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"config file {source} cannot be read: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"config file {source} has a list at its top, not keys and values")
    to_plain(content)  # raises for values that a config cannot hold, such as dates
    return content


def _is_config(name: str, value: Any) -> bool:
    """Whether a name belongs to the config: modules, classes, functions and ``_names`` are only helpers."""
    if isinstance(value, LazyCall):
        return True
    helper = callable(value) or isinstance(value, ModuleType) or type(value).__module__ == "__future__"
    return not (name.startswith("_") or helper)


def _execute(path: Path, importers: tuple[Path, ...]) -> ModuleType:
    """Runs a config file in a new module that is not in ``sys.modules``."""
    if path in importers:
        circle = " -> ".join(str(p) for p in (*importers[importers.index(path) :], path))
        raise ConfigError(f"config files import each other in a circle: {circle}")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    # Python looks up `import` in the builtins of the code that runs. The file gets its own copy of these, so
    # that its relative imports read config files, and nothing changes for other modules.
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(path, (*importers, path))}
    exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    for name, value in list(vars(module).items()):
        if type(value) is dict and not name.startswith("__"):
            # so that `from .base import train; train.seed = 1` works for `train = dict(...)` as for nodes
            setattr(module, name, make_config(value, name))
    return module


def _importer(path: Path, importers: tuple[Path, ...]) -> Callable[..., Any]:
    """The ``__import__`` of the config file at ``path``, whose relative imports execute config files anew."""

    def import_(name: str, globals_=None, locals_=None, fromlist=(), level: int = 0) -> Any:
        if level == 0:
            return builtins.__import__(name, globals_, locals_, fromlist, level)
        line = sys._getframe(1).f_lineno
        base = path.parents[level - 1].joinpath(*name.split("."))
        if not base.is_dir() or base.with_suffix(".py").is_file():
            return _execute(_imported(base, path, line), importers)
        folder = ModuleType(base.name)
        for part in fromlist:
            setattr(folder, part, _execute(_imported(base / part, path, line), importers))
        return folder

    return import_


def _imported(base: Path, importing: Path, line: int) -> Path:
    try:
        return _existing(base.with_suffix(".py"))
    except ConfigError as error:
        raise ConfigError(f"{error}, imported in line {line} of {importing}") from None
