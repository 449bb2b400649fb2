"""What ``detrex export`` does."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from detrex.checkpoint.download import fetch
from detrex.data import read_words
from detrex.export import export, export_web, verify
from detrex.export.capture import SIDES, ExportError
from detrex.export.prompting import answers_prompts, export_prompts
from detrex.export.quantisation import quantise
from detrex.export.verification import Agreement, PromptAgreement, verify_prompts
from detrex.export.web import RUNTIME_SHA256, RUNTIME_URL, check_folder, read_runtime
from detrex.predict import Predictor, find_files, load
from detrex.runtime.exported import load as load_exported
from detrex.runtime.exported import load_prompts

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
    if arguments.classes is not None:
        predictor.set_classes(read_words(arguments.classes))
    prompts = answers_prompts(predictor)
    if prompts:
        _check_prompts(arguments)
    began = time.perf_counter()
    path = _page(predictor, arguments) if arguments.to == "web" else _file(predictor, arguments)
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"wrote {path}: {size:.1f} MB in {time.perf_counter() - began:.0f} s")
    if arguments.to == "web":
        print(f"to see the page: python -m http.server --bind 127.0.0.1 --directory {arguments.output}")
    agrees = _prompts_agree if prompts else _agrees
    if arguments.verify and not agrees(predictor, path, arguments):
        raise SystemExit(1)


def _check_prompts(arguments: argparse.Namespace) -> None:
    """
    Raises:
        ExportError: what is asked for does not go with models that answer prompts.
    """
    if arguments.to not in ("onnx", "web"):
        raise ExportError("models that answer clicks are exported --to onnx (a folder) or --to web")
    for option in ("int8", "tasks", "batch", "size"):
        if getattr(arguments, option) is not None:
            raise ExportError(f"--{option} is not for models that answer clicks")


def _file(predictor: Predictor, arguments: argparse.Namespace) -> Path:
    if answers_prompts(predictor):
        return export_prompts(predictor, arguments.output, sides=tuple(arguments.sides or SIDES))
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


def _prompts_agree(predictor: Predictor, folder: Path, arguments: argparse.Namespace) -> bool:
    pictures = [str(file) for word in arguments.verify for file in find_files(word)]
    return _told(verify_prompts(predictor, load_prompts(folder), pictures))


def _agrees(predictor: Predictor, path: Path, arguments: argparse.Namespace) -> bool:
    exported = load_exported(path, trust_code=True)  # it was made a moment ago
    pictures = [str(file) for word in arguments.verify for file in find_files(word)]
    return _told(verify(predictor, exported, pictures, batch_size=arguments.batch or 1))


def _told(agreement: Agreement | PromptAgreement) -> bool:
    print(f"{'the same' if agreement.same else 'NOT THE SAME'} as the model: {agreement.describe()}")
    return agreement.same
