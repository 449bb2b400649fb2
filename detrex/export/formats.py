"""Writes a captured graph in several formats."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detrex.export.capture import Captured, ExportError
from detrex.export.half import halve_weights
from detrex.export.operators import translations
from detrex.export.simplification import simplify
from detrex.layers.suppression import not_suppressed_in_one_space
from detrex.runtime.exported import Description
from detrex.runtime.files import replaced_file

OPSET = 20
"""The opset of ONNX; the first one with a ``GridSample`` that all runtimes support."""
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "aotinductor": ".pt2"}
_SUPPRESSION = torch.ops.detrex.not_suppressed.default
_LARGEST_FILE = 2 * 2**30 - 2**20  # limit of protocol buffers, minus room for the nodes


def write_onnx(captured: Captured, path: Path, half: bool = False) -> Path:
    """Writes one ONNX file with standard operators of opset :data:`OPSET`.

    Args:
        captured: the graph.
        path: of the file.
        half: store weights in 16 bits, see :func:`detrex.export.half.halve_weights`.

    Raises:
        ImportError: the packages onnx and onnxscript are not installed.
        ExportError: the model is too large for one file, has parts for which ONNX has no operators, or has
            weights that are too large for 16 bits.
    """
    size = sum(t.numel() * t.element_size() for t in captured.program.state_dict.values())
    if size > _LARGEST_FILE:
        raise ExportError(f"the model's weights are {size / 2**30:.1f} GiB; an ONNX file holds at most 2 GiB")
    _needed("onnxscript", "onnx")
    # Users cannot act on the exporter's messages about its progress.
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                captured.program,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,  # the runtime optimises for the machine that it runs on
                input_names=captured.inputs,
                output_names=captured.outputs,
                custom_translation_table=translations(),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            "PyTorch's exporter has no ONNX operators for a part of this model; --to torch may work"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    proto = program.model_proto
    simplify(proto.graph)
    description = captured.description
    if half:
        try:
            halve_weights(proto.graph)
        except ValueError as error:
            raise ExportError(f"{error}: export without --half") from error
        description = replace(description, precision="fp16")
    set_metadata(proto, description)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    return path


def set_metadata(proto: Any, description: Description) -> None:
    """Writes a description into an ONNX model, replacing an existing one."""
    import onnx

    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**metadata, **description.to_metadata()})
    proto.producer_name, proto.producer_version = "detrex", description.detrex_version


def write_openvino(captured: Captured, path: Path, half: bool = False) -> Path:
    """Writes OpenVINO's pair of files, ``.xml`` and ``.bin``; arguments are those of :func:`write_onnx`.

    Raises:
        ImportError: the packages openvino, onnx and onnxscript are not installed.
        ExportError: see :func:`write_onnx`.
    """
    _needed("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        file = write_onnx(captured, Path(folder) / "model.onnx", half)
        description = replace(captured.description, precision="fp16" if half else "fp32")
        return onnx_to_openvino(file, path, description, captured.outputs)


def onnx_to_openvino(file: Path, path: Path, description: Description, outputs: Sequence[str]) -> Path:
    """Converts an ONNX file.

    Args:
        file: the ONNX file.
        path: of the ``.xml``.
        description: stored with the model.
        outputs: names of the graph's outputs, in their order.
    """
    import openvino

    model = openvino.Core().read_model(file)  # unlike convert_model, this sends no usage data
    # OpenVINO may forget the names of outputs, but not their order.
    model.set_rt_info(json.dumps(list(outputs)), ["detrex", "outputs"])
    for key, value in description.to_metadata().items():
        model.set_rt_info(value, ["detrex", key])
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def write_torch(captured: Captured, path: Path) -> Path:
    """Writes the program of ``torch.export``, with standard operators only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = json.dumps(captured.description.to_metadata())
    with replaced_file(path) as temporary:
        # PyTorch requires the suffix.
        file = temporary.with_suffix(".pt2")
        torch.export.save(_standard(captured.program), file, extra_files={"detrex.json": metadata})
        file.replace(temporary)
    return path


def write_aotinductor(captured: Captured, path: Path) -> Path:
    """Writes the program compiled by AOTInductor, for this kind of processor; it needs a C++ compiler.

    Raises:
        ExportError: this PyTorch cannot compile the program, or there is no compiler.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"aot_inductor.metadata": captured.description.to_metadata()}
    with replaced_file(path) as temporary, torch.no_grad():
        file = temporary.with_suffix(".pt2")
        try:
            aoti_compile_and_package(
                _standard(captured.program), package_path=str(file), inductor_configs=settings
            )
        except (CppCompileError, InductorError, InvalidCxxCompiler) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(
                f"AOTInductor cannot compile this model here ({reason}); --to torch needs no compiler"
            ) from error
        file.replace(temporary)
    return path


def _standard(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without operators of this package."""
    if any(node.target is _SUPPRESSION for node in program.graph.nodes):
        return program.run_decompositions({_SUPPRESSION: not_suppressed_in_one_space})
    return program


WRITERS: Mapping[str, Any] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch": write_torch,
    "aotinductor": write_aotinductor,
}
HALVING = ("onnx", "openvino")
"""Formats that can store weights in 16 bits."""


def _needed(package: str, extra: str) -> None:
    try:
        __import__(package)
    except ImportError as error:
        raise ImportError(
            f"this export needs the package {package}: pip install 'detrex-maskdino[export]' or pip install "
            f"{extra} {package}"
        ) from error
