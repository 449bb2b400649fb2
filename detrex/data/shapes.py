"""The embedded data set: random scenes of shapes, written to disk in COCO's formats.

It needs no download, and the same classes read it as real data. Layout under ``root``::

    {split}/000000.png                      pictures
    annotations/instances_{split}.json      things, COCO instance format (RLE masks)
    annotations/panoptic_{split}.json       things and stuff, COCO panoptic format
    annotations/semantic_classes.json       the classes of the semantic PNGs
    panoptic_{split}/000000.png             segment ids as R + 256 G + 65536 B
    semantic_{split}/000000.png             class indices, 255 for no class
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from detrex.data.shapes_scene import COLORS, STUFF, THINGS, Scene, draw_scene
from detrex.structures.panoptic import rgb_from_ids

_VERSION = 2  # raised whenever the pictures or files change, so that old copies on disk are replaced
_MARKER = "shapes.json"
_NO_LABEL = 255


def ensure_shapes(
    root: str,
    splits: Mapping[str, int] | None = None,
    image_size: int = 128,
    seed: int = 0,
    file: str = "",
) -> str:
    """Writes the data set if it does not exist yet, and returns the path of ``file`` in it.

    It is meant for paths in configs: ``L(ensure_shapes)(root=..., file="annotations/...")`` makes sure that
    the file exists when it is needed. Arguments are those of :func:`write_shapes_dataset`.
    """
    return str(write_shapes_dataset(root, splits, image_size, seed) / file)


def write_shapes_dataset(
    root: str | Path,
    splits: Mapping[str, int] | None = None,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Writes the data set under ``root``, unless it exists with the same parameters.

    The same arguments give the same pixels and annotations. A data set with other parameters that this
    function wrote is replaced; the new one appears complete, in one step.

    Args:
        root: folder to write.
        splits: number of images of each split; default ``{"train": 2000, "val": 100}``.
        image_size: height and width of the pictures in pixels, at least 32.
        seed: a scene depends on it, on its split's name and on its number.

    Returns:
        ``root`` as a path.

    Raises:
        ValueError: the image size is too small, or ``root`` holds files that this function did not write.
    """
    if image_size < 32:
        raise ValueError(f"image_size={image_size} is too small to draw shapes: take at least 32")
    splits = dict(splits) if splits is not None else {"train": 2000, "val": 100}
    wanted = {"version": _VERSION, "splits": splits, "image_size": image_size, "seed": seed}

    def write(new: Path) -> None:
        for split, count in splits.items():
            _write_split(new, split, count, image_size, seed)
        write_json(new / "annotations" / "semantic_classes.json", _categories(first_id=0))

    return write_generated(Path(root), wanted, write)


def write_generated(root: Path, wanted: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """Writes a generated data set, unless it exists with the same parameters.

    Args:
        root: its folder.
        wanted: its parameters, in types of JSON. A data set with other parameters is replaced, in one step.
        write: writes the files to the folder that is its argument.

    Returns:
        ``root``.

    Raises:
        ValueError: ``root`` holds files that this function did not write.
    """
    if _marker(root) == wanted:
        return root
    if root.exists() and any(root.iterdir()) and _marker(root) is None:
        raise ValueError(f"{root} holds files that are not the shapes data set: choose another root")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        new = Path(temporary) / "new"
        write(new)
        write_json(new / _MARKER, wanted)
        _replace(root, new, Path(temporary) / "old", wanted)
    return root


def _marker(root: Path) -> dict[str, Any] | None:
    path = root / _MARKER
    return json.loads(path.read_text()) if path.is_file() else None


def _replace(root: Path, new: Path, old: Path, wanted: dict[str, Any]) -> None:
    """Moves ``new`` to ``root``, unless another process was faster with the same data."""
    try:
        if root.exists():
            root.rename(old)
        new.rename(root)
    except OSError:
        if _marker(root) != wanted:
            raise


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    folders = {kind: root / f"{kind}{split}" for kind in ("", "panoptic_", "semantic_")}
    for folder in (*folders.values(), root / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    for i in range(count):
        scene = draw_scene(np.random.default_rng([seed, *split.encode(), i]), size)
        name = f"{i:06d}.png"
        save_png(folders[""] / name, scene.image)
        save_png(folders["panoptic_"] / name, rgb_from_ids(scene.segments))
        lookup = np.array([_NO_LABEL, *scene.classes], np.uint8)
        save_png(folders["semantic_"] / name, lookup[scene.segments])
        images.append({"id": i + 1, "file_name": name, "height": size, "width": size})
        segments = _segments_info(scene)
        panoptic.append({"image_id": i + 1, "file_name": name, "segments_info": segments})
        instances += _instances(scene, segments, i + 1, len(instances))
    things = [c for c in _categories(first_id=1) if c["isthing"]]
    for kind, entries, categories in (
        ("instances", instances, things),
        ("panoptic", panoptic, _categories(first_id=1)),
    ):
        content = {"images": images, "annotations": entries, "categories": categories}
        write_json(root / "annotations" / f"{kind}_{split}.json", content)


def _categories(first_id: int) -> list[dict[str, Any]]:
    return [
        {"id": k + first_id, "name": name, "isthing": int(k < len(THINGS)), "color": list(COLORS[k])}
        for k, name in enumerate(THINGS + STUFF)
    ]


def _segments_info(scene: Scene) -> list[dict[str, Any]]:
    entries = []
    for number, k in enumerate(scene.classes, start=1):
        mask = scene.segments == number
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        entries.append(
            {
                "id": number,
                "category_id": k + 1,
                "area": int(mask.sum()),
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "iscrowd": 0,
            }
        )
    return entries


def _instances(scene: Scene, segments: list[dict], image_id: int, written: int) -> list[dict[str, Any]]:
    things = [s for s in segments if s["category_id"] <= len(THINGS)]
    masks = np.stack([scene.segments == s["id"] for s in things], -1) if things else None
    codes = coco_mask.encode(np.asfortranarray(masks, np.uint8)) if things else []
    return [
        {
            **segment,
            "id": written + i,
            "image_id": image_id,
            "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
        }
        for i, (segment, code) in enumerate(zip(things, codes, strict=True), start=1)
    ]


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Writes pixels (H, W) or (H, W, 3) uint8."""
    Image.fromarray(pixels).save(path, compress_level=1)


def write_json(path: Path, content: Any) -> None:
    """Writes a value as JSON."""
    path.write_text(json.dumps(content))
