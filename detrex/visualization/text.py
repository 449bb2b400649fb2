"""Lines of text in a font that has their letters, shortened to the available width."""

from __future__ import annotations

import logging
import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageFont

logger = logging.getLogger(__name__)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font has only ASCII. These come with systems, or with packages such as fonts-noto-cjk.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "unifont.otf",
)
_NO_CHARACTER = "\uffff"  # no font has this letter, so it shows what a font draws for missing letters
_ELLIPSIS = "..."
_PADDING = 2  # pixels around text


@dataclass(frozen=True)
class Line:
    """A line of text that can be drawn with ``font``.

    Attributes:
        text: without line breaks, and with letters that ``font`` has.
        font: in the wanted size in pixels.
        width, height: in pixels, with some padding.
    """

    text: str
    font: Font
    width: int
    height: int


def typeset(text: str, size: int, max_width: float = math.inf, fonts: tuple[str, ...] = SYSTEM_FONTS) -> Line:
    """``text`` as one line.

    If Pillow's own font lacks a letter, the first of ``fonts`` that has all letters is used. If no font has
    them, accents are left out, and other letters are escaped as in JSON, with a warning. Text that is too
    long loses its middle, because class names are at the start and scores at the end.

    Args:
        text: any; line breaks become spaces.
        size: of letters, in pixels.
        max_width: of the line, in pixels.
        fonts: files of fonts that :func:`PIL.ImageFont.truetype` finds.
    """
    name, text = _readable(" ".join(text.split()), fonts)
    font = _font(name, size)
    room = max_width - 2 * _PADDING
    if font.getlength(text) > room:
        text = _shortened(text, font, room)
    _, top, _, bottom = font.getbbox("Ag" + text)
    width = math.ceil(font.getlength(text)) + 2 * _PADDING
    return Line(text, font, width, math.ceil(bottom - top) + 2 * _PADDING)


def _shortened(text: str, font: Font, room: float) -> str:
    for kept in range(len(text) - 1, 0, -1):
        start = (kept + 1) // 2
        shorter = text[:start].rstrip() + _ELLIPSIS + text[len(text) - (kept - start) :].lstrip()
        if font.getlength(shorter) <= room:
            return shorter
    return ""


@lru_cache(maxsize=4096)
def _readable(text: str, fonts: tuple[str, ...]) -> tuple[str, str]:
    """A font's name ("" for Pillow's own), and the text in letters it has."""
    if _missing(text, ""):
        for name in fonts:
            if _exists(name) and not _missing(text, name):
                return name, text
    return "", _in_known_letters(text)


def _in_known_letters(text: str) -> str:
    """``text`` in letters that Pillow's own font has."""
    unaccented = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in unaccented if not unicodedata.combining(c))
    missing = _missing(plain, "")
    if missing:
        _warn_of("".join(sorted(missing)))
    return "".join(c.encode("unicode_escape").decode() if c in missing else c for c in plain)


@lru_cache(maxsize=4096)
def _warn_of(letters: str) -> None:
    """Warns once about the same letters."""
    logger.warning(
        "No known font has the letters %r: they are drawn as JSON escapes them (\\u....). "
        "Install a font that has them, such as Noto Sans CJK.",
        letters,
    )


def _missing(text: str, font: str) -> set[str]:
    return {c for c in text if not _has_letter(font, c)}


@lru_cache(maxsize=4096)
def _has_letter(font: str, letter: str) -> bool:
    if letter.isascii():
        return letter.isprintable()
    sample = _font(font, 16)
    return bytes(sample.getmask(letter)) != bytes(sample.getmask(_NO_CHARACTER))


@lru_cache(maxsize=64)
def _exists(font: str) -> bool:
    try:
        ImageFont.truetype(font)
    except OSError:
        return False
    return True


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size=size)
