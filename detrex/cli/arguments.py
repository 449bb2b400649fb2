"""What the command lines of the tools have in common."""

from __future__ import annotations

import argparse
import re

from omegaconf import DictConfig

from detrex.config.untrusted import load_config_file


def command_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser that shows both texts as they are written."""
    return argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """``--config-file`` and ``--trust-code``."""
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="a config: .py, or a saved .yaml"
    )
    add_trust_code(parser)


def add_trust_code(parser: argparse.ArgumentParser) -> None:
    """``--trust-code``."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="let a config that lies beside weights, or in them, name any code, which then runs: needed for "
        "components of your own (docs/security.md)",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """``--eval-only``, ``--resume`` and ``--overwrite``."""
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="evaluate train.init_checkpoint or, with --resume, the last checkpoint of the run",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in train.output_dir as if never stopped; or start anew",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete an earlier run in train.output_dir (otherwise, unless resumed, that is an error)",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``--debug``, and changes to the config after all options."""
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="changes to the config; +KEY=VALUE adds, ~KEY removes",
    )


def read_config(arguments: argparse.Namespace) -> DictConfig:
    """The config that the command line describes.

    Raises:
        ConfigError: there is no such file, an override does not fit it, or it is a ``.yaml`` beside weights
            that names more than components of this toolbox.
    """
    return load_config_file(arguments.config_file, arguments.overrides, arguments.trust_code)


def positive(text: str) -> int:
    """A whole number from 1 on; a type of arguments.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    """Height and width in pixels, from ``800x1333``; a type of arguments.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or "0" in match.groups():
        raise argparse.ArgumentTypeError(f"'{text}' is not a size like 800x1333 (height x width)")
    return int(match[1]), int(match[2])
