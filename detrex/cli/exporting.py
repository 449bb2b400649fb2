"""Exports models, for ``detrex export``."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from detrex.checkpoint.download import fetch
from detrex.data import read_words
from detrex.export import export, export_web, verify
from detrex.export.capture import SIDES, ExportError
from detrex.export.formats import onnx_to_openvino
from detrex.export.prompting import answers_prompts, export_prompts
from detrex.export.quantisation import quantise
from detrex.export.verification import Agreement, PromptAgreement, verify_prompts
from detrex.export.web import RUNTIME_SHA256, RUNTIME_URL, check_folder, read_runtime
from detrex.predict import Predictor, find_files, load
from detrex.runtime.exported import Description, load_prompts
from detrex.runtime.exported import load as load_exported
from detrex.runtime.exported.runners import onnx_session

CALIBRATION_PICTURES = 64


def run_export(arguments: argparse.Namespace) -> None:
    """Exports a model, and verifies the file if wanted.

    Raises:
        SystemExit: with code 1, if the results of the file and the model differ.
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
        ExportError: an option does not fit models that answer prompts.
    """
    if arguments.to not in ("onnx", "web"):
        raise ExportError("models that answer clicks are exported --to onnx (a folder) or --to web")
    for option in ("int8", "tasks", "batch", "size"):
        if getattr(arguments, option) is not None:
            raise ExportError(f"--{option} is not for models that answer clicks")


def _file(predictor: Predictor, arguments: argparse.Namespace) -> Path:
    if answers_prompts(predictor):
        sides = tuple(arguments.sides or SIDES)
        return export_prompts(predictor, arguments.output, sides=sides, half=arguments.half)
    if not arguments.int8:
        return _export(predictor, arguments, arguments.output, arguments.to)
    if arguments.to == "onnx":
        path = _export(predictor, arguments, arguments.output, "onnx")
        _quantise(path, arguments)
        return path
    with tempfile.TemporaryDirectory() as folder:
        file = _export(predictor, arguments, Path(folder) / "model.onnx", "onnx")
        _quantise(file, arguments)
        session, metadata = onnx_session(file)
        outputs = [output.name for output in session.get_outputs()]
        description = Description.from_metadata(metadata, str(file))
        return onnx_to_openvino(file, arguments.output, description, outputs)


def _export(predictor: Predictor, arguments: argparse.Namespace, path: Path, to: str) -> Path:
    return export(
        predictor,
        path,
        to=to,
        tasks=arguments.tasks,
        batch=arguments.batch,
        size=arguments.size,
        sides=tuple(arguments.sides or SIDES),
        half=arguments.half,
    )


def _quantise(file: Path, arguments: argparse.Namespace) -> None:
    done = quantise(file, file, _calibration(arguments), keep=arguments.int8_float or ())
    print(f"{len(done.layers)} layers compute with 8 bits; in float32 stay {', '.join(done.kept) or 'none'}")


def _page(predictor: Predictor, arguments: argparse.Namespace) -> Path:
    return export_web(
        predictor,
        arguments.output,
        arguments.onnxruntime_web,
        tasks=arguments.tasks,
        sides=tuple(arguments.sides or SIDES),
        calibration=_calibration(arguments),
        keep=arguments.int8_float or (),
        half=arguments.half,
    )


def _calibration(arguments: argparse.Namespace) -> list[str]:
    """Pictures from which the ranges of 8-bit values are computed."""
    files = [str(file) for word in arguments.int8 or () for file in find_files(word)]
    return files[:CALIBRATION_PICTURES]


def _prompts_agree(predictor: Predictor, folder: Path, arguments: argparse.Namespace) -> bool:
    pictures = [str(file) for word in arguments.verify for file in find_files(word)]
    return _told(verify_prompts(predictor, load_prompts(folder), pictures))


def _agrees(predictor: Predictor, path: Path, arguments: argparse.Namespace) -> bool:
    exported = load_exported(path, trust_code=True)  # made by this command
    pictures = [str(file) for word in arguments.verify for file in find_files(word)]
    return _told(verify(predictor, exported, pictures, batch_size=arguments.batch or 1))


def _told(agreement: Agreement | PromptAgreement) -> bool:
    print(f"{'the same' if agreement.same else 'NOT THE SAME'} as the model: {agreement.describe()}")
    return agreement.same
