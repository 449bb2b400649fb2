"""Files from the web, downloaded once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urlsplit

from filelock import FileLock
from rich.console import Console

import detrex
from detrex.checkpoint.weights import CheckpointError
from detrex.runtime.files import replaced_file
from detrex.runtime.progress import progress_bar

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_RECORD_SUFFIX = ".sha256.json"

logger = logging.getLogger(__name__)


def is_url(source: str | Path) -> bool:
    """Whether a source of weights is an ``https://`` or ``http://`` address."""
    return str(source).lower().startswith(("https://", "http://"))


def cache_folder() -> Path:
    """``$DETREX_CACHE``, else ``detrex`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("DETREX_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "detrex"


def fetch(url: str, sha256: str | None = None) -> Path:
    """The local copy of a file, which is downloaded where the cache has none.

    A file is in the cache in full or not at all. Processes of one machine that ask for it at the same time
    download it once.

    Args:
        url: an ``https://`` or ``http://`` address; it may end in ``#sha256=<hex>``, the checksum to expect.
        sha256: the checksum, 64 hexadecimal digits. A cached file of another checksum is downloaded again.

    Returns:
        A path that ends in the file's own name, in a folder of :func:`cache_folder` of its own for each URL.

    Raises:
        CheckpointError: there is no such file, no connection, another checksum, a web page in place of a
            file; or the URL or the checksum is malformed.
    """
    address, expected = _address_and_checksum(url, sha256)
    path = _cached_path(address)
    try:
        if not _is_cached(path, expected):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / ".lock"):
                # Another process may have downloaded it while this one waited.
                if not _is_cached(path, expected):
                    _download(address, path, expected)
    except (OSError, HTTPException) as error:
        raise CheckpointError(
            f"{address} could not be downloaded to {path}: {_reason(error)}. {_by_hand()}"
        ) from error
    return path


def _address_and_checksum(url: str, sha256: str | None) -> tuple[str, str | None]:
    if not is_url(url):
        raise CheckpointError(f"'{url}' is no https:// or http:// address")
    address, fragment = urldefrag(url)
    stated = re.fullmatch(r"sha256=(.*)", fragment)
    sums = [s.strip().lower() for s in (sha256, stated and stated[1]) if s is not None]
    for checksum in sums:
        if not re.fullmatch(r"[0-9a-f]{64}", checksum):
            raise CheckpointError(
                f"'{checksum}', the checksum of {address}, is no SHA-256: 64 hexadecimal digits are needed"
            )
    if len(set(sums)) > 1:
        raise CheckpointError(f"two checksums are given for {address}: {sums[0]} and, in the URL, {sums[1]}")
    return address, sums[0] if sums else None


def _cached_path(address: str) -> Path:
    """One folder for each address, so that files of one name on two servers are two files."""
    name = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
    name = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII).lstrip(".")[-128:] or "weights"
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_folder() / "downloads" / key / name


def _is_cached(path: Path, expected: str | None) -> bool:
    return path.is_file() and (expected is None or _checksum(path) == expected)


def _checksum(path: Path) -> str:
    """SHA-256 of a cached file, computed again only where size or time show that the file was changed."""
    record = path.with_name(path.name + _RECORD_SUFFIX)
    status = path.stat()
    if record.is_file():
        known = json.loads(record.read_text())
        if (known["bytes"], known["modified_ns"]) == (status.st_size, status.st_mtime_ns):
            return known["sha256"]
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    _record(path, checksum.hexdigest())
    return checksum.hexdigest()


def _record(path: Path, checksum: str) -> None:
    status = path.stat()
    known = {"sha256": checksum, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    with replaced_file(path.with_name(path.name + _RECORD_SUFFIX)) as temporary:
        temporary.write_text(json.dumps(known))


def _download(address: str, path: Path, expected: str | None) -> None:
    # Not torch.hub.download_url_to_file: it waits forever for a silent server, and keeps what it got as the
    # whole file when the server closes the connection early.
    if path.is_file():
        logger.warning("%s has not the checksum %s and is downloaded again", path, expected)
    escaped = quote(address, safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(escaped, headers={"User-Agent": f"detrex/{detrex.__version__}"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        size = _size(response.headers)
        shown = "unknown size" if size is None else f"{size / 2**20:.1f} MiB"
        logger.info("downloading %s (%s) to %s", address, shown, path)
        with replaced_file(path) as temporary:
            checksum = _receive(response, temporary, size)
            _refuse_web_page(address, temporary, response.headers)
            if expected not in (None, checksum):
                raise CheckpointError(
                    f"{address} has the SHA-256 {checksum}, not {expected}: another file, or one damaged on "
                    f"the way; nothing was kept. Try again, or check where the checksum comes from."
                )
    _record(path, checksum)


def _size(headers: Message) -> int | None:
    length = headers.get("Content-Length")
    return int(length) if length is not None and length.isdigit() else None


def _receive(response: HTTPResponse, path: Path, size: int | None) -> str:
    """Writes the body to ``path`` and returns its SHA-256; on a terminal with a progress bar."""
    checksum, received = hashlib.sha256(), 0
    console = Console(stderr=True)
    with progress_bar(console, counts_bytes=True) as progress, path.open("wb") as file:
        task = progress.add_task("", total=size)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            checksum.update(chunk)
            received += len(chunk)
            progress.update(task, completed=received)
    if size is not None and received != size:
        raise ConnectionError(f"the connection ended after {received} of {size} bytes")
    return checksum.hexdigest()


def _refuse_web_page(address: str, path: Path, headers: Message) -> None:
    """Download pages, logins and "file not found" often come as a web page with status 200."""
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if headers.get_content_type() == "text/html" or start.startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(
            f"{address} is a web page, not a file of weights; is it the address of a page that links to the "
            f"file, or one that needs a login? {_by_hand()}"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return f"the server did not answer for {_TIMEOUT:g} seconds"
    if isinstance(error, IncompleteRead):
        return "the connection ended before the file did"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _by_hand() -> str:
    return (
        "Check the address and the connection; or download the file by hand, with a browser or on another "
        "machine, and give its local path. DETREX_CACHE sets another folder for downloads."
    )
