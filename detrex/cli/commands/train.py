"""Trains or evaluates what a config describes; see --help."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import (
    add_config,
    add_overrides,
    add_run_options,
    command_parser,
    parse,
    read_config,
)
from detrex.cli.errors import readable_errors
from detrex.runtime.interruption import listening

DESCRIPTION = "Trains or evaluates what a config describes."
EXAMPLES = """\
examples:
  own data         %(prog)s --data mydata
  by a config      %(prog)s maskdino_custom_instance dataloader.root=mydata train.output_dir=output/a
  own settings     %(prog)s CONFIG train.max_iter=2000 optimizer.lr=5e-5 train.amp=bf16
  go on            %(prog)s CONFIG train.output_dir=output/a --resume
  fine-tune        %(prog)s CONFIG train.init_checkpoint=model.safetensors
  evaluate         %(prog)s CONFIG --eval-only train.init_checkpoint=model.safetensors
  8 GPUs           %(prog)s CONFIG --num-gpus 8
  or with torchrun torchrun --nproc-per-node 8 -m detrex train CONFIG
  2 machines       torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
                       -m detrex train CONFIG  (on both; or see 'detrex submit')

A run is kept in train.output_dir: log.txt, metrics.jsonl, evaluations.json, config.yaml, categories.json,
environment.txt, checkpoints/, model_final.safetensors, results.json, predictions.png and report.html, the
page to look at first. Errors end with exit code 1. Recipes for all sizes of machines: docs/training.md.

SIGTERM, SIGUSR1 or Ctrl-C lets the step end, saves a checkpoint and ends the run with exit code 75: repeat
the command with --resume to go on as if never stopped. A second one, a second or more later, ends it at once.
A run that fails saves its last complete step, too. Only one run at a time can write to train.output_dir.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    add_config(parser)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="your own data, instead of CONFIG: a folder with images and COCO files, or one such file. A "
        "config and settings that fit it are chosen, shown as a command of their own, and used",
    )
    add_run_options(parser)
    _add_processes(parser)
    add_overrides(parser)
    parsed = parse(parser, arguments, config_needed=False)
    if parsed.data is None and parsed.config_file is None:
        parser.error(
            "no config is named: give the name of one ('detrex configs' lists them) or a file, or --data"
        )
    if parsed.data is not None and parsed.config_file is not None:
        parser.error("--data chooses the config: leave one of them out")
    return parsed


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
    """Loads the config and starts the processes.

    Raises:
        SystemExit: see :func:`detrex.cli.train.main`.
    """
    # Before the imports below, which take seconds.
    with listening(), readable_errors(arguments.debug):
        from detrex.cli.train import main
        from detrex.engine.launch import launch

        if arguments.data is not None:
            from detrex.cli.own_data import choose

            choice = choose(arguments.data, arguments.overrides)
            print("\n".join([*choice.words, "", "The same as:", choice.command(arguments.overrides), ""]))
            arguments.config_file = choice.config
            arguments.overrides = [*choice.overrides, *arguments.overrides]
        config = read_config(arguments)
        again = "" if arguments.eval_only else resume_command(sys.argv)
        launch(
            main,
            (config, arguments.eval_only, arguments.resume, arguments.overwrite, arguments.debug, again),
            num_gpus=arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            timeout=config.train.process_timeout,
        )


def resume_command(words: Sequence[str]) -> str:
    """The command line that resumes the run of another one.

    Args:
        words: in the form of ``sys.argv``.
    """
    program = Path(words[0])
    start = ["python", words[0]] if program.suffix == ".py" else [program.name]
    if program.name == "__main__.py":
        start = ["python", "-m", program.parent.name]
    rest = [word for word in words[1:] if word not in ("--resume", "--overwrite")]
    return shlex.join([*start, *rest, "--resume"])
