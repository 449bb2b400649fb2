"""What an exported file says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass
from typing import Any

VERSION = 1
"""Version of the inputs, the outputs and the entries of the metadata."""

TASKS = ("instance", "panoptic", "semantic")


class ExportedModelError(ValueError):
    """The file was not written by ``detrex export``, or it cannot run here."""


@dataclass(frozen=True)
class Description:
    """The metadata of an exported file.

    Attributes:
        tasks: those of ``instance``, ``panoptic`` and ``semantic`` that the model performs.
        class_names: class ``k`` is ``class_names[k]``.
        category_ids: ids of the classes in annotation files.
        is_thing: whether a class has countable instances.
        colors: RGB in 0..255 of each class.
        thresholds: names of the inputs besides the pictures, each with its value in the model's config.
        class_thresholds: for each class, the score threshold with the best F1 in the evaluation of the
            weights, or None if it is not known; None altogether if the weights were not evaluated.
        batch: number of pictures in each call, None for any.
        sides: the smallest and largest height and width of pictures in pixels, such as ``(480, 640)`` twice
            for pictures of one size.
        preprocessing: what the graph does with pictures: ``size`` and ``max_size`` of the resized shorter and
            longer side, ``mean`` and ``std`` of RGB in 0..255, and ``size_divisor`` of the padded sides.
        value_range: for images of 16 bits a channel, the values that become 0 and 255; None for 0 and 65535.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        name: of the model that was exported.
        detrex_version: of the package that wrote the file.
        precision_thresholds: for each class, the lowest score threshold that reached each precision in the
            evaluation of the weights; None if the weights were not evaluated.
    """

    tasks: tuple[str, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    is_thing: tuple[bool, ...]
    colors: tuple[tuple[int, int, int], ...]
    thresholds: dict[str, float]
    class_thresholds: tuple[float | None, ...] | None
    batch: int | None
    sides: tuple[tuple[int, int], tuple[int, int]]
    preprocessing: dict[str, Any]
    value_range: tuple[float, float] | None
    precision: str
    name: str
    detrex_version: str
    precision_thresholds: tuple[dict[float, float], ...] | None = None

    def to_metadata(self) -> dict[str, str]:
        """The metadata as files hold it: JSON text by key."""
        return {"version": str(VERSION), **{key: json.dumps(value) for key, value in asdict(self).items()}}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str) -> Description:
        """The inverse of :meth:`to_metadata`.

        Args:
            metadata: text by key; unknown keys are ignored.
            path: the file, for error messages.

        Raises:
            ExportedModelError: the file was not written by ``detrex export``, or by a newer one.
        """
        if metadata.get("version") != str(VERSION):
            found = metadata.get("version")
            raise ExportedModelError(
                f"{path} was not written by 'detrex export': its metadata say nothing of classes"
                if found is None
                else f"{path} is of version {found} of exported files, this detrex reads {VERSION}"
            )
        try:
            known = [key for key in cls.__dataclass_fields__ if key in metadata]
            values = {key: json.loads(metadata[key]) for key in known}
            return cls(**values)._checked()
        except (KeyError, TypeError, ValueError) as error:
            raise ExportedModelError(f"{path}: its metadata are damaged ({error})") from error

    def _checked(self) -> Description:
        """A copy with tuples in place of JSON's lists.

        Raises:
            TypeError, ValueError: a value has the wrong type or form.
        """
        count = len(self.class_names)
        kept: list[Sized] = [k for k in (self.class_thresholds, self.precision_thresholds) if k is not None]
        for values in (self.category_ids, self.is_thing, self.colors, *kept):
            if len(values) != count:
                raise ValueError(f"{count} class names, but {len(values)} values for classes")
        if not self.tasks or set(self.tasks) - set(TASKS):
            raise ValueError(f"tasks are {self.tasks}")
        (low, high), (narrow, wide) = self.sides
        return Description(
            tasks=tuple(self.tasks),
            class_names=tuple(map(str, self.class_names)),
            category_ids=tuple(map(int, self.category_ids)),
            is_thing=tuple(map(bool, self.is_thing)),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in self.colors),
            thresholds={str(key): float(value) for key, value in self.thresholds.items()},
            class_thresholds=None
            if self.class_thresholds is None
            else tuple(None if t is None else float(t) for t in self.class_thresholds),
            batch=None if self.batch is None else int(self.batch),
            sides=((int(low), int(high)), (int(narrow), int(wide))),
            preprocessing=dict(self.preprocessing),
            value_range=None
            if self.value_range is None
            else (float(self.value_range[0]), float(self.value_range[1])),
            precision=str(self.precision),
            name=str(self.name),
            detrex_version=str(self.detrex_version),
            precision_thresholds=None
            if self.precision_thresholds is None
            else tuple(
                {float(p): float(t) for p, t in of_class.items()} for of_class in self.precision_thresholds
            ),
        )
