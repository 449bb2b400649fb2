"""Downloads files from the web once."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException, HTTPMessage, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

from filelock import FileLock
from rich.console import Console

import detrex
from detrex.checkpoint.weights import CheckpointError
from detrex.runtime.cache import CACHE_VARIABLE, cache_folder
from detrex.runtime.files import replaced_file
from detrex.runtime.progress import progress_bar

LIMIT_VARIABLE = "DETREX_DOWNLOAD_LIMIT_GB"
"""Environment variable with the size in GiB up to which files are downloaded."""
TIMEOUT = 30.0
"""Seconds without a byte after which a download is abandoned."""
_LIMIT_GB = 16.0
_GIBIBYTE = 2**30
_CHUNK = 1 << 20

logger = logging.getLogger(__name__)


def is_url(source: str | Path) -> bool:
    """Whether a source of weights is an ``https://`` or ``http://`` address."""
    return str(source).lower().startswith(("https://", "http://"))


def fetch(url: str, sha256: str | None = None) -> Path:
    """The local copy of a file, which is downloaded if it is not in the cache.

    The cache holds a file either completely or not at all. If several processes of a machine ask for it at
    the same time, it is downloaded once. Only the address is sent, no passwords and no cookies.

    Args:
        url: an ``https://`` address; it may end in ``#sha256=<hex>``, the expected checksum. Anybody on the
            way could exchange a file from an ``http://`` address, so such an address needs a checksum, except
            on this machine.
        sha256: the checksum, 64 hexadecimal digits. It is also compared with a cached file, at each call; a
            file with a different checksum is downloaded again.

    Returns:
        A path that ends in the file's name, in a folder of the cache for this URL alone.

    Raises:
        CheckpointError: there is no such file or no connection, the checksum differs, the server sends a web
            page instead of a file, the file is too large or of unknown length, or the URL or the checksum is
            malformed or not safe.
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
    checksums = [s.strip().lower() for s in (sha256, stated and stated[1]) if s is not None]
    for checksum in checksums:
        if not re.fullmatch(r"[0-9a-f]{64}", checksum):
            raise CheckpointError(
                f"'{checksum}', the checksum of {address}, is no SHA-256: 64 hexadecimal digits are needed"
            )
    if len(set(checksums)) > 1:
        raise CheckpointError(
            f"two checksums are given for {address}: {checksums[0]} and, in the URL, {checksums[1]}"
        )
    expected = checksums[0] if checksums else None
    _check_safe(address, expected)
    return address, expected


def _check_safe(address: str, expected: str | None) -> None:
    """
    Raises:
        CheckpointError: the file could be exchanged on the way, or the address contains a password.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise CheckpointError(f"'{address}' is no address: {error}") from None
    if "@" in parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        raise CheckpointError(
            f"the address of a file at {host} holds a user name or password, which is not sent: download the "
            "file by hand and give its local path"
        )
    if parts.scheme.lower() == "http" and expected is None and not _is_this_machine(parts.hostname):
        raise CheckpointError(
            f"{address} is not encrypted, so the file could be exchanged on the way: give its https:// "
            "address, or add the checksum that you expect, as '#sha256=...' at its end"
        )


def _is_this_machine(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _cached_path(address: str) -> Path:
    """The path in a folder for each address, which keeps apart files of equal name on two servers."""
    name = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
    name = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII).lstrip(".")[-128:] or "weights"
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_folder("downloads") / key / name


def _is_cached(path: Path, expected: str | None) -> bool:
    return path.is_file() and (expected is None or _checksum(path) == expected)


