"""Loads a predictor by the name of a model, a run or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex.checkpoint import (
    CheckpointError,
    WeightsFile,
    ZooEntry,
    entry_of_config,
    load_pretrained,
    read_source,
    zoo_entries,
    zoo_entry,
)
from detrex.checkpoint.download import is_url
from detrex.checkpoint.loading import PRECISION_THRESHOLDS, SCORE_THRESHOLDS
from detrex.checkpoint.zoo import entry_of_file
from detrex.config import ConfigError, LazyConfig, instantiate, locate
from detrex.config.lazy import name_of
from detrex.config.loader import parse_config
from detrex.config.untrusted import VALUE_RANGE, load_untrusted, read_untrusted
from detrex.config.value_types import check_types
from detrex.config.walking import TARGET, dotted, is_node, walk
from detrex.data import category_file, class_names, count_classes, read_categories, thing_classes
from detrex.hub import download, is_hub_name
from detrex.modeling.build import build_model, prepare_detector
from detrex.predict.predictor import Predictor
from detrex.predict.size_limit import SizeLimit
from detrex.runtime.allocation import keep_freed_memory
from detrex.runtime.device import resolve_device
from detrex.structures import Categories

logger = logging.getLogger(__name__)

PUBLISHED = "published"
RUN_CONFIG = "config.yaml"
_CONFIG_SUFFIXES = (".py", ".yaml", ".yml")
# Keys at which a config names the file that lists the model's classes.
_CLASS_FILES = (
    "dataloader.categories",
    "dataloader.train.dataset.annotations",
    "dataloader.train.dataset.classes",
    "dataloader.test.dataset.annotations",
    "dataloader.test.dataset.classes",
)


def load(
    model: str | Path | DictConfig,
    weights: str | Path | None = None,
    *,
    overrides: Iterable[str] = (),
    device: str | torch.device = "auto",
    amp: str = "off",
    allow_pickle: bool = False,
    trust_code: bool = False,
    keep_memory: bool = True,
    prepare: bool = True,
) -> Predictor:
    """Loads a trained model, ready for images.

    Architecture, preprocessing and post-processing come from the config. Class names come from the weights
    file or, if it has none, from ``dataloader.categories`` or existing annotation files of the config;
    without these, they are "class 0", "class 1", ... Nothing is downloaded unless it is asked for.

    Args:
        model: the folder of a run or of a checkpoint; a weights file of this toolbox (it holds its config) or
            an ``https://`` URL of one; ``hf://org/name`` on the Hugging Face hub; a config file (``.py``,
            ``.yaml``) or config; or a name in the model zoo, such as ``maskdino_r50_coco_instance``.
        weights: a file, folder or URL, see :func:`detrex.checkpoint.read_source`; or ``"published"``
            to download those of the model zoo. By default, those in the folder or file ``model``; other kinds
            of ``model`` have none.
        overrides: changes to the config, as on the command line.
        device: ``auto`` is the GPU if there is one.
        amp: numerical precision: ``off``, ``bf16`` or ``fp16``.
        allow_pickle: see :func:`detrex.checkpoint.read_source`.
        trust_code: build everything that is named by a config that came with the weights (in the folder of a
            run, in a weights file, or a ``.yaml``). Its author can then run code here. Otherwise, it may name
            only the components of this toolbox and its projects, see ``docs/security.md``.
        keep_memory: on CPUs, this process keeps freed memory, which makes prediction faster; see
            :func:`detrex.runtime.allocation.keep_freed_memory`.
        prepare: keep a copy of weights in the form that suits the device, with the backbone's batch norms
            folded into its convolutions and rounded for ``amp``, which makes prediction faster. Results
            differ by rounding. Parameters, their names and training do not change. See
            :func:`detrex.layers.prepare_for_prediction`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: no weights are given, they cannot be read or do not fit the model, or the model zoo
            has no such name.
        ConfigError: there is no config, it cannot be built, it names a forbidden component, it describes a
            far larger model than its weights, or its numbers of class names and classes differ.
        ValueError: there is no such device or precision.
    """
    overrides = list(overrides)
    target = resolve_device(str(device))
    if keep_memory and target.type == "cpu":
        keep_freed_memory()
    source = _source(model, weights)
    config = None if source.config is None else _changed(source.config, overrides, source.name)
    file = read_source(source.weights, allow_pickle)
    if config is None:
        config = _config_with_weights(source, file, trust_code, overrides)
        config = _changed(config, overrides, source.name)
    config = _with_classes_of(config, file.categories)
    is_data = source.config is None and not trust_code
    try:
        if is_data:
            check_types(config.model)
            check_types(config.dataloader.test.mapper)
        mapper = instantiate(config.dataloader.test.mapper)
        value_range = _value_range(config)
        with SizeLimit(file.tensors) if is_data else nullcontext():
            network = build_model(config.model, target)
    except ConfigError as error:
        raise ConfigError(f"{source.name}: {error}") from error
    categories = _categories(file, config, config.model.num_classes)
    load_pretrained(network, file, strict=True)
    if prepare:
        prepare_detector(network.eval())
    best, precise = _score_thresholds(file, categories), _precision_thresholds(file, categories)
    return Predictor(network, mapper, categories, amp, best, value_range, precise)


def _score_thresholds(file: WeightsFile, categories: Categories) -> list[float | None] | None:
    """The threshold of each class that an evaluation stored with the weights."""
    text = file.metadata.get(SCORE_THRESHOLDS)
    if text is None:
        return None
    try:
        kept = msgspec.json.decode(text, type=dict[str, Annotated[float, msgspec.Meta(ge=0, le=1)]])
    except msgspec.MsgspecError as error:
        logger.warning("%s: its score thresholds are damaged and not used (%s)", file.path, error)
        return None
    return [kept.get(str(category_id)) for category_id in categories.ids]


def _precision_thresholds(file: WeightsFile, categories: Categories) -> list[dict[float, float]] | None:
    """The thresholds of each class by precision that an evaluation stored with the weights."""
    text = file.metadata.get(PRECISION_THRESHOLDS)
    if text is None:
        return None
    share = Annotated[float, msgspec.Meta(ge=0, le=1)]
    try:
        kept = msgspec.json.decode(text, type=dict[str, dict[share, share]], strict=False)
    except msgspec.MsgspecError as error:
        logger.warning("%s: its thresholds for precisions are damaged and not used (%s)", file.path, error)
        return None
    return [kept.get(str(category_id), {}) for category_id in categories.ids]


def _value_range(config: DictConfig) -> tuple[float, float] | None:
    """The range of values of the data for evaluation, if the config has one.

    Raises:
        ConfigError: it is not a range.
    """
    given = OmegaConf.select(config, VALUE_RANGE)
    if given is None:
        return None
    match list(given) if isinstance(given, ListConfig) else given:
        case [int() | float() as low, int() | float() as high] if low < high:
            return low, high
    raise ConfigError(f"{VALUE_RANGE} is {given}: expected are two numbers, the lower one first")


@dataclass
class _Source:
    """The sources of a model's config and weights.

    Attributes:
        name: of the config, for messages.
        config: the config if the user gave it; None if it came with weights.
        weights: see :func:`detrex.checkpoint.read_source`.
        saved: the YAML file with the config; None if the config is in the weights file.
    """

    name: str
    config: DictConfig | None
    weights: str | Path
    saved: Path | None = None


def _source(model: str | Path | DictConfig, weights: str | Path | None) -> _Source:
    if isinstance(model, DictConfig):
        return _Source("the config", model, _explicit(weights, "a config", None))
    if is_hub_name(str(model)):
        return _Source(str(model), None, _own(weights, download(str(model))))
    path = Path(model)
    if path.is_dir():
        saved = path / RUN_CONFIG
        return _Source(str(path), None, _own(weights, path), saved if saved.is_file() else None)
    if path.is_file() and path.suffix in _CONFIG_SUFFIXES:
        weights = _explicit(weights, str(path), entry_of_config(path))
        if path.suffix == ".py":
            return _Source(str(path), LazyConfig.load(path), weights)
        return _Source(str(path), None, weights, path)
    if path.is_file() or is_url(str(model)):
        return _Source(str(model), None, _own(weights, model))
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no config, weights file or folder of a run at {model}")
    try:
        entry = zoo_entry(str(model))
    except CheckpointError as error:
        raise CheckpointError(f"there is no file or folder '{model}', and {error}") from None
    return _Source(entry.name, LazyConfig.load(entry.config), _explicit(weights, f"'{model}'", entry))


def _config_with_weights(
    source: _Source, file: WeightsFile, trust_code: bool, overrides: Sequence[str]
) -> DictConfig:
    """The config in a YAML file or a weights file, which someone else may have made."""
    name = file.path if source.saved is None else source.saved
    text = file.metadata.get("config") if source.saved is None else read_untrusted(source.saved)
    if text is not None and trust_code:
        return parse_config(text, name)
    if text is not None:
        config = load_untrusted(text, name, known=_known(file.categories), overrides=overrides)
        OmegaConf.update(config, "dataloader.categories", OmegaConf.select(config, "dataloader.categories"))
        return config
    entry = entry_of_file(file.path)
    if entry is None:
        raise ConfigError(
            f"{file.path} holds weights but no config, so it takes both: "
            f"load(CONFIG_FILE_OR_ZOO_NAME, weights='{file.path}')"
        )
    return LazyConfig.load(entry.config)


def _known(categories: Categories | None) -> dict[str, Any]:
    """Values that a config would read from files of the training data, taken from the checkpoint."""
    if categories is None:
        return {}
    return {
        name_of(count_classes): len(categories),
        name_of(thing_classes): categories.thing_classes,
        name_of(class_names): list(categories.names),
    }


def _own(weights: str | Path | None, model: str | Path) -> str | Path:
    """The weights of a ``model`` that contains weights, unless others are given."""
    if weights == PUBLISHED:
        raise CheckpointError(f"weights='{PUBLISHED}' goes with a name in the model zoo, not with {model}")
    return model if weights is None else weights


def _explicit(weights: str | Path | None, model: str, entry: ZooEntry | None) -> str | Path:
    """The weights that the user gives for a ``model`` that is only a config."""
    url = None if entry is None else entry.url
    if weights is None:
        download = "" if url is None else f", or weights='{PUBLISHED}' to download {url}"
        raise CheckpointError(
            f"{model} describes a model but holds no weights: give weights=, the path of a file or of a "
            f"run's folder{download}"
        )
    if weights != PUBLISHED:
        return weights
    if entry is None or entry.url is None:
        names = [name for name, other in zoo_entries().items() if other.url is not None]
        raise CheckpointError(
            f"the model zoo has no address of weights for {model}: give weights= a path. It has those of "
            f"{', '.join(names)}"
        )
    return entry.name


def _changed(config: DictConfig, overrides: Iterable[str], name: str) -> DictConfig:
    """A copy for prediction. All weights come from the checkpoint, so pretrained ones are not downloaded.

    Raises:
        ConfigError: an override does not fit, or parts are missing.
    """
    try:
        changed = LazyConfig.apply_overrides(config, overrides)
        parts = {key: OmegaConf.select(changed, key) for key in ("model", "dataloader.test.mapper")}
        pretrained = OmegaConf.select(changed, "model.backbone.pretrained")
        others = OmegaConf.select(changed, "model.others")
    except (ConfigError, OmegaConfBaseException) as error:
        raise ConfigError(f"{name}: {error}") from error
    for key, meaning in (("model", "the model"), ("dataloader.test.mapper", "how images are resized")):
        if not isinstance(parts[key], DictConfig):
            raise ConfigError(f"{name}: the config has no '{key}', which says {meaning}; prediction needs it")
    if pretrained is not None:
        changed.model.backbone.pretrained = False
    if others is not None:  # vocabularies of training data that may not exist here
        changed.model.others = None
    return changed


def _with_classes_of(config: DictConfig, categories: Categories | None) -> DictConfig:
    """The config with values from the checkpoint in place of those that it would read from training data.

    The files may have gone or changed.
    """
    if categories is None:
        return config
    known = _known(categories)
    calls = [(dotted(keys), node[TARGET]) for keys, node in walk(config.model, ("model",)) if is_node(node)]
    changes = [f"{path}={known[target]}" for path, target in calls if target in known]
    return LazyConfig.apply_overrides(config, changes)


def _categories(file: WeightsFile, config: DictConfig, count: int) -> Categories:
    """The model's ``count`` classes.

    Raises:
        ConfigError: the number of names is not ``count``.
    """
    categories, source = file.categories, str(file.path)
    if categories is None and (class_file := _class_file(config)) is not None:
        categories, source = read_categories(class_file), class_file
    if categories is None:
        logger.warning(
            "%s does not name its classes, nor does a file of the config that is there: they get numbers",
            file.path,
        )
        return Categories.from_names([f"class {k}" for k in range(count)])
    if len(categories) != count:
        raise ConfigError(
            f"the model has {count} classes (model.num_classes), but {source} names {len(categories)}: give "
            f"the override model.num_classes={len(categories)} or, if {count} is right, "
            "dataloader.categories=FILE that lists them"
        )
    return categories


def _class_file(config: DictConfig) -> str | None:
    """The first file of classes that exists."""
    for key in _CLASS_FILES:
        path = OmegaConf.select(config, key)
        if isinstance(path, DictConfig) and locate(path["_target_"]) is category_file:
            path = instantiate(path)
        # Other nodes are not built: they may make a whole data set to return the path of a file.
        if isinstance(path, str) and Path(path).is_file():
            return path
    return None
