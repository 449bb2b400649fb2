"""What ``detrex export`` does."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from detrex.checkpoint.download import fetch
from detrex.export import export, export_web, verify
from detrex.export.capture import SIDES
from detrex.export.quantisation import quantise
from detrex.export.web import RUNTIME_SHA256, RUNTIME_URL, check_folder, read_runtime
from detrex.predict import Predictor, find_files, load
from detrex.runtime.exported import load as load_exported

CALIBRATION_PICTURES = 64


def run_export(arguments: argparse.Namespace) -> None:
    """Exports, and verifies if asked to.

    Raises:
        SystemExit: with code 1, if the file finds something else than the model.
    """
    if arguments.to == "web":
        # Before the model is loaded and exported, which may take minutes.
        check_folder(arguments.output)
        if arguments.download:
            arguments.onnxruntime_web = fetch(RUNTIME_URL, RUNTIME_SHA256)
        read_runtime(arguments.onnxruntime_web)
    predictor = load(
        arguments.model,
        arguments.weights,
        overrides=arguments.overrides,
        device="cpu",
        allow_pickle=arguments.allow_pickle,
        trust_code=arguments.trust_code,
    )
    began = time.perf_counter()
    path = _page(predictor, arguments) if arguments.to == "web" else _file(predictor, arguments)
    size = path.stat().st_size / 1e6
    print(f"wrote {path}: {size:.1f} MB in {time.perf_counter() - began:.0f} s")
    if arguments.to == "web":
        print(f"to see the page: python -m http.server --bind 127.0.0.1 --directory {arguments.output}")
    if arguments.verify and not _agrees(predictor, path, arguments):
        raise SystemExit(1)


def _file(predictor: Predictor, arguments: argparse.Namespace) -> Path:
    path = export(
        predictor,
        arguments.output,
        to=arguments.to,
        tasks=arguments.tasks,
        batch=arguments.batch,
        size=arguments.size,
        sides=tuple(arguments.sides or SIDES),
    )
    if arguments.int8:
        quantise(path, path, _calibration(arguments))
    return path


def _page(predictor: Predictor, arguments: argparse.Namespace) -> Path:
    return export_web(
        predictor,
        arguments.output,
        arguments.onnxruntime_web,
        tasks=arguments.tasks,
        sides=tuple(arguments.sides or SIDES),
        calibration=_calibration(arguments),
    )


def _calibration(arguments: argparse.Namespace) -> list[str]:
    """Pictures whose values say the ranges of 8 bits."""
    files = [str(file) for word in arguments.int8 or () for file in find_files(word)]
    return files[:CALIBRATION_PICTURES]


def _agrees(predictor: Predictor, path: Path, arguments: argparse.Namespace) -> bool:
    exported = load_exported(path, trust_code=True)  # it was made a moment ago
    pictures = [str(file) for word in arguments.verify for file in find_files(word)]
    agreement = verify(predictor, exported, pictures, batch_size=arguments.batch or 1)
    print(f"{'the same' if agreement.same else 'NOT THE SAME'} as the model: {agreement.describe()}")
    return agreement.same
