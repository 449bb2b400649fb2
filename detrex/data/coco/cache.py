"""Opens annotation files, which are parsed and checked once, then cached for other processes and runs."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from rich.console import Console

import detrex
from detrex.data.coco.json_stream import stream_members
from detrex.data.coco.store import DamagedStoreError, FileBytes, Store, StoreWriter
from detrex.data.errors import DataError
from detrex.data.formats import Format, members_of, open_unpacked, recognise
from detrex.runtime.cache import CACHE_VARIABLE, cache_folder
from detrex.runtime.files import remove_leftovers, replaced_file
from detrex.runtime.progress import progress_bar

SWITCH = "DETREX_DATA_CACHE"
"""Environment variable; with ``0``, every process parses annotation files at every start."""

_FORMAT = 3  # version of what the parsers write
_SLOW = 1 << 24  # bytes; parsing larger files is announced, and progress is shown
_CHUNK = 1 << 20

logger = logging.getLogger(__name__)

Members = Callable[[], Iterator[tuple[str, Any]]]
Content = tuple[dict[str, Any], dict[str, np.ndarray]]
Parse = Callable[[Members, StoreWriter], Content]


def open_annotations(path: Path, settings: Mapping[str, Any], parse: Parse) -> Store:
    """The store that a parser makes from a JSON file, taken from the cache if it is there.

    The cache is the folder ``annotations`` of :func:`detrex.runtime.cache.cache_folder`. An entry is valid as
    long as the file has the same size and time of change, or else the same SHA-256, as when the entry was
    made; otherwise, or if the entry is damaged, it is made anew. If several processes open a file at the same
    time, one parses it and the others wait; then all read the same store. If :data:`SWITCH` is 0 or the
    folder cannot be used, every process parses the file and keeps the store in memory.

    Annotations of other formats (:mod:`detrex.data.formats`) are read by every process and kept in memory.

    Args:
        path: the JSON file, which may be compressed with gzip; or a file or folder of another format.
        settings: of the parser, plain data; different settings have different entries. ``images``, if given,
            is the folder that names of images are relative to.
        parse: called with a function that streams the file's members (see
            :func:`detrex.data.coco.json_stream.stream_members`) and the store to fill. Returns the store's
            header and arrays.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the format is not known, or ``parse`` finds errors. Such a file is never cached.
    """
    kind = recognise(path)
    if kind is not None:
        images = settings.get("images")
        return _of_other_format(path, kind, None if images is None else Path(images), parse)
    if os.environ.get(SWITCH) == "0":
        return _in_memory(path, parse)
    try:
        return _cached(path, dict(settings), parse)
    except OSError as error:
        logger.warning(
            "the cache of annotations in %s cannot be used (%s): every process parses %s and keeps it in "
            "memory. %s sets another folder.",
            _folder(),
            error,
            path,
            CACHE_VARIABLE,
        )
        return _in_memory(path, parse)


def _folder() -> Path:
    return cache_folder("annotations")


def _in_memory(path: Path, parse: Parse) -> Store:
    memory = io.BytesIO()
    _build(path, {}, parse, memory)
    return Store(np.frombuffer(memory.getbuffer(), np.uint8))


def _of_other_format(path: Path, kind: Format, images: Path | None, parse: Parse) -> Store:
    memory = io.BytesIO()
    header, arrays = parse(lambda: members_of(path, kind, images), writer := StoreWriter(memory))
    writer.close(header, arrays)
    return Store(np.frombuffer(memory.getbuffer(), np.uint8))


def _cached(path: Path, settings: dict[str, Any], parse: Parse) -> Store:
    key = json.dumps([str(path.resolve()), settings], sort_keys=True)
    kept = _folder() / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.store"
    made_by = {**settings, "format": _FORMAT, "version": detrex.__version__}
    store = _valid(kept, path, made_by)
    if store is None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_suffix(".lock")):
            # Another process may have made it while this one waited.
            store = _valid(kept, path, made_by) or _renewed(kept, path, made_by, parse)
    return store


def _valid(kept: Path, path: Path, made_by: dict[str, Any]) -> Store | None:
    """The store in the cache, if it is complete and up to date."""
    if not kept.is_file():
        return None
    try:
        store = Store(FileBytes(kept))
    except DamagedStoreError as error:
        logger.warning("%s is damaged (%s) and is made anew", kept, error)
        return None
    source, status = store.header["source"], path.stat()
    unchanged = source["size"] == status.st_size and (
        source["mtime_ns"] == status.st_mtime_ns or source["sha256"] == _sha256(path)
    )
    if not (unchanged and store.header["made_by"] == made_by):
        logger.info("%s is out of date and is made anew", kept)
        return None
    if status.st_size >= _SLOW:
        logger.info("%s: read from the cache, %s", path, kept)
    return store


def _renewed(kept: Path, path: Path, made_by: dict[str, Any], parse: Parse) -> Store:
    remove_leftovers(kept.parent, kept.name)  # left by a killed process; only the holder of the lock writes
    with replaced_file(kept) as temporary, temporary.open("wb") as file:
        _build(path, made_by, parse, file)
    return Store(FileBytes(kept))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_unpacked(path) as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _build(path: Path, made_by: dict[str, Any], parse: Parse, target: BinaryIO) -> None:
    """Parses the file into a store, whose header also says what it was made from."""
    started, digest = time.monotonic(), hashlib.sha256()
    size = path.stat().st_size
    if size >= _SLOW:
        logger.info("parsing %s (%.0f MiB)", path, size / 2**20)
    with open_unpacked(path) as file, reading_progress(path, size) as advance:
        status = path.stat()
        header, arrays = parse(_members(file, digest.update, advance), writer := StoreWriter(target))
        if _version(status) != _version(path.stat()):
            raise DataError(f"Annotation file {path} was changed while it was read. Start again.")
    source = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest.hexdigest()}
    writer.close({**header, "made_by": made_by, "source": source}, arrays)
    if size >= _SLOW:
        logger.info("%s: parsed and checked in %.0f s", path, time.monotonic() - started)


@contextmanager
def reading_progress(path: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes read; for a large file, a progress bar shows it."""
    if size < _SLOW:
        yield lambda _: None
        return
    with progress_bar(Console(stderr=True), counts_bytes=True) as progress:
        task = progress.add_task(path.name, total=size)
        yield lambda count: progress.advance(task, count)


def _members(file: BinaryIO, digest: Callable[[bytes], None], advance: Callable[[int], None]) -> Members:
    """A function that streams the file's members; the first time, it also counts the bytes read."""

    def read(data: bytes) -> None:
        digest(data)
        advance(len(data))

    def members() -> Iterator[tuple[str, Any]]:
        first = file.tell() == 0
        file.seek(0)
        return stream_members(file, read if first else lambda _: None)

    return members


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
