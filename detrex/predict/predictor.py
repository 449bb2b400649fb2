"""A model with everything that prediction needs: preprocessing, class names, device and precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any, Literal, cast

import torch
from torch import Tensor

from detrex.data import DataError, Record, with_original
from detrex.data.mot import FrameRecord
from detrex.modeling import Detector, PostProcess
from detrex.modeling.prompts import PromptDetector
from detrex.modeling.text import TextDetector
from detrex.predict.inputs import ImageInput, ValueRange, to_record, to_uint8
from detrex.predict.prompting import Boxes, Points, PromptedImage
from detrex.predict.result import TASKS, Result
from detrex.predict.tracking import LOWEST_SCORE, ObjectTracks
from detrex.runtime.device import autocast
from detrex.runtime.exported.thresholds import Precision, best_thresholds, thresholds_for_precision
from detrex.structures import Categories, PromptedMasks, Sample, class_map

# Number of batches of images that are read at a time, to find images that may share a batch.
_WINDOW = 4
_VIDEOS = count(1)  # so that all videos have different names
_NAMED = 4  # classes in the text about a predictor

Threshold = float | Mapping[str, float] | Literal["best"] | Precision | None
Classes = str | Sequence[str] | Categories
ErrorHandler = Callable[[ImageInput, DataError], None]


class Predictor:
    """Turns images into :class:`~detrex.predict.Result`; made by :func:`detrex.predict.load`.

    ``predictor(image)`` is ``predictor.predict(image)``. Calls do not change the model or its settings, so
    several threads may share a predictor.

    **Batches.** Images of a batch are padded to one size, and Mask DINO treats padding as part of the image:
    beside a larger image, scores change (by up to 0.4, measured on small models). So images share a batch
    only if they have the same size when each is resized and padded alone. Then results differ from those of
    single images only by rounding, and ``batch_size`` affects only speed and memory.

    Attributes:
        model: in evaluation mode, with a ``postprocess`` like that of :class:`~detrex.modeling.Detector`.
        mapper: turns a :class:`~detrex.data.Record` into a :class:`~detrex.structures.Sample` for the model.
        categories: the model's classes.
        amp: numerical precision, ``off``, ``bf16`` or ``fp16``.
        score_thresholds: for each class, the score threshold with the best F1 in the evaluation of these
            weights, or None if it is not known; None altogether if they were not evaluated.
        precision_thresholds: for each class, the lowest score threshold that reached each precision in the
            evaluation of these weights; None if they were not evaluated.
        value_range: for images of 16 bits a channel, the values that become 0 and 255, as in the data that
            the model was trained on; None for 0 and 65535.
    """

    def __init__(
        self,
        model: Detector,
        mapper: Callable[[Record], Sample],
        categories: Categories,
        amp: str = "off",
        score_thresholds: Sequence[float | None] | None = None,
        value_range: ValueRange = None,
        precision_thresholds: Sequence[Mapping[float, float]] | None = None,
    ):
        """
        Raises:
            ValueError: ``amp`` has another value.
        """
        self.model = model.eval()
        self.mapper, self.categories, self.amp = mapper, categories, amp
        self.score_thresholds, self.precision_thresholds = score_thresholds, precision_thresholds
        self.value_range = value_range
        autocast(amp, self.device)  # to fail now, not at the first image

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return next(self.model.parameters()).device

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of ``instance``, ``panoptic`` and ``semantic`` that the model performs."""
        return tuple(task for task in TASKS if getattr(self.model.postprocess, task) is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes; class ``k`` is ``names[k]``."""
        return self.categories.names

    def __repr__(self) -> str:
        arithmetic = "" if self.amp == "off" else f", {self.amp}"
        tasks = ", ".join(self.tasks)
        return f"<Predictor of {self._described_classes()}: {tasks}; on {self.device}{arithmetic}>"

    def look_at(self, image: ImageInput, allow_urls: bool = False) -> PromptedImage:
        """Encodes an image once, for any number of clicks and boxes; see :class:`PromptedImage`.

        Args:
            image, allow_urls: see :meth:`predict`.

        Raises:
            DataError, TypeError: see :meth:`predict`.
            ValueError: the model takes no prompts, or the image is not as described.
        """
        if not isinstance(self.model, PromptDetector):
            raise ValueError(
                "this model finds objects by itself; clicks and boxes need one that takes prompts, such as "
                "Semantic-SAM"
            )
        record = to_record(image, 0, allow_urls, self.value_range)
        return PromptedImage(self.model, self.mapper(record), self.amp)

    def prompt(
        self, image: ImageInput, points: Points | None = None, boxes: Boxes | None = None, **options: Any
    ) -> list[PromptedMasks]:
        """The masks that answer each click and box on an image, best first.

        Args:
            image: see :meth:`predict`.
            points, boxes, options: see :meth:`PromptedImage.prompt`.

        Raises:
            DataError, TypeError, ValueError: see :meth:`look_at` and :meth:`PromptedImage.prompt`.
        """
        return self.look_at(image).prompt(points, boxes, **options)

    def everything(self, image: ImageInput, **settings: Any) -> PromptedMasks:
        """The masks of everything in an image, best first.

        Args:
            image: see :meth:`predict`.
            settings: see :meth:`PromptedImage.everything`.

        Raises:
            DataError, TypeError, ValueError: see :meth:`look_at`.
        """
        return self.look_at(image).everything(**settings)

    def _described_classes(self) -> str:
        count = len(self.names)
        named = ", ".join(self.names[:_NAMED]) + (", ..." if count > _NAMED else "")
        return f"{count} class{'' if count == 1 else 'es'} ({named})"

    def set_classes(self, classes: Classes) -> None:
        """Makes a model that reads words, such as OpenSeeD, look for other classes from now on.

        Nothing is loaded again: only names that were not used before go through the text encoder.

        Args:
            classes: names, see :meth:`detrex.structures.Categories.from_words`; or categories.

        Raises:
            ValueError: the model has fixed classes, does not know a word, or finds no stuff; or there are no
                names.
            ImportError: the tokenizer is not installed.
        """
        categories = classes if isinstance(classes, Categories) else Categories.from_words(classes)
        things = None if all(categories.is_thing) else categories.thing_classes
        reader = self._reader()
        if things is not None and self.tasks == ("instance",):
            stuff = ", ".join(
                name for name, thing in zip(categories.names, categories.is_thing, strict=True) if not thing
            )
            raise ValueError(f"this model finds instances alone, which stuff has none of: {stuff}")
        reader.set_classes(categories.names, things)
        self.categories = categories
        self.score_thresholds = self.precision_thresholds = None

    def with_classes(self, classes: Classes) -> Predictor:
        """A predictor with the same weights that looks for other classes; this one does not change.

        Args:
            classes: see :meth:`set_classes`.

        Raises:
            ValueError, ImportError: see :meth:`set_classes`.
        """
        other = copy.copy(self)
        other.model = self._reader().sharing_weights()
        other.set_classes(classes)
        return other

    @property
    def reads_words(self) -> bool:
        """Whether classes can be given by their names, see :meth:`set_classes`."""
        return isinstance(self.model, TextDetector)

    @property
    def takes_prompts(self) -> bool:
        """Whether the model answers clicks and boxes, see :meth:`prompt`."""
        return isinstance(self.model, PromptDetector)

    def _reader(self) -> TextDetector:
        if not isinstance(self.model, TextDetector):
            raise ValueError(
                f"this model finds the {self._described_classes()} that it was trained on, and no others: "
                "words need a model with a text encoder, such as OpenSeeD"
            )
        return self.model

    def __call__(self, images: ImageInput | Sequence[ImageInput], **options: Any) -> Result | list[Result]:
        """The same as :meth:`predict`."""
        return self.predict(images, **options)

    def predict(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        score_threshold: Threshold = None,
        max_detections: int | None = None,
        tasks: Sequence[str] | None = None,
        batch_size: int = 1,
        keep_scores: bool = False,
        allow_urls: bool = False,
        classes: Classes | None = None,
    ) -> Result | list[Result]:
        """Finds what is in an image, or in each of a list.

        Args:
            images: one image or a list of them, in any mixture of: path of a file; bytes of an image file,
                or an open file; PIL image; array (H, W, 3) in **RGB** (not BGR like OpenCV's), (H, W, 4) in
                RGBA or (H, W) in grey, uint8 or uint16; tensor (3, H, W) in RGB, (4, H, W) in RGBA or
                (1, H, W) in grey, uint8, uint16 or float in 0..255.
            score_threshold: objects with lower scores, and panoptic segments of queries with lower ones, are
                left out; one number for both, or a dictionary such as ``{"instance": 0.5}``. None: the value
                in the config (for objects often 0, which evaluation needs). ``"best"``: for objects, the
                :attr:`score_thresholds`, or 0.5 for classes that have none. ``Precision(0.9)``: for objects,
                the lowest threshold of their class that reached this precision in the evaluation.
            max_detections: keep at most so many objects per image, the best ones. None: the value in the
                config.
            tasks: which of the model's ``tasks`` to perform, None for all; others cost no time.
            batch_size: number of images that go through the model together.
            keep_scores: keep the semantic scores of all classes (4 bytes for each class and pixel).
            allow_urls: also take ``https://`` and ``http://`` addresses, and download them.
            classes: classes to look for in this call, see :meth:`set_classes`.

        Raises:
            DataError: a file cannot be read or downloaded.
            ValueError, TypeError: an image or an argument is not as described.

        Returns:
            A result, or a list of them in the order of the images. For more images than fit into memory with
            their masks, use :meth:`predict_iter`.
        """
        several = isinstance(images, list | tuple)
        results = self.predict_iter(
            cast(Sequence[ImageInput], images if several else [images]),
            score_threshold=score_threshold,
            max_detections=max_detections,
            tasks=tasks,
            batch_size=batch_size,
            keep_scores=keep_scores,
            allow_urls=allow_urls,
            classes=classes,
        )
        return list(results) if several else next(results)

    def predict_iter(
        self,
        images: Iterable[ImageInput],
        *,
        score_threshold: Threshold = None,
        max_detections: int | None = None,
        tasks: Sequence[str] | None = None,
        batch_size: int = 1,
        keep_scores: bool = False,
        allow_urls: bool = False,
        on_error: ErrorHandler | None = None,
        classes: Classes | None = None,
    ) -> Iterator[Result]:
        """Yields results one after another, in the order of the images, which are read when needed.

        Args:
            images: any number of images, see :meth:`predict`; may be a generator. With a ``batch_size``
                above 1, some batches are read ahead.
            score_threshold, max_detections, tasks, batch_size, keep_scores, allow_urls, classes: see
                :meth:`predict`.
            on_error: called with an image that cannot be read, and with the error; that image is left out. By
                default, the error is raised.

        Raises:
            DataError, ValueError, TypeError: see :meth:`predict`; at once for arguments, later for images.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        predictor = self if classes is None else self.with_classes(classes)
        best = None
        if score_threshold == "best" or isinstance(score_threshold, Precision):
            share = None if score_threshold == "best" else score_threshold.share
            best = predictor.class_thresholds(share)
        thresholds = _thresholds(score_threshold, best)
        postprocess = predictor._postprocess(thresholds, max_detections, tasks)
        records = _read(images, allow_urls, on_error, self.value_range)
        results = predictor._stream(postprocess, records, batch_size, keep_scores, thresholds.get("instance"))
        if max_detections is not None:  # tiles may have more together
            results = (_with_best(result, max_detections) for result in results)
        return results if best is None else (_from_thresholds_on(result, best) for result in results)

    def track(
        self,
        frames: Iterable[ImageInput],
        *,
        score_threshold: float | Literal["best"] | Precision | None = None,
        frame_rate: float = 30.0,
        max_detections: int | None = None,
        tasks: Sequence[str] | None = None,
        batch_size: int = 1,
    ) -> Iterator[Result]:
        """Yields the results of a video's frames, in which an object keeps its number (``track_id``).

        ByteTrack follows objects class by class: an object that is uncertain for some frames keeps its
            number.
        The results contain only objects with a number.

        A model that follows videos itself (CO-MOT) does so instead, one video at a time: read all results of
        a video before you begin another one.

        Args:
            frames: in order; see :meth:`predict`.
            score_threshold: an object gets a number if its score reaches this; None and ``"best"``: the
                threshold with the best F1 of its class, or 0.5 if it is not known. A model that follows
                videos has its own thresholds; then objects with lower scores than this are left out.
            frame_rate: frames per second; a lost object keeps its number for up to a second.
            max_detections, tasks, batch_size: see :meth:`predict`; ``instance`` must be among the tasks.

        Raises:
            ImportError: the package ``trackers`` is not installed.
            DataError, ValueError, TypeError: see :meth:`predict_iter`.
        """
        if "instance" not in (self.tasks if tasks is None else tasks):
            raise ValueError("objects are tracked: 'instance' must be among the tasks, and the model give it")
        if self.model.follows_videos:
            task_thresholds = _thresholds(
                None if isinstance(score_threshold, str | Precision) else score_threshold, None
            )
            postprocess = self._postprocess(task_thresholds, max_detections, tasks)
            records = _numbered(_read(frames, False, None, self.value_range))
            return self._stream(postprocess, records, batch_size, False, task_thresholds.get("instance"))
        if score_threshold is None or score_threshold == "best":
            thresholds = self.class_thresholds().tolist()
        elif isinstance(score_threshold, Precision):
            thresholds = self.class_thresholds(score_threshold.share).tolist()
        else:
            thresholds = [_thresholds(score_threshold, None)["instance"]] * len(self.names)
        tracks = ObjectTracks(thresholds, frame_rate)
        results = self.predict_iter(
            frames,
            score_threshold={"instance": min(LOWEST_SCORE, *thresholds)},
            max_detections=max_detections,
            tasks=tasks,
            batch_size=batch_size,
        )
        return (_tracked(result, tracks) for result in results)

    def class_thresholds(self, precision: float | None = None) -> Tensor:
        """The score threshold of each class, (C,) float32, from the evaluation of these weights.

        Args:
            precision: the wanted precision, see :class:`Precision`; None for thresholds with the best F1, or
                0.5 for classes that have none. The threshold of a class that did not reach it is infinite.

        Raises:
            ValueError: the precision is not in (0, 1] or above all that are stored, or none are stored with
                these weights.
        """
        if precision is None:
            return torch.tensor(best_thresholds(self.score_thresholds, len(self.names)))
        return torch.tensor(thresholds_for_precision(self.precision_thresholds, precision, self.names))

    def _postprocess(
        self, thresholds: Mapping[str, float], max_detections: int | None, tasks: Sequence[str] | None
    ) -> PostProcess:
        """A copy of the model's post-processing with other settings."""
        if max_detections is not None and max_detections < 1:
            raise ValueError(f"max_detections={max_detections}: expected at least 1")
        unknown = sorted(set(tasks or ()) - set(self.tasks))
        if unknown or (tasks is not None and len(tasks) == 0):
            raise ValueError(
                f"tasks={list(tasks or ())}: this model gives {', '.join(self.tasks)}, as model.postprocess "
                "says"
            )
        postprocess = copy.copy(self.model.postprocess)
        for task in self.tasks:
            inference = getattr(postprocess, task)
            if task in thresholds:
                inference = replace(inference, score_threshold=thresholds[task])
            if task == "instance" and max_detections is not None:
                inference = replace(inference, max_detections=max_detections)
            setattr(postprocess, task, inference if tasks is None or task in tasks else None)
        return postprocess

    def _stream(
        self,
        postprocess: PostProcess,
        records: Iterator[Record],
        batch_size: int,
        keep_scores: bool,
        drawn_from: float | None,
    ) -> Iterator[Result]:
        window = 1 if batch_size == 1 else _WINDOW * batch_size
        while read := list(islice(records, window)):
            samples = [self._sample(record) for record in read]
            results: dict[int, Result] = {}
            for batch in _batches(samples, getattr(self.model, "size_divisor", 1), batch_size):
                outputs = self._forward([samples[i] for i in batch], postprocess)
                for i, output in zip(batch, outputs, strict=True):
                    results[i] = _result(read[i], output, self.categories, keep_scores, drawn_from)
            for i in range(len(read)):
                yield results.pop(i)

    def _sample(self, record: Record) -> Sample:
        sample = self.mapper(record)
        return sample if self.model.inference is None else with_original(sample, record)

    @torch.inference_mode()
    def _forward(self, samples: list[Sample], postprocess: PostProcess) -> list[dict[str, Any]]:
        with autocast(self.amp, self.device):
            return self.model.detect(samples, postprocess)


def _thresholds(value: Threshold, best: Tensor | None) -> dict[str, float]:
    """The threshold of each task; for thresholds of classes (``best``), the lowest one."""
    if value is None:
        return {}
    if best is not None:
        return {"instance": float(best.min())}
    if isinstance(value, str | Precision):
        raise ValueError(f"score_threshold={value!r}: expected a number from 0 to 1, or 'best'")
    given = dict(value) if isinstance(value, Mapping) else {"instance": value, "panoptic": value}
    for task, threshold in given.items():
        if task not in ("instance", "panoptic"):
            raise ValueError(f"score_threshold: {task!r} has none; 'instance' and 'panoptic' have")
        if not 0 <= threshold <= 1:
            raise ValueError(f"score_threshold={threshold}: expected a number from 0 to 1")
    return given


def _from_thresholds_on(result: Result, thresholds: Tensor) -> Result:
    """The result without objects below the threshold of their class."""
    if result.instances is None:
        return result
    shown = result.instances.scores >= thresholds[result.instances.pred_classes]
    return replace(result, instances=result.instances[shown])


def _tracked(result: Result, tracks: ObjectTracks) -> Result:
    """The result of the next frame, with only the objects that have a track."""
    assert result.instances is not None, "tracking asks for objects"
    return replace(result, instances=tracks.update(result.instances))


def _with_best(result: Result, count: int) -> Result:
    """The result with only its ``count`` best objects."""
    if result.instances is None or len(result) <= count:
        return result
    return replace(result, instances=result.instances[:count])


def _read(
    images: Iterable[ImageInput], allow_urls: bool, on_error: ErrorHandler | None, value_range: ValueRange
) -> Iterator[Record]:
    for index, image in enumerate(images):
        try:
            record = to_record(image, index, allow_urls, value_range)
        except DataError as error:
            if on_error is None:
                raise
            on_error(image, error)
        else:
            yield record


def _numbered(records: Iterator[Record]) -> Iterator[Record]:
    """Records that say which frame of which video they are."""
    video = f"video {next(_VIDEOS)}"
    for number, record in enumerate(records):
        yield FrameRecord(**{**record, "video": video, "frame": number})


def _batches(samples: Sequence[Sample], divisor: int, batch_size: int) -> Iterator[list[int]]:
    """Indices of samples that get the same padding together as alone."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        padded = tuple(-(-side // divisor) for side in sample["image"].shape[-2:])
        groups.setdefault(padded, []).append(i)
    for group in groups.values():
        yield from (group[start : start + batch_size] for start in range(0, len(group), batch_size))


def _result(
    record: Record,
    output: Mapping[str, Any],
    categories: Categories,
    keep_scores: bool,
    drawn_from: float | None,
) -> Result:
    panoptic, scores = output.get("panoptic_seg"), output.get("sem_seg")
    return Result(
        image=to_uint8(record["image"]),
        categories=categories,
        file_name=record["file_name"],
        instances=output["instances"].to("cpu", copy=True) if "instances" in output else None,
        panoptic=None if panoptic is None else (_on_cpu(panoptic[0]), panoptic[1]),
        semantic=None if scores is None else _on_cpu(class_map(scores)),
        semantic_scores=_on_cpu(scores) if keep_scores and scores is not None and scores.ndim > 2 else None,
        drawn_from=drawn_from,
    )


def _on_cpu(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, copied outside inference mode so that users may change it in place.

    Maps of tiles, which may be large files, are not tensors of inference mode, and are not copied.
    """
    return tensor.to("cpu", copy=tensor.is_inference())
