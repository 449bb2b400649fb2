"""Semantic segmentation: a folder of images and a folder of PNGs of class ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from detrex.data.categories import read_categories
from detrex.data.coco.categories import parse_categories
from detrex.data.coco.reader import ImageEntry
from detrex.data.coco.store import Records
from detrex.data.errors import DataError
from detrex.data.image_dataset import ImageDataset
from detrex.data.image_io import IMAGE_SUFFIXES, Orientation, image_facts, read_label_map
from detrex.structures import Targets

_MUCH = 0.5  # a warning if at least this share of pixels is ignored


class SemanticFolder(ImageDataset):
    """Images with one label map each, paired by name: ``images/a/b.jpg`` with ``segments/a/b.png``.

    The pixels of a label map are category ids. Each class in an image is one object of its targets, whose
    mask is the whole region of the class; because regions are not single things, ``is_thing`` is False for
    all. The id of an image is its name without suffix (``"a/b"``).

    Args:
        images: folder of the images, searched with its subfolders.
        segments: folder of the PNGs, one channel or a palette.
        classes: names (ids are 0, 1, ...), or the path of a JSON file (see
            :func:`detrex.data.read_categories`).
        ignore_label: value, or values, of unlabelled pixels.
        image_suffix: ending of the images' names, if it is more than a file type (Cityscapes:
            ``_leftImg8bit.png``); empty: all images.
        segment_suffix: ending of the PNGs' names (Cityscapes: ``_gtFine_labelIds.png``).
        targets: whether to load label maps; if not, images have no targets.
        orientation: the picture on which labels were drawn, see :data:`detrex.data.image_io.Orientation`.
        value_range: for images of 16 bits a channel, see :func:`detrex.data.image_io.read_image`.

    Raises:
        FileNotFoundError: there is no file of classes.
        DataError: a folder is missing or empty, or images have no label map.
    """

    def __init__(
        self,
        images: str | Path,
        segments: str | Path,
        classes: str | Path | Sequence[str],
        ignore_label: int | Sequence[int] = 255,
        image_suffix: str = "",
        segment_suffix: str = ".png",
        targets: bool = True,
        orientation: Orientation = "auto",
        value_range: tuple[float, float] | None = None,
    ):
        if isinstance(classes, str | Path):
            categories = read_categories(classes)
        else:
            categories = parse_categories(list(classes), "classes")
        super().__init__(images, categories, orientation, value_range)
        self.segments, self.segment_suffix = Path(segments), segment_suffix
        self.ignore_labels = {ignore_label} if isinstance(ignore_label, int) else set(ignore_label)
        self.load_targets = targets
        pairs = _pairs(self.images, self.segments, image_suffix, segment_suffix)
        self._entries = Records.in_memory((ImageEntry(*pair) for pair in pairs.items()), ImageEntry)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, index: int) -> ImageEntry:
        return self._entries[index]

    def label_path(self, index: int) -> Path:
        """The label map of image ``index``."""
        return self.segments / f"{self._entries[index].image_id}{self.segment_suffix}"

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of image ``index`` in pixels, from the header of its label map."""
        return image_facts(self.label_path(index)).size

    def targets(self, index: int) -> Targets:
        height, width = self.image_size(index)
        if not self.load_targets:
            return Targets.empty(height, width)
        path = self.label_path(index)
        label_map = read_label_map(path, (height, width))
        self._check(label_map, path)
        present = [i for i in np.unique(label_map).tolist() if i not in self.ignore_labels]
        ids = torch.tensor(present, dtype=torch.int32)
        masks = torch.from_numpy(label_map.astype(np.int32)) == ids[:, None, None]
        targets = self.targets_from_masks(
            torch.tensor([self.categories.index_of[i] for i in present], dtype=torch.int64), masks
        )
        targets.is_thing = torch.zeros_like(targets.is_thing)
        return targets

    def check_labels(self, indices: Sequence[int]) -> list[str]:
        """Checks the label maps of some images.

        Returns:
            Warnings for users of the data set, about ignored pixels and classes that do not occur.

        Raises:
            DataError: a label map cannot be read, or has values that are not classes.
        """
        seen: Counter[int] = Counter()
        for index in indices:
            path = self.label_path(index)
            label_map = read_label_map(path)
            self._check(label_map, path)
            values, counts = np.unique(label_map, return_counts=True)
            seen.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        ignored = sum(seen[i] for i in self.ignore_labels)
        share = ignored / max(1, seen.total())
        names = dict(zip(self.categories.ids, self.categories.names, strict=True))
        missing = [name for i, name in names.items() if i not in seen]
        looked_at = f"in {len(indices)} label maps looked at"
        warnings = []
        if missing:
            first = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            warnings.append(
                f"{len(missing)} of {len(names)} classes do not occur {looked_at} ({first}); {share:.1%} "
                "of the pixels "
                f"have the values of ignore_label ({sorted(self.ignore_labels)}). If one of these is a "
                "class, set "
                "ignore_label to another value, and list the class with that id"
            )
        elif share > _MUCH:
            warnings.append(
                f"{share:.1%} of the pixels {looked_at} are ignored ({sorted(self.ignore_labels)})"
            )
        return warnings

    def _check(self, label_map: np.ndarray, path: Path) -> None:
        if label_map.ndim != 2:
            raise DataError(
                f"{path} has {label_map.shape[2]} channels; a label map has one, or a palette. Convert its "
                "colours to category ids."
            )
        unknown = [
            i
            for i in np.unique(label_map).tolist()
            if i not in self.categories.index_of and i not in self.ignore_labels
        ]
        if unknown:
            raise DataError(
                f"{path} has pixels of the values {unknown[:10]}, which are neither category ids nor "
                f"ignore_label ({sorted(self.ignore_labels)}). Correct the classes or ignore_label."
            )


def label_pairs(images: Path, segments: Path, image_suffix: str, segment_suffix: str) -> dict[str, Path]:
    """The label map of each image, which need not exist, in alphabetical order of the images.

    Args:
        images, segments, image_suffix, segment_suffix: see :class:`SemanticFolder`.

    Returns:
        Label maps by the path of the image in ``images``.

    Raises:
        DataError: there are no images, or two have the same name.
    """
    names: dict[str, str] = {}
    for path in sorted(_files(images)):
        if not path.name.endswith(image_suffix) or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        relative = path.relative_to(images).as_posix()
        name = relative.removesuffix(image_suffix or path.suffix)
        if name in names:
            raise DataError(f"{images} has two images of one name, {names[name]} and {relative}. Rename one.")
        names[name] = relative
    if not names:
        raise DataError(f"{images} has no images with names that end with '{image_suffix}'. Check the path.")
    return {image: segments / f"{name}{segment_suffix}" for name, image in names.items()}


def _pairs(images: Path, segments: Path, image_suffix: str, segment_suffix: str) -> dict[str, str]:
    """The path of each image in ``images`` by its name without suffix, in alphabetical order."""
    pairs = label_pairs(images, segments, image_suffix, segment_suffix)
    labels = set(_files(segments))
    missing = [(image, label) for image, label in pairs.items() if label not in labels]
    if missing:
        image, label = missing[0]
        raise DataError(
            f"{len(missing)} of {len(pairs)} images in {images} have no label map in {segments}, the first "
            f"being {image} (expected: {label.relative_to(segments).as_posix()})."
        )
    return {
        label.relative_to(segments).as_posix().removesuffix(segment_suffix): image
        for image, label in pairs.items()
    }


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"Folder {folder} does not exist. Check the path.")
    return [p for p in folder.rglob("*") if p.is_file()]
