"""A generated set of videos in MOT's format: shapes of one kind and colour move, cross, appear and leave."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detrex.data.errors import DataError

_VERSION = 1  # raised whenever the videos change, so that old copies on disk are replaced
_MARKER = "moving_shapes.json"
_FRAME_RATE = 10


def ensure_moving_shapes(
    root: str,
    splits: Mapping[str, int] | None = None,
    frames: int = 16,
    image_size: int = 96,
    seed: int = 0,
    file: str = "",
) -> str:
    """Writes the videos if they do not exist yet, and returns the path of ``file`` below ``root``.

    ``{split}`` is a folder of videos that :mod:`detrex.data.mot` reads. The shapes of a video look alike;
    only their motion distinguishes them.

    Args:
        root: folder to write.
        splits: number of videos of each split; default ``{"train": 120, "val": 12}``.
        frames: number of frames in a video.
        image_size: height and width in pixels.
        seed: a video depends on it, on its split's name and on its number.
        file: path in the folder.

    Raises:
        DataError: the folder has files that this function did not write.
    """
    splits = dict(splits) if splits is not None else {"train": 120, "val": 12}
    wanted = {
        "version": _VERSION, "splits": splits, "frames": frames, "image_size": image_size, "seed": seed
    }  # fmt: skip
    folder = Path(root)
    if _marker(folder) == wanted:
        return str(folder / file)
    if folder.exists() and any(folder.iterdir()) and _marker(folder) is None:
        raise DataError(f"{folder} holds files that are not the moving shapes: choose another root")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        for name, count in splits.items():
            for number in range(count):
                rng = np.random.default_rng([seed, *name.encode(), number])
                _write_video(new / name / f"{name}{number:04d}", rng, frames, image_size)
        (new / _MARKER).write_text(json.dumps(wanted), encoding="utf-8")
        try:
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            new.rename(folder)
        except OSError:  # another process was faster
            if _marker(folder) != wanted:
                raise
    return str(folder / file)


def _marker(folder: Path) -> dict[str, Any] | None:
    path = folder / _MARKER
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write_video(folder: Path, rng: np.random.Generator, frames: int, size: int) -> None:
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    count = int(rng.integers(3, 7))
    radius = rng.uniform(0.07, 0.13, count) * size
    place, speed = rng.uniform(0.2, 0.8, (count, 2)) * size, rng.normal(0, 0.03, (count, 2)) * size
    first = np.where(rng.random(count) < 0.7, 0, rng.integers(1, max(frames // 2, 2), count))
    last = np.where(rng.random(count) < 0.7, frames, rng.integers(frames // 2, frames + 1, count))
    draw_shape = (ImageDraw.ImageDraw.ellipse, ImageDraw.ImageDraw.rectangle)[int(rng.integers(2))]
    color = tuple(int(v) for v in rng.integers(150, 256, 3))
    ground = rng.integers(20, 110, (4, 4, 3)).astype(np.uint8)
    rows = []
    for frame in range(frames):
        picture = Image.fromarray(ground).resize((size, size), Image.Resampling.BICUBIC)
        canvas = ImageDraw.Draw(picture)
        for track in range(count):
            low, high = radius[track], size - radius[track]
            place[track] += speed[track]
            speed[track] = np.where((place[track] < low) | (place[track] > high), -speed[track], speed[track])
            place[track] = place[track].clip(low, high)
            if not first[track] <= frame < last[track]:
                continue
            left, top = place[track] - radius[track]
            side = 2 * radius[track]
            draw_shape(canvas, (left, top, left + side, top + side), fill=color, outline=(0, 0, 0))
            rows.append(f"{frame + 1},{track + 1},{left:.2f},{top:.2f},{side:.2f},{side:.2f},1,1,1")
        picture.save(folder / "img1" / f"{frame + 1:08d}.png", compress_level=1)
    (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    info = {"name": folder.name, "imDir": "img1", "frameRate": _FRAME_RATE, "seqLength": frames}
    info |= {"imWidth": size, "imHeight": size, "imExt": ".png"}
    lines = ["[Sequence]", *(f"{key}={value}" for key, value in info.items())]
    (folder / "seqinfo.ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
