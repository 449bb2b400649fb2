"""Nodes of a config, and the plain values that a config can hold.

A config is an :class:`omegaconf.DictConfig`. A *node* is a dict in it with the key ``_target_``, the dotted
name of a class or function, beside the keyword arguments to call it with.

Contents of a config file are converted to what YAML can represent, so that every config can be saved:

===========================================  ====================================================
in the file                                  in the config
===========================================  ====================================================
None, bool, int, float, str                  the same
dict, list                                   the same, copied
tuple, range                                 list
pathlib path                                 str
class, function, Enum member, torch.dtype    a node that :func:`instantiate` turns back:
                                             ``{_target_: detrex.config.lazy.locate, name: <its name>}``
anything else                                an error with the dotted path of the value
===========================================  ====================================================
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException

from detrex.config.directories import make_projects_importable
from detrex.config.torch_types import torch_types
from detrex.config.walking import TARGET, join

LOCATE = "detrex.config.lazy.locate"
FLAGS = {"allow_objects": True}  # objects may be assigned to configs, and become plain when these are saved


class ConfigError(Exception):
    """A config cannot be read, changed, saved or built; the message says where, and what to do."""


class LazyCall:
    """Describes a call without making it: ``LazyCall(Target)(a=1)`` is a config node.

    Args:
        target: a class or function that can be imported by name, or that name (``"package.module.Class"``).

    Raises:
        ConfigError: if ``target`` cannot be found by its module and name, such as lambdas, partials and
            functions defined in a config file; or an argument is a value that a config cannot hold.
    """

    def __init__(self, target: Callable | str) -> None:
        self._target = name_of(target)

    def __call__(self, /, **kwargs: Any) -> DictConfig:
        """The node. ``_partial_=True`` makes it build ``functools.partial`` of the target."""
        return make_config({TARGET: self._target, **kwargs}, self._target)

    def __repr__(self) -> str:
        return f"LazyCall({self._target})"


def locate(name: str) -> Any:
    """The class, function or other attribute with the dotted ``name``, importing its module.

    Raises:
        ConfigError: if there is no such module or attribute, naming the nearest.
    """
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"'{name}' is not a dotted name like 'package.module.Class'")
    if parts[0] == "projects":
        make_projects_importable()
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                continue
            raise ConfigError(
                f"'{name}' cannot be imported: module '{module_name}' needs '{error.name}'"
            ) from error
        for part in parts[length:]:
            if not hasattr(found, part):
                raise ConfigError(
                    f"there is no '{name}': {module_name} has no '{part}'{hint(part, dir(found))}"
                )
            found = getattr(found, part)
        return found
    raise ConfigError(f"there is no '{name}': no module named '{parts[0]}'")


def name_of(target: Any) -> str:
    """The dotted name by which :func:`locate` finds ``target``; strings are returned unchanged.

    Raises:
        ConfigError: if the target cannot be found by its name.
    """
    if isinstance(target, str):
        return target
    if isinstance(target, torch_types("dtype")):
        return str(target)
    owner = type(target) if isinstance(target, Enum) else target
    name = f"{getattr(owner, '__module__', None)}.{getattr(owner, '__qualname__', None)}"
    if isinstance(target, Enum):
        name = f"{name}.{target.name}"
    try:
        found = locate(name)
    except ConfigError:
        found = None
    if found is not target and found != target:
        raise ConfigError(
            f"{target!r} cannot be imported by name, so a config cannot refer to it: define it in a module, "
            "or give its name as a string"
        )
    return name


def make_config(values: Mapping, path: str = "") -> DictConfig:
    """``values`` as a new config. Objects may be assigned to it; loading and saving make them plain.

    Raises:
        ConfigError: if a value cannot be held (see the table above), naming its dotted path below ``path``.
    """
    return create_config(to_plain(values, path), path)


def create_config(plain: dict[str, Any], path: str = "") -> DictConfig:
    """The result of :func:`to_plain` as a config; see :func:`make_config`."""
    try:
        return pickle.loads(_created(pickle.dumps(plain)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


@lru_cache(maxsize=64)
def _created(plain: bytes) -> bytes:
    """The config of plain values, both pickled.

    A run makes the same config several times, and OmegaConf takes ten times as long as to unpickle one.
    """
    return pickle.dumps(OmegaConf.create(pickle.loads(plain), flags=FLAGS))


def to_plain(value: Any, path: str = "") -> Any:
    """Copies ``value`` into dicts, lists and scalars by the table above; interpolations do not change."""
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    if isinstance(value, Mapping):
        return {_plain_key(k, path): _plain_item(k, v, join(path, k)) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [to_plain(item, join(path, i)) for i, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, LazyCall):
        raise ConfigError(f"{path}: {value!r} is not called; write L(...)() for a node without arguments")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (Enum, *torch_types("dtype"))) or callable(value):
        return {TARGET: LOCATE, "name": _name_at(value, path)}
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise ConfigError(
        f"{path}: a config cannot hold a {type(value).__name__} ({value!r:.80}); "
        "use plain values, or L(Class)(...) to have it built"
    )


def _plain_item(key: Any, value: Any, path: str) -> Any:
    return _name_at(value, path) if key == TARGET else to_plain(value, path)


def _name_at(value: Any, path: str) -> str:
    try:
        return name_of(value)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _plain_key(key: Any, path: str) -> str | int:
    if isinstance(key, str) or type(key) is int:
        return key
    raise ConfigError(f"{path}: a config's keys are strings or integers, not {type(key).__name__} ({key!r})")


def hint(wanted: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the entry of ``known`` nearest to ``wanted``, else nothing."""
    near = get_close_matches(wanted, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
