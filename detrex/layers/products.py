"""Linear layers: matrix products by the faster of the two libraries that PyTorch has on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

# Multiply-adds below which finding the routine for a new size takes oneDNN longer than it saves.
LEAST_WORK = 2**22


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then ReLU if wanted.

    PyTorch multiplies float32 matrices on CPUs by MKL, which reaches half of oneDNN's speed on processors of
    AMD; oneDNN is in PyTorch too, but only asked for convolutions and lower precision. Here it is asked,
    forward and backward, for all but small products. Results differ by rounding. Without oneDNN, on other
    devices, under autocast and wherever operators are traced or counted, this is PyTorch's own linear layer.
    So it is within ``torch.backends.mkldnn.flags(enabled=False)``.

    Args:
        x: (..., I).
        weight: (J, I).
        bias: (J,) or None.
        relu: whether ReLU follows.

    Returns:
        (..., J).
    """
    if not _takes_onednn(x, weight):
        output = F.linear(x, weight, bias)
        return output.relu_() if relu else output
    if torch.is_grad_enabled():
        return _Product.apply(x, weight, bias, relu)
    return _multiply(x, weight, bias, relu)


class Linear(nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`: (..., in_features) to (..., out_features).

    Args:
        in_features, out_features, bias: as of ``torch.nn.Linear``.
        relu: whether ReLU follows.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, relu: bool = False):
        super().__init__(in_features, out_features, bias)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.relu)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"


class _Product(torch.autograd.Function):
    """``relu(x @ weight.T + bias)`` and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        output = _multiply(x, weight, bias, relu)
        ctx.save_for_backward(x, weight, *([output] if relu else []))
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *outputs = ctx.saved_tensors
        for output in outputs:
            grad = torch.ops.aten.threshold_backward(grad, output, 0)
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        rows, columns = x.flatten(0, -2), grad.flatten(0, -2)
        return (
            _multiply(grad, weight.t()) if of_x else None,
            _outer_sum(columns, rows) if of_weight else None,
            columns.sum(0) if of_bias else None,
            None,
        )


def _outer_sum(a: Tensor, b: Tensor) -> Tensor:
    """``a.T @ b`` for (N, I) and (N, J); twice as fast with the smaller of I and J first."""
    if a.shape[1] > b.shape[1]:
        return _outer_sum(b, a).t()
    return _multiply(a.t(), b.t())


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    after = "relu" if relu else "none"
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], "")


def _takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether to ask oneDNN: whether there is one, and only the numbers count, not which operator ran."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and x.is_cpu
        and weight.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and x.dim() > 1
        and x.numel() * len(weight) >= LEAST_WORK
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not is_in_torch_dispatch_mode()
    )
