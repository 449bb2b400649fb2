"""Measures speed and memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from detrex.cli.arguments import (
    add_config,
    add_overrides,
    command_parser,
    image_size,
    parse,
    positive,
)
from detrex.cli.errors import readable_errors

DESCRIPTION = """\
Measures speed and memory; see docs/benchmarks.md and '%(prog)s COMMAND --help'.

commands:
  op          deformable attention: its implementations against the reference
  model       inference and training steps of a config's model, by part, and peak memory
  data        images per second of a config's training loader
  evaluation  seconds per 1000 images of a config's evaluators
  gpu-report  a page of all that is to be known of a GPU, in at most 10 minutes
  syncs       how often the processor waits for a GPU; counted anywhere
  scaling     how time and memory grow with objects, queries, image size, classes and batch
  serving     requests per second over HTTP, with batches and one by one
"""
EXAMPLES = """\
examples:
  %(prog)s op
  %(prog)s op --device cuda --dtype bf16 --batch 2
  %(prog)s model --config-file CONFIG --size 480x640 train.device=cpu
  %(prog)s model --config-file CONFIG --mode training --batch 2 --objects 20 train.amp=bf16
  %(prog)s model --config-file CONFIG --compare "" "model.decoder.layers.num_layers=6 train.amp=bf16"
  %(prog)s model --compare OLD.py NEW.py --mode inference --output compared.json
  %(prog)s data --config-file CONFIG --workers 8 dataloader.root=/path/to/coco
  %(prog)s evaluation --config-file CONFIG dataloader.root=/path/to/coco
  %(prog)s gpu-report --page gpu.md
  %(prog)s syncs --config-file CONFIG --size 480x640
  %(prog)s serving --model output/mine --size 480x640 --requests 64
  %(prog)s scaling --config-file CONFIG --html scaling.html
  %(prog)s scaling --config-file CONFIG --axes objects=1,10,100 batch=1,2,4 --size 512x512
"""

SIZES = [(800, 1333), (1024, 1024)]
REPORT_SIZES = [(480, 640), (800, 1333)]
REPORT_CONFIG = "maskdino_r50_coco_instance_50ep"
AXES = ("objects", "queries", "size", "classes", "batch")
DTYPES = ("fp32", "fp64", "bf16", "fp16")


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument("command", choices=_OPTIONS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the command")
    chosen = parser.parse_args(arguments)
    of_command = command_parser(f"{parser.prog} {chosen.command}", prog=f"{parser.prog} {chosen.command}")
    of_command.add_argument("--repeats", type=positive, default=5, metavar="N", help="runs that count")
    of_command.add_argument(
        "--output", type=Path, metavar="FILE", help="write all measurements there, as JSON"
    )
    of_command.add_argument("--threads", type=positive, metavar="N", help="of PyTorch on the CPU")
    parsed = _OPTIONS[chosen.command](of_command, chosen.options)
    return argparse.Namespace(command=chosen.command, **vars(parsed))


def _op(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of all inputs (default: fp32)")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=image_size,
        default=SIZES,
        metavar="HxW",
        help="default: 800x1333 1024x1024",
    )
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images (default: 1)")
    parser.add_argument("--queries", type=positive, default=300, metavar="N", help="of the decoder")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(options)


def _model(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    add_config(parser)
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="each a config file, or overrides of --config-file's in one quoted argument ('' for none), or "
        "both",
    )
    parser.add_argument("--mode", choices=("inference", "training", "both"), default="both")
    parser.add_argument("--size", type=image_size, default=SIZES[0], metavar="HxW", help="default: 800x1333")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images (default: 1)")
    parser.add_argument(
        "--objects", type=positive, default=8, metavar="N", help="of each image, in training (default: 8)"
    )
    parser.add_argument(
        "--warmup", type=positive, default=1, metavar="N", help="runs before those that count"
    )
    add_overrides(parser)
    return parse(parser, options, config_needed=False)


def _data(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    add_config(parser)
    parser.add_argument("--images", type=positive, default=200, metavar="N", help="of one run (default: 200)")
    parser.add_argument("--workers", type=int, metavar="N", help="dataloader.train.num_workers")
    add_overrides(parser)
    return parse(parser, options)


def _evaluation(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    add_config(parser)
    parser.add_argument("--images", type=positive, default=50, metavar="N", help="test images (default: 50)")
    parser.add_argument(
        "--detections", type=positive, default=100, metavar="N", help="in each (default: 100)"
    )
    add_overrides(parser)
    return parse(parser, options)


def _gpu_report(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    add_config(parser)
    parser.add_argument("--device", default="cuda", help="to measure on (default: cuda)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page there, as Markdown")
    parser.add_argument(
        "--minutes", type=positive, default=10, metavar="N", help="that it may take (default: 10)"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=image_size, default=REPORT_SIZES, metavar="HxW", help="480x640 800x1333"
    )
    parser.add_argument("--batch", type=positive, default=2, metavar="N", help="images (default: 2)")
    parser.add_argument("--objects", type=positive, default=8, metavar="N", help="of each image, in training")
    add_overrides(parser)
    parsed = parse(parser, options, config_needed=False)
    parsed.config_file = parsed.config_file or REPORT_CONFIG
    return parsed


def _syncs(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    add_config(parser)
    parser.add_argument("--size", type=image_size, default=(480, 640), metavar="HxW", help="default: 480x640")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images (default: 1)")
    parser.add_argument("--objects", type=positive, default=8, metavar="N", help="of each image, in training")
    add_overrides(parser)
    return parse(parser, options)


def _scaling(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    add_config(parser)
    parser.add_argument(
        "--axes",
        nargs="+",
        type=_axis,
        metavar="AXIS[=N,...]",
        help="what grows, and through which values: objects, queries, size, classes, batch (default: all)",
    )
    parser.add_argument(
        "--size", type=image_size, default=(256, 256), metavar="HxW", help="where it does not grow (256x256)"
    )
    parser.add_argument(
        "--objects", type=positive, default=8, metavar="N", help="where they do not grow (default: 8)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of curves")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the curves alone as a picture")
    add_overrides(parser)
    return parse(parser, options)


def _axis(text: str) -> tuple[str, tuple[int, ...]]:
    """Parses ``objects=1,10`` into the name of an axis and its values, which may be empty."""
    name, _, values = text.partition("=")
    numbers = tuple(positive(value) for value in values.split(",")) if values else ()
    if name not in AXES or list(numbers) != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected is one of {', '.join(AXES)}, and ascending values as in objects=1,10,100"
        )
    return name, numbers


def _serving(parser: argparse.ArgumentParser, options: Sequence[str]) -> argparse.Namespace:
    parser.add_argument("--model", required=True, metavar="MODEL", help="as of 'detrex serve'")
    parser.add_argument("--weights", metavar="W", help="file, folder or URL; by default those of the run")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument(
        "--clients", nargs="+", type=positive, default=[1, 8, 32], metavar="N", help="default: 1 8 32"
    )
    parser.add_argument("--requests", type=positive, default=64, metavar="N", help="of one run (default: 64)")
    parser.add_argument("--size", type=image_size, default=(480, 640), metavar="HxW", help="default: 480x640")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    return parser.parse_args(options)


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser, Sequence[str]], argparse.Namespace]] = {
    "op": _op,
    "model": _model,
    "data": _data,
    "evaluation": _evaluation,
    "scaling": _scaling,
    "gpu-report": _gpu_report,
    "syncs": _syncs,
    "serving": _serving,
}


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes; ends with exit code 1 after an error."""
    with readable_errors(arguments.debug):
        from detrex.cli.benchmarks import measure

        measure(arguments)
