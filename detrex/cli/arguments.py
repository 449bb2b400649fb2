"""Shared arguments of the commands; nothing heavy is imported before they are read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def command_parser(
    description: str, epilog: str | None = None, prog: str | None = None
) -> argparse.ArgumentParser:
    """A parser that shows both texts unchanged, except for ``%(prog)s``."""
    return argparse.ArgumentParser(
        prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config(parser: argparse.ArgumentParser, others: str = "") -> None:
    """Adds the config, which is the first plain word or follows ``--config-file``, and ``--trust-code``.

    Args:
        parser: see :func:`parse`.
        others: what may be given instead of a config, for the help.
    """
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help=f"{others}the name of a config of this package ('detrex configs' lists them) or of a published "
        "model ('detrex zoo'), or a file: .py, or a saved .yaml",
    )
    parser.add_argument("--config-file", metavar="CONFIG", help="the same")
    add_trust_code(parser)


def add_trust_code(parser: argparse.ArgumentParser) -> None:
    """Adds the option ``--trust-code``."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="let a config that lies beside weights, or in them, name any code, which then runs: needed for "
        "components of your own (docs/security.md)",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--eval-only``, ``--resume`` and ``--overwrite``."""
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


def add_overrides(parser: argparse.ArgumentParser, others: str = "") -> None:
    """Adds ``--debug``, and changes to the config among the plain words.

    Args:
        parser: gets the changes as ``overrides``.
        others: other meanings of plain words, for the help.
    """
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar=f"{others} or KEY=VALUE" if others else "KEY=VALUE",
        help="changes to the config; +KEY=VALUE adds, ~KEY removes",
    )


def add_inference(parser: argparse.ArgumentParser) -> None:
    """Adds options to look at each picture more than once; see :func:`inference_overrides`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--tta",
        action="store_true",
        help="look at each picture at three sizes and mirrored, and fuse the results (6 times the time)",
    )
    group.add_argument(
        "--tiles",
        type=positive,
        metavar="PIXELS",
        help="cut large pictures into overlapping tiles of this size, and join their results",
    )
    group.add_argument(
        "--window",
        type=positive,
        metavar="PIXELS",
        help="semantic results from windows of this size that slide over the picture as it is resized",
    )


def inference_overrides(arguments: argparse.Namespace) -> list[str]:
    """Changes to the config that the options of :func:`add_inference` stand for."""
    if arguments.tta:
        return ["model.inference={_target_: detrex.modeling.TestTimeAugmentation}"]
    if arguments.tiles is not None:
        return [f"model.inference={{_target_: detrex.modeling.Tiles, size: {arguments.tiles}}}"]
    if arguments.window is not None:
        return [f"model.inference={{_target_: detrex.modeling.SlidingWindow, size: {arguments.window}}}"]
    return []


def is_override(word: str) -> bool:
    """Whether a plain word of a command line changes the config."""
    return "=" in word or word.startswith("~")


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, config_needed: bool = True
) -> argparse.Namespace:
    """Parses a command line with options and plain words in any order; ``config_file`` is the config.

    Args:
        parser: with :func:`add_config` and :func:`add_overrides`.
        arguments: by default, those of this process.
        config_needed: whether a missing config is an error.
    """
    parsed = parser.parse_intermixed_args(arguments)
    first = parsed.config
    del parsed.config
    if first is not None and (parsed.config_file is not None or is_override(first)):
        parsed.overrides.insert(0, first)
    elif first is not None:
        parsed.config_file = first
    if parsed.config_file is None and config_needed:
        parser.error("no config is named: give the name of one ('detrex configs' lists them) or a file")
    return parsed


def read_config(arguments: argparse.Namespace) -> DictConfig:
    """The config that the command line describes.

    Raises:
        ConfigError: there is no such config, an override does not fit it, or it is a ``.yaml`` beside weights
            that names more than components of this toolbox.
    """
    from detrex.checkpoint import zoo_entries
    from detrex.config.untrusted import load_config_file

    rows = zoo_entries()
    name = arguments.config_file
    path = rows[name].config if name in rows else name
    return load_config_file(path, arguments.overrides, arguments.trust_code)


def positive(text: str) -> int:
    """An integer from 1 on; a type of arguments.

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
