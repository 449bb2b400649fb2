"""Small functions of tensors that several models share."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

# Clamp of published models: the logit of a coordinate stays within about +-11.5.
LOGIT_EPS = 1e-5


def inverse_sigmoid(x: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Logit of ``x`` in [0, 1], with ``x`` and ``1 - x`` clamped to at least ``eps``."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32 or better, for coordinates: bfloat16 distinguishes only 256 of them."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def at_most(limit: int, count: int) -> int:
    """The smaller of ``limit`` and ``count``, even if ``count`` is not known while a model is exported."""
    return limit if statically_known_true(count >= limit) else cast(int, torch.sym_min(limit, count))


def take_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, Q) of ``values`` (B, S, D): (B, Q, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def put_rows(values: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """A copy of ``values`` (B, S, D) with ``rows`` (B, Q, D) at ``index`` (B, Q)."""
    return values.scatter(1, index[..., None].expand_as(rows), rows)
