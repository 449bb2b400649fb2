"""Linear layers: matrix products by the faster of the two libraries that PyTorch has on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

# Multiply-adds below which finding the routine for a new size takes oneDNN longer than it saves.
LEAST_WORK = 2**22
# Numbers of a hidden layer at a time: 4 MB, which stay in a cache, and which the system need not map anew.
PIECE = 2**20


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


def two_layers(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """``second(first(x))``, of which the hidden layer never exists as a whole if it is large.

    Where :func:`linear` asks oneDNN, some rows at a time pass both layers; the backward pass computes their
    hidden layer again. For many rows that is faster than to write all of it to memory, and needs less. So it
    is with :class:`Linear` layers, of which only the first has ReLU; others are called one after the other.

    Args:
        x: (..., I).
        first: I to J.
        second: J to K.

    Returns:
        (..., K).
    """
    if not (_is_plain(first, relu=True) and _is_plain(second, relu=False) and _takes_onednn(x, first.weight)):
        return second(first(x))
    if x[..., 0].numel() * first.out_features < 4 * PIECE:
        return second(first(x))
    layers = first.weight, first.bias, second.weight, second.bias
    if torch.is_grad_enabled():
        return _TwoLayers.apply(x, *layers)
    return _through_both(x, *layers)


def _is_plain(layer: nn.Module, relu: bool) -> bool:
    """Whether to call a layer is no more than its product; hooks prune or watch it, for instance."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return type(layer) is Linear and layer.relu == relu and layer.bias is not None and not hooked


def _through_both(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    output = x.new_empty(*x.shape[:-1], len(weight2))
    for piece, result in zip(*_pieces(len(weight1), x, output), strict=True):
        result.copy_(_multiply(_multiply(piece, weight1, bias1, relu=True), weight2, bias2))
    return output


def _pieces(hidden: int, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Each of the tensors (..., I) as some rows at a time, of which ``hidden`` numbers each are computed."""
    return [t.flatten(0, -2).split(max(1, PIECE // hidden)) for t in tensors]


class _TwoLayers(torch.autograd.Function):
    """:func:`_through_both` and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight1, bias1, weight2)
        return _through_both(x, weight1, bias1, weight2, bias2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors  # once, as activation checkpointing demands
        x, weight1, bias1, weight2 = saved
        of_x, of_weight1, of_bias1, of_weight2 = (x.new_zeros(t.shape) for t in saved)
        for piece, column, result in zip(*_pieces(len(weight1), x, grad, of_x), strict=True):
            hidden = _multiply(piece, weight1, bias1, relu=True)
            of_hidden = torch.ops.aten.threshold_backward(_multiply(column, weight2.t()), hidden, 0)
            result.copy_(_multiply(of_hidden, weight1.t()))
            of_weight1 += _outer_sum(of_hidden, piece)
            of_bias1 += of_hidden.sum(0)
            of_weight2 += _outer_sum(column, hidden)
        return of_x, of_weight1, of_bias1, of_weight2, grad.flatten(0, -2).sum(0)


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
