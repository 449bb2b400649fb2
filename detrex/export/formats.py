"""The formats in which a captured graph is written."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from detrex.export.capture import Captured, ExportError
from detrex.export.operators import translations
from detrex.export.simplification import simplify
from detrex.layers.suppression import not_suppressed_in_one_space
from detrex.runtime.exported import Description
from detrex.runtime.files import replaced_file

OPSET = 20
"""Of ONNX; the first with a ``GridSample`` that all runtimes share."""
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_SUPPRESSION = torch.ops.detrex.not_suppressed.default
_LARGEST_FILE = 2 * 2**30 - 2**20  # of protocol buffers, with room for the nodes


def write_onnx(captured: Captured, path: Path) -> Path:
    """Writes one ONNX file with standard operators of opset :data:`OPSET`.

    Raises:
        ImportError: the packages onnx and onnxscript are not installed.
        ExportError: the model is larger than one file may be, or has parts that ONNX has no operators for.
    """
    size = sum(t.numel() * t.element_size() for t in captured.program.state_dict.values())
    if size > _LARGEST_FILE:
        raise ExportError(f"the model's weights are {size / 2**30:.1f} GiB; an ONNX file holds at most 2 GiB")
    _needed("onnxscript", "onnx")
    # What the exporter says of its own progress is nothing that users can act on.
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
                optimize=False,  # the runtime does it, for the machine that it runs on
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
    set_metadata(proto, captured.description)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    return path


def set_metadata(proto: Any, description: Description) -> None:
    """Puts a description into an ONNX model, in the place of one that is there."""
    import onnx

    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**metadata, **description.to_metadata()})
    proto.producer_name, proto.producer_version = "detrex", description.detrex_version


def write_openvino(captured: Captured, path: Path) -> Path:
    """Writes OpenVINO's pair of files, ``.xml`` and ``.bin``.

    Raises:
        ImportError: the packages openvino, onnx and onnxscript are not installed.
        ExportError: see :func:`write_onnx`.
    """
    _needed("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        file = write_onnx(captured, Path(folder) / "model.onnx")
        return onnx_to_openvino(file, path, captured.description, captured.outputs)


def onnx_to_openvino(file: Path, path: Path, description: Description, outputs: Sequence[str]) -> Path:
    """Converts an ONNX file.

    Args:
        file: the ONNX file.
        path: of the ``.xml``.
        description: what is kept with it.
        outputs: names of the graph's outputs, in their order.
    """
    import openvino

    model = openvino.Core().read_model(file)  # unlike its convert_model, this reports nothing to anyone
    # OpenVINO may forget the names of outputs, but not their order.
    model.set_rt_info(json.dumps(list(outputs)), ["detrex", "outputs"])
    for key, value in description.to_metadata().items():
        model.set_rt_info(value, ["detrex", key])
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def write_torch(captured: Captured, path: Path) -> Path:
    """Writes the program of ``torch.export``, with standard operators alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    program = captured.program
    if any(node.target is _SUPPRESSION for node in program.graph.nodes):
        program = program.run_decompositions({_SUPPRESSION: not_suppressed_in_one_space})
    metadata = json.dumps(captured.description.to_metadata())
    with replaced_file(path) as temporary:
        # PyTorch wants the suffix.
        file = temporary.with_suffix(".pt2")
        torch.export.save(program, file, extra_files={"detrex.json": metadata})
        file.replace(temporary)
    return path


WRITERS: Mapping[str, Any] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch": write_torch,
}


def _needed(package: str, extra: str) -> None:
    try:
        __import__(package)
    except ImportError as error:
        raise ImportError(
            f"this export needs the package {package}: pip install 'detrex-maskdino[export]' or pip install "
            f"{extra} {package}"
        ) from error
