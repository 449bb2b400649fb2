"""Ground truth of semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from detrex.data.errors import DataError
from detrex.data.image_io import read_label_map
from detrex.evaluation.gather import image_id_of
from detrex.evaluation.panoptic_files import PanopticFiles
from detrex.structures import Categories, Sample

IGNORED = -1


class SemanticTruth(Protocol):
    """The source of ground truth for :class:`detrex.evaluation.SemanticEvaluator`."""

    categories: Categories

    def read(self, sample: Sample) -> np.ndarray:
        """Class indices (H, W) int64 of the sample's image, -1 for unlabelled pixels."""

    def __len__(self) -> int:
        """Number of images."""


class SemanticPngs:
    """PNGs whose pixels are category ids; the PNG of ``some/image.jpg`` is ``segments/some/image.png``.

    Args:
        segments: folder of the PNGs.
        categories: the classes; for classes without ids, the id is the class index.
        ignore_label: value, or values, of unlabelled pixels.
        image_suffix: ending of the images' names that the PNGs' names lack; empty: the file type.
        segment_suffix: ending of the PNGs' names.
    """

    def __init__(
        self,
        segments: str | Path,
        categories: Categories,
        ignore_label: int | Sequence[int] = 255,
        image_suffix: str = "",
        segment_suffix: str = ".png",
    ) -> None:
        self.segments = Path(segments)
        self.categories = categories
        self.ignore_labels = [ignore_label] if isinstance(ignore_label, int) else list(ignore_label)
        self.image_suffix, self.segment_suffix = image_suffix, segment_suffix
        if not self.segments.is_dir():
            raise FileNotFoundError(f"{segments}: no such directory (semantic PNGs)")
        self._index = np.full(max(categories.ids) + 1, IGNORED)
        self._index[list(categories.ids)] = np.arange(len(categories))

    def __len__(self) -> int:
        return sum(1 for _ in self.segments.rglob(f"*{self.segment_suffix}"))

    def read(self, sample: Sample) -> np.ndarray:
        """Class indices (H, W) int64, -1 where the PNG has ``ignore_label``.

        Raises:
            DataError: the PNG is missing, has several channels, or has a value that is neither a category id
                nor ``ignore_label``.
            ValueError: the sample does not name its file.
        """
        if "file_name" not in sample:
            raise ValueError("semantic evaluation needs samples with a 'file_name', as EvalMapper makes them")
        name = sample["file_name"].removesuffix(self.image_suffix or Path(sample["file_name"]).suffix)
        path = self.segments / f"{name}{self.segment_suffix}"
        values = read_label_map(path).astype(np.int64)
        if values.ndim != 2:
            raise DataError(f"{path} has several channels: a semantic PNG has one, of category ids")
        ignored = np.isin(values, self.ignore_labels)
        known = ~ignored & (values < len(self._index))
        labels = np.where(known, self._index[np.where(known, values, 0)], IGNORED)
        if unknown := np.unique(values[(labels == IGNORED) & ~ignored]).tolist():
            raise DataError(
                f"{path} has the values {unknown[:10]}, which are neither category ids "
                f"nor ignore_label ({self.ignore_labels})"
            )
        return labels


class PanopticAsSemantic:
    """The classes of panoptic segments; void is unlabelled, crowds count as their class."""

    def __init__(self, files: PanopticFiles) -> None:
        self._files = files
        self.categories = files.categories

    def __len__(self) -> int:
        return len(self._files)

    def read(self, sample: Sample) -> np.ndarray:
        """Class indices (H, W) int64, -1 for void; for errors, see :meth:`PanopticFiles.read`."""
        truth = self._files.read(image_id_of(sample))
        return np.concatenate([[IGNORED], truth.classes])[truth.index_map()]
