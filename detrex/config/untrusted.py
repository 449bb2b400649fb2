"""Reads configs that someone else wrote, such as those that travel with weights, as data that runs no code.

Such a config may name only declared components, each in its place (a backbone where a backbone belongs).
Declarations are files called ``components.yaml``, in this package and in each project with components of its
own; they are also data: a config is checked before anything that it names is imported.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

import detrex
from detrex.config.directories import projects_directory
from detrex.config.lazy import LOCATE, ConfigError, make_config
from detrex.config.lazy_config import LazyConfig
from detrex.config.loader import YAML_SUFFIXES
from detrex.config.names import find_config
from detrex.config.walking import PARTIAL, TARGET, Keys, dotted, is_node, walk

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".pkl", ".bin", ".ckpt", ".onnx")
OUTPUT_DIR = ("train", "output_dir")
WRITTEN_KEYS = ("output_dir", "directory")
COMPONENTS_FILE = "components.yaml"
VALUE_RANGE = "dataloader.test.dataset.value_range"
_NODES = ("model", "dataloader.test.mapper", "dataloader.categories")
# The parts of a config that prediction uses. Their values are neither paths nor addresses.
PREDICTION = (*_NODES, VALUE_RANGE)

_PREDICTION_KEYS = (
    ("model",),
    ("dataloader", "test", "mapper"),
    tuple(VALUE_RANGE.split(".")),
    ("dataloader", "categories", "name"),
)

MAX_BYTES = 262_144
MAX_VALUES = 20_000  # including values that interpolations repeat
MAX_DEPTH = 40
MAX_TEXT = 1_000
MAX_INTEGER = 100_000
# Largest numbers by key, from which pixels and layers are made.
MAX_BY_KEY = {"size": 8192, "max_size": 8192, "size_divisor": 1024, "num_layers": 100}

_REFERENCE = re.compile(r"\$\{(\.*)([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\}")
_PLAIN_TEXT = re.compile(r"[\w.+-]*")
# Keys of a model's words, which it only reads.
_PROSE = (
    "model.templates.*",
    "model.training_templates.*",
    "model.vocabulary.names.*",
    "model.others.*.names.*",
)
# Keywords of timm's and other libraries' model builders that read files, or ask a server.
_READING_KEYS = re.compile(r"pretrained_\w+|checkpoint\w*_path|cache_dir|\w*_(file|dir|url|path)")


def load_untrusted(
    text: str,
    source: str | Path,
    parts: Iterable[str] = PREDICTION,
    known: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
) -> DictConfig:
    """Reads the parts of a config in YAML that are to be built, and checks that they are only data.

    Args:
        text: the YAML.
        source: where it comes from, for messages.
        parts: dotted keys. Other keys are read only if these refer to them.
        known: results by dotted name of a function: calls of the function are replaced without a check.
        overrides: changes that the user will make; calls in place of the values given there count as null.

    Raises:
        ConfigError: the text is too large, nested too deeply or not YAML; it uses aliases, tags or resolvers;
            it names a component that is not declared for its place; or it holds a value that no config needs:
            a path or address in a part that prediction builds, or a size beyond all models.
    """
    content = _replaced(parse_untrusted(text, source), known or {})
    for override in overrides:
        key, _, value = override.partition("=")
        *way, last = key.split(".")
        container: Any = content
        for name in way:
            container = container.get(name) if isinstance(container, dict) else None
        if value and isinstance(container, dict) and is_node(container.get(last)) and value[0] not in "{\"'":
            container[last] = None
    return make_config(_Check(content, source).parts(parts))


def load_config_file(path: str | Path, overrides: Iterable[str] = (), trust_code: bool = False) -> DictConfig:
    """The complete config that the user names, a file or one of this package, with the user's overrides.

    A ``.yaml`` beside weights came with them, such as ``config.yaml`` in the folder of a run: all of it is
    data, unless ``trust_code`` is set, and the run writes to that folder. Any other file belongs to the user
    and may name anything.

    Raises:
        ConfigError: there is no such config, an override does not fit it, or it is refused as data.
    """
    path, overrides = find_config(path), list(overrides)
    if trust_code or not path.is_file() or path.suffix not in YAML_SUFFIXES or not _has_weights(path.parent):
        return LazyConfig.apply_overrides(LazyConfig.load(path), overrides)
    text = read_untrusted(path)
    parts = [key for key in parse_untrusted(text, path) if isinstance(key, str)]
    config = load_untrusted(text, path, parts, overrides=overrides)
    if OmegaConf.select(config, dotted(OUTPUT_DIR)) is not None:
        config.train.output_dir = str(path.parent)
    return LazyConfig.apply_overrides(config, overrides)


def _has_weights(folder: Path) -> bool:
    """Whether a run or a checkpoint is in ``folder``."""
    return any(p.suffix in WEIGHT_SUFFIXES or p.name == "checkpoints" for p in folder.iterdir())


def read_untrusted(path: Path) -> str:
    """The text of a file, for :func:`load_untrusted`.

    Raises:
        ConfigError: the file cannot be read, or is not text.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config {path} cannot be read: {error}") from error


