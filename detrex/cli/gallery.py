"""Writes pictures of images in a data set, for commands that show data and results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig
from PIL import Image

from detrex.config import ConfigError
from detrex.data import DataError, ImageDataset
from detrex.runtime.progress import with_progress
from detrex.visualization import image_grid

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

_CELL = {False: 768, True: 512}  # longer side of a picture in pixels, alone and in a grid of all


@dataclass(frozen=True)
class Row:
    """A row of pictures about one image.

    Attributes:
        name: of the image's file.
        caption: lines above the pictures.
        pictures: side by side.
    """

    name: str
    caption: str
    pictures: Sequence[Image.Image]


def loader_config(config: DictConfig, split: str) -> DictConfig:
    """``dataloader.train`` or ``dataloader.test``.

    Raises:
        ConfigError: the config has no such loader, or the loader has no data set.
    """
    node = config.get("dataloader", {}).get(split)
    if node is None or node.get("dataset") is None:
        raise ConfigError(f"the config has no dataloader.{split}.dataset, of which images could be drawn")
    return node


def find_images(
    dataset: ImageDataset, image_ids: Sequence[str], file_names: Sequence[str]
) -> list[int] | None:
    """The indices of the named images, in the data set's order; None if no image is named.

    Args:
        dataset: with the images.
        image_ids: as text.
        file_names: with or without their folders.

    Raises:
        DataError: there is no image with such an id or name.
    """
    if not (image_ids or file_names):
        return None
    names = dataset.image_names()
    found: set[int] = set()
    for kind, wanted in [("id", i) for i in image_ids] + [("file name", n) for n in file_names]:
        matching = [
            index
            for index, (image_id, name) in enumerate(names)
            if wanted in ((str(image_id),) if kind == "id" else (name, Path(name).name))
        ]
        if not matching:
            raise DataError(
                f"The data set has no image with the {kind} {wanted!r}. Its {len(names)} images in "
                f"{dataset.images} are like {names[0][1]} (id {names[0][0]})."
            )
        found.update(matching)
    return sorted(found)


def save_gallery(
    items: Sequence[Item],
    draw: Callable[[Item], Row],
    titles: Sequence[str],
    output: Path,
    grid: bool = False,
) -> None:
    """Draws ``items`` and writes PNGs; a terminal shows a progress bar.

    A broken image is logged as an error, and the next one is drawn.

    Args:
        items: one for each row.
        draw: makes the row of an item.
        titles: of the columns.
        output: folder; created if need be.
        grid: whether to write all rows to one file, ``grid.png``, instead of one file each.

    Raises:
        DataError: at the end, if images could not be drawn.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    failed = 0
    for number, item in enumerate(with_progress(items, "drawing"), start=1):
        try:
            row = draw(item)
        except (DataError, OSError) as error:
            logger.error("%s", error)
            failed += 1
            continue
        if not grid:
            path = output / f"{number:03d}_{_plain_name(row.name)}.png"
            image_grid([row.pictures], titles, _CELL[grid], captions=[row.caption]).save(path)
        else:
            for picture in row.pictures:
                picture.thumbnail((_CELL[grid],) * 2, Image.Resampling.LANCZOS)
            rows.append(row)
    if rows:
        captions = [row.caption for row in rows]
        image_grid([row.pictures for row in rows], titles, _CELL[grid], captions=captions).save(
            output / "grid.png"
        )
    if failed:
        raise DataError(f"{failed} of {len(items)} images could not be drawn; see above.")


def _plain_name(file_name: str) -> str:
    """A file name without its suffix, into which the names of subfolders are joined."""
    path = Path(file_name)
    parts = (path.name,) if path.is_absolute() else (p for p in path.parts if p not in ("..", "."))
    return Path("_".join(parts)).with_suffix("").name
