"""Trains or evaluates what a config file describes; see --help."""

from __future__ import annotations

from detrex.runtime.interruption import listen

if __name__ in ("__main__", "__mp_main__"):
    listen()  # before the imports below, which take seconds

import argparse

from detrex.cli.arguments import (
    add_config_file,
    add_overrides,
    add_run_options,
    command_parser,
    read_config,
)
from detrex.cli.errors import readable_errors
from detrex.cli.train import main
from detrex.engine import launch

EXAMPLES = """\
examples:
  train            train_net.py --config-file CONFIG.py train.output_dir=output/a
  own settings     train_net.py --config-file CONFIG.py train.max_iter=2000 optimizer.lr=5e-5 train.amp=bf16
  go on            train_net.py --config-file CONFIG.py train.output_dir=output/a --resume
  fine-tune        train_net.py --config-file CONFIG.py train.init_checkpoint=model.safetensors
  evaluate         train_net.py --config-file CONFIG.py --eval-only train.init_checkpoint=model.safetensors
  8 GPUs           train_net.py --config-file CONFIG.py --num-gpus 8
  or with torchrun torchrun --nproc-per-node 8 tools/train_net.py --config-file CONFIG.py
  2 machines       torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
                       tools/train_net.py --config-file CONFIG.py  (on both; or see submit.py)

A run is kept in train.output_dir: log.txt, metrics.jsonl, evaluations.json, config.yaml, categories.json,
environment.txt, checkpoints/, model_final.safetensors, results.json, predictions.png and report.html, the
page to look at first. Errors end with exit code 1. Recipes for all sizes of machines: docs/training.md.

SIGTERM, SIGUSR1 or Ctrl-C lets the step end, saves a checkpoint and ends the run with exit code 75: repeat
the command with --resume to go on as if never stopped. A second one, a second or more later, ends it at once.
A run that fails saves its last complete step, too. Only one run at a time can write to train.output_dir.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(__doc__, EXAMPLES)
    add_config_file(parser)
    add_run_options(parser)
    _add_processes(parser)
    add_overrides(parser)
    return parser.parse_intermixed_args(arguments)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes here: one per GPU, or on the CPU",
    )
    parser.add_argument(
        "--num-machines", type=int, default=1, metavar="N", help="machines that train together"
    )
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="K", help="number of this machine, from 0"
    )
    parser.add_argument(
        "--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0, for several machines"
    )


def run(arguments: argparse.Namespace) -> None:
    """Loads the config and starts the processes."""
    with readable_errors(arguments.debug):
        config = read_config(arguments)
        launch(
            main,
            (config, arguments.eval_only, arguments.resume, arguments.overwrite, arguments.debug),
            num_gpus=arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            timeout=config.train.process_timeout,
        )


if __name__ == "__main__":
    run(parse_arguments())
