"""Reads pictures and options from the bytes of a request; every error has its HTTP status."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from PIL import Image

from detrex.serve.settings import ServerSettings

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Accepted formats of pictures. PIL knows more, one of which runs another program."""

_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

Task = Literal["instance", "panoptic", "semantic"]
Threshold = Annotated[float, msgspec.Meta(ge=0, le=1)]


class RequestError(Exception):
    """A request is refused.

    Args:
        status: HTTP status, 400 to 499.
        message: for the sender.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The results that are wanted.

    Attributes:
        tasks: kinds of results; None: the first one of panoptic, instance and semantic that the model
            performs.
        score_threshold: objects and segments with lower scores are left out; None: for objects, the threshold
            with the best F1 of each class, or 0.5 if it is not known; for segments, the value in the config.
        precision: instead of a threshold, a precision that was reached in the evaluation of the model.
        max_detections: largest number of objects in a picture.
        format: COCO's JSON, or a drawn picture.
        classes: for models that read words, the names to look for; None: those of the model.
        points, boxes: clicks (x, y) and boxes (x0, y0, x1, y1) in pixels of the single picture, which models
            for prompts answer with masks.
    """

    tasks: tuple[Task, ...] | None = None
    score_threshold: Threshold | None = None
    precision: Threshold | None = None
    max_detections: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    format: Literal["json", "png"] = "json"
    classes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    points: tuple[tuple[float, float], ...] | None = None
    boxes: tuple[tuple[float, float, float, float], ...] | None = None

    @property
    def asks(self) -> bool:
        """Whether there are clicks or boxes."""
        return self.points is not None or self.boxes is not None


class JsonRequest(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request in JSON.

    Attributes:
        images: files of pictures in base64.
    """

    images: Annotated[list[str], msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class NamedPicture:
    """A decoded picture from a request, with the name of its file, if it had one."""

    name: str
    image: Image.Image


def read_json(body: bytes) -> tuple[list[tuple[str, bytes]], Options]:
    """Named files and options of a JSON request.

    Raises:
        RequestError: with status 400 or 422.
    """
    try:
        request = msgspec.json.decode(body, type=JsonRequest)
    except msgspec.ValidationError as error:
        raise RequestError(422, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is no JSON: {error}") from None
    files = []
    for i, text in enumerate(request.images):
        try:
            files.append((f"image {i}", base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError):
            raise RequestError(400, f"images[{i}] is not in base64") from None
    options = {name: getattr(request, name) for name in Options.__struct_fields__}
    return files, Options(**options)


def read_fields(fields: Sequence[tuple[str, str]]) -> Options:
    """Options from the text fields of a form.

    Tasks and classes may be several fields, or one with commas; points and boxes are JSON lists.

    Raises:
        RequestError: with status 422.
    """
    values: dict[str, Any] = {}
    for name, text in fields:
        if name in ("points", "boxes"):
            try:
                values[name] = msgspec.json.decode(text)
            except msgspec.DecodeError as error:
                raise RequestError(422, f"'{name}' is no JSON list: {error}") from None
        elif name in ("tasks", "classes"):
            values[name] = [*values.get(name, []), *(part.strip() for part in text.split(","))]
        elif name in values:
            raise RequestError(422, f"the field '{name}' is there twice")
        else:
            values[name] = text
    try:
        return msgspec.convert(values, Options, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(422, str(error)) from None


def decode(files: Sequence[tuple[str, bytes]], settings: ServerSettings) -> list[NamedPicture]:
    """Decodes pictures.

    Raises:
        RequestError: with status 400, 413 or 422.
    """
    if not files:
        raise RequestError(422, "there is no picture: send files as 'images'")
    if len(files) > settings.max_images:
        raise RequestError(413, f"{len(files)} pictures; at most {settings.max_images} are taken at once")
    return [NamedPicture(name, _decoded(name, content, settings)) for name, content in files]


def _decoded(name: str, content: bytes, settings: ServerSettings) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            height, width = image.height, image.width
            if height * width > settings.max_pixels:
                raise RequestError(
                    413, f"{name} has {height} x {width} pixels; at most {settings.max_pixels:,} are taken"
                )
            image.load()
            if image.mode in ("I", "F"):
                raise RequestError(400, f"{name} has 32 bits a channel: convert it to 8 or 16")
            return image.copy()
    except _DECODING_ERRORS as error:
        kinds = ", ".join(FORMATS)
        raise RequestError(400, f"{name} cannot be decoded ({error}); {kinds} are taken") from None
