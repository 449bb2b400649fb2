"""Measures a trained model on the test data of a config or of its run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import (
    add_config,
    add_inference,
    add_overrides,
    command_parser,
    inference_overrides,
    parse,
    positive,
    read_config,
)
from detrex.cli.errors import readable_errors
from detrex.runtime.interruption import listening

DESCRIPTION = "Measures a trained model on the test data of a config or of its run."
EXAMPLES = """\
examples:
  a run            %(prog)s output/mine
  other data       %(prog)s output/mine --output output/other dataloader.root=otherdata
  slower, better   %(prog)s output/mine --output output/tta --tta
  published        %(prog)s maskdino_r50_coco_instance --weights published.pth dataloader.root=coco
  by other words   %(prog)s MODEL --weights openseed.pth --classes words.txt dataloader.root=data
  saved results    %(prog)s output/mine dataloader.evaluators.coco.output_dir=output/results

results.json, predictions.png and report.html go to --output, which for a run is its own folder.
"""
RUN_CONFIG = "config.yaml"


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    add_config(parser, others="the folder of a run, or ")
    parser.add_argument(
        "--weights", metavar="W", help="file, folder, URL or name in the zoo; by default those of the run"
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="what the classes of the data are called, in their order, a name on each line; for models that "
        "read words, such as OpenSeeD",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="for results (train.output_dir)")
    parser.add_argument("--num-gpus", type=positive, default=1, metavar="N", help="processes, one per GPU")
    add_inference(parser)
    add_overrides(parser)
    parsed = parse(parser, arguments)
    parsed.overrides = [*inference_overrides(parsed), *parsed.overrides]
    folder = Path(parsed.config_file)
    if folder.is_dir():
        parsed.weights = parsed.weights or str(folder)
        parsed.output = parsed.output or folder
        parsed.config_file = str(folder / RUN_CONFIG)
    elif parsed.weights is None and not any("init_checkpoint=" in word for word in parsed.overrides):
        parser.error(f"--weights says what to evaluate; or give the folder of a run instead of {folder}")
    return parsed


def run(arguments: argparse.Namespace) -> None:
    """Evaluates.

    Raises:
        SystemExit: see :func:`detrex.cli.train.main`.
    """
    with listening(), readable_errors(arguments.debug):
        from detrex.cli.train import main
        from detrex.cli.words import set_words
        from detrex.engine.launch import launch

        config = read_config(arguments)
        if arguments.weights is not None:
            config.train.init_checkpoint = arguments.weights
        if arguments.classes is not None:
            set_words(config, arguments.classes)
        if arguments.output is not None:
            config.train.output_dir = str(arguments.output)
        launch(
            main,
            (config, True, False, False, arguments.debug),
            num_gpus=arguments.num_gpus,
            timeout=config.train.process_timeout,
        )
