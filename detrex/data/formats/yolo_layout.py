"""Classes, splits and folders of YOLO data sets: ``data.yaml`` or a list of names, images and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from detrex.data.errors import DataError
from detrex.data.formats.collected import listed_names

CONFIG_NAMES = ("data.yaml", "dataset.yaml", "data.yml")
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def class_names(path: Path) -> list[str]:
    """The classes of a split, from the ``data.yaml`` or list of names in its folder or above it.

    Raises:
        DataError: there is no such file.
    """
    for place in (path, *list(path.absolute().parents)[:3]):
        for file in (place / name for name in CONFIG_NAMES):
            if file.is_file() and (names := read_config(file).get("names")):
                return names_of(names, file)
    if names := listed_names(path, NAME_FILES):
        return names
    raise DataError(
        f"{path} has labels of YOLO, but no data.yaml with 'names', nor {' or '.join(NAME_FILES)}, "
        f"there or above."
    )


def names_of(names: Any, where: Path) -> list[str]:
    """The names in a ``data.yaml``, which may be a list or a mapping from the index."""
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(
                f"{where}: 'names' has the indices {sorted(names)[:10]}; expected are 0, 1, 2, ..."
            )
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise DataError(f"{where}: 'names' is no list of texts.")
    return [str(name) for name in names]


def read_config(path: Path) -> dict[str, Any]:
    """The content of a ``data.yaml``.

    Raises:
        DataError: the file is not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} is no data.yaml of YOLO: expected are keys such as 'train', 'val' and 'names'."
        )
    return content


def split_paths(path: Path) -> dict[str, Path]:
    """The splits of a ``data.yaml``, and the folder or list of images of each that exists."""
    config = read_config(path)
    root = path.parent
    if isinstance(given := config.get("path"), str) and (root / given).is_dir():
        root = root / given
    found: dict[str, Path] = {}
    for split in ("train", "val", "test"):
        entry = config.get(split)
        entry = entry[0] if isinstance(entry, list) and len(entry) == 1 else entry
        if isinstance(entry, str):
            # Roboflow writes ../train/images for a folder beside the file.
            places = [root / entry, path.parent / entry, path.parent / entry.removeprefix("../")]
            if there := [place for place in places if place.exists()]:
                found[split] = there[0]
        elif entry is not None:
            raise DataError(
                f"{path}: '{split}' is {entry!r}; expected is one folder, or a text file that lists images."
            )
    return found


def image_folder(path: Path) -> Path:
    """The folder of the images of a split, which is a folder of either kind or a list of images."""
    if not path.is_dir():
        return path.parent
    if _holds_both(path):
        return path / "images"
    return _exchanged(path, "labels", "images") if _is_labels(path) else path


def label_folder(path: Path) -> Path:
    """The folder of the label files of a split."""
    if _holds_both(path):
        return path / "labels"
    return path if _is_labels(path) else labels_beside(path)


def labels_beside(images: Path) -> Path:
    """The folder of label files that belongs to a folder of images."""
    return _exchanged(images, "images", "labels") if "images" in images.parts else images


def _holds_both(path: Path) -> bool:
    return (path / "images").is_dir() and (path / "labels").is_dir()


def _is_labels(path: Path) -> bool:
    return "labels" in path.parts[-3:]


def _exchanged(path: Path, old: str, new: str) -> Path:
    """``path`` with its last part called ``old`` replaced by ``new``."""
    parts = list(path.parts)
    place = len(parts) - 1 - parts[::-1].index(old)
    return Path(*parts[:place], new, *parts[place + 1 :])
