"""Lists the model zoo: published models, their configs, results and files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detrex.cli.arguments import command_parser
from detrex.cli.errors import readable_errors

DESCRIPTION = "Lists the model zoo: published models, their configs, results and files."
EXAMPLES = """\
examples:
  %(prog)s                names and what they are
  %(prog)s NAME           all that is known of one
  %(prog)s --markdown     the table of docs/model_zoo.md
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a row of the zoo, or a part of its name")
    parser.add_argument("--markdown", action="store_true", help="as Markdown, with links")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Prints what the command line asks for."""
    with readable_errors(arguments.debug):
        from detrex.checkpoint import zoo_entries
        from detrex.cli.zoo_table import markdown, matching, show

        listed = list(zoo_entries().values()) if arguments.name is None else matching(arguments.name)
        if arguments.markdown:
            print(markdown(listed), end="")
        else:
            show(listed)