def _checksum(path: Path) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    return checksum.hexdigest()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only if the new address is as safe as the first one.

    Args:
        expected: the checksum, if there is one.
    """

    def __init__(self, expected: str | None):
        self._expected = expected

    def redirect_request(
        self,
        request: urllib.request.Request,
        file: IO[bytes],
        code: int,
        message: str,
        headers: HTTPMessage,
        target: str,
    ) -> urllib.request.Request | None:
        target = urljoin(request.full_url, target)
        scheme = urlsplit(target).scheme.lower()
        if scheme != request.type:
            raise CheckpointError(
                f"{request.full_url} leads from {request.type}:// to {scheme}://, which is not followed: "
                f"{target}"
            )
        _check_safe(target, self._expected)
        return super().redirect_request(request, file, code, message, headers, target)


def _download(address: str, path: Path, expected: str | None) -> None:
    # torch.hub.download_url_to_file is not used: it waits forever for a silent server. Nor is pooch: it sends
    # passwords from ~/.netrc, follows any redirect, has no limit of size, and downloads once per caller.
    if path.is_file():
        logger.warning("%s has not the checksum %s and is downloaded again", path, expected)
    escaped = quote(address, safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(escaped, headers={"User-Agent": f"detrex/{detrex.__version__}"})
    opener = urllib.request.build_opener(_Redirects(expected))
    with opener.open(request, timeout=TIMEOUT) as response:
        size = _size(address, response, expected)
        shown = "unknown size" if size is None else f"{size / 2**20:.1f} MiB"
        logger.info("downloading %s (%s) to %s", address, shown, path)
        with replaced_file(path) as temporary:
            checksum = _receive(address, response, temporary, size)
            _refuse_web_page(address, temporary, response.headers)
            if expected not in (None, checksum):
                raise CheckpointError(
                    f"{address} has the SHA-256 {checksum}, not {expected}: another file, or one damaged on "
                    f"the way; nothing was kept. Try again, or check where the checksum comes from."
                )


def _size(address: str, response: HTTPResponse, expected: str | None) -> int | None:
    """The length in bytes that the server states, or None if the body comes in chunks or has a checksum.

    Raises:
        CheckpointError: the file is too large, or its end cannot be distinguished from a lost connection.
    """
    if response.length is not None:
        _check_size(address, response.length)
    elif not response.chunked and expected is None:
        raise CheckpointError(
            f"the server of {address} does not say how long the file is, so that a part of it could be taken "
            "for the whole: add the checksum that you expect, as '#sha256=...' at its end"
        )
    return response.length


def _check_size(address: str, size: int) -> None:
    stated = os.environ.get(LIMIT_VARIABLE)
    try:
        limit = float(stated) if stated else _LIMIT_GB
    except ValueError:
        raise CheckpointError(f"{LIMIT_VARIABLE}={stated} is no number of GiB") from None
    if size > limit * _GIBIBYTE:
        raise CheckpointError(
            f"{address} is larger than {limit:g} GiB and was not downloaded: if this is right, set "
            f"{LIMIT_VARIABLE} to more GiB"
        )


def _receive(address: str, response: HTTPResponse, path: Path, size: int | None) -> str:
    """Writes the body to ``path`` and returns its SHA-256; terminals show a progress bar."""
    checksum, received = hashlib.sha256(), 0
    with progress_bar(Console(stderr=True), counts_bytes=True) as progress, path.open("wb") as file:
        task = progress.add_task("", total=size)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            checksum.update(chunk)
            received += len(chunk)
            _check_size(address, received)
            progress.update(task, completed=received)
    if size is not None and received != size:
        raise ConnectionError(f"the connection ended after {received} of {size} bytes")
    return checksum.hexdigest()


def _refuse_web_page(address: str, path: Path, headers: Message) -> None:
    """Rejects web pages: download pages, logins and "file not found" often have status 200."""
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
        return f"the server did not answer for {TIMEOUT:g} seconds"
    if isinstance(error, IncompleteRead):
        return "the connection ended before the file did"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _by_hand() -> str:
    return (
        "Check the address and the connection; or download the file by hand, with a browser or on another "
        f"machine, and give its local path. {CACHE_VARIABLE} sets another folder for downloads."
    )
