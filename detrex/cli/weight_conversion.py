"""Converts a checkpoint into this toolbox's format, or back into that of the published Mask DINO."""

from __future__ import annotations

import argparse
import logging

import torch
from omegaconf import DictConfig

from detrex.checkpoint import CheckpointError, load_pretrained, read_source, write_weights
from detrex.checkpoint.published import to_published
from detrex.cli.arguments import read_config
from detrex.config import fix_values, instantiate
from detrex.data import read_categories
from detrex.engine.folder import checkpoint_metadata
from detrex.runtime.files import replaced_file
from detrex.structures import Categories

logger = logging.getLogger(__name__)


def convert(arguments: argparse.Namespace) -> None:
    """Loads the input into the configured model and writes the weights of that model.

    Raises:
        CheckpointError: the input does not fit, or the output's suffix is not that of its format.
    """
    suffix = {"detrex": ".safetensors", "published": ".pth"}[arguments.to]
    if arguments.output.suffix != suffix:
        raise CheckpointError(f"--output {arguments.output}: files of '{arguments.to}' end in {suffix}")
    config = read_config(arguments)
    if "pretrained" in config.model.get("backbone", {}):
        config.model.backbone.pretrained = False
    config = fix_values(config, "model")
    file = read_source(arguments.input, arguments.allow_pickle)
    model = instantiate(config.model)
    report = load_pretrained(model, file, strict=not arguments.partial)
    state = model.state_dict()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if arguments.to == "published":
        with replaced_file(arguments.output) as temporary:
            torch.save({"model": to_published(state, model)}, temporary)
    else:
        weights = {name: state[name] for name in report.loaded}
        write_weights(arguments.output, weights, _metadata(config, file.categories))
    logger.info("wrote %s", arguments.output)


def _metadata(config: DictConfig, categories: Categories | None) -> dict[str, str]:
    """The metadata with which the file alone is enough to use the model."""
    listed = config.get("dataloader", {}).get("categories")
    if categories is None and listed is not None:
        categories = read_categories(instantiate(listed))
    return checkpoint_metadata(config, categories)
