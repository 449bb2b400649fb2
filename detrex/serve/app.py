"""The application: a model's predictions over HTTP, with FastAPI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import detrex
from detrex.predict import Predictor
from detrex.predict.result import by_content
from detrex.serve.answers import coco_answer, drawn_answer, prompted_answer
from detrex.serve.batching import Batcher
from detrex.serve.requests import FORMATS, Options, RequestError, decode, read_fields, read_json
from detrex.serve.settings import ServerSettings

logger = logging.getLogger(__name__)

_MAX_FIELDS = 16
_MAX_FIELD = 1024  # bytes of a text field of a form
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCHES = (1, 2, 4, 8, 16, 32)


def _numbers(count: int) -> dict[str, Any]:
    return {"type": "array", "minItems": count, "maxItems": count, "items": {"type": "number"}}


_OPTIONS_SCHEMA: dict[str, Any] = {
    "tasks": {"type": "array", "items": {"type": "string", "enum": ["instance", "panoptic", "semantic"]}},
    "score_threshold": {"type": "number", "minimum": 0, "maximum": 1},
    "precision": {"type": "number", "minimum": 0, "maximum": 1},
    "max_detections": {"type": "integer", "minimum": 1},
    "format": {"type": "string", "enum": ["json", "png"], "default": "json"},
    "classes": {"type": "array", "minItems": 1, "items": {"type": "string"}},
    "points": {"type": "array", "items": _numbers(2)},
    "boxes": {"type": "array", "items": _numbers(4)},
}
_FILES = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
_TEXTS = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "byte"}}
_BODY = {
    "required": True,
    "content": {
        kind: {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": images, **_OPTIONS_SCHEMA},
            }
        }
        for kind, images in (("multipart/form-data", _FILES), ("application/json", _TEXTS))
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "COCO's JSON, or a drawn picture", "content": {"image/png": {}}},
    400: {"description": "a picture or the body cannot be decoded"},
    413: {"description": "the body, a picture or their number is too large"},
    415: {"description": "the body is neither a form nor JSON"},
    422: {"description": "an option is wrong"},
    429: {"description": "too many pictures wait already"},
    504: {"description": "it took too long"},
}


class _Measures:
    """The measurements that ``/metrics`` returns."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "detrex_requests", "Requests to /predict by status", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "detrex_request_seconds", "Seconds of a request", buckets=_SECONDS, registry=self.registry
        )
        self.images = Counter("detrex_images", "Pictures that went through the model", registry=self.registry)
        self.batches = Histogram(
            "detrex_batch_size", "Pictures of a batch", buckets=_BATCHES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "detrex_batch_seconds", "Seconds of a batch", buckets=_SECONDS, registry=self.registry
        )
        self.waiting = Gauge("detrex_waiting_images", "Pictures without a result yet", registry=self.registry)

    def batch(self, size: int, seconds: float) -> None:
        self.images.inc(size)
        self.batches.observe(size)
        self.batch_seconds.observe(seconds)


