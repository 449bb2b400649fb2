"""Stores weights of ONNX graphs in 16 bits; computations stay in 32 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

FEW_WEIGHTS = 256
"""Tensors with fewer numbers stay in float32: norms, biases, constants."""


def halve_weights(graph: Any) -> None:
    """Stores the weights as float16, each with a ``Cast`` to float32, in place.

    Runtimes compute these casts when they load the file, so that on every processor it takes the same time
    and memory as a file with float32.

    Args:
        graph: an ``onnx.GraphProto``.

    Raises:
        ValueError: a weight is too large for float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < FEW_WEIGHTS:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        largest = float(np.abs(values).max())
        if largest > float(np.finfo(np.float16).max):
            raise ValueError(f"{name} has a weight of {largest:.3g}, which is too large for 16 bits")
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
        cast = helper.make_node("Cast", [tensor.name], [name], f"{name}/Cast", to=TensorProto.FLOAT)
        casts.append(cast)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
