"""What ``detrex export`` does."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from detrex.export import export, verify
from detrex.export.capture import SIDES
from detrex.export.quantisation import quantise
from detrex.predict import Predictor, find_files, load
from detrex.runtime.exported import load as load_exported

CALIBRATION_PICTURES = 64


def run_export(arguments: argparse.Namespace) -> None:
    """Exports, and verifies if asked to.

    Raises:
        SystemExit: with code 1, if the file finds something else than the model.
    """
    predictor = load(
        arguments.model,
        arguments.weights,
        overrides=arguments.overrides,
        device="cpu",
        allow_pickle=arguments.allow_pickle,
        trust_code=arguments.trust_code,
    )
    began = time.perf_counter()
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
        files = [str(file) for word in arguments.int8 for file in find_files(word)]
        quantise(path, path, files[:CALIBRATION_PICTURES])
    size = path.stat().st_size / 1e6
    print(f"wrote {path}: {size:.1f} MB in {time.perf_counter() - began:.0f} s")
    if arguments.verify and not _agrees(predictor, path, arguments):
        raise SystemExit(1)


def _agrees(predictor: Predictor, path: Path, arguments: argparse.Namespace) -> bool:
    exported = load_exported(path, trust_code=True)  # it was made a moment ago
    pictures = [str(file) for word in arguments.verify for file in find_files(word)]
    agreement = verify(predictor, exported, pictures, batch_size=arguments.batch or 1)
    print(f"{'the same' if agreement.same else 'NOT THE SAME'} as the model: {agreement.describe()}")
    return agreement.same
