"""Registers the number of floating-point operations of deformable attention in ``torch.utils.flop_counter``.

``FlopCounterMode`` counts by operator, so it sees deformable attention if ``torch.ops.detrex.msda`` runs:
always on the meta device, and elsewhere with a kernel. The reference consists of operators for which PyTorch
has no formulas. So count on the meta device, where nothing depends on what is installed.

A multiply-add counts as two operations, as in PyTorch's own formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from detrex.ops import operator  # noqa: F401  registers the operators

# Multiply-adds per channel of each sample: the four corners of the bilinear sample, and the weight.
SAMPLE_MACS = 5
# Gradients that each take as many multiply-adds as the output: of values, weights, x and y of locations.
GRADIENTS = 4


def msda_flops(
    value: Sequence[int],
    shapes: Sequence[int],  # noqa: ARG001
    locations: Sequence[int],  # noqa: ARG001
    weights: Sequence[int],
    **_: Any,
) -> int:
    """Operations of the forward pass.

    Args:
        value: the shape (B, S, M, D).
        shapes: sizes of the levels; the number of operations does not depend on them.
        locations: the shape (B, Q, M, L, P, 2).
        weights: the shape (B, Q, M, L, P).
    """
    return 2 * SAMPLE_MACS * prod(weights) * value[-1]


def msda_backward_flops(
    value: Sequence[int],
    shapes: Sequence[int],
    locations: Sequence[int],
    weights: Sequence[int],
    grad_output: Sequence[int],  # noqa: ARG001
    **_: Any,
) -> int:
    """Operations of the backward pass; arguments as in :func:`msda_flops`."""
    return GRADIENTS * msda_flops(value, shapes, locations, weights)


FLOP_FORMULAS: dict[Any, Any] = {
    torch.ops.detrex.msda: msda_flops,
    torch.ops.detrex.msda_backward: msda_backward_flops,
}
"""By operator."""

for _operator, _formula in FLOP_FORMULAS.items():
    register_flop_formula(_operator)(_formula)
