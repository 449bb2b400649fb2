"""Draws what a model finds in images, videos and the pictures of a camera, and writes it as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detrex.cli.arguments import (
    add_inference,
    add_overrides,
    add_trust_code,
    command_parser,
    inference_overrides,
    is_override,
)
from detrex.cli.errors import readable_errors

DESCRIPTION = (
    "Draws what a model finds in images, videos and the pictures of a camera, and writes it as JSON."
)
EXAMPLES = """\
examples:
  a run's model    %(prog)s photos --model output/mine --output found
  published        %(prog)s 'photos/**/*.jpg' --model maskdino_r50_coco_instance --weights published
  own file         %(prog)s a.jpg b.mp4 --model CONFIG --weights model.safetensors
  all pictures     %(prog)s photos --model output/mine --tasks instance panoptic semantic
  by words         %(prog)s photo.jpg --model MODEL --classes "red car, person, sky:stuff"
  JSON alone       %(prog)s photos --model output/mine --json found.json
  objects' numbers %(prog)s a.mp4 frames --model output/mine --output found --track
  camera           %(prog)s --webcam 0 --model output/mine --show
  slower, better   %(prog)s photos --model output/mine --tta
  config changes   %(prog)s photos --model output/mine --output found model.class_score.temperature=0.1

A picture of NAME.jpg is NAME_TASK.png, a video NAME_TASK.mp4; files that a pattern finds in subfolders keep
these below the output folder. Where two inputs have one name, the later keeps its suffix or gets a number.
With several tasks, each has a JSON file, FILE_TASK.json. A line for each picture says what was found, in how
many seconds. Files that cannot be read are named and left out; the exit code is then 1.
"""
TASKS = ("instance", "panoptic", "semantic")
DEFAULT_OUTPUT = "output/demo"
DEFAULT_CONFIDENCE = 0.5  # default score threshold of instances


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(DESCRIPTION, EXAMPLES, prog)
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="folder of a run, weights file of this toolbox, config (file or name), or name in the model zoo",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="file, folder or URL, or 'published' to download those of the model zoo; by default the run's",
    )
    parser.add_argument("--allow-pickle", action="store_true", help="read old detectron2 .pkl files")
    parser.add_argument(
        "--classes",
        metavar="WORDS",
        help='what to look for, as "red car, person, sky:stuff" or a file with a name on each line; for '
        "models that read words, such as OpenSeeD",
    )
    add_trust_code(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        default=[],
        metavar="PATH",
        help="image and video files, folders (without their subfolders), quoted glob patterns; the same as "
        "plain words",
    )
    parser.add_argument("--webcam", type=int, metavar="N", help="camera number N, until Ctrl-C")
    _add_output(parser)
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images at a time")
    parser.add_argument(
        "--device", default="auto", help="auto (the default: a GPU if there is one), cpu, cuda:1"
    )
    parser.add_argument("--amp", default="off", choices=("off", "bf16", "fp16"), help="mixed precision")
    add_inference(parser)
    add_overrides(parser, others="PATH")
    parsed = parser.parse_intermixed_args(arguments)
    paths = [word for word in parsed.overrides if Path(word).exists() or not is_override(word)]
    parsed.overrides = [word for word in parsed.overrides if word not in paths]
    parsed.overrides = [*inference_overrides(parsed), *parsed.overrides]
    parsed.input = [*paths, *parsed.input]
    if bool(parsed.input) == (parsed.webcam is not None):
        parser.error("name images or videos, or give --webcam" if not parsed.input else "--webcam is alone")
    if parsed.precision is not None and parsed.confidence_threshold is not None:
        parser.error("give --precision or --confidence-threshold")
    if parsed.show and parsed.webcam is None:
        parser.error("--show goes with --webcam")
    return parsed


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        metavar="DIR",
        help=f"folder for pictures and videos (default: {DEFAULT_OUTPUT}; none are made with --json alone)",
    )
    parser.add_argument("--json", metavar="FILE", help="write results in COCO's format")
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        metavar="T",
        help="leave out objects and panoptic segments of lower scores; by default, for the objects of each "
        "class what evaluation found best and kept with the weights, else "
        f"{DEFAULT_CONFIDENCE}, and for segments what the config says",
    )
    parser.add_argument(
        "--precision",
        type=float,
        metavar="P",
        help="leave out objects of scores below those that had this precision in the evaluation of the model",
    )
    parser.add_argument("--max-detections", type=int, metavar="N", help="at most N objects an image")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=TASKS,
        help="kinds of results; by default one: panoptic if the model gives it, else instance or semantic",
    )
    parser.add_argument(
        "--max-frames", type=int, metavar="N", help="stop a video or the camera after N frames"
    )
    parser.add_argument(
        "--track",
        action="store_true",
        help="number objects from frame to frame of videos, the camera, or pictures of one folder as frames",
    )
    parser.add_argument("--show", action="store_true", help="show the camera's frames in a window (q ends)")


def run(arguments: argparse.Namespace, **options: Any) -> None:
    """Runs the command.

    Args:
        arguments: of :func:`parse_arguments`.
        options: of :func:`detrex.cli.prediction.run_prediction`.

    Raises:
        SystemExit: with code 1, if a file could not be read, or after an error that the user can solve was
            logged.
    """
    with readable_errors(arguments.debug, allows_pickle=True):
        from detrex.cli.prediction import run_prediction

        run_prediction(arguments, **options)
