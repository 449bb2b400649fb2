"""The published models: one row for each, read from ``projects/*/zoo.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from detrex.checkpoint.weights import CheckpointError
from detrex.config import projects_directory
from detrex.data import category_file, read_categories
from detrex.structures import Categories

ZOO_FILE = "zoo.yaml"


@dataclass(frozen=True)
class ZooEntry:
    """One published model.

    Attributes:
        name: of the row, such as ``maskdino_r50_coco_instance``.
        title: description for people.
        config: the file of its config.
        url: of its published weights, or None if none were published.
        sha256: of that file in hexadecimal, or None if it is not known.
        classes: name of its list of classes, see :func:`detrex.data.category_file`.
        published: the published results by name, such as ``{"box AP": 51.7, "parameters (M)": 52}``.
        parameters: exact number of parameters that the config builds.
        note: for readers of the row, or empty.
    """

    name: str
    title: str
    config: Path
    url: str | None
    sha256: str | None
    classes: str
    published: Mapping[str, float]
    parameters: int
    note: str = ""

    @property
    def file_name(self) -> str | None:
        """Name of the published file, by which copies are recognised."""
        return None if self.url is None else self.url.rsplit("/", 1)[-1]

    def categories(self) -> Categories:
        """The classes that the model knows."""
        return read_categories(category_file(self.classes))


def zoo_entries() -> dict[str, ZooEntry]:
    """All rows by name. A file that has changed is read again."""
    entries: dict[str, ZooEntry] = {}
    for file in sorted(projects_directory().glob(f"*/{ZOO_FILE}")):
        facts = file.stat()
        entries |= _rows(file, facts.st_mtime_ns, facts.st_size)
    return entries


def zoo_entry(name: str) -> ZooEntry:
    """The row called ``name``.

    Raises:
        CheckpointError: there is no such row; the message names the nearest ones.
    """
    entries = zoo_entries()
    if name in entries:
        return entries[name]
    near = get_close_matches(name, entries, 3) or list(entries)
    raise CheckpointError(f"the model zoo has no '{name}'; it has, among others: {', '.join(near)}")


def entry_of_file(path: Path) -> ZooEntry | None:
    """The row whose published file has the name of ``path``."""
    return next((entry for entry in zoo_entries().values() if entry.file_name == path.name), None)


def entry_of_config(path: Path) -> ZooEntry | None:
    """The row whose config file is ``path``."""
    return next((entry for entry in zoo_entries().values() if entry.config == path.resolve()), None)


@cache
def _rows(file: Path, changed: int, size: int) -> Mapping[str, ZooEntry]:  # noqa: ARG001 (keys of the cache)
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    return {name: _entry(name, row, file.parent) for name, row in content.items()}


def _entry(name: str, row: dict[str, Any], project: Path) -> ZooEntry:
    config = (project / "configs" / row.pop("config")).resolve()
    return ZooEntry(name=name, config=config, **{"url": None, "sha256": None, **row})
