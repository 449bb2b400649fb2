"""Lists the configs that come with this package, or shows one."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence

from detrex.cli.arguments import command_parser
from detrex.cli.errors import readable_errors

_ROOM_FOR_SUMMARY = 60  # columns needed beside the names; otherwise, the summary stands below

DESCRIPTION = "Lists the configs that come with this package, or shows one."
EXAMPLES = """\
examples:
  %(prog)s             all of them
  %(prog)s swin        those with this in their name
  %(prog)s NAME        what one is, and where its file lies
  %(prog)s NAME --py   one as a whole, with all defaults; a file to keep and change
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a config, or a part of it")
    parser.add_argument("--py", action="store_true", help="print the whole config as Python")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    parsed = parser.parse_args(arguments)
    if parsed.py and parsed.name is None:
        parser.error("--py needs the NAME of a config")
    return parsed


def run(arguments: argparse.Namespace) -> None:
    """Prints what the command line asks for; ends with exit code 1 after an error."""
    with readable_errors(arguments.debug):
        from detrex.config import LazyConfig, find_config, shipped_configs
        from detrex.config.names import description_of, summary_of

        configs = shipped_configs()
        name = arguments.name
        if arguments.py:
            print(LazyConfig.to_py(LazyConfig.load(find_config(name))), end="")
            return
        listed = {key: path for key, path in configs.items() if name is None or name in key}
        if name in configs or not listed:
            path = find_config(name)
            print(f"{path}\n\n{description_of(path)}")
            return
        width = max(map(len, listed))
        columns = shutil.get_terminal_size().columns
        for key, path in listed.items():
            if columns < width + _ROOM_FOR_SUMMARY:
                print(f"{key}\n    {textwrap.shorten(summary_of(path), columns - 4, placeholder='...')}")
            else:
                summary = textwrap.shorten(summary_of(path), columns - width - 2, placeholder="...")
                print(f"{key:<{width}}  {summary}")
