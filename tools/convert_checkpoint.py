"""Converts a checkpoint into this toolbox's format, or back into that of the published Mask DINO."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from detrex.checkpoint import CheckpointError, load, read_source, write_weights
from detrex.checkpoint.published import to_published
from detrex.cli.arguments import add_config_file, add_overrides, command_parser, read_config
from detrex.cli.errors import readable_errors
from detrex.config import fix_values, instantiate
from detrex.data import read_categories
from detrex.engine.folder import checkpoint_metadata
from detrex.runtime.files import replaced_file
from detrex.structures import Categories

logger = logging.getLogger(__name__)


EXAMPLES = """\
examples:
  published   convert_checkpoint.py IN.pth --config-file CONFIG.py --output OUT.safetensors
  back        convert_checkpoint.py IN.safetensors --config-file CONFIG.py --to published --output OUT.pth
  a backbone  convert_checkpoint.py R50.pth --config-file CONFIG.py --partial --output OUT.safetensors

What was taken over is shown as a table. A file that does not hold exactly the configured model is refused,
unless --partial is given.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "input", metavar="IN", help="a file, a run's folder, an https:// URL or a name in the zoo"
    )
    add_config_file(parser)
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
    add_overrides(parser)
    return parser.parse_intermixed_args(arguments)


def convert(arguments: argparse.Namespace) -> None:
    """Loads the input into the configured model and writes what it holds then.

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
