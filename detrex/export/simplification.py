"""Simplifies ONNX graphs for users and runtimes: names of the model's modules, no sequences, no notes."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

_SCOPES = "pkg.torch.onnx.name_scopes"


def simplify(graph: Any) -> None:
    """Simplifies a graph of PyTorch's exporter, in place, without changing its results.

    Nodes get the names of their module in the model and their operator, such as
    ``encoder.layers.0.feed_forward.linear1/MatMul``; nodes outside modules have only that of the operator.
    The exporter's notes at each node are removed: they take a third of a small file, and name folders of this
    machine.

    Args:
        graph: an ``onnx.GraphProto`` of a module that has the model as its attribute ``model``.
    """
    replace_sequences(graph)
    replace_casts(graph)
    counts: Counter[str] = Counter()
    for node in graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "[]")
        module = next(iter(ast.literal_eval(scopes)[-2:-1]), "").removeprefix("model").removeprefix(".")
        name = f"{module}/{node.op_type}" if module else node.op_type
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]


def replace_casts(graph: Any) -> None:
    """Replaces ``CastLike`` by ``Cast``, in place.

    A ``CastLike`` of a constant depends on another tensor, though only on its type: runtimes do not compute
        it
    in advance, and so do not join convolutions and norms.

    Args:
        graph: an ``onnx.GraphProto``.
    """
    from onnx import helper

    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "CastLike" and types.get(node.input[1]):
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", types[node.input[1]]))
            del node.input[1:]


def replace_sequences(graph: Any) -> None:
    """Replaces splitting into a sequence and taking pieces from it by slices, in place.

    PyTorch's exporter splits tensors with ``SplitToSequence`` and takes the pieces with ``SequenceAt``.

    Args:
        graph: an ``onnx.GraphProto``, without subgraphs that use its sequences.
    """
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    splits = {node.output[0]: node for node in graph.node if node.op_type == "SplitToSequence"}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "SplitToSequence":
            nodes += _bounds(node, constants)
        elif node.op_type == "SequenceAt" and node.input[0] in splits:
            nodes += _piece(node, splits[node.input[0]], int(constants[node.input[1]]), constants)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _bounds(split: Any, constants: dict[str, Any]) -> list[Any]:
    """Begins and ends of pieces with different sizes."""
    from onnx import helper

    sizes, name = split.input[1], split.output[0]
    if sizes in constants and constants[sizes].ndim == 0:
        return []  # not needed for pieces of equal size
    return [
        _constant(f"{name}_first_axis", 0),
        helper.make_node("CumSum", [sizes, f"{name}_first_axis"], [f"{name}_ends"]),
        helper.make_node("Sub", [f"{name}_ends", sizes], [f"{name}_starts"]),
    ]


def _piece(taken: Any, split: Any, index: int, constants: dict[str, Any]) -> list[Any]:
    from onnx import helper

    axis = next((a.i for a in split.attribute if a.name == "axis"), 0)
    data, sizes, name = split.input[0], split.input[1], taken.output[0]
    start, end = f"{name}_start", f"{name}_end"
    if sizes in constants and constants[sizes].ndim == 0:
        size = int(constants[sizes])
        nodes = [_constant(start, [index * size]), _constant(end, [(index + 1) * size])]
    else:
        nodes = [_constant(f"{name}_index", [index])]
        nodes += [
            helper.make_node("Gather", [f"{split.output[0]}_{bound}s", f"{name}_index"], [f"{name}_{bound}"])
            for bound in ("start", "end")
        ]
    nodes.append(_constant(f"{name}_axis", [axis]))
    return [*nodes, helper.make_node("Slice", [data, start, end, f"{name}_axis"], [name])]


def _constant(name: str, value: Any) -> Any:
    import numpy as np
    from onnx import helper, numpy_helper

    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.array(value, np.int64), name)
    )
