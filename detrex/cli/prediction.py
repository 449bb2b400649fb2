"""Draws what a model finds in images, videos and the pictures of a camera, and writes it as JSON."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic, perf_counter

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from detrex.cli.commands.predict import DEFAULT_CONFIDENCE, DEFAULT_OUTPUT
from detrex.data import DataError, read_words
from detrex.predict import Precision, Predictor, Result, load
from detrex.predict.coco_file import CocoFile
from detrex.predict.files import is_video, output_names
from detrex.predict.inputs import ImageInput
from detrex.predict.predictor import ErrorHandler, Threshold
from detrex.predict.result import by_content
from detrex.predict.video import FrameFolder, VideoReader, VideoWriter, Window, opencv
from detrex.runtime.progress import progress_bar

# Number of pictures without results for which the best score is reported, which takes a second look.
LOOKS_AGAIN = 5
LOWEST_HINT = 0.01  # lower scores are noise

Frames = VideoReader | FrameFolder
OpenVideo = Callable[[Path | int], VideoReader]
Screen = Callable[[Image.Image], bool]


class PredictionRun:
    """Runs the command with a model.

    Attributes:
        failures: number of files that could not be read.
        written: number of pictures and videos that were written.
    """

    def __init__(self, predictor: Predictor, arguments: argparse.Namespace, console: Console):
        self.predictor, self.arguments, self.console = predictor, arguments, console
        default = ("instance",) if arguments.track else by_content(predictor.tasks)[:1]
        self.tasks = arguments.tasks or list(default)
        draws = arguments.output or not arguments.json
        self.output = Path(arguments.output or DEFAULT_OUTPUT) if draws else None
        paths = _json_paths(arguments.json, self.tasks) if arguments.json else {}
        self.json = [CocoFile(path, task, predictor.categories) for task, path in paths.items()]
        self.failures = self.written = self.empty = 0

    def run_on_files(self, names: dict[Path, Path], open_video: OpenVideo) -> None:
        """Predicts on all images, then on all videos.

        Args:
            names: of the files, see :func:`detrex.predict.files.output_names`.
            open_video: see :func:`run_prediction`.

        Raises:
            FileExistsError: a picture would replace one of the files.
        """
        self._check_outputs(names)
        images, videos = ([f for f in names if is_video(f) == wanted] for wanted in (False, True))
        with progress_bar(self.console) as progress:
            if images and self.arguments.track:
                for folder in dict.fromkeys(image.parent for image in images):
                    frames = sorted((i for i in images if i.parent == folder), key=_by_number)
                    name = names[frames[0]].parent / (folder.name or "frames")
                    self._video(partial(FrameFolder, frames), name, progress)
            elif images:
                self._images(images, names, progress)
            for video in videos:
                self._video(partial(open_video, video), names[video], progress)

    def run_on_camera(self, open_video: OpenVideo) -> None:
        """Predicts until Ctrl-C, a key in the window or the last wanted frame."""
        with progress_bar(self.console) as progress, open_video(self.arguments.webcam) as reader:
            self._say(f"{reader.name}: Ctrl-C ends")
            try:
                self._frames(reader, Path("webcam"), progress)
            except KeyboardInterrupt:
                self._say("stopped")

    def finish(self) -> int:
        """Writes the JSON files, reports what was done, and returns the exit code."""
        for file in self.json:
            self._say(f"wrote {file.write()}")
        if self.output is not None:
            self._say(f"pictures and videos written to {self.output}: {self.written}")
        if self.empty:
            self._say(f"pictures without results: {self.empty}")
        if self.failures:
            self._say(f"files left out because they could not be read: {self.failures}", "bold red")
        return 1 if self.failures else 0

    def _images(self, images: list[Path], names: dict[Path, Path], progress: Progress) -> None:
        bar = progress.add_task("images", total=len(images))

        def leave_out(_image: object, error: DataError) -> None:
            self._fail(error)
            progress.advance(bar)

        start = perf_counter()
        for result in self._predict(images, self.arguments.batch_size, leave_out):
            for task in self.tasks if self.output else ():
                result.save(self._picture(names[Path(result.file_name)], task, ".png"), task)
                self.written += 1
            for file in self.json:
                file.add(result, result.file_name)
            seconds = perf_counter() - start
            self._say(f"{result.file_name}: {result.summary()} ({seconds:.2f} s)")
            if not found_anything(result):
                self._help_with(result)
            start = perf_counter()
            progress.advance(bar)

    def _help_with(self, result: Result) -> None:
        """Reports the best score in a picture without results."""
        self.empty += 1
        if self.empty > LOOKS_AGAIN:
            return
        if "instance" not in self.predictor.tasks:
            self._say("  nothing is certain enough: try a lower --confidence-threshold", "yellow")
            return
        other_task = "" if "instance" in self.tasks else "--tasks instance, or "
        again = self.predictor.predict(Path(result.file_name), tasks=["instance"], score_threshold=0.0)
        best = again[0] if isinstance(again, Result) and len(again) else None
        if best is None or best.score < LOWEST_HINT:
            self._say(
                "  nothing comes near a threshold: does the model know what is in the picture?", "yellow"
            )
        else:
            tried = math.floor(best.score * 100) / 100
            self._say(
                f"  the best score of an object is {best.score:.2f} ({best.class_name}): "
                f"try {other_task}--confidence-threshold {tried:g}",
                "yellow",
            )

    def _video(self, open_frames: Callable[[], Frames], name: Path, progress: Progress) -> None:
        try:
            with open_frames() as reader:
                count = self._frames(reader, name, progress)
        except DataError as error:
            self._fail(error)
            return
        expected = reader.frame_count
        if self.arguments.max_frames is None and expected is not None and count < expected:
            self._say(f"{reader.name} ended after {count} of {expected} frames", "yellow")

    def _frames(self, reader: Frames, name: Path, progress: Progress) -> int:
        """Predicts on the frames, and returns their number."""
        counts = [n for n in (reader.frame_count, self.arguments.max_frames) if n is not None]
        bar = progress.add_task(reader.name, total=min(counts, default=None))
        frames = islice(reader, self.arguments.max_frames)
        number = 0
        with ExitStack() as stack:
            screens = self._screens(reader, name, stack)
            batch_size = 1 if reader.live else self.arguments.batch_size
            if self.arguments.track:
                results = self._track(frames, reader.fps, batch_size)
            else:
                results = self._predict(frames, batch_size)
            for number, result in enumerate(results, start=1):
                for file in self.json:
                    file.add(result, reader.name, frame=number - 1)
                # Show all of them before checking whether one asks to end.
                asked = [screen(result.draw(task, min_size=1)) for task, screen in screens]
                progress.advance(bar)
                if any(asked):
                    break
        return number

    def _screens(self, reader: Frames, name: Path, stack: ExitStack) -> list[tuple[str, Screen]]:
        """Functions that take the pictures of a task and return whether the user wants to end."""
        screens: list[tuple[str, Screen]] = []
        for task in self.tasks if self.output else ():
            path = self._picture(name, task, ".mp4")
            writer = stack.enter_context(VideoWriter(path, reader.fps, reader.size))
            screens.append((task, _recorder(writer, reader)))
            self.written += 1
        if self.arguments.show:
            screens.append((self.tasks[0], stack.enter_context(Window(reader.name)).show))
        return screens

    @property
    def _threshold(self) -> Threshold:
        if self.arguments.precision is not None:
            return Precision(self.arguments.precision)
        if self.arguments.confidence_threshold is not None:
            return self.arguments.confidence_threshold
        return {"instance": DEFAULT_CONFIDENCE} if self.predictor.score_thresholds is None else "best"

    def say_thresholds(self) -> None:
        """Reports which scores count, unless the user chose them."""
        known = [t for t in self.predictor.score_thresholds or () if t is not None]
        chosen = self.arguments.confidence_threshold is not None or self.arguments.precision is not None
        if known and not chosen and "instance" in self.tasks:
            self._say(
                f"objects with the scores of the best F1 of their class ({min(known):.2f} to "
                f"{max(known):.2f}); --confidence-threshold T sets one for all"
            )

    def _predict(
        self, images: Iterable[ImageInput], batch_size: int, on_error: ErrorHandler | None = None
    ) -> Iterator[Result]:
        return self.predictor.predict_iter(
            images,
            score_threshold=self._threshold,
            max_detections=self.arguments.max_detections,
            tasks=self.tasks,
            batch_size=batch_size,
            on_error=on_error,
        )

    def _track(self, frames: Iterable[ImageInput], fps: float, batch_size: int) -> Iterator[Result]:
        return self.predictor.track(
            frames,
            score_threshold=self.arguments.confidence_threshold,
            frame_rate=fps,
            max_detections=self.arguments.max_detections,
            tasks=self.tasks,
            batch_size=batch_size,
        )

    def _check_outputs(self, names: dict[Path, Path]) -> None:
        if self.output is None:
            return
        inputs = {file.resolve() for file in names}
        for file, name in names.items():
            for task in self.tasks:
                path = self._picture(name, task, ".mp4" if is_video(file) else ".png")
                if path.resolve() in inputs:
                    raise FileExistsError(
                        f"{path}, made of {file}, would overwrite another input: give another --output"
                    )

    def _picture(self, name: Path, task: str, suffix: str) -> Path:
        assert self.output is not None, "pictures are not wanted"
        return self.output / f"{name}_{task}{suffix}"

    def _fail(self, error: DataError) -> None:
        self.failures += 1
        self._say(f"left out: {error}", "bold red")

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def found_anything(result: Result) -> bool:
    """Whether the result has an object, a segment or a semantic class."""
    segments = [] if result.panoptic is None else result.panoptic[1]
    return len(result) > 0 or len(segments) > 0 or result.semantic is not None


def _recorder(writer: VideoWriter, reader: Frames) -> Screen:
    """Writes frames of a file once each; frames of a camera are repeated to keep real time.

    A model is slower than a camera, so that the video would otherwise run too fast.
    """
    start, written = monotonic(), 0

    def record(picture: Image.Image) -> bool:
        nonlocal written
        due = round((monotonic() - start) * reader.fps) - written if reader.live else 1
        times = max(1, due)
        writer.write(picture, times)
        written += times
        return False

    return record


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """A key that sorts names as people do: ``2.png`` before ``10.png``."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _json_paths(path: str, tasks: list[str]) -> dict[str, Path]:
    """The path of the JSON file of each task."""
    if len(tasks) == 1:
        return {tasks[0]: Path(path)}
    return {task: Path(path).with_stem(f"{Path(path).stem}_{task}") for task in tasks}


def run_prediction(arguments: argparse.Namespace, open_video: OpenVideo = VideoReader) -> None:
    """Runs the command.

    Args:
        arguments: of :func:`detrex.cli.commands.predict.parse_arguments`.
        open_video: opens a file by its path, or a camera by its number.

    Raises:
        SystemExit: with code 1, if a file could not be read, or after an error that the user can solve was
            logged.
    """
    names = {} if arguments.webcam is not None else output_names(*arguments.input)
    if arguments.webcam is not None or arguments.track or any(map(is_video, names)):
        opencv()  # to fail before the model is loaded
    predictor = load(
        arguments.model,
        arguments.weights,
        overrides=arguments.overrides,
        device=arguments.device,
        amp=arguments.amp,
        allow_pickle=arguments.allow_pickle,
        trust_code=arguments.trust_code,
    )
    if arguments.classes is not None:
        predictor.set_classes(read_words(arguments.classes))
    prediction = PredictionRun(predictor, arguments, Console())
    prediction.say_thresholds()
    if arguments.webcam is None:
        prediction.run_on_files(names, open_video)
    else:
        prediction.run_on_camera(open_video)
    code = prediction.finish()
    if code:
        raise SystemExit(code)
