"""The results of a model for one image.

Shape letters: N objects, C classes, H and W pixels of the original image.
"""

from __future__ import annotations

import base64
import html
import io
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from PIL import Image
from torch import Tensor

from detrex.predict import formats
from detrex.structures import Categories, Instances, RunLengthMasks, encode_masks
from detrex.visualization import draw_instances, draw_panoptic, draw_semantic

if TYPE_CHECKING:
    import pandas
    import supervision

TASKS = ("instance", "panoptic", "semantic")
_NAMED = 6


@dataclass(frozen=True, eq=False)
class Detection:
    """One object.

    Attributes:
        box: x0, y0, x1, y1 in pixels; it may reach beyond the image.
        score: in [0, 1].
        class_index: of the model.
        class_name: of ``class_index``.
        compressed_mask: a single compressed mask, or None from models without masks.
        track_id: the object's number in all frames of a video, see :meth:`detrex.Predictor.track`; else None.
    """

    box: tuple[float, float, float, float]
    score: float
    class_index: int
    class_name: str
    compressed_mask: RunLengthMasks | None
    track_id: int | None = None

    @property
    def mask(self) -> Tensor | None:
        """The mask (H, W) bool, decoded at each call, or None from models without masks."""
        return None if self.compressed_mask is None else self.compressed_mask.one(0)

    def __repr__(self) -> str:
        box = ", ".join(f"{c:.1f}" for c in self.box)
        return f"<Detection {self.class_name} {self.score:.0%} at ({box})>"


