"""Pictures in, results out, with an exported file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detrex.runtime.exported.description import Description
from detrex.runtime.exported.pictures import PictureInput, to_array
from detrex.runtime.exported.result import Result
from detrex.runtime.exported.runners import Arrays, Runner, open_runner
from detrex.runtime.exported.thresholds import Precision, best_thresholds, thresholds_for_precision

Threshold = float | Mapping[str, float] | Literal["best"] | Precision | None

_INPUT_OF_TASK = {"instance": "score_threshold", "panoptic": "panoptic_threshold"}


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    trust_code: bool = False,
) -> Predictor:
    """An exported model, ready for pictures.

    Args:
        path: a file that ``detrex export`` wrote: ``.onnx`` (needs onnxruntime), ``.xml`` (openvino) or
            ``.pt2`` (torch; a program of ``torch.export``, or one that AOTInductor compiled).
        threads: number of threads that the runtime uses, except for ``.pt2``; None lets it choose.
        providers: of onnxruntime, such as ``["CUDAExecutionProvider"]``; by default all that are available.
        trust_code: needed for ``.pt2`` files, which are programs: whoever made one can run code here.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: its runtime is not installed.
        ExportedModelError: the file was not written by ``detrex export``, or it cannot be loaded.
    """
    return Predictor(open_runner(path, threads=threads, providers=providers, trust_code=trust_code))


class Predictor:
    """The interface of :class:`detrex.Predictor` for an exported file; made by :func:`load`.

    Args:
        runner: runs the file.
    """

    def __init__(self, runner: Runner):
        self.runner = runner

    @property
    def description(self) -> Description:
        """What the file says about itself."""
        return self.runner.description

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of ``instance``, ``panoptic`` and ``semantic`` that the model performs."""
        return self.description.tasks

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes; class ``k`` is ``names[k]``."""
        return self.description.class_names

    def __repr__(self) -> str:
        return f"<Predictor of {len(self.names)} classes: {', '.join(self.tasks)}; exported>"

    def __call__(self, images: PictureInput, **options: Any) -> Result | list[Result]:
        """The same as :meth:`predict`."""
        return self.predict(images, **options)

    def predict(
        self,
        images: PictureInput | Sequence[PictureInput],
        *,
        score_threshold: Threshold = None,
        max_detections: int | None = None,
        tasks: Sequence[str] | None = None,
        batch_size: int = 1,
    ) -> Result | list[Result]:
        """Finds what is in a picture, or in each of a list.

        Args:
            images: one picture or a list of them, see :func:`detrex.runtime.exported.pictures.to_array`.
            score_threshold: objects and panoptic segments with lower scores are left out; one number for
                both, or a dictionary such as ``{"instance": 0.5}``. None: what the model's config says.
                ``"best"``: for objects, the threshold of their class that was best in the evaluation of the
                weights, or 0.5 if it is not known. ``Precision(0.9)``: for objects, the lowest threshold of
                their class that reached this precision in the evaluation.
            max_detections: keep at most so many objects per picture, the best ones; None for all.
            tasks: which of the model's ``tasks`` to perform, None for all.
            batch_size: how many pictures of one size go through the model together.

        Raises:
            ValueError, TypeError: a picture or an argument is not as described.

        Returns:
            A result, or a list of them in the order of the pictures.
        """
        several = isinstance(images, list | tuple)
        results = self.predict_iter(
            images if several else [images],
            score_threshold=score_threshold,
            max_detections=max_detections,
            tasks=tasks,
            batch_size=batch_size,
        )
        return list(results) if several else next(results)

    def predict_iter(
        self,
        images: Iterable[PictureInput],
        *,
        score_threshold: Threshold = None,
        max_detections: int | None = None,
        tasks: Sequence[str] | None = None,
        batch_size: int = 1,
    ) -> Iterator[Result]:
        """Yields the results one after another; arguments and errors are those of :meth:`predict`."""
        if batch_size < 1 or self.description.batch not in (None, batch_size):
            fixed = self.description.batch
            wanted = "at least 1" if fixed is None else f"{fixed}, for which the model was exported"
            raise ValueError(f"batch_size={batch_size}: expected {wanted}")
        if max_detections is not None and max_detections < 1:
            raise ValueError(f"max_detections={max_detections}: expected at least 1")
        wanted_tasks = self.tasks if tasks is None else tuple(tasks)
        unknown = sorted(set(wanted_tasks) - set(self.tasks))
        if unknown or not wanted_tasks:
            raise ValueError(f"tasks={list(wanted_tasks)}: this model gives {', '.join(self.tasks)}")
        best = None
        if score_threshold == "best" or isinstance(score_threshold, Precision):
            best = self.class_thresholds(None if score_threshold == "best" else score_threshold.share)
            score_threshold = {"instance": min(float(best.min()), 1.0)}
        thresholds = self._thresholds(score_threshold)
        return self._stream(images, thresholds, best, max_detections, wanted_tasks, batch_size)

    def class_thresholds(self, precision: float | None = None) -> np.ndarray:
        """The score threshold of each class (C,) float32; see :meth:`detrex.Predictor.class_thresholds`."""
        kept = self.description
        if precision is None:
            return np.array(best_thresholds(kept.class_thresholds, len(self.names)), np.float32)
        return np.array(
            thresholds_for_precision(kept.precision_thresholds, precision, self.names), np.float32
        )

    def _stream(
        self,
        images: Iterable[PictureInput],
        thresholds: Mapping[str, float],
        best: np.ndarray | None,
        max_detections: int | None,
        tasks: Sequence[str],
        batch_size: int,
    ) -> Iterator[Result]:
        pending = iter(images)
        while read := list(islice(pending, batch_size)):
            arrays = [to_array(image, self.description.value_range) for image in read]
            for array in arrays:
                self._check_size(array)
            results: dict[int, Result] = {}
            for rows in _by_size(arrays):
                outputs = self._run(np.stack([arrays[i] for i in rows]), thresholds)
                for place, i in enumerate(rows):
                    result = self._result(outputs, place, arrays[i], _file_name(read[i]), tasks)
                    if best is not None and result.scores is not None and result.classes is not None:
                        result = result._chosen(result.scores >= best[result.classes])
                    results[i] = result[:max_detections]
            yield from (results[i] for i in range(len(read)))

    def _run(self, images: np.ndarray, thresholds: Mapping[str, float]) -> Arrays:
        """Outputs for pictures (B, H, W, 3); a fixed batch size is filled up with copies of the last one."""
        missing = 0 if self.description.batch is None else self.description.batch - len(images)
        return self.runner(np.concatenate([images, *[images[-1:]] * missing]), thresholds)

    def _result(
        self, outputs: Arrays, place: int, image: np.ndarray, file_name: str, tasks: Sequence[str]
    ) -> Result:
        """The result of picture ``place`` of a batch."""
        result = Result(image, self.description, file_name)
        if "instance" in tasks:
            found = outputs["scores"][place] >= 0
            result.boxes, result.scores, result.classes, masks = (
                outputs[name][place][found] if name in outputs else None
                for name in ("boxes", "scores", "classes", "masks")
            )
            result.masks = None if masks is None else masks.astype(bool)
        if "panoptic" in tasks:
            segments = zip(outputs["segment_classes"][place], outputs["segment_scores"][place], strict=True)
            result.panoptic = (
                outputs["panoptic"][place],
                [
                    {
                        "id": i + 1,
                        "category_id": int(label),
                        "isthing": self.description.is_thing[label],
                        "score": float(score),
                    }
                    for i, (label, score) in enumerate(segments)
                    if label >= 0
                ],
            )
        if "semantic" in tasks:
            result.semantic = outputs["semantic"][place].astype(np.int64)
        return result

    def _check_size(self, image: np.ndarray) -> None:
        for side, (low, high), name in zip(
            image.shape, self.description.sides, ("high", "wide"), strict=False
        ):
            if not low <= side <= high:
                wanted = f"{low}" if low == high else f"{low} to {high}"
                raise ValueError(
                    f"the picture is {side} pixels {name}; the model was exported for pictures that are "
                    f"{wanted} pixels {name}"
                )

    def _thresholds(self, value: float | Mapping[str, float] | str | None) -> dict[str, float]:
        """A value for each input of the graph besides the pictures."""
        given: Mapping[str, float]
        if isinstance(value, str):
            raise ValueError(f"score_threshold={value!r}: expected a number from 0 to 1, or 'best'")
        elif isinstance(value, Mapping):
            given = value
        else:
            given = {} if value is None else {"instance": value, "panoptic": value}
        for task, threshold in given.items():
            if task not in _INPUT_OF_TASK:
                raise ValueError(f"score_threshold: {task!r} has none; 'instance' and 'panoptic' have")
            if not 0 <= threshold <= 1:
                raise ValueError(f"score_threshold={threshold}: expected a number from 0 to 1")
        named = {_INPUT_OF_TASK[task]: float(threshold) for task, threshold in given.items()}
        return {name: named.get(name, default) for name, default in self.description.thresholds.items()}


def _by_size(images: Sequence[np.ndarray]) -> list[list[int]]:
    """Indices of the images, grouped by size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.shape, []).append(i)
    return list(groups.values())


def _file_name(image: PictureInput) -> str:
    named = image if isinstance(image, str | Path) else getattr(image, "name", "")
    return str(named) if isinstance(named, str | Path) else ""