class _BodyLimit:
    """Refuses bodies that are too large, by their announced length or as they arrive."""

    def __init__(self, app: ASGIApp, limit: int):
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.limit:
            response = _error(
                413, f"the body has {announced.decode('latin-1')} bytes; at most {self.limit:,}"
            )
            await response(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise RequestError(413, f"the body has more than {self.limit:,} bytes")
            return message

        await self.app(scope, counted, send)


def create_app(predictor: Predictor, settings: ServerSettings | None = None, name: str = "") -> FastAPI:
    """An ASGI application with ``/predict``, ``/health``, ``/metrics`` and ``/docs``, which works offline.

    Args:
        predictor: the model.
        settings: limits; None for the defaults.
        name: of the model, for ``/health``.
    """
    settings = settings or ServerSettings()
    measures = _Measures()
    batcher = Batcher(predictor, settings, measures.batch)
    measures.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    app = FastAPIOffline(title="detrex serve", version=detrex.__version__, lifespan=lifespan, redoc_url=None)
    app.add_middleware(_BodyLimit, limit=settings.max_body)
    app.add_exception_handler(RequestError, _refused)

    async def predict(request: Request) -> Response:
        start = perf_counter()
        try:
            response = await _answered(request, batcher, settings)
        except RequestError as error:
            response = _error(error.status, str(error))
        except HTTPException as error:
            response = _error(error.status_code, str(error.detail))
        except ClientDisconnect:
            response = _error(400, "the connection ended before the request did")
        except TimeoutError as error:
            response = _error(504, str(error))
        except ValueError as error:  # results that do not fit into memory, or an empty picture
            response = _error(422, str(error))
        except Exception:
            logger.exception("a request failed")
            response = _error(500, "the server failed; its log says why")
        measures.requests.labels(str(response.status_code)).inc()
        measures.seconds.observe(perf_counter() - start)
        return response

    app.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        summary="Find what is in pictures",
        description=f"Takes files ({', '.join(FORMATS)}) as a form or, in base64, as JSON.",
        openapi_extra={"requestBody": _BODY},
        responses=_RESPONSES,
        response_class=Response,
    )

    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": name,
            "tasks": list(predictor.tasks),
            "classes": list(predictor.names),
            "device": str(predictor.device),
            "waiting": batcher.waiting,
        }

    app.add_api_route(
        "/health", health, methods=["GET"], summary="Whether the model is ready, and what it is"
    )

    async def metrics() -> Response:
        return Response(generate_latest(measures.registry), media_type=CONTENT_TYPE_LATEST)

    app.add_api_route(
        "/metrics", metrics, methods=["GET"], summary="Counts and times in Prometheus's text format"
    )
    return app


async def _answered(request: Request, batcher: Batcher, settings: ServerSettings) -> Response:
    files, options = await _read(request, settings)
    drawn = options.format == "png"
    tasks = options.tasks
    if tasks is None:
        tasks = by_content(batcher.predictor.tasks)[:1]  # type: ignore[assignment] # names of tasks
    # Pictures to be drawn afterwards share batches with others.
    options = msgspec.structs.replace(options, tasks=tasks, format="json")
    batcher.check(options)
    if options.asks and (drawn or len(files) != 1):
        raise RequestError(422, "points and boxes are about one picture, and answered in JSON")
    if drawn and len(files) > 1:
        raise RequestError(422, "format=png draws one picture: send them one at a time")
    pictures = await asyncio.to_thread(decode, files, settings)
    results = await batcher.predict([picture.image for picture in pictures], options)
    if drawn:
        return Response(await asyncio.to_thread(drawn_answer, results[0]), media_type="image/png")
    names = [picture.name for picture in pictures]
    if options.asks:
        return JSONResponse(await asyncio.to_thread(prompted_answer, results[0], names[0]))
    answer = await asyncio.to_thread(coco_answer, results, names, results[0].categories)
    return JSONResponse(answer)


async def _read(request: Request, settings: ServerSettings) -> tuple[list[tuple[str, bytes]], Options]:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        return read_json(await request.body())
    if kind != "multipart/form-data":
        raise RequestError(415, "send a form (multipart/form-data) or JSON (application/json)")
    async with request.form(
        max_files=settings.max_images + 1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD
    ) as form:
        files: list[tuple[str, bytes]] = []
        fields: list[tuple[str, str]] = []
        for field_name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if field_name != "images":
                    raise RequestError(422, f"files are sent as 'images', not as '{field_name}'")
                files.append((value.filename or f"image {len(files)}", await value.read()))
            else:
                fields.append((field_name, value))
        return files, read_fields(fields)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError), "the handler is for these"
    return _error(error.status, str(error))


def _error(status: int, message: str) -> JSONResponse:
    headers = {"Retry-After": "1"} if status == 429 else None  # noqa: PLR2004
    return JSONResponse({"detail": message}, status_code=status, headers=headers)
