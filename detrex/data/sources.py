"""Opens a data set at any path: finds its splits, their formats and their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detrex.data.coco.json_stream import stream_members
from detrex.data.coco_instances import CocoInstances
from detrex.data.coco_panoptic import CocoPanoptic
from detrex.data.errors import DataError
from detrex.data.formats import open_unpacked, recognise, yolo_layout
from detrex.data.formats.collected import SPLIT_NAMES, listed_names
from detrex.data.image_dataset import ImageDataset
from detrex.data.semantic_folder import SemanticFolder

Task = Literal["instances", "panoptic", "semantic"]

_ROBOFLOW = "_annotations.coco.json"
_LABEL_FOLDERS = ("annotations", "labels", "masks", "segments", "SegmentationClass")
_CLASS_FILES = ("classes.json", "categories.json", "classes.txt", "labels.txt")


@dataclass(frozen=True)
class Source:
    """A split of a data set.

    Attributes:
        split: ``"train"``, ``"val"``, ``"test"``, or ``"data"`` if it is not known.
        task: instances, panoptic or semantic segmentation. Instances may have boxes only.
        format: name of the format, for messages.
        images: folder of the images.
        annotations: file or folder of the annotations; for semantic segmentation, the folder of label maps.
        segments: folder of panoptic PNGs.
        classes: for semantic segmentation, a file or names.
    """

    split: str
    task: Task
    format: str
    images: Path
    annotations: Path
    segments: Path | None = None
    classes: Path | tuple[str, ...] | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the data set's class, as plain data for a config."""
        if self.task == "semantic":
            classes = str(self.classes) if isinstance(self.classes, Path) else list(self.classes or ())
            return {"images": str(self.images), "segments": str(self.annotations), "classes": classes}
        segments = {"segments": str(self.segments)} if self.task == "panoptic" else {}
        return {"images": str(self.images), "annotations": str(self.annotations), **segments}

    def dataset(self, **options: Any) -> ImageDataset:
        """The data set.

        Args:
            options: further arguments of its class, such as ``masks=False``.

        Raises:
            DataError: the annotations have errors.
        """
        kinds = {"instances": CocoInstances, "panoptic": CocoPanoptic, "semantic": SemanticFolder}
        return kinds[self.task](**self.arguments(), **options)


def open_path(path: str | Path, split: str = "train", **options: Any) -> ImageDataset:
    """The data set at a path, in any known format.

    Args:
        path: a file or folder, see :func:`find_sources`.
        split: name of the split; ignored if there is only one.
        options: further arguments of the data set's class.

    Raises:
        FileNotFoundError: the path does not exist.
        DataError: the format is not known, there is no such split, or the annotations have errors.
    """
    sources = find_sources(path)
    if split not in sources and len(sources) > 1:
        raise DataError(f"{path} has no split {split!r}; there are {', '.join(sources)}.")
    return (sources.get(split) or next(iter(sources.values()))).dataset(**options)


def find_sources(path: str | Path) -> dict[str, Source]:
    """The splits of a data set.

    Args:
        path: an annotation file of a known format; a ``data.yaml`` of YOLO; or the folder of a data set:
            COCO, Roboflow, YOLO, Pascal VOC, LabelMe, CVAT, VIA, or images and PNG masks.

    Returns:
        The splits by name, train first.

    Raises:
        FileNotFoundError: the path does not exist.
        DataError: the path holds nothing in a known format.
    """
    path = Path(path)
    found = list(_of_folder(path) if path.is_dir() else _of_file(path))
    order = ["train", "val", "test"]
    found.sort(key=lambda source: order.index(source.split) if source.split in order else len(order))
    sources: dict[str, Source] = {}
    for source in found:
        sources.setdefault(source.split, source)
    if not sources:
        recognise(path)  # raises an error that says what the path is
        raise DataError(f"{path} holds no annotations of a known format.", "unknown-format")
    return sources


def _of_file(path: Path) -> Iterator[Source]:
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        for split, place in yolo_layout.split_paths(path).items():
            yield Source(split, "instances", "YOLO", yolo_layout.image_folder(place), place)
        return
    kind = recognise(path)
    if kind is not None:
        yield Source(_split_of(path), "instances", kind.name, kind.image_folder(path), path)
        return
    yield _coco(path)


def _of_folder(path: Path) -> Iterator[Source]:
    for lister in (_roboflow, _yolo, _coco_root, _voc_root, _semantic, _split_folders):
        found = list(lister(path))
        if found:
            yield from found
            return
    yield from _single(path)


def _roboflow(path: Path) -> Iterator[Source]:
    for folder in (path, *_subfolders(path)):
        if (folder / _ROBOFLOW).is_file():
            split = SPLIT_NAMES.get(folder.name.lower(), "data")
            yield Source(split, "instances", "COCO JSON of Roboflow", folder, folder / _ROBOFLOW)


def _yolo(path: Path) -> Iterator[Source]:
    for name in yolo_layout.CONFIG_NAMES:
        if (path / name).is_file():
            yield from _of_file(path / name)
            return
    images, labels = path / "images", path / "labels"
    if images.is_dir() and labels.is_dir() and any(labels.rglob("*.txt")):
        splits = [p.name for p in _subfolders(labels) if p.name in SPLIT_NAMES and (images / p.name).is_dir()]
        for name in splits or [""]:
            yield Source(SPLIT_NAMES.get(name, "data"), "instances", "YOLO", images / name, labels / name)


