"""Changes a config by overrides from the command line, in hydra's grammar, and checks names and types."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex.config.lazy import LOCATE, ConfigError, locate, to_plain
from detrex.config.signatures import Parameter, Signature, signature_of
from detrex.config.value_types import fit, type_of
from detrex.config.walking import TARGET, dotted, is_node, join, walk

Container = DictConfig | ListConfig

NEAR = 0.6  # keys with at least this similarity are suggested for an unknown one
TIE = 0.15  # keys that are less similar than the nearest by at most this are suggested, too


def apply_override(config: DictConfig, text: str) -> bool:
    """Changes ``config``, which is complete, in place; see :meth:`~detrex.config.LazyConfig.apply_overrides`.

    Returns:
        Whether something other than a number or text changed, so that defaults may be missing.

    Raises:
        ConfigError: if ``text`` is not an override, or does not fit the config.
    """
    override = _parse(text)
    value = to_plain(override.value())
    path = override.key_or_group
    adds = override.is_add() or override.is_force_add()
    parent, key, made = _parent(config, path, text, create=adds)
    exists = _has(parent, key)
    was_plain = exists and not made and not _is_container(parent, key)
    if override.is_delete():
        _delete(config, parent, key, value, text, path)
    elif override.is_add() and exists and not _is_default(parent, key):
        raise ConfigError(
            f"override '{text}': '{path}' exists already; write '{text.lstrip('+')}' to change it"
        )
    elif exists or _parameter(parent, key):
        _change(config, parent, key, value, text, path)
    elif adds and _is_open(parent):
        _add(parent, key, value, text)
    else:
        raise _unknown(config, path, text, _is_open(parent))
    stays_plain = was_plain and _has(parent, key) and not _is_container(parent, key)
    return key == TARGET or not stays_plain


def _parse(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"'{text}' is not an override like key=value: {reason}") from error
    if override.is_sweep_override():
        raise ConfigError(
            f"override '{text}': sweeps, ranges and globs are not supported; write a list as [1,2], "
            "and quote a text that has commas"
        )
    if override.value() == "None":
        raise ConfigError(f"override '{text}': 'None' would be a text; write null for no value")
    if override.package is not None or "/" in override.key_or_group:
        raise ConfigError(f"override '{text}': keys are dotted, as in model.backbone.name=resnet101")
    return override


def _parent(config: DictConfig, path: str, text: str, create: bool) -> tuple[Container, Any, bool]:
    """The container of the last part of ``path``, and that part as its key.

    The third value says whether a container on the way was created.
    """
    *parts, last = path.split(".")
    node: Container = config
    walked, made = "", False
    for part in parts:
        key = _key(node, part)
        parameter = _parameter(node, key)
        if parameter and parameter.node and (not _has(node, key) or _written(node, key) is None):
            _set(node, key, parameter.node, text)
            made = True
        if not _has(node, key):
            if not (create and _is_open(node)):
                raise _unknown(config, path, text, _is_open(node))
            _add(node, key, {}, text)
            made = True
        walked = join(walked, key)
        if OmegaConf.is_interpolation(node, key):
            raise ConfigError(
                f"override '{text}': '{walked}' is {_written(node, key)}; "
                "change what it refers to, or replace it whole"
            )
        if not _is_container(node, key):
            raise ConfigError(
                f"override '{text}': '{walked}' is {_written(node, key)!r}, there are no keys in it"
            )
        node = node[key]
    return node, _key(node, last), made


def _key(node: Container, part: str) -> Any:
    """``part`` of a path as a key of ``node``: an index in a list; in a dict, an int if that is the key."""
    if part.isdecimal() and (isinstance(node, ListConfig) or int(part) in node.keys()):
        return int(part)
    return part


def _has(node: Container, key: Any) -> bool:
    if isinstance(node, ListConfig):
        return isinstance(key, int) and key < len(node)
    return key in node.keys()


def _signature(node: Container) -> Signature | None:
    """The signature of the target of ``node``, if it has one."""
    return signature_of(_written(node, TARGET)) if TARGET in node else None


def _parameter(node: Container, key: Any) -> Parameter | None:
    """The parameter called ``key`` of the target of ``node``, if it has one."""
    signature = _signature(node)
    return signature.parameters.get(key) if signature else None


def _is_default(node: Container, key: Any) -> bool:
    """Whether a keyword has its default value."""
    parameter = _parameter(node, key)
    return parameter is not None and _written(node, key) == parameter.default


def _is_open(node: Container) -> bool:
    """Whether the node may have unknown keys."""
    signature = _signature(node)
    return signature is None or signature.is_open


def _written(node: Container, key: Any) -> Any:
    """The plain value at ``key``; an interpolation is returned as text."""
    if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
        return to_plain(node)[key]
    return to_plain(node[key])


def _is_container(node: Container, key: Any) -> bool:
    """Whether a dict or list is written at ``key``."""
    if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
        return False
    return isinstance(node[key], Container)


def _add(node: Container, key: Any, value: Any, text: str) -> None:
    if isinstance(node, DictConfig):
        _set(node, key, value, text)
    elif key == len(node):
        node.append(value)
    else:
        raise ConfigError(
            f"override '{text}': the list has {len(node)} entries; the next one to add is {len(node)}"
        )


def _set(node: Container, key: Any, value: Any, text: str) -> None:
    try:
        node[key] = value
    except OmegaConfBaseException as error:
        raise ConfigError(f"override '{text}': {str(error).splitlines()[0]}") from error


def _delete(config: DictConfig, node: Container, key: Any, value: Any, text: str, path: str) -> None:
    if not _has(node, key):
        raise _unknown(config, path, text)
    written = _written(node, key)
    if value is not None and value != written:
        raise ConfigError(f"override '{text}': '{path}' is {written!r}, so it is not deleted")
    del node[key]


def _change(config: DictConfig, node: Container, key: Any, value: Any, text: str, path: str) -> None:
    old, parameter = _resolved(node, key), _parameter(node, key)
    if isinstance(value, dict) and old is None and parameter and parameter.node:
        old = parameter.node
        _set(node, key, old, text)
    in_place = not OmegaConf.is_interpolation(node, key)
    if in_place and isinstance(old, dict) and old and isinstance(value, dict) and _same_target(old, value):
        child = node[key]
        for name, item in value.items():
            if not _has(child, name) and not _parameter(child, name):
                raise _unknown(config, join(path, name), text, _is_open(child))
            _change(config, child, name, item, text, join(path, name))
        return
    where = f"override '{text}': '{path}'"
    if parameter and parameter.annotation is not Any:
        value = fit(parameter.annotation, value, where, old)
    elif value is not None:
        value = fit(type_of(old), value, where, old)
    if is_node(value) and value[TARGET] == LOCATE:
        locate(value.get("name", ""))  # so that a wrong name is reported at once
    if key == TARGET and isinstance(node, DictConfig):
        _leave_defaults(node, value)
    _set(node, key, value, text)


def _leave_defaults(node: DictConfig, target: str) -> None:
    """Removes defaults from ``node``, before it gets another target with other defaults."""
    locate(target)
    for name in list(node):
        if _is_default(node, name):
            del node[name]


def _resolved(node: Container, key: Any) -> Any:
    """The plain value at ``key``; None, which any value may replace, if there is no value yet."""
    try:
        value = node[key]
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value, resolve=False) if isinstance(value, Container) else value


def _same_target(old: dict, new: dict) -> bool:
    return TARGET not in new or old.get(TARGET) == new[TARGET]


def _unknown(config: DictConfig, path: str, text: str, may_be_added: bool = True) -> ConfigError:
    known = [dotted(keys) for keys, _ in walk(config) if keys and keys[-1] != TARGET]
    remedy = "" if text[0] in "+~" or not may_be_added else f" (to add it: '+{text}')"
    return ConfigError(f"override '{text}': there is no '{path}'; {_nearest(path, known)}{remedy}")


def _nearest(path: str, known: list[str]) -> str:
    """The keys most similar to ``path``, or else the keys of the last existing container on the way."""
    scores = {key: _similarity(path, key) for key in known}
    near = sorted(scores, key=lambda key: scores[key], reverse=True)[:3]
    if near and scores[near[0]] > NEAR:
        near = [f"'{key}'" for key in near if scores[key] > scores[near[0]] - TIE]
        return f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"
    while path and path not in known:
        path = path.rpartition(".")[0]
    inside = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == path]
    return f"in {path or 'the config'} there are {', '.join(inside) or 'no keys'}"


def _similarity(wanted: str, key: str) -> float:
    """Similarity of two paths or of their last parts, whichever is higher: prefixes are often forgotten."""
    whole = SequenceMatcher(None, wanted, key).ratio()
    last = SequenceMatcher(None, wanted.rpartition(".")[2], key.rpartition(".")[2]).ratio()
    return max(whole, 0.5 * (whole + last))
