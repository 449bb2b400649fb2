"""Runtimes that run exported files, each imported only when a file of its kind is loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detrex.runtime.exported.description import Description, ExportedModelError

Arrays = dict[str, np.ndarray]


class Runner(Protocol):
    """An exported file, loaded into its runtime.

    Attributes:
        description: what the file says about itself.
    """

    description: Description

    def __call__(self, images: np.ndarray, thresholds: Mapping[str, float]) -> Arrays:
        """The outputs of the graph by name.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            thresholds: a value for each of ``description.thresholds``.
        """
        ...


def open_runner(
    path: str | Path, *, threads: int | None, providers: Sequence[str] | None, trust_code: bool
) -> Runner:
    """Loads a file into the runtime that its suffix stands for; arguments as in :func:`detrex.runtime.load`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the runtime is not installed.
        ExportedModelError: the file cannot be loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no exported model at {path}")
    if path.suffix == ".onnx":
        return OnnxRunner(path, threads, providers)
    if path.suffix == ".xml":
        return OpenVinoRunner(path, threads)
    if path.suffix != ".pt2":
        raise ExportedModelError(
            f"{path}: exported models are .onnx, .xml (OpenVINO) or .pt2 files; detrex.load takes weights"
        )
    if not trust_code:
        raise ExportedModelError(
            f"{path} holds a program that PyTorch runs as it is: give trust_code=True if you know who made it"
        )
    return AotInductorRunner(path) if _is_compiled(path) else TorchRunner(path)


class OnnxRunner:
    """Runs an ONNX file with onnxruntime."""

    def __init__(self, path: Path, threads: int | None, providers: Sequence[str] | None):
        self.session, metadata = onnx_session(path, threads, providers)
        self.description = Description.from_metadata(metadata, str(path))
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: np.ndarray, thresholds: Mapping[str, float]) -> Arrays:
        inputs = {name: np.array(value, np.float32) for name, value in thresholds.items()}
        return dict(zip(self.outputs, self.session.run(None, {"images": images, **inputs}), strict=True))


def onnx_session(
    path: Path, threads: int | None = None, providers: Sequence[str] | None = None
) -> tuple[Any, dict[str, str]]:
    """A file in onnxruntime, and its metadata; arguments and errors as in :func:`open_runner`."""
    onnxruntime = _imported("onnxruntime", "pip install onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: its warnings here are about constants that it does not fold
    if threads is not None:
        options.intra_op_num_threads = threads
    wanted = list(providers or onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's own errors have no public base class
        raise ExportedModelError(f"{path} cannot be loaded by onnxruntime: {error}") from error
    return session, session.get_modelmeta().custom_metadata_map


class OpenVinoRunner:
    """A file in OpenVINO, on the CPU."""

    def __init__(self, path: Path, threads: int | None):
        openvino = _imported("openvino", "pip install openvino")
        # In float32, in which the model was exported, even on processors with faster types.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = openvino.Core().read_model(path)
            self.compiled = openvino.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ExportedModelError(f"{path} cannot be loaded by OpenVINO: {error}") from error
        kept = model.get_rt_info(["detrex"]).value if model.has_rt_info(["detrex"]) else {}
        metadata = {key: value if isinstance(value, str) else value.value for key, value in kept.items()}
        outputs = metadata.pop("outputs", "[]")
        self.description = Description.from_metadata(metadata, str(path))
        self.outputs: list[str] = json.loads(outputs)

    def __call__(self, images: np.ndarray, thresholds: Mapping[str, float]) -> Arrays:
        inputs = {name: np.array(value, np.float32) for name, value in thresholds.items()}
        found = self.compiled({"images": images, **inputs})
        return {name: np.asarray(found[i]) for i, name in enumerate(self.outputs)}


class TorchRunner:
    """A program of ``torch.export`` in PyTorch.

    Attributes:
        program: takes the pictures and the thresholds as tensors, and returns tensors by name.
    """

    program: Any

    def __init__(self, path: Path):
        torch = _imported("torch", "pip install torch")
        extra = {"detrex.json": ""}
        self.program = torch.export.load(path, extra_files=extra).module()
        metadata = json.loads(extra["detrex.json"] or "{}")
        self.description = Description.from_metadata(metadata, str(path))

    def __call__(self, images: np.ndarray, thresholds: Mapping[str, float]) -> Arrays:
        import torch

        with torch.inference_mode():
            values = [torch.tensor(value, dtype=torch.float32) for value in thresholds.values()]
            found = self.program(torch.from_numpy(images), *values)
        return {name: value.numpy() for name, value in found.items()}


class AotInductorRunner(TorchRunner):
    """A program that AOTInductor compiled, in PyTorch."""

    def __init__(self, path: Path):
        _imported("torch", "pip install torch")
        from torch._inductor import aoti_load_package

        try:
            self.program = aoti_load_package(str(path))
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ExportedModelError(
                f"{path} cannot be loaded by this PyTorch, on this kind of processor: {reason}"
            ) from error
        self.description = Description.from_metadata(self.program.get_metadata(), str(path))


def _is_compiled(path: Path) -> bool:
    """Whether a ``.pt2`` file holds what AOTInductor compiled."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/data/aotinductor/" in name for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ExportedModelError(f"{path} is no program of PyTorch: {error}") from error


def _imported(name: str, hint: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f"this exported model needs the package {name}: {hint}") from error