def _coco_root(path: Path) -> Iterator[Source]:
    files = sorted(p for folder in (path / "annotations", path) for p in folder.glob("*.json*"))
    instances = [p for p in files if p.name.startswith(("instances", "lvis"))]
    panoptic = [p for p in files if p.name.startswith("panoptic")]
    for file in instances or panoptic:
        try:
            yield from _of_file(file)
        except DataError:  # opening it reports what is wrong
            yield Source(_split_of(file), "instances", "unknown", file.parent, file)


def _voc_root(path: Path) -> Iterator[Source]:
    for folder, name in (("Main", "Pascal VOC"), ("Segmentation", "PNG masks of instances")):
        lists = [path / "ImageSets" / folder / f"{split}.txt" for split in ("train", "val", "test")]
        needed = path / ("Annotations" if folder == "Main" else "SegmentationObject")
        there = [p for p in lists if p.is_file() and needed.is_dir()]
        if there:
            yield from (Source(p.stem, "instances", name, path / "JPEGImages", p) for p in there)
            return


def _semantic(path: Path) -> Iterator[Source]:
    label_folder = next((path / n for n in _LABEL_FOLDERS if any((path / n).rglob("*.png"))), None)
    images = next((p for p in (path / "images", path / "JPEGImages") if p.is_dir()), None)
    if label_folder is None or images is None:
        return
    file = next((path / name for name in _CLASS_FILES if (path / name).is_file()), None)
    if file is None:
        raise DataError(
            f"{path} has images and PNGs of classes in {label_folder.name}, but no list of the classes: add "
            f"{' or '.join(_CLASS_FILES[:1] + _CLASS_FILES[2:3])}, whose first class is pixel value 0."
        )
    classes = file if file.suffix == ".json" else tuple(listed_names(file.parent, [file.name]) or ())
    splits = [
        p.name for p in _subfolders(images) if (label_folder / p.name).is_dir() and p.name in SPLIT_NAMES
    ]
    for name in splits or [""]:
        split = SPLIT_NAMES.get(name, "data")
        yield Source(
            split, "semantic", "PNG masks of classes", images / name, label_folder / name, classes=classes
        )


def _split_folders(path: Path) -> Iterator[Source]:
    for folder in _subfolders(path):
        if folder.name.lower() in SPLIT_NAMES:
            yield from _single(folder)


def _single(path: Path) -> Iterator[Source]:
    """Annotations directly in a folder: a file for each image, or one file for many images."""
    try:
        kind = recognise(path)
    except DataError:
        files = [p for p in sorted(path.iterdir()) if p.suffix.lower() in (".json", ".xml", ".gz")]
        if not files:
            raise
        yield from _of_file(files[0])
        return
    assert kind is not None  # only COCO's files have none
    yield Source(_split_of(path), "instances", kind.name, kind.image_folder(path), path)


def _coco(path: Path) -> Source:
    first, is_panoptic = _first_entries(path)
    images = _folder_with(first, path) if first else path.parent
    segments = None
    if is_panoptic:
        name = path.name.split(".")[0]
        places = (path.parent / name, path.parent.parent / name)
        segments = next((place for place in places if place.is_dir()), places[0])
    task: Task = "panoptic" if is_panoptic else "instances"
    return Source(_split_of(path), task, f"COCO JSON ({task})", images, path, segments)


def _first_entries(path: Path) -> tuple[str, bool]:
    """The name of the first image of a COCO file, and whether its annotations are panoptic."""
    name, is_panoptic = "", False
    with open_unpacked(path) as file:
        for key, value in stream_members(file):
            if not isinstance(value, Iterator) or key not in ("images", "annotations"):
                continue
            entry = next(value, None)
            if key == "images" and isinstance(entry, Mapping):
                name = str(entry.get("file_name") or str(entry.get("coco_url") or "").rpartition("/")[2])
            if key == "annotations":
                is_panoptic = isinstance(entry, Mapping) and "segments_info" in entry
            if name and key == "annotations":
                break
    return name, is_panoptic


def _folder_with(name: str, annotations: Path) -> Path:
    """The folder of an image, beside a file of annotations or above it, in the usual layouts of data sets."""
    folder, root = annotations.parent, annotations.parent.parent
    splits = [part for part in SPLIT_NAMES if part in annotations.name.lower()] or [""]
    splits = sorted(splits, key=len, reverse=True)  # train2017 before train
    places = [folder, folder / "images"]
    for place in (root, root / "images", folder, folder / "images"):
        places += [place / split for split in splits] + [place]
    there = next((place for place in places if (place / name).is_file()), None)
    if there is None and (found := next(folder.rglob(Path(name).name), None)) is not None:
        there = found.parents[len(Path(name).parts) - 1]
    return there if there is not None and (there / name).is_file() else folder


def _split_of(path: Path) -> str:
    for part in (path.name.split(".")[0], path.parent.name):
        for name, split in SPLIT_NAMES.items():
            if name in part.lower().replace("-", "_").split("_") or part.lower().endswith(f"_{name}"):
                return split
    return "data"


def _subfolders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir())


def source_of(images: Path, annotations: Path) -> Source:
    """A split, from the folder of its images and the path of its annotations.

    Raises:
        FileNotFoundError: the annotations do not exist.
        DataError: their format is not known.
    """
    kind = recognise(annotations)
    split = _split_of(annotations)
    if kind is not None:
        return Source(split, "instances", kind.name, images, annotations)
    found = _coco(annotations)
    return Source(split, found.task, found.format, images, annotations, found.segments)