@functools.cache
def declared_components() -> Mapping[str, tuple[str, ...]]:
    """Patterns of dotted keys at which each declared component is allowed, by its dotted name."""
    package = Path(detrex.__file__).resolve().parent
    found: dict[str, tuple[str, ...]] = {}
    for file in (package / COMPONENTS_FILE, *sorted(projects_directory().glob(f"*/{COMPONENTS_FILE}"))):
        for name, places in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            found[name] = tuple(places.split())
    return found


class _YamlLoader(yaml.SafeLoader):
    """Reads numbers and texts in the form in which OmegaConf writes them."""


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def parse_untrusted(text: str, source: str | Path) -> dict[str, Any]:
    """Plain values from YAML that someone else wrote; they are neither checked nor resolved.

    Raises:
        ConfigError: the text is too large, nested too deeply or not YAML, or uses aliases or tags.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ConfigError(f"the config in {source} is larger than {MAX_BYTES:,} bytes")
    try:
        _check_events(text, source)
        content = yaml.load(text, _YamlLoader)  # noqa: S506 # derived from the safe one
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"the config in {source} cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the config in {source} is a {type(content).__name__}, not keys and values")
    return content


def _replaced(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get(TARGET), str) and value[TARGET] in known:
            return known[value[TARGET]]
        return {key: _replaced(item, known) for key, item in value.items()}
    return [_replaced(item, known) for item in value] if isinstance(value, list) else value


def _check_events(text: str, source: str | Path) -> None:
    """Refuses aliases, tags and too much content before values are constructed."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _YamlLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ConfigError(f"the config in {source} uses YAML aliases, which a saved config never does")
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"the config in {source} has the YAML tag {event.tag}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > 2 * MAX_VALUES:
            raise ConfigError(
                f"the config in {source} is nested more than {MAX_DEPTH} deep or has more than "
                f"{MAX_VALUES:,} values"
            )


