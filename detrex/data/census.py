"""What a data set holds: images, objects, classes, sizes, and what was left out why."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

SMALL, LARGE = 32**2, 96**2
"""COCO's borders of small, medium and large objects, in square pixels of area."""


class ObjectCounts(msgspec.Struct, frozen=True):
    """Numbers of the objects of a data set.

    Attributes:
        images: how many images there are.
        per_class: how many objects each class has, by class index; crowds do not count.
        crowds_per_class: likewise, of crowds.
        left_out: why how many annotations are no objects.
        small, medium, large: objects by area, see :data:`SMALL` and :data:`LARGE`.
        empty_images: images without an object.
        median, nearly_all, most: objects of an image: as many as half of the images have at most, 99 % of
            them, and all.
    """

    images: int
    per_class: list[int]
    crowds_per_class: list[int]
    left_out: dict[str, int]
    small: int
    medium: int
    large: int
    empty_images: int
    median: float
    nearly_all: float
    most: int

    @property
    def objects(self) -> int:
        """How many objects there are."""
        return sum(self.per_class)

    @property
    def crowds(self) -> int:
        """How many crowds there are."""
        return sum(self.crowds_per_class)

    def nothing_because(self) -> str:
        """Why there are no objects."""
        reasons = {f"{name}": count for name, count in self.left_out.items() if count}
        if self.crowds:
            reasons[
                "are crowds (iscrowd 1), which nothing can be learned from; if they are single objects, set 0"
            ] = self.crowds
        if not reasons:
            return "it has no annotations"
        return "of its annotations, " + "; ".join(f"{count} {name}" for name, count in reasons.items())


def count_objects(
    images: int,
    classes: int,
    owner: np.ndarray,
    label: np.ndarray,
    crowd: np.ndarray,
    area: np.ndarray,
    left_out: Mapping[str, int],
) -> ObjectCounts:
    """The numbers of N objects and crowds.

    Args:
        images: how many images there are.
        classes: how many classes there are.
        owner: (N,) integers, the index of each object's image.
        label: (N,) integers, class indices.
        crowd: (N,) bool.
        area: (N,) in square pixels; NaN where it is not known.
        left_out: why how many annotations are not among the N.
    """
    single = ~crowd
    in_image = np.bincount(owner[single], minlength=images)
    area = area[single]
    return ObjectCounts(
        images=images,
        per_class=np.bincount(label[single], minlength=classes).tolist(),
        crowds_per_class=np.bincount(label[crowd], minlength=classes).tolist(),
        left_out={reason: count for reason, count in left_out.items() if count},
        small=int((area < SMALL).sum()),
        medium=int(((area >= SMALL) & (area < LARGE)).sum()),
        large=int((area >= LARGE).sum()),
        empty_images=int((in_image == 0).sum()),
        median=float(np.median(in_image)),
        nearly_all=float(np.percentile(in_image, 99)),
        most=int(in_image.max()),
    )
