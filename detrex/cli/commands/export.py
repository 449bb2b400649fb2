"""Writes a trained model as a file that runs without this toolbox."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import (
    add_overrides,
    add_trust_code,
    command_parser,
    image_size,
    is_override,
    positive,
)
from detrex.cli.errors import readable_errors

DESCRIPTION = (
    "Writes a trained model as one graph from raw pictures to results, which runs without this toolbox."
)
EXAMPLES = """\
examples:
  ONNX             %(prog)s output/mine --to onnx mine.onnx --verify photos
  boxes alone      %(prog)s output/mine --to onnx mine.onnx --tasks instance
  pictures of one size, one at a time
                   %(prog)s output/mine --to onnx mine.onnx --size 480x640 --batch 1
  OpenVINO         %(prog)s output/mine --to openvino mine.xml
  PyTorch program  %(prog)s output/mine --to torch mine.pt2
  AOTInductor, of models of boxes
                   %(prog)s output/mine --to aotinductor mine.pt2 --size 480x640 --batch 1
  8 bits           %(prog)s output/mine --to onnx small.onnx --int8 mydata/train
  half the size    %(prog)s output/mine --to onnx half.onnx --half
  words            %(prog)s output/openseed_shapes --classes "circle, star" --to onnx mine.onnx
  clicks           %(prog)s output/promptable_shapes --to onnx graphs
  page             %(prog)s output/mine --to web page --onnxruntime-web onnxruntime-web-1.30.0.tgz
  published        %(prog)s maskdino_r50_coco_instance --weights published --to onnx maskdino.onnx

The graph resizes and normalises pictures as the model wants them, and gives boxes, masks and maps at the size
of the picture. Its inputs are `images` (batch, height, width, 3), uint8 RGB, and the score thresholds. The
file keeps class names, thresholds and preprocessing; detrex.runtime.load loads it without PyTorch. With
--verify, the exit code is 1 where the file finds something else than the model (docs/deploy.md).

Models that answer clicks are a folder of files: picture.onnx, prompts.onnx and, where they know the words of
a vocabulary, words.onnx. Models that read any words are exported for those of --classes.

--to web writes a folder for any web server, such as `python -m http.server`: a page that finds objects in the
browser, in pictures and through the camera, without a network.
"""
FORMATS = ("onnx", "openvino", "torch", "aotinductor", "web")
TASKS = ("instance", "panoptic", "semantic")


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder of a run, weights file of this toolbox, config (file or name), or name in the model zoo",
    )
    parser.add_argument("--to", choices=FORMATS, default="onnx", help="the format (default: onnx)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="the file, or the folder of --to web, to write; the same as a plain word",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="file, folder or URL, or 'published' to download those of the model zoo; by default the run's",
    )
    parser.add_argument(
        "--classes",
        metavar="WORDS",
        help="the classes of models that read words, such as OpenSeeD: names with commas between, or a file "
        "with a name on each line",
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="results that the file gives; default: all")
    parser.add_argument(
        "--batch", type=positive, metavar="N", help="pictures of each call (default: any number)"
    )
    parser.add_argument(
        "--size", type=image_size, metavar="HxW", help="size of all pictures in pixels (default: any)"
    )
    parser.add_argument(
        "--sides",
        type=positive,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="smallest and largest height and width of pictures in pixels (default: 2 8192)",
    )
    bits = parser.add_mutually_exclusive_group()
    bits.add_argument(
        "--int8",
        nargs="+",
        metavar="PATH",
        help="weights and activations of 8 bits, calibrated on the first 64 of these pictures",
    )
    bits.add_argument(
        "--half",
        action="store_true",
        help="keep weights in 16 bits: half the size, the same time and memory as in 32",
    )
    parser.add_argument(
        "--int8-float",
        nargs="+",
        metavar="MODULE",
        help="modules that stay in float32 with --int8, such as 'encoder.*'",
    )
    runtime = parser.add_mutually_exclusive_group()
    runtime.add_argument(
        "--onnxruntime-web",
        type=Path,
        metavar="PATH",
        help="for --to web: the archive that 'npm pack onnxruntime-web' makes, or a folder with the package",
    )
    runtime.add_argument(
        "--download",
        action="store_true",
        help="for --to web: download onnxruntime-web (33 MB) from registry.npmjs.org once",
    )
    parser.add_argument(
        "--verify",
        nargs="+",
        metavar="PATH",
        help="pictures, folders or patterns: predict with the file and with PyTorch, and compare",
    )
    parser.add_argument("--allow-pickle", action="store_true", help="read old detectron2 .pkl files")
    add_trust_code(parser)
    add_overrides(parser, others="OUT")
    parsed = parser.parse_intermixed_args(arguments)
    words = [word for word in parsed.overrides if not is_override(word)]
    parsed.overrides = [word for word in parsed.overrides if is_override(word)]
    if len(words) + (parsed.output is not None) != 1:
        parser.error("name the one file to write, such as mine.onnx, or the one folder of --to web")
    if words:
        parsed.output = Path(words[0])
    if parsed.size is not None and parsed.sides is not None:
        parser.error("--size and --sides exclude each other")
    _check_bits(parser, parsed)
    _check_web(parser, parsed)
    return parsed


def _check_bits(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    for option in ("int8", "half"):
        if getattr(parsed, option) and parsed.to not in ("onnx", "openvino", "web"):
            parser.error(f"--{option} goes with --to onnx, --to openvino and --to web")
    if parsed.int8_float and not parsed.int8:
        parser.error("--int8-float goes with --int8")


def _check_web(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    has_runtime = parsed.download or parsed.onnxruntime_web is not None
    if parsed.to != "web":
        if has_runtime:
            parser.error("--onnxruntime-web and --download go with --to web")
    elif parsed.size is not None or parsed.batch is not None:
        parser.error("a page takes pictures of any size: --size and --batch do not go with --to web")
    elif not has_runtime:
        parser.error(
            "a page needs onnxruntime-web of npm. Give --download to fetch it from registry.npmjs.org once "
            "(33 MB), or get it by 'npm pack onnxruntime-web@1.30.0' and give --onnxruntime-web "
            "onnxruntime-web-1.30.0.tgz. 14 MB of it go into the folder"
        )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command.

    Raises:
        SystemExit: with code 1, if the results of the file and the model differ, or after an error that the
            user can solve was logged.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with readable_errors(arguments.debug, allows_pickle=True):
        from detrex.cli.exporting import run_export

        run_export(arguments)
