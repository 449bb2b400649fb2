"""ONNX files with weights and activations of 8 bits, calibrated on pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detrex.export.formats import set_metadata
from detrex.runtime.exported import Description
from detrex.runtime.exported.pictures import PictureInput, to_array
from detrex.runtime.files import replaced_file


def quantise(source: Path, path: Path, pictures: Iterable[PictureInput]) -> Path:
    """Writes an ONNX file whose convolutions and matrices of weights compute with whole numbers of 8 bits.

    Weights have a scale for each channel, activations one for each tensor, from the ranges that they have in
    the pictures. What has no weights (attention, sampling, resizing, masks, scores) stays float32.

    Args:
        source: a file of ``detrex export --to onnx``.
        path: of the new file.
        pictures: some dozens, like those that the model will see.

    Raises:
        ValueError: there are no pictures.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(source)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    description = Description.from_metadata(metadata, str(source))
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and weights.intersection(node.input[1:2])
    ]
    reader = _Reader(_inputs(pictures, description))
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises what makes no difference here
    try:
        with replaced_file(path) as temporary:
            quantize_static(
                model,
                temporary,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                nodes_to_quantize=nodes,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
            )
            quantised = onnx.load(temporary)
            set_metadata(quantised, replace(description, precision="int8"))
            temporary.write_bytes(quantised.SerializeToString())
    finally:
        root.setLevel(level)
    return path


class _Reader:
    """Gives inputs one after another, as onnxruntime's calibration asks for them."""

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
