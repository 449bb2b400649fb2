"""What an exported model found in one picture, as arrays.

Shape letters: N objects, H and W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from detrex.runtime.exported.description import Description
from detrex.runtime.exported.rle import encode


@dataclass(frozen=True, eq=False)
class Detection:
    """One object.

    Attributes:
        box: x0, y0, x1, y1 in pixels; it may reach beyond the picture.
        score: in [0, 1].
        class_index: of the model.
        class_name: of ``class_index``.
        mask: (H, W) bool, or None from models without masks.
    """

    box: tuple[float, float, float, float]
    score: float
    class_index: int
    class_name: str
    mask: np.ndarray | None

    def __repr__(self) -> str:
        box = ", ".join(f"{c:.1f}" for c in self.box)
        return f"<Detection {self.class_name} {self.score:.0%} at ({box})>"


@dataclass(repr=False, eq=False)
class Result:
    """Results at the size of the picture: like :class:`detrex.Result`, but with arrays for tensors.

    It is a sequence of its objects, best first: ``len(result)``, ``result[0]``, ``for detection in result``;
    ``result[:3]`` is a result with the best three.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        description: of the model: class names, ids, things and colours.
        file_name: as it was given, or empty.
        boxes: (N, 4) float32, absolute xyxy in pixels; None if the model gives no objects.
        scores: (N,) float32 in [0, 1], descending; None if ``boxes`` is.
        classes: (N,) int64 class indices; None if ``boxes`` is.
        masks: (N, H, W) bool, or None from models without masks.
        panoptic: segment ids (H, W) int32, 0 for none, and for each segment ``id``, ``category_id`` (class
            index), ``isthing`` and ``score``; or None.
        semantic: class index of every pixel (H, W) int64, or None.
    """

    image: np.ndarray
    description: Description
    file_name: str = ""
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    classes: np.ndarray | None = None
    masks: np.ndarray | None = None
    panoptic: tuple[np.ndarray, list[dict[str, Any]]] | None = None
    semantic: np.ndarray | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        height, width = self.image.shape[:2]
        return height, width

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of ``instance``, ``panoptic`` and ``semantic`` that this result holds."""
        parts = {"instance": self.boxes, "panoptic": self.panoptic, "semantic": self.semantic}
        return tuple(task for task, part in parts.items() if part is not None)

    @property
    def class_names(self) -> list[str]:
        """The class name of each object."""
        return [] if self.classes is None else [self.description.class_names[k] for k in self.classes]

    def __len__(self) -> int:
        """The number of objects; 0 without instances."""
        return 0 if self.scores is None else len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

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
            return self._chosen(index)
        if (
            self.boxes is None
            or self.scores is None
            or self.classes is None
            or not -len(self) <= index < len(self)
        ):
            raise IndexError(f"result[{index}]: there are {len(self)} objects")
        x0, y0, x1, y1 = self.boxes[index].tolist()
        label = int(self.classes[index])
        mask = None if self.masks is None else self.masks[index]
        name = self.description.class_names[label]
        return Detection((x0, y0, x1, y1), float(self.scores[index]), label, name, mask)

    def filter(self, classes: str | int | Iterable[str | int] | None = None, score: float = 0.0) -> Result:
        """A copy without objects and panoptic segments of other classes or lower scores.

        Pixels of removed segments then belong to no segment. Semantic classes stay as they are.

        Args:
            classes: names or class indices, one or several; None for all.
            score: the lowest score that stays, in [0, 1].

        Raises:
            ValueError: the model has no such class.
        """
        labels = self._labels(classes)
        filtered = self
        if self.scores is not None and self.classes is not None:
            filtered = self._chosen(np.isin(self.classes, labels) & (self.scores >= score))
        if self.panoptic is None:
            return filtered
        ids, segments = self.panoptic
        kept = [s for s in segments if s["category_id"] in labels and s["score"] >= score]
        inside = np.isin(ids, [s["id"] for s in kept])
        return replace(filtered, panoptic=(np.where(inside, ids, 0), kept))

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """The objects in COCO's result format: boxes as xywh, masks as compressed run lengths."""
        entries = []
        for found in self:
            x0, y0, x1, y1 = found.box
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": self.description.category_ids[found.class_index],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": found.score,
            }
            if found.mask is not None:
                entry["segmentation"] = encode(found.mask)
            entries.append(entry)
        return entries

    def draw(self, line_width: int = 2, opacity: float = 0.45) -> Any:
        """Draws panoptic segments, else objects, else semantic classes over the picture, as a PIL image.

        Args:
            line_width: of boxes in pixels.
            opacity: of colours, in [0, 1].

        Raises:
            ImportError: the package pillow is not installed.
        """
        from PIL import Image, ImageDraw

        pixels = self.image.astype(np.float32)
        for mask, color in self._regions():
            pixels[mask] += opacity * (np.array(color, np.float32) - pixels[mask])
        picture = Image.fromarray(pixels.round().astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        for found in self:
            color = self.description.colors[found.class_index]
            pen.rectangle(found.box, outline=color, width=line_width)
            words = f"{found.class_name} {found.score:.0%}"
            place = (max(found.box[0], 0) + line_width, max(found.box[1], 0))
            pen.rectangle(pen.textbbox(place, words), fill=color)
            pen.text(place, words, fill=(0, 0, 0) if sum(color) > 380 else (255, 255, 255))
        return picture

    def save(self, path: str | Path, **options: Any) -> Path:
        """Writes the picture that :meth:`draw` returns; creates its folder if need be."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.draw(**options).save(path)
        return path

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"<Result {self.file_name or 'image'}, {height} x {width}: {len(self)} objects>"

    def _regions(self) -> Iterator[tuple[np.ndarray, tuple[int, int, int]]]:
        """Yields masks (H, W) to colour, each with its colour."""
        colors = self.description.colors
        if self.panoptic is not None:
            ids, segments = self.panoptic
            yield from ((ids == s["id"], colors[s["category_id"]]) for s in segments)
        elif self.masks is not None and self.classes is not None:
            # The best one last, on top of the others.
            rows = reversed(range(len(self)))
            yield from ((self.masks[i], colors[self.classes[i]]) for i in rows)
        elif self.semantic is not None:
            yield from ((self.semantic == k, colors[k]) for k in np.unique(self.semantic))

    def _chosen(self, index: slice | np.ndarray) -> Result:
        boxes, scores, classes, masks = (
            None if part is None else part[index]
            for part in (self.boxes, self.scores, self.classes, self.masks)
        )
        return replace(self, boxes=boxes, scores=scores, classes=classes, masks=masks)

    def _labels(self, classes: str | int | Iterable[str | int] | None) -> list[int]:
        names = self.description.class_names
        if classes is None:
            return list(range(len(names)))
        wanted = [classes] if isinstance(classes, str | int) else list(classes)
        unknown = [c for c in wanted if c not in names and c not in range(len(names))]
        if unknown:
            raise ValueError(f"the model has no class {unknown[0]!r}; there are {', '.join(names)}")
        return [names.index(c) if isinstance(c, str) else c for c in wanted]
