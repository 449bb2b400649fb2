"""Runs a server, for ``detrex serve``."""

from __future__ import annotations

import argparse

from detrex.predict import load
from detrex.serve.settings import MEBIBYTE, ServerSettings

_GRACE = 5  # seconds beyond the time limit of requests, for those in progress when the server is stopped


def serve(arguments: argparse.Namespace) -> None:
    """Loads the model and serves it until it is stopped.

    Args:
        arguments: of :func:`detrex.cli.commands.serve.parse_arguments`.

    Raises:
        ImportError: FastAPI or another package of the extra ``serve`` is not installed.
        ValueError: a setting is out of its range.
    """
    settings = ServerSettings(
        max_batch=arguments.max_batch,
        batch_wait=arguments.batch_wait / 1000,
        queue_size=arguments.queue,
        timeout=arguments.timeout,
        max_body=arguments.max_upload * MEBIBYTE,
        max_images=arguments.max_images,
        max_pixels=arguments.max_pixels,
    )
    try:
        import uvicorn

        from detrex.serve.app import create_app
    except ImportError as error:
        raise ImportError(
            f"serving needs the package {error.name}: pip install 'detrex-maskdino[serve]'"
        ) from error
    predictor = load(
        arguments.model,
        arguments.weights,
        overrides=arguments.overrides,
        device=arguments.device,
        amp=arguments.amp,
        allow_pickle=arguments.allow_pickle,
        trust_code=arguments.trust_code,
    )
    app = create_app(predictor, settings, str(arguments.model))
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        timeout_graceful_shutdown=round(settings.timeout) + _GRACE,
        log_level="info",
        server_header=False,
    )
