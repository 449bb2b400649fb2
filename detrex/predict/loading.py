"""From the name of a model, a run or a file to a predictor."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from detrex.checkpoint import (
    CheckpointError,
    WeightsFile,
    ZooEntry,
    entry_of_config,
    read_source,
    zoo_entries,
    zoo_entry,
)
from detrex.checkpoint import load as load_weights
from detrex.checkpoint.download import is_url
from detrex.checkpoint.zoo import entry_of_file
from detrex.config import ConfigError, LazyConfig, instantiate, locate
from detrex.config.walking import TARGET, dotted, is_node, walk
from detrex.data import category_file, count_classes, read_categories, thing_classes
from detrex.modeling.build import build_model
from detrex.predict.predictor import Predictor
from detrex.runtime.allocation import keep_freed_memory
from detrex.runtime.device import resolve_device
from detrex.structures import Categories

logger = logging.getLogger(__name__)

PUBLISHED = "published"
RUN_CONFIG = "config.yaml"
_CONFIG_SUFFIXES = (".py", ".yaml", ".yml")
# Where a config names the file that lists the model's classes.
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
    keep_memory: bool = True,
) -> Predictor:
    """A trained model, ready for images.

    Architecture, preprocessing and post-processing come from the config, class names from the weights file
    or, where it has none, from ``dataloader.categories`` or the annotation files of the config that exist;
    without any they are "class 0", "class 1", ... Nothing is downloaded but what is asked for.

    Args:
        model: the folder of a run or of a checkpoint; a weights file of this toolbox (it holds its config) or
            an ``https://`` URL of one; a config file (``.py``, ``.yaml``) or config; or a name in the model
            zoo, such as ``maskdino_r50_coco_instance``.
        weights: a file, folder or URL, see :func:`detrex.checkpoint.read_source`; or ``"published"``
            to download those of the model zoo. By default those in the folder or file ``model``; the other
            kinds have none.
        overrides: changes to the config, as on the command line.
        device: ``auto`` is the GPU where there is one.
        amp: arithmetic: ``off``, ``bf16`` or ``fp16``.
        allow_pickle: see :func:`detrex.checkpoint.read_source`.
        keep_memory: on CPUs, this process keeps memory that was used once, which makes prediction faster; see
            :func:`detrex.runtime.allocation.keep_freed_memory`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: no weights are given, or they cannot be read or do not fit the model; or the model
            zoo has no such name.
        ConfigError: there is no config, it cannot be built, or it has not as many class names as classes.
        ValueError: there is no such device or arithmetic.
    """
    target = resolve_device(str(device))
    if keep_memory and target.type == "cpu":
        keep_freed_memory()
    plan = _plan(model, weights)
    if plan.config is not None:
        plan.config = _changed(plan.config, overrides)
    file = read_source(plan.weights, allow_pickle)
    config = plan.config if plan.config is not None else _changed(_config_of(file), overrides)
    config = _with_classes_of(config, file.categories)
    mapper = instantiate(OmegaConf.select(config, "dataloader.test.mapper"))
    network = build_model(config.model, target)
    categories = _categories(file, config, network.num_classes)
    load_weights(network, file, strict=True)
    return Predictor(network, mapper, categories, amp)


@dataclass
class _Plan:
    """Where everything comes from; without a config it is in the weights file."""

    config: DictConfig | None
    weights: str | Path


def _plan(model: str | Path | DictConfig, weights: str | Path | None) -> _Plan:
    if isinstance(model, DictConfig):
        return _Plan(model, _explicit(weights, "a config", None))
    path = Path(model)
    if path.is_dir():
        config = path / RUN_CONFIG
        return _Plan(LazyConfig.load(config) if config.is_file() else None, _own(weights, path))
    if path.is_file() and path.suffix in _CONFIG_SUFFIXES:
        return _Plan(LazyConfig.load(path), _explicit(weights, str(path), entry_of_config(path)))
    if path.is_file() or is_url(str(model)):
        return _Plan(None, _own(weights, model))
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no config, weights file or folder of a run at {model}")
    try:
        entry = zoo_entry(str(model))
    except CheckpointError as error:
        raise CheckpointError(f"there is no file or folder '{model}', and {error}") from None
    return _Plan(LazyConfig.load(entry.config), _explicit(weights, f"'{model}'", entry))


def _own(weights: str | Path | None, model: str | Path) -> str | Path:
    """``model`` holds weights of its own."""
    if weights == PUBLISHED:
        raise CheckpointError(f"weights='{PUBLISHED}' goes with a name in the model zoo, not with {model}")
    return model if weights is None else weights


def _explicit(weights: str | Path | None, model: str, entry: ZooEntry | None) -> str | Path:
    """``model`` is but a config: the user says whose weights are meant."""
    url = None if entry is None else entry.url
    if weights is None:
        download = "" if url is None else f", or weights='{PUBLISHED}' to download {url}"
        raise CheckpointError(
            f"{model} describes a model but holds no weights: give weights=, the path of a file or of a "
            f"run's folder{download}"
        )
    if weights != PUBLISHED:
        return weights
    if entry is None or url is None:
        names = [name for name, other in zoo_entries().items() if other.url is not None]
        raise CheckpointError(
            f"the model zoo has no address of weights for {model}: give weights= a path. It has those of "
            f"{', '.join(names)}"
        )
    return entry.name


def _config_of(file: WeightsFile) -> DictConfig:
    if "config" in file.metadata:
        config = OmegaConf.create(file.metadata["config"])
        if not isinstance(config, DictConfig):
            raise ConfigError(f"{file.path} holds a list in place of a config")
        return config
    entry = entry_of_file(file.path)
    if entry is not None:
        return LazyConfig.load(entry.config)
    raise ConfigError(
        f"{file.path} holds weights but no config, so it takes both: "
        f"load(CONFIG_FILE_OR_ZOO_NAME, weights='{file.path}')"
    )


def _changed(config: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """A copy for prediction; all weights come from the checkpoint, so none are to be downloaded before.

    Raises:
        ConfigError: an override does not fit, or parts are missing.
    """
    changed = LazyConfig.apply_overrides(config, overrides)
    for key, meaning in (("model", "the model"), ("dataloader.test.mapper", "how images are resized")):
        if OmegaConf.select(changed, key) is None:
            raise ConfigError(f"the config has no '{key}', which says {meaning}; prediction needs it")
    if OmegaConf.select(changed, "model.backbone.pretrained") is not None:
        changed.model.backbone.pretrained = False
    return changed


def _with_classes_of(config: DictConfig, categories: Categories | None) -> DictConfig:
    """The config with what it would read from the training data's files taken from the checkpoint.

    The files may be gone, or be others by now.
    """
    if categories is None:
        return config
    values = {count_classes: len(categories), thing_classes: categories.thing_classes}
    calls = [(dotted(keys), node[TARGET]) for keys, node in walk(config.model, ("model",)) if is_node(node)]
    names = {function.__name__ for function in values}
    found = [(path, locate(target)) for path, target in calls if target.rpartition(".")[2] in names]
    return LazyConfig.apply_overrides(config, [f"{p}={values[f]}" for p, f in found if f in values])


def _categories(file: WeightsFile, config: DictConfig, count: int) -> Categories:
    """The model's ``count`` classes.

    Raises:
        ConfigError: there are other than ``count`` names.
    """
    categories = file.categories
    source: str | None = str(file.path)
    if categories is None:
        source = _class_file(config)
        categories = None if source is None else read_categories(source)
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
        # Other nodes are left alone: to say the path of a file, they may make a whole data set.
        if isinstance(path, str) and Path(path).is_file():
            return path
    return None