class _Check:
    """Checks a config of plain values, and follows the interpolations in it."""

    def __init__(self, content: dict[str, Any], source: str | Path) -> None:
        self._content, self._source = content, source
        self._components = declared_components()
        self._count = 0
        self._refused: list[str] = []

    def parts(self, parts: Iterable[str]) -> dict[str, Any]:
        """The checked parts; values outside them to which they refer are written out."""
        wanted: list[Keys] = [tuple(part.split(".")) for part in parts]
        kept = [keys for keys in wanted if self._has(keys)]
        for part in kept:  # first, because other errors may follow from a missing part
            for keys, value in walk(self._locate(part, part)[1], part):
                if is_node(value):
                    self._accepts(value, keys)
        self._raise_refusals()
        for part in kept:
            self._visit(part, part, 0)
        self._raise_refusals()
        result: dict[str, Any] = {}
        for keys in kept:
            container: dict[Any, Any] = result
            for key in keys[:-1]:
                container = container.setdefault(key, {})
            container[keys[-1]] = self._copy(keys, kept)
        return result

    def _raise_refusals(self) -> None:
        if self._refused:
            raise ConfigError(
                f"the config in {self._source} came with weights, so it may name only components that are "
                f"declared for their place; refused: {'; '.join(self._refused)}. If you trust who made the "
                "file, whose code would run, give trust_code=True (in tools --trust-code)"
            )

    def _visit(self, place: Keys, keys: Keys, depth: int) -> None:
        """Checks the value at ``keys``, to which ``place`` refers."""
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise self._error(
                place, f"has more than {MAX_VALUES:,} values or is nested more than {MAX_DEPTH} deep"
            )
        keys, value = self._locate(keys, place)
        if keys != OUTPUT_DIR:
            self._check_written_path(value, place)
        if isinstance(value, str) and "${" in value:
            for target in self._referred(value, keys, place):
                self._visit(place, target, depth + 1)
        elif isinstance(value, dict):
            if TARGET in value and not self._accepts(value, place):
                return
            for key in value:
                self._check_key(key, place)
                if key != TARGET:
                    self._visit((*place, key), (*keys, key), depth + 1)
        elif isinstance(value, list):
            for i in range(len(value)):
                self._visit((*place, i), (*keys, i), depth + 1)
        else:
            self._check_scalar(value, place)

    def _accepts(self, node: dict[Any, Any], place: Keys) -> bool:
        name = node["name"] if node[TARGET] == LOCATE and len(node) == 2 and "name" in node else node[TARGET]
        if not isinstance(name, str) or len(name) > MAX_TEXT:
            raise self._error(place, f"has no name as its {TARGET}")
        if PARTIAL in node:
            raise self._error(place, f"uses {PARTIAL}")
        places = self._components.get(name, ())
        if any(fnmatchcase(dotted(place), pattern) for pattern in places):
            return True
        allowed = f", which belongs to {' or '.join(places)}," if places else ""
        self._refused.append(f"'{name}'{allowed} at {dotted(place)}")
        return False

    def _check_key(self, key: Any, place: Keys) -> None:
        strict = _is_for_prediction(place)
        is_name = isinstance(key, str) and len(key) <= MAX_TEXT and (_PLAIN_TEXT.fullmatch(key) or not strict)
        if not (is_name or (type(key) is int and abs(key) <= MAX_INTEGER)):
            raise self._error(place, f"has a key that is neither a name nor a small number: {key!r:.80}")
        if strict and _READING_KEYS.fullmatch(str(key)):
            raise self._error(place, f"has the key '{key}', which reads files or asks a server")

    def _check_scalar(self, value: Any, place: Keys) -> None:
        if value is not None and not isinstance(value, bool | int | float | str):
            raise self._error(place, f"is a {type(value).__name__}")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise self._error(place, f"is a text of more than {MAX_TEXT:,} characters")
        if not _is_for_prediction(place):
            return
        is_prose = any(fnmatchcase(dotted(place), pattern) for pattern in _PROSE)
        if isinstance(value, str) and not (is_prose or _PLAIN_TEXT.fullmatch(value)):
            raise self._error(place, f"is {value!r:.80}; names of models have no such characters")
        name = next((key for key in reversed(place) if isinstance(key, str)), "")
        limit = MAX_BY_KEY.get(name, MAX_INTEGER)
        if isinstance(value, int) and abs(value) > limit:
            raise self._error(
                place, f"is {value:,}, more than the {limit:,} that are taken from others' files"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(place, f"is {value}, which is no number")

    def _check_written_path(self, value: Any, place: Keys) -> None:
        """Checks that a run writes only to its own folder, and generated data sets below the present one."""
        if not isinstance(value, str) or _is_for_prediction(place):
            return
        inside = ".." not in Path(value).parts
        if place[-1] in WRITTEN_KEYS and not (inside and value.startswith(f"${{{dotted(OUTPUT_DIR)}}}")):
            raise self._error(place, f"is {value!r:.80}; a run writes below ${{{dotted(OUTPUT_DIR)}}} only")
        if place[-1] == "root" and len(place) > 2 and not (inside and not Path(value).is_absolute()):
            raise self._error(
                place, f"is {value!r:.80}, where a data set would be drawn; give a relative path"
            )

    def _copy(self, keys: Keys, kept: list[Keys]) -> Any:
        keys, value = self._locate(keys, keys)
        if isinstance(value, str) and "${" in value:
            targets = self._referred(value, keys, keys)
            if all(any(target[: len(part)] == part for part in kept) for target in targets):
                return value
            return self._copy(targets[0], [])
        if isinstance(value, dict):
            return {key: self._copy((*keys, key), kept) for key in value}
        if isinstance(value, list):
            return [self._copy((*keys, i), kept) for i in range(len(value))]
        return value

    def _referred(self, value: str, keys: Keys, place: Keys) -> list[Keys]:
        """The keys that an interpolation refers to; it may be part of longer text only in paths."""
        matches = list(_REFERENCE.finditer(value))
        alone = len(matches) == 1 and matches[0].group() == value
        if "${" in _REFERENCE.sub("", value) or (_is_for_prediction(place) and not alone):
            raise self._error(place, f"is {value!r:.80}; only references to other keys are taken")
        targets: list[Keys] = []
        for match in matches:
            dots, path = match.groups()
            if len(dots) > len(keys):
                raise self._error(place, f"is {value!r:.80}, which leads out of the config")
            targets.append((*(keys[: -len(dots)] if dots else ()), *path.split(".")))
        return targets

    def _has(self, keys: Keys) -> bool:
        """Whether ``keys`` exist; parts that prediction builds must be nodes, not the path of a file."""
        value: Any = self._content
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return isinstance(value, dict) or (value is not None and dotted(keys) not in _NODES)

    def _locate(self, keys: Keys, place: Keys, hops: int = 0) -> tuple[Keys, Any]:
        """The keys that ``keys`` lead to through interpolations, and the value there."""
        value: Any = self._content
        for i, key in enumerate(keys):
            if isinstance(value, str) and "${" in value and hops < MAX_DEPTH:
                targets = self._referred(value, keys[:i], place)
                return self._locate((*targets[0], *keys[i:]), place, hops + 1)
            if isinstance(value, list) and str(key).isdecimal() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise self._error(place, f"refers to '{dotted(keys[: i + 1])}', which is not there")
        return keys, value

    def _error(self, place: Keys, problem: str) -> ConfigError:
        return ConfigError(
            f"the config in {self._source} is not taken as data: {dotted(place)[:200]} {problem}. "
            "If you trust its maker, give trust_code=True (in tools --trust-code)"
        )


def _is_for_prediction(place: Keys) -> bool:
    return any(place[: len(part)] == part for part in _PREDICTION_KEYS)
