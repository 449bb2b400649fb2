"""Finds the data sets in a config, as sources to check or convert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from detrex.config import ConfigError, instantiate
from detrex.data.check import CheckOptions
from detrex.data.coco_instances import CocoInstances
from detrex.data.coco_panoptic import CocoPanoptic
from detrex.data.semantic_folder import SemanticFolder
from detrex.data.sources import Source


def sources_of_config(config: DictConfig, options: CheckOptions) -> tuple[list[Source], CheckOptions]:
    """The data sets of ``dataloader.train`` and ``dataloader.test``, and the options for reading them.

    Raises:
        ConfigError: the config has no data sets.
    """
    sources = []
    for split, loader in (("train", "train"), ("val", "test")):
        node = config.get("dataloader", {}).get(loader)
        if node is None or node.get("dataset") is None:
            continue
        kind = node.dataset.get("_target_")
        arguments: dict[str, Any] = {
            key: instantiate(value) if isinstance(value, DictConfig) else value
            for key, value in node.dataset.items()
            if key != "_target_"
        }
        sources.append(_source(split, kind, arguments))
        options = _options(arguments, node, options) if split == "train" else options
    if not sources:
        raise ConfigError("the config has no dataloader.train.dataset or dataloader.test.dataset to check")
    queries = options.queries
    if queries is None:
        queries = _queries(config)
    return sources, replace(options, queries=queries)


def _source(split: str, kind: Any, arguments: dict[str, Any]) -> Source:
    images = Path(arguments["images"])
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    if name.endswith(SemanticFolder.__name__):
        classes = arguments["classes"]
        listed = Path(classes) if isinstance(classes, str) else tuple(classes)
        return Source(
            split, "semantic", "PNG masks of classes", images, Path(arguments["segments"]), classes=listed
        )
    annotations = Path(arguments["annotations"])
    if name.endswith(CocoPanoptic.__name__):
        return Source(split, "panoptic", "COCO JSON", images, annotations, Path(arguments["segments"]))
    if name.endswith(CocoInstances.__name__):
        return Source(split, "instances", "annotations", images, annotations)
    raise ConfigError(f"dataloader's data set is of the kind {name}, which cannot be checked")


def _options(arguments: dict[str, Any], loader: DictConfig, options: CheckOptions) -> CheckOptions:
    changes: dict[str, Any] = {
        key: arguments[key]
        for key in ("orientation", "value_range", "leave_folder", "image_suffix", "segment_suffix")
        if arguments.get(key) is not None
    }
    if "ignore_label" in arguments:
        ignored = arguments["ignore_label"]
        changes["ignore_labels"] = (ignored,) if isinstance(ignored, int) else tuple(ignored)
    mapper = loader.get("mapper") or {}
    crop = mapper.get("crop_size") or mapper.get("image_size")
    if crop is not None:
        changes["crop"] = crop if isinstance(crop, int) else min(crop)
    return replace(options, **changes)


def _queries(node: Any) -> int | None:
    """The first ``num_queries`` in a config's model."""
    model = node.get("model")
    waiting = [model]
    while waiting:
        current = waiting.pop(0)
        if isinstance(current, DictConfig):
            found = current.get("num_queries")
            if isinstance(found, int):
                return found
            waiting += [value for value in current.values() if isinstance(value, DictConfig)]
    return None
