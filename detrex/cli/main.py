"""The command ``detrex COMMAND ...``, also ``python -m detrex``; ``tools/`` has files with older names."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import detrex
from detrex.runtime.threads import wait_briefly


@dataclass(frozen=True)
class Command:
    """A command of ``detrex``.

    Attributes:
        module: in ``detrex.cli.commands``, imported when the command is chosen.
        summary: one line for ``detrex --help``.
    """

    module: str
    summary: str


COMMANDS = {
    "train": Command("train", "train a model as a config says"),
    "eval": Command("eval", "measure a trained model on test data"),
    "predict": Command("predict", "find objects in pictures and videos"),
    "serve": Command("serve", "answer requests for predictions over HTTP"),
    "export": Command("export", "write a model as a file that runs anywhere"),
    "configs": Command("configs", "list the configs that come with this package"),
    "zoo": Command("zoo", "list the published models"),
    "view": Command("view", "draw training samples, or results beside the ground truth"),
    "check": Command("check", "find what is wrong with a data set"),
    "convert-data": Command("convert_data", "write annotations of any format as COCO JSON"),
    "convert-weights": Command("convert_weights", "convert checkpoints to this format, and back"),
    "analyze": Command("analyze", "count parameters, FLOPs and activations by module"),
    "benchmark": Command("benchmark", "measure speed and memory"),
    "submit": Command("submit", "train on Slurm, and go on after time-outs"),
    "push": Command("push", "upload a model to the Hugging Face hub"),
    "info": Command("info", "say what is installed here and what runs on it"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments name.

    Args:
        arguments: words after ``detrex``; by default those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        run_command(words[0], words[1:], f"detrex {words[0]}")
        return
    parser = _parser()
    parser.parse_args(words)
    parser.print_help()


def run_command(name: str, arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Reads the arguments of a command and runs it.

    Args:
        name: in :data:`COMMANDS`.
        arguments: words after its name; by default, those of this process.
        prog: how the user calls the command, for help and errors; by default, the name of the script.

    Raises:
        SystemExit: the arguments are wrong, or the command ended with an error.
    """
    module = importlib.import_module(f"detrex.cli.commands.{COMMANDS[name].module}")
    options = module.parse_arguments(arguments, prog)
    wait_briefly()
    module.run(options)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        "detrex",
        description="Detection and segmentation with Mask DINO and its relatives.",
        epilog="\n".join(["commands (detrex COMMAND --help tells more):", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"detrex-maskdino {detrex.__version__}")
    parser.add_argument("command", nargs="?", type=_known_command, metavar="COMMAND", help="see below")
    return parser


def _known_command(name: str) -> str:
    near = get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(COMMANDS)}"
    raise argparse.ArgumentTypeError(f"there is no command '{name}'; {hint}")
