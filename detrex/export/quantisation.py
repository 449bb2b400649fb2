"""Writes ONNX files with weights and activations of 8 bits, calibrated on pictures."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from detrex.export.formats import set_metadata
from detrex.runtime.exported import Description
from detrex.runtime.exported.pictures import PictureInput, to_array
from detrex.runtime.files import replaced_file

FEW_CHANNELS = 16
"""Convolutions with fewer input channels stay in float32, such as those that see the picture itself."""
KEPT = ("encoder.projections.*",)
"""Further modules that stay in float32: they join levels of the backbone, which have different ranges."""

_QUANTISED = ("Conv", "Gemm", "MatMul")


@dataclass
class Quantised:
    """The result of :func:`quantise`.

    Attributes:
        path: of the file.
        layers: modules of the model that compute with 8 bits.
        kept: modules with weights that stay in float32.
    """

    path: Path
    layers: list[str]
    kept: list[str]


def quantise(
    source: Path, path: Path, pictures: Iterable[PictureInput], *, keep: Sequence[str] = ()
) -> Quantised:
    """Writes an ONNX file whose convolutions and products with weights compute with integers of 8 bits.

    Weights have a scale for each channel, activations have one for each tensor, from their ranges in the
    pictures. Batch norms are folded into convolutions first. Operations without weights (attention, sampling,
    resizing, masks, scores) stay in float32, and so do convolutions of fewer than :data:`FEW_CHANNELS`
    channels and the modules :data:`KEPT`: these are small, and with 8 bits they lost most of the accuracy.

    Args:
        source: a file of ``detrex export --to onnx``.
        path: of the new file.
        pictures: a few dozen, similar to those that the model will see.
        keep: further modules of the model that stay in float32, as patterns such as ``encoder.*``.

    Raises:
        ValueError: there are no pictures, or a pattern fits no layer.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    metadata = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    description = Description.from_metadata(metadata, str(source))
    reader = _Reader(_inputs(pictures, description))
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # its advice makes no difference here
    onnxruntime.set_default_logger_severity(3)
    try:
        with replaced_file(path) as temporary:
            model = _folded(source)
            nodes, layers, kept = _chosen(model, keep)
            quantize_static(
                model,
                temporary,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                nodes_to_quantize=nodes,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
            )
            _write(onnx.load(temporary), replace(description, precision="int8"), temporary)
    finally:
        root.setLevel(level)
        onnxruntime.set_default_logger_severity(2)  # the default
    return Quantised(path, layers, kept)


def _write(model: Any, description: Description, path: Path) -> None:
    """Writes a model with its description, and with only the operator sets that it uses."""
    used = {node.domain for node in model.graph.node}
    sets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(sets)
    set_metadata(model, description)
    path.write_bytes(model.SerializeToString())


def _folded(source: Path) -> Any:
    """The model with constants computed and batch norms folded into the convolutions before them."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _chosen(model: Any, keep: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Names of nodes that get 8 bits, their modules, and the modules with weights that stay in float32."""
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    nodes: list[str] = []
    layers: dict[str, bool] = {}  # whether it gets 8 bits
    used = dict.fromkeys(keep, False)
    for node in model.graph.node:
        if node.op_type not in _QUANTISED or node.input[1] not in weights:
            continue
        module = node.name.rpartition("/")[0]
        fitting = [pattern for pattern in keep if fnmatchcase(module, pattern)]
        used.update(dict.fromkeys(fitting, True))
        layers[module] = not (fitting or _stays(node, module, weights[node.input[1]]))
        if layers[module]:
            nodes.append(node.name)
    unused = [pattern for pattern, fits in used.items() if not fits]
    if unused:
        named = ", ".join(list(layers)[:: max(len(layers) // 5, 1)])
        raise ValueError(f"no layer with weights fits {', '.join(unused)}; there are {named} and others")
    return nodes, [n for n, whole in layers.items() if whole], [n for n, whole in layers.items() if not whole]


def _stays(node: Any, module: str, shape: Sequence[int]) -> bool:
    """Whether a node with weights of this shape always stays in float32."""
    if any(fnmatchcase(module, pattern) for pattern in KEPT):
        return True
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "Conv" and shape[1] * groups < FEW_CHANNELS


class _Reader:
    """Returns inputs one after another, in the form that onnxruntime's calibration needs."""

    def __init__(self, inputs: Iterator[dict[str, np.ndarray]]):
        self.inputs = inputs
        self.first = next(inputs, None)
        if self.first is None:
            raise ValueError("int8 needs pictures to be calibrated on, such as 50 of the training data")

    def get_next(self) -> dict[str, np.ndarray] | None:
        first, self.first = self.first, None
        return next(self.inputs, None) if first is None else first


def _inputs(pictures: Iterable[PictureInput], description: Description) -> Iterator[dict[str, Any]]:
    thresholds = {name: np.array(value, np.float32) for name, value in description.thresholds.items()}
    for picture in pictures:
        array = to_array(picture, description.value_range)
        yield {"images": np.stack([array] * (description.batch or 1)), **thresholds}
