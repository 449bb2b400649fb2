"""Answers requests for predictions over HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detrex.cli.arguments import (
    add_inference,
    add_overrides,
    add_trust_code,
    command_parser,
    inference_overrides,
    is_override,
    positive,
)
from detrex.cli.errors import readable_errors

DESCRIPTION = "Answers requests for predictions over HTTP."
EXAMPLES = """\
examples:
  a run's model   %(prog)s output/mine --port 8000
  to the network  %(prog)s output/mine --host 0.0.0.0
  ask it          curl -F images=@photo.jpg http://127.0.0.1:8000/predict
  a picture       curl -F images=@photo.jpg -F format=png -o found.png http://127.0.0.1:8000/predict

/predict takes files as a form or, in base64, as JSON, and answers in COCO's JSON or with a picture; /health
says whether the model is ready, /metrics counts for Prometheus, and /docs describes it all. The server is for
this computer alone, unless --host says otherwise: it asks nobody who they are, so put a proxy that does
before it.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument("--weights", metavar="W", help="file, folder or URL; by default those of the run")
    parser.add_argument("--allow-pickle", action="store_true", help="read old detectron2 .pkl files")
    add_trust_code(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--device", default="auto", help="auto (the default: a GPU if there is one), cpu, cuda:1"
    )
    parser.add_argument("--amp", default="off", choices=("off", "bf16", "fp16"), help="mixed precision")
    parser.add_argument(
        "--max-batch", type=positive, default=8, metavar="N", help="pictures at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-wait",
        type=float,
        default=5.0,
        metavar="MS",
        help="milliseconds that a picture waits for others (default: %(default)s)",
    )
    parser.add_argument(
        "--queue",
        type=positive,
        default=64,
        metavar="N",
        help="pictures that may wait (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds for a request (default: %(default)s)",
    )
    parser.add_argument(
        "--max-upload", type=positive, default=32, metavar="MB", help="of a request (default: %(default)s)"
    )
    parser.add_argument(
        "--max-images", type=positive, default=16, metavar="N", help="of a request (default: %(default)s)"
    )
    parser.add_argument(
        "--max-pixels",
        type=positive,
        default=50_000_000,
        metavar="N",
        help="of a picture (default: %(default)s)",
    )
    add_inference(parser)
    add_overrides(parser, others="MODEL")
    parsed = parser.parse_intermixed_args(arguments)
    models = [word for word in parsed.overrides if not is_override(word)]
    if len(models) != 1:
        parser.error(
            "name one model: the folder of a run, a weights file, a config, or a name in the model zoo"
        )
    parsed.model = models[0]
    changes = [word for word in parsed.overrides if word not in models]
    parsed.overrides = [*inference_overrides(parsed), *changes]
    return parsed


def run(arguments: argparse.Namespace) -> None:
    """Serves until it is stopped (Ctrl-C, SIGTERM), and then answers the requests that are waiting.

    Raises:
        SystemExit: with code 1, after an error that the user can solve was logged.
    """
    with readable_errors(arguments.debug, allows_pickle=True):
        from detrex.cli.serving import serve

        serve(arguments)
