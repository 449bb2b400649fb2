"""Reads large JSON files piece by piece, with the standard library's parser on a window of the text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from detrex.data.errors import DataError

# The rest of a number that is cut off at the end of the window: "1.5e+" would be read as "1.5".
_CUT_OFF = 2
_decoder = json.JSONDecoder()
_white_space = re.compile(r"[ \t\n\r]*")


def stream_members(
    file: BinaryIO, seen: Callable[[bytes], None] = lambda _: None, window: int = 1 << 18
) -> Iterator[tuple[str, Any]]:
    """Yields names and values of the object in a file, in order; nothing if the file holds something else.

    The value of a list is an iterator over its items, of which only one at a time is in memory. Use it before
    asking for the next member; remaining items are then skipped.

    Args:
        file: a file at its beginning, in any of JSON's encodings.
        seen: called with each piece of the file that was read.
        window: number of bytes that are read at a time.

    Raises:
        DataError: the file is not JSON; the message says at which character.
    """
    text = _Window(file, seen, window)
    if text.peek() != "{":
        if text.peek() not in ("[", ""):
            text.value()
            text.end()
        return
    for _ in text.elements("}"):
        if text.peek() != '"':
            raise text.error("Expecting a name in double quotes")
        name = text.value()
        text.take(":")
        if text.peek() == "[":
            items = (text.value() for _ in text.elements("]"))
            yield name, items
            for _ in items:
                pass
        else:
            yield name, text.value()
    text.end()


def read_json(path: str | Path) -> Any:
    """The whole content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"Annotation file {path} is not JSON: {error}. Was it copied completely?") from error


class _Window:
    """The part of a text that is being parsed."""

    def __init__(self, file: BinaryIO, seen: Callable[[bytes], None], window: int):
        self._file, self._seen, self._least = file, seen, window
        self._text, self._at, self._before, self._starts_like_xml = "", 0, 0, False
        start = self._read(window)
        self._decode = codecs.getincrementaldecoder(json.detect_encoding(start))().decode
        self._text = self._decoded(start)
        self._starts_like_xml = self._text.lstrip("\ufeff \t\r\n").startswith("<")

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            self._at = _after_white_space(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def take(self, expected: str) -> None:
        if self.peek() != expected:
            raise self.error(f"Expecting '{expected}'")
        self._at += 1

    def end(self) -> None:
        if self.peek():
            raise self.error("Extra data")

    def elements(self, close: str) -> Iterator[None]:
        """Yields before each element of an object or a list, which the caller then parses."""
        self._at += 1  # the opening bracket
        if self.peek() == close:
            self._at += 1
            return
        while True:
            yield
            if self.peek() == close:
                self._at += 1
                return
            self.take(",")

    def value(self) -> Any:
        """The value that comes next."""
        self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # The value may continue beyond the window.
                if not self._grow():
                    raise self.error(error.msg, error.pos) from None
                continue
            except (
                ValueError,
                RecursionError,
            ) as error:  # numbers of thousands of digits, nesting without end
                raise self.error(str(error)) from None
            if end + _CUT_OFF < len(self._text) or not self._grow():
                self._at = end
                return value

    def error(self, reason: str, at: int | None = None) -> DataError:
        place = self._before + (self._at if at is None else at)
        advice = "It is XML." if self._starts_like_xml else "Was it copied completely?"
        return DataError(
            f"Annotation file {self._file.name} is not JSON: {reason} at character {place}. {advice}"
        )

    def _grow(self) -> bool:
        """Drops parsed text and reads more, twice as much each time; False at the end of the file."""
        data = self._read(max(self._least, len(self._text) - self._at))
        more = self._decoded(data)
        if data:
            self._before += self._at
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(data)

    def _decoded(self, data: bytes) -> str:
        try:
            return self._decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise self.error(str(error), len(self._text)) from error

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._seen(data)
        return data


def _after_white_space(text: str, start: int) -> int:
    found = _white_space.match(text, start)
    assert found is not None  # the pattern also matches the empty string
    return found.end()
