"""Submits training to Slurm, on one machine or many; restarts continue the run; see --help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from detrex.cli.arguments import (
    add_config,
    add_overrides,
    add_run_options,
    command_parser,
    parse,
    read_config,
)
from detrex.cli.errors import readable_errors

DESCRIPTION = "Submits training to Slurm: one machine or many, with restarts that go on where the run was."
EXAMPLES = """\
examples:
  2 machines of 8 GPUs  %(prog)s CONFIG --num-machines 2 --num-gpus 8 --minutes 1440 \\
                            --slurm partition=gpu --slurm account=vision train.output_dir=/shared/run
  on this machine       %(prog)s CONFIG --executor local --num-gpus 2

The config is read now; the data is read, and train.output_dir must be reachable, where the job runs. When its
time is over, or the job is preempted, the run saves a checkpoint, waits in the queue again and goes on.
Logs of the processes are in train.output_dir/submitit, everything else is as with 'detrex train'.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    add_config(parser)
    add_run_options(parser)
    parser.add_argument("--executor", default="slurm", metavar="NAME", help="slurm (default) or local")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines (1)")
    parser.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="GPUs and processes on each of them (1)"
    )
    parser.add_argument("--cpus-per-gpu", type=int, default=8, metavar="N", help="cores for each process (8)")
    parser.add_argument(
        "--minutes",
        type=int,
        default=24 * 60,
        metavar="N",
        help="until the job waits in the queue again (1440)",
    )
    parser.add_argument(
        "--signal-delay",
        type=int,
        default=120,
        metavar="SECONDS",
        help="to save a checkpoint before that (120)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of sbatch, such as partition=gpu; may be given several times",
    )
    add_overrides(parser)
    return parse(parser, arguments)


def run(arguments: argparse.Namespace) -> Any:
    """Loads the config and submits the job, which it returns."""
    with readable_errors(arguments.debug):
        from detrex.cli.submission import TrainingJob, submit

        config = read_config(arguments)
        job = submit(
            TrainingJob(config, arguments.eval_only, arguments.resume, arguments.overwrite, arguments.debug),
            arguments.executor,
            num_machines=arguments.num_machines,
            num_gpus=arguments.num_gpus,
            cpus_per_gpu=arguments.cpus_per_gpu,
            minutes=arguments.minutes,
            signal_delay=arguments.signal_delay,
            options=dict(_option(text) for text in arguments.slurm),
        )
    print(f"submitted job {job.job_id}; its log is {job.paths.stdout}")
    return job


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--slurm {text}: expected KEY=VALUE, such as partition=gpu")
    return key.lstrip("-"), value