@dataclass(repr=False, eq=False)
class Result:
    """Results at the size of the original image; all tensors are on the CPU.

    It is a sequence of its objects, best first: ``len(result)``, ``result[0]``, ``for detection in result``;
    ``result[:3]`` is a result with the best three. Notebooks show it as a picture.

    Attributes:
        image: (3, H, W) uint8 RGB, the original.
        categories: names, ids and colours of the model's classes.
        file_name: as it was given, or empty.
        instances: the objects, or None if the model or the call does not return them.
        panoptic: segment ids (H, W) int32, 0 for no segment, and for each segment ``id``, ``category_id``
            (class index), ``isthing`` and ``score``; or None.
        semantic: class index of every pixel (H, W) int64, or None.
        semantic_scores: (C, H, W) float32, if they were asked for.
        drawn_from: lowest score that ``draw`` shows by default; None for the default of
            :func:`detrex.visualization.draw_instances`.
    """

    image: Tensor
    categories: Categories
    file_name: str = ""
    instances: Instances | None = None
    panoptic: tuple[Tensor, list[dict[str, Any]]] | None = None
    semantic: Tensor | None = None
    semantic_scores: Tensor | None = None
    drawn_from: float | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        height, width = self.image.shape[1:]
        return height, width

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of ``instance``, ``panoptic`` and ``semantic`` that this result holds."""
        found = (self.instances, self.panoptic, self.semantic)
        return tuple(task for task, part in zip(TASKS, found, strict=True) if part is not None)

    @property
    def boxes(self) -> Tensor:
        """Boxes (N, 4) float32, absolute xyxy in pixels; they may reach beyond the image."""
        return self._part("instance").pred_boxes

    @property
    def scores(self) -> Tensor:
        """(N,) float32 in [0, 1], descending."""
        return self._part("instance").scores

    @property
    def classes(self) -> Tensor:
        """(N,) int64, class indices of the model."""
        return self._part("instance").pred_classes

    @property
    def class_names(self) -> list[str]:
        """The class name of each object."""
        return [self.categories.names[k] for k in self.classes.tolist()]

    @property
    def masks(self) -> Tensor | None:
        """Masks (N, H, W) bool, or None from models without masks.

        They are stored compressed and decoded by this property. For large images with many objects, decode
        them one at a time: ``for detection in result: detection.mask``.

        Raises:
            ValueError: the masks do not fit into memory.
        """
        return self._part("instance").pred_masks

    def __len__(self) -> int:
        """The number of objects; 0 without instances."""
        return 0 if self.instances is None else len(self.instances)

    def __iter__(self) -> Iterator[Detection]:
        if self.instances is None:
            return
        masks = self.instances.masks
        found = self.instances.track_ids
        tracks = [None] * len(self) if found is None else found.tolist()
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.classes.tolist(), tracks, strict=True)
        for i, (box, score, label, track) in enumerate(rows):
            mask = None if masks is None else masks[i : i + 1]
            yield Detection(tuple(box), score, label, self.categories.names[label], mask, track)

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice) -> Result: ...

    def __getitem__(self, index: int | slice) -> Detection | Result:
        """One object, or a result with a slice of them.

        Raises:
            IndexError: there is no such object.
        """
        if isinstance(index, slice):
            return replace(self, instances=None if self.instances is None else self.instances[index])
        place = index + len(self) if index < 0 else index
        if self.instances is None or not 0 <= place < len(self):
            raise IndexError(f"result[{index}]: there are {len(self)} objects")
        return next(iter(self[place : place + 1]))

    def filter(self, classes: str | int | Iterable[str | int] | None = None, score: float = 0.0) -> Result:
        """A copy without objects and panoptic segments of other classes or lower scores.

        Pixels of removed segments then belong to no segment. Semantic classes do not change.

        Args:
            classes: names or class indices, one or several; None for all.
            score: the lowest score that stays, in [0, 1].

        Raises:
            ValueError: the model has no such class.
        """
        labels = torch.tensor(self._labels(classes), dtype=torch.int64)
        filtered = replace(self, drawn_from=score if score > 0 else self.drawn_from)
        if self.instances is not None:
            stays = torch.isin(self.classes, labels) & (self.scores >= score)
            filtered.instances = self.instances[stays]
        if self.panoptic is not None:
            ids, segments = self.panoptic
            kept = [s for s in segments if s["category_id"] in labels and s["score"] >= score]
            inside = torch.isin(ids, torch.tensor([s["id"] for s in kept], dtype=ids.dtype))
            filtered.panoptic = torch.where(inside, ids, 0), kept
        return filtered

    def _labels(self, classes: str | int | Iterable[str | int] | None) -> list[int]:
        names = self.categories.names
        if classes is None:
            return list(range(len(names)))
        return [self._label(c) for c in ([classes] if isinstance(classes, str | int) else classes)]

    def _label(self, name: str | int) -> int:
        names = self.categories.names
        if isinstance(name, int) and 0 <= name < len(names):
            return name
        if isinstance(name, str) and name in names:
            return names.index(name)
        near = get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {_shortened(list(names))}"
        raise ValueError(f"the model has no class {name!r}; {hint}")

    def __repr__(self) -> str:
        return f"<Result {self.file_name or 'image'}, {self._size_in_words()}: {self.summary()}>"

    def _size_in_words(self) -> str:
        height, width = self.image_size
        return f"{height} x {width}"

    def summary(self) -> str:
        """Describes the result in words: counts by class."""
        found = []
        if self.instances is not None:
            found.append(self._counted(self.classes.tolist()) or "no objects")
        if self.panoptic is not None:
            segments = [info["category_id"] for info in self.panoptic[1]]
            found.append(f"panoptic segments: {self._counted(segments) or 'none'}")
        if self.semantic is not None:
            present = [self.categories.names[k] for k in self.semantic.unique().tolist()]
            found.append(f"semantic classes: {_shortened(present)}")
        return "; ".join(found)

    def draw(
        self, kind: str | None = None, *, score_threshold: float | None = None, **options: Any
    ) -> Image.Image:
        """A picture of the results over the image.

        Args:
            kind: ``instance``, ``panoptic`` or ``semantic``; by default, the first one of panoptic, instance
                and semantic that the result holds.
            score_threshold: objects with lower scores are not drawn. By default, the threshold of the
                prediction or, if none was given, that of :func:`detrex.visualization.draw_instances`.
            options: further options of the functions in :mod:`detrex.visualization`, such as ``min_size`` or
                ``labels``.

        Raises:
            ValueError: there are no results of this kind.
        """
        kind = kind or next(iter(by_content(self.tasks)), "instance")
        part = self._part(kind)
        if kind == "panoptic":
            return draw_panoptic(self.image, part, self.categories, **options)
        if kind == "semantic":
            return draw_semantic(self.image, part, self.categories, **options)
        threshold = self.drawn_from if score_threshold is None else score_threshold
        if threshold is not None:
            options = {"max_detections": len(part), "score_threshold": threshold, **options}
        return draw_instances(self.image, part, self.categories, **options)

    def save(self, path: str | Path, kind: str | None = None, **options: Any) -> Path:
        """Writes the picture that :meth:`draw` returns; creates its folder if need be.

        Raises:
            ValueError: there are no results of this kind, or the suffix is not that of a picture format.
        """
        picture = self.draw(kind, **options)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        return path

    def show(self, kind: str | None = None, **options: Any) -> None:
        """Shows the picture of :meth:`draw`: in a notebook below the cell, else in the system's viewer."""
        picture = self.draw(kind, **options)
        notebook = sys.modules.get("IPython")
        if notebook is not None and notebook.get_ipython() is not None:
            notebook.display.display(picture)
        else:
            picture.show(self.file_name or None)

    def _repr_png_(self) -> bytes | None:
        """A picture for notebooks; None if there is nothing to draw."""
        if not self.tasks:
            return None
        buffer = io.BytesIO()
        self.draw().save(buffer, "png")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """A picture for notebooks, with the words of :meth:`summary` below."""
        words = html.escape(f"{self.file_name or 'image'}, {self._size_in_words()}: {self.summary()}")
        picture = self._repr_png_()
        shown = ""
        if picture is not None:
            content = base64.b64encode(picture).decode("ascii")
            shown = f'<img src="data:image/png;base64,{content}" alt="{words}" style="max-width: 100%">'
        return f"<figure>{shown}<figcaption>{words}</figcaption></figure>"

    def to_pandas(self) -> pandas.DataFrame:
        """The objects as a table, best first.

        Its columns are ``class_name``, ``class_index``, ``category_id`` (of the annotation file), ``score``,
        the box in pixels as ``x0``, ``y0``, ``x1``, ``y1`` and, if there are masks, ``mask_area``.

        Raises:
            ImportError: the package pandas is not installed.
        """
        return formats.instances_to_pandas(self._part("instance"), self.categories)

    def to_coco(self, image_id: formats.ImageId = 0) -> list[dict[str, Any]]:
        """The objects in COCO's result format; see :func:`detrex.predict.formats.instances_to_coco`."""
        return formats.instances_to_coco(self._part("instance"), self.categories, image_id)

    def to_coco_panoptic(
        self, image_id: formats.ImageId = 0, file_name: str = "panoptic.png"
    ) -> tuple[dict[str, Any], Image.Image]:
        """The segments in COCO's panoptic format: an entry for ``annotations``, and the PNG it names.

        See :func:`detrex.predict.formats.panoptic_to_coco`.
        """
        ids, segments = self._part("panoptic")
        return formats.panoptic_to_coco(ids, segments, self.categories, image_id, file_name)

    def to_coco_semantic(self, image_id: formats.ImageId = 0) -> list[dict[str, Any]]:
        """A mask per class in COCO's stuff format; see :func:`detrex.predict.formats.semantic_to_coco`."""
        return formats.semantic_to_coco(self._part("semantic"), self.categories, image_id)

    def to_supervision(self) -> supervision.Detections:
        """The objects as ``supervision.Detections``, with class names in ``data["class_name"]``.

        Raises:
            ImportError: the package supervision is not installed.
        """
        return formats.instances_to_supervision(self._part("instance"), self.categories)

    def to_dict(self, masks: bool = True) -> dict[str, Any]:
        """All results as plain values, ready for JSON.

        Args:
            masks: whether to include masks, as COCO's compressed RLE.

        Returns:
            ``file_name``, ``height``, ``width`` and those of ``instances`` (``class_name``, ``category_id``,
            ``score``, ``box`` as xyxy in pixels, in videos ``track_id``), ``panoptic`` and ``semantic``
            (``class_name``, ``category_id``, ``area`` in pixels, for segments ``id``, ``isthing`` and
            ``score``) that the result holds, each entry with ``mask``.
        """
        height, width = self.image_size
        content: dict[str, Any] = {"file_name": self.file_name, "height": height, "width": width}
        if self.instances is not None:
            content["instances"] = [
                {
                    **self._class(found.class_index),
                    "score": found.score,
                    "box": list(found.box),
                    **({} if found.track_id is None else {"track_id": found.track_id}),
                    **({"mask": mask.to_coco()[0]} if masks and (mask := found.compressed_mask) else {}),
                }
                for found in self
            ]
        if self.panoptic is not None:
            ids, segments = self.panoptic
            content["panoptic"] = [
                {
                    **self._class(segment["category_id"]),
                    **{key: segment[key] for key in ("id", "isthing", "score")},
                    **_area(ids == segment["id"], masks),
                }
                for segment in segments
            ]
        if self.semantic is not None:
            content["semantic"] = [
                {**self._class(k), **_area(self.semantic == k, masks)}
                for k in self.semantic.unique().tolist()
            ]
        return content

    def _part(self, task: str) -> Any:
        if task not in TASKS:
            raise ValueError(f"there is no task {task!r}; there are {', '.join(TASKS)}")
        part = {"instance": self.instances, "panoptic": self.panoptic, "semantic": self.semantic}[task]
        if part is None:
            raise ValueError(
                f"there are no {task} results here, but {', '.join(self.tasks) or 'none at all'}: the model "
                "does not give them, or the call asked for other tasks"
            )
        return part

    def _class(self, k: int) -> dict[str, Any]:
        return {"class_name": self.categories.names[k], "category_id": self.categories.ids[k]}

    def _counted(self, classes: list[int]) -> str:
        counts = Counter(self.categories.names[k] for k in classes).most_common()
        return _shortened([f"{count} {name}" for name, count in counts])


def by_content(tasks: Sequence[str]) -> tuple[str, ...]:
    """``tasks``, ordered by how much their pictures show, most first."""
    return tuple(task for task in ("panoptic", "instance", "semantic") if task in tasks)


def _area(mask: Tensor, wanted: bool) -> dict[str, Any]:
    return {"area": int(mask.sum()), **({"mask": encode_masks(mask[None])[0]} if wanted else {})}


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
