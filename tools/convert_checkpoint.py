"""Converts a checkpoint into this toolbox's format, or back into the published Mask DINO's.

published, DINO, ...   convert_checkpoint.py IN.pth --config-file CONFIG.py --output OUT.safetensors
back                   convert_checkpoint.py IN.safetensors --config-file CONFIG.py --output OUT.pth --to published
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from detrex.checkpoint import CheckpointError, load, read_source, write_weights
from detrex.checkpoint.atomic import replaced_file
from detrex.checkpoint.published import to_published
from detrex.config import LazyConfig, fix_values, instantiate
from detrex.data import read_categories
from detrex.engine.artifacts import checkpoint_metadata
from detrex.engine.launch import readable_errors
from detrex.structures import Categories

logger = logging.getLogger(__name__)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "input", metavar="IN", help="a file, a run's folder, an https:// URL or a name in the zoo"
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config of the model")
    parser.add_argument("--output", required=True, type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to",
        choices=["detrex", "published"],
        default="detrex",
        help="detrex: safetensors, with config and class names; published: a .pth under the published names",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="convert a file that holds only a part of the model, such as a backbone or a DINO detector",
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="read detectron2's .pkl files, executing nothing in them"
    )
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    return parser.parse_intermixed_args(arguments)


def convert(arguments: argparse.Namespace) -> None:
    """Loads the input into the configured model and writes what it holds then.

    Raises:
        CheckpointError: the input does not fit, or the output's suffix is not that of its format.
    """
    suffix = {"detrex": ".safetensors", "published": ".pth"}[arguments.to]
    if arguments.output.suffix != suffix:
        raise CheckpointError(f"--output {arguments.output}: files of '{arguments.to}' end in {suffix}")
    config = LazyConfig.apply_overrides(LazyConfig.load(arguments.config_file), arguments.overrides)
    if "pretrained" in config.model.get("backbone", {}):
        config.model.backbone.pretrained = False
    config = fix_values(config, "model")
    file = read_source(arguments.input, arguments.allow_pickle)
    model = instantiate(config.model)
    report = load(model, file, strict=not arguments.partial)
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
    """With it, the file alone is enough to use the model."""
    listed = config.get("dataloader", {}).get("categories")
    if categories is None and listed is not None:
        categories = read_categories(instantiate(listed))
    return checkpoint_metadata(config, categories)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parsed = parse_arguments()
    with readable_errors(parsed.debug):
        convert(parsed)
