"""The keys of COCO files and their types, in one table for training, evaluation, drawing and saved results.

A value of ``null`` or NaN counts as absent, because tools that export tables write it for empty cells.
Numbers given as text, as CSV converters write them, are accepted where nothing else can be meant (ids, sizes
and ``iscrowd``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detrex.data.errors import DataError

ImageId = int | str
MAX_SEGMENT_ID = 2**24 - 1
_WORD = 2**63  # integers have to fit 64 bits
_TYPES_IN_BOX = {int, float, type(None)}


@dataclass(frozen=True)
class Key:
    """One key of an entry.

    Attributes:
        name: in the file.
        expected: description of a valid value, for messages.
        read: converts the value; raises TypeError or ValueError if it is not valid.
        required: whether an entry must have the key; if not, the value of an absent key is None.
    """

    name: str
    expected: str
    read: Callable[[Any], Any]
    required: bool = False


def read_entry(entry: Any, keys: Sequence[Key], kind: str, where: str) -> list[Any]:
    """The values of ``keys`` in an entry of a list; None for those that are absent.

    Args:
        entry: what the file holds.
        keys: of such entries.
        kind: of entry, for messages, such as ``"image"``.
        where: the file, and the entry's owner if it has one, for messages.

    Raises:
        DataError: the entry is not an object, lacks a required key, or has a value of the wrong type; the
            message names the file, the entry's id, the key, the value, and what is expected.
    """
    if not isinstance(entry, dict):
        raise DataError(
            f"{where}: {kind} {short(entry)} is not an object with the keys "
            f"{', '.join(k.name for k in keys)}."
        )
    values: list[Any] = []
    for key in keys:
        value = entry.get(key.name)
        if value is None or (type(value) is float and math.isnan(value)):
            if key.required:
                raise DataError(_missing(entry, keys, kind, where))
            values.append(None)
            continue
        try:
            values.append(key.read(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{where}: {entry_name(entry, kind)} has {short(value)} as '{key.name}'; expected is "
                f"{key.expected}."
            ) from error
    return values


def entry_name(entry: Mapping[str, Any], kind: str) -> str:
    """The name of an entry in messages, made of its ids if it has any."""
    names = [f"{kind} id {short(entry['id'])}" if "id" in entry else kind]
    names += [f"of image id {short(entry['image_id'])}"] if "image_id" in entry else []
    names += [f"({short(entry['file_name'])})"] if kind == "image" and "file_name" in entry else []
    return " ".join(names)


def short(value: Any) -> str:
    """``repr(value)``, cut off if it is long."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _missing(entry: Mapping[str, Any], keys: Sequence[Key], kind: str, where: str) -> str:
    missing = [key for key in keys if key.required and str(entry.get(key.name)) in ("None", "nan")]
    names = ", ".join(repr(k.name) for k in missing)
    return f"{where}: {kind} {short(dict(entry))} has no {names} (expected: {missing[0].expected})."


# Files have millions of annotations, so each function tries the usual case first.


def _identifier(value: Any) -> ImageId:
    if isinstance(value, str) and value:
        return _valid(value)
    return _integer(value)


def _valid(text: str) -> str:
    text.encode()  # raises if JSON's escapes contain half of a surrogate pair
    return text


def _integer(value: Any) -> int:
    if type(value) is not int:
        value = _whole(value)
    if not -_WORD <= value < _WORD:
        raise OverflowError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        return int(value)
    if not isinstance(value, float):
        raise TypeError
    if not value.is_integer():
        raise ValueError
    return int(value)


def _pixels(value: Any) -> int:
    number = _integer(value)
    if not 1 <= number < 2**31:
        raise ValueError
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError
    return _valid(value)


def _file_name(value: Any) -> str:
    if "\0" in _text(value):
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, int) and 0 <= value <= 1:
        return value == 1
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    number = _integer(value)
    if number not in (0, 1):
        raise ValueError
    return bool(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    return float(value)


def _finite_number(value: Any) -> float:
    if not math.isfinite(number := _number(value)):
        raise ValueError
    return number


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list | tuple):
        raise TypeError
    if not value:
        return None
    if len(value) != 4 or not set(map(type, value)) <= _TYPES_IN_BOX:
        raise ValueError
    x, y, width, height = (math.nan if v is None else float(v) for v in value)
    return (x, y, width, height) if math.isfinite(x + y + width + height) else None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _segment_id(value: Any) -> int:
    number = _integer(value)
    if not 1 <= number <= MAX_SEGMENT_ID:
        raise ValueError
    return number


def _unchanged(value: Any) -> Any:
    return value


_IMAGE_ID = Key("image_id", "an integer or a text: the 'id' of an image", _identifier, required=True)
_CATEGORY_ID = Key("category_id", "an integer: the 'id' of a category", _integer, required=True)
_IS_CROWD = Key("iscrowd", "0 or 1", _flag)
_AREA = Key("area", "a number of square pixels", _number)
_BOX = Key("bbox", "a list of the four numbers x, y, width, height in pixels", _box)
_FILE_NAME = Key("file_name", "the name of a file", _file_name, required=True)

IMAGE = (
    Key("id", "an integer or a text", _identifier, required=True),
    Key("file_name", "the name of a file", _file_name),
    Key("coco_url", "an address", _text),
    Key("height", "a number of pixels, at least 1", _pixels),
    Key("width", "a number of pixels, at least 1", _pixels),
)
CATEGORY = (
    Key("id", "an integer", _integer, required=True),
    Key("name", "a text", _unchanged, required=True),
    Key("isthing", "0 or 1", _flag),
)
OBJECT = (
    _IMAGE_ID,
    _CATEGORY_ID,
    _IS_CROWD,
    _BOX,
    _AREA,
    Key("segmentation", "a list of polygons, or an RLE", _unchanged),
)
PANOPTIC = (
    _IMAGE_ID,
    _FILE_NAME,
    Key("segments_info", "a list of segments", _list, required=True),
)
SEGMENT = (
    Key("id", f"an integer from 1 to {MAX_SEGMENT_ID}", _segment_id, required=True),
    _CATEGORY_ID,
    _IS_CROWD,
    _AREA,
)
RESULT = (
    _IMAGE_ID,
    _CATEGORY_ID,
    Key("score", "a finite number", _finite_number, required=True),
    _BOX,
    Key("segmentation", "a list of polygons, or an RLE", _unchanged),
)
