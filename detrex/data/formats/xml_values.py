"""Reads XML files of annotations."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from detrex.data.errors import DataError


def parse_xml(file: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        DataError: there is no such file, or it is not XML.
    """
    try:
        return ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise DataError(f"{file}, which is listed, does not exist.") from None
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is not XML: {error}. Was it copied completely?") from error


def number(entry: ElementTree.Element, tag: str, where: object, missing: float | None = 0.0) -> float:
    """The number in a tag.

    Args:
        entry: an ancestor of the tag.
        tag: path of the tag.
        where: for the message.
        missing: the value if there is no such tag; None to raise an error.

    Raises:
        DataError: the tag holds no number, or it is missing.
    """
    text = entry.findtext(tag)
    if text is None and missing is not None:
        return missing
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        name = tag.rpartition("/")[2]
        raise DataError(f"{where} has {text!r} as <{name}>; expected is a number.")
    return value
