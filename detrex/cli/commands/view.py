"""Draws what a data loader produces, or results beside the ground truth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detrex.cli.arguments import add_config, add_overrides, command_parser, parse, positive
from detrex.cli.errors import readable_errors

DEFAULT_COUNT = 8

DESCRIPTION = "Draws training samples with their targets, or results beside the ground truth."
COMMANDS = """\
commands (each with --help):
  data CONFIG                         what a config's data loader produces, beside the annotated images
  results CONFIG --predictions PATH   saved results beside the ground truth, the worst first with --worst
"""
OF_DATA = "Draws what a config's data loader produces, beside the images and annotations it is made of."
DATA_EXAMPLES = """\
examples:
  first samples of training   %(prog)s CONFIG
  of a data set of one's own  %(prog)s CONFIG dataloader.root=mydata --count 20
  other random numbers        %(prog)s CONFIG train.seed=1
  other augmentation          %(prog)s CONFIG dataloader.train.mapper.min_scale=0.5
  one image                   %(prog)s CONFIG --file-name 000000000139.jpg
  images for evaluation       %(prog)s CONFIG --split test
  without annotations         %(prog)s CONFIG --split test --no-targets

First comes a census: images, objects, classes, sizes. On the left is the image with its annotations. On the
right, for training, is the augmented sample with its targets, as a run with this config gets it: the first
samples, or those of the chosen images in the first epoch. For evaluation it is the image that the model gets.
The same command draws the same pictures. A broken image is named, and the next one drawn; the exit code is
then 1.
"""
OF_RESULTS = "Draws saved results beside the ground truth of a config's test data."
RESULTS_EXAMPLES = """\
results come from an evaluation with an output_dir for the evaluator, NAME being coco or panoptic:
  detrex eval CONFIG ... dataloader.evaluators.NAME.output_dir=output/results
or are COCO result files (boxes, masks, panoptic) made elsewhere. Semantic results are not saved.

examples:
  some images     %(prog)s CONFIG --predictions output/results
  the worst ones  %(prog)s CONFIG --predictions output/results --worst --count 20
  one image       %(prog)s CONFIG --predictions output/results --image-id 139

On the left is the ground truth of dataloader.test, on the right the results. The caption says how good they
are, and --worst goes by that. Of boxes and masks it is F1, the detections of at least the score threshold
being right that match an object of their class with an IoU of at least 0.5 (of masks where both sides have
them); an image without results has no detections. Of panoptic results it is PQ, the mean over the classes in
the image; images without results are left out. A broken image is named, and the next one drawn; the exit code
is then 1.
"""


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process; ``kind`` is ``data`` or ``results``."""
    parser = command_parser(DESCRIPTION, COMMANDS, prog)
    parser.add_argument("kind", choices=("data", "results"), metavar="data | results")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the command")
    chosen = parser.parse_args(arguments)
    parse_options = {"data": parse_data_arguments, "results": parse_results_arguments}[chosen.kind]
    return parse_options(chosen.options, f"{parser.prog} {chosen.kind}")


def parse_data_arguments(
    arguments: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    """The command line of ``view data``."""
    parser = command_parser(OF_DATA, DATA_EXAMPLES, prog)
    _add_common(parser, "output/visualize_data")
    parser.add_argument(
        "--split", choices=("train", "test"), default="train", help="which loader (default: %(default)s)"
    )
    parser.add_argument("--no-targets", action="store_true", help="read no annotations, where there are none")
    parser.set_defaults(kind="data")
    return parse(parser, arguments)


def parse_results_arguments(
    arguments: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    """The command line of ``view results``."""
    parser = command_parser(OF_RESULTS, RESULTS_EXAMPLES, prog)
    _add_common(parser, "output/visualize_results")
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="PATH",
        help="a file of results, or the output_dir of an evaluator",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="T",
        help="leave out detections of lower scores (default: %(default)s)",
    )
    parser.add_argument("--worst", action="store_true", help="the images with the worst results, worst first")
    parser.set_defaults(kind="results")
    return parse(parser, arguments)


def _add_common(parser: argparse.ArgumentParser, output: str) -> None:
    add_config(parser)
    parser.add_argument(
        "--count", type=positive, metavar="N", help=f"images to draw (default: {DEFAULT_COUNT})"
    )
    parser.add_argument(
        "--image-id", action="append", default=[], metavar="ID", help="draw this image; may be repeated"
    )
    parser.add_argument(
        "--file-name", action="append", default=[], metavar="NAME", help="likewise, by file name"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(output), metavar="DIR", help="for the PNGs (default: %(default)s)"
    )
    parser.add_argument("--grid", action="store_true", help="one picture, grid.png, instead of one per image")
    parser.add_argument("--no-labels", action="store_true", help="draw without class names and scores")
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draws; ends with exit code 1 after an error."""
    with readable_errors(arguments.debug):
        if arguments.kind == "data":
            from detrex.cli.data_pictures import draw_data as draw
        else:
            from detrex.cli.result_pictures import draw_results as draw
        count = draw(arguments)
    print(f"{count} images drawn in {arguments.output}")
