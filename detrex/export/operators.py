"""Translates operators of PyTorch to ONNX that its exporter does not know.

Shape letters: B images, N boxes, G groups, K boxes that are kept.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

_OF_OTHERS = -3e38
"""Score of a box in groups to which it does not belong."""
_LOWEST = -1e38
"""Scores of boxes in their own group are above this."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Functions that express operators of PyTorch in opset 20, by operator.

    Raises:
        ImportError: the package onnxscript is not installed.
    """
    from onnxscript import opset20

    op: Any = opset20  # its types do not allow results of operators as operands

    def sort(data: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
        # Equal values keep their order.
        size = op.Gather(op.Shape(data), op.Constant(value_ints=[dim]))
        return op.TopK(data, size, axis=dim, largest=int(descending), sorted=1)

    def floordiv(a: Any, b: Any) -> Any:
        # Rounds down, also below 0, where ONNX's integer division truncates.
        return op.Div(op.Sub(a, op.Mod(a, b)), b)

    def suppress(boxes: Any, scores: Any, groups: Any, iou: float) -> Any:
        count = op.Add(op.ReduceMax(groups, keepdims=0), op.Constant(value_int=1))
        numbers = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
        members = op.Equal(
            op.Unsqueeze(groups, op.Constant(value_ints=[1])),
            op.Unsqueeze(numbers, op.Constant(value_ints=[1])),
        )  # (B, G, N)
        rows = op.Unsqueeze(scores, op.Constant(value_ints=[1]))
        by_group = op.Where(members, rows, op.Constant(value_float=_OF_OTHERS))
        kept = op.NonMaxSuppression(
            boxes,
            by_group,
            op.Squeeze(op.Shape(scores, start=1)),
            op.Constant(value_float=iou),
            op.Constant(value_float=_LOWEST),
        )  # (K, 3): image, group, box
        places = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
        nothing = op.Mul(groups, op.Constant(value_int=0))
        ones = op.Expand(op.Constant(value_int=1), op.Shape(places, start=0, end=1))
        return op.Cast(op.ScatterND(nothing, places, ones), to=9)

    return {
        operator.floordiv: floordiv,
        torch.ops.aten.sort.stable: sort,
        torch.ops.detrex.not_suppressed.default: suppress,
    }
