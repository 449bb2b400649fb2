"""Linear layers through oneDNN on CPUs: one switch for a model that is built with plain ``nn.Linear``.

PyTorch multiplies float32 matrices on CPUs with MKL, which on AMD's processors reaches half of oneDNN's
speed. oneDNN is part of PyTorch, but PyTorch asks it only for convolutions and for lower precision. The
operator that multiplies with it is private to PyTorch, and this is the only module that knows it. Where a
version of PyTorch lacks it, or computes something else with it, PyTorch's own linear layers are used.

Shape letters: N rows, I channels in, J channels out, K channels after a second layer.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
import torch.utils._python_dispatch as python_dispatch
from torch import Tensor, nn

from detrex.layers.tracing import is_traced
from detrex.layers.transformer import FeedForward
from detrex.runtime.chunking import items_in_cache

# With fewer multiply-adds, oneDNN spends more time on finding the routine for a new size than it saves.
LEAST_WORK = 2**22

logger = logging.getLogger(__name__)


def use_onednn(model: nn.Module) -> bool:
    """Lets the linear layers of a model multiply through oneDNN; call it once, after the model is built.

    Every ``nn.Linear`` (not a subclass of it) and every :class:`~detrex.layers.FeedForward` becomes an object
    of a subclass, in place: parameters, their names, hooks and references to the modules stay. Results differ
    from PyTorch's by rounding. The layers decide at every call: on other devices, in other precision, under
    autocast, for small products, while operators are traced, compiled or counted, and inside of
    ``torch.backends.mkldnn.flags(enabled=False)`` they compute what ``nn.Linear`` computes.

    Args:
        model: any module.

    Returns:
        Whether the layers were exchanged. If not, this PyTorch cannot do it, and a message was logged.
    """
    if not onednn_works():
        logger.info("PyTorch %s has no linear layers through oneDNN: its own are used", torch.__version__)
        return False
    exchanged = {nn.Linear: OneDNNLinear, FeedForward: OneDNNFeedForward}
    for module in model.modules():
        # PyTorch's parametrisations and fully_shard also change the class of a module.
        module.__class__ = exchanged.get(type(module), type(module))
    return True


@cache
def onednn_works(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this PyTorch can multiply numbers of ``dtype`` through oneDNN; a small product is tried."""
    if not torch.backends.mkldnn.is_available() or not hasattr(python_dispatch, "is_in_torch_dispatch_mode"):
        return False
    x, weight, bias = (
        torch.linspace(-1, 1, math.prod(shape), dtype=torch.float32, device="cpu").view(shape).to(dtype)
        for shape in ((2, 3), (4, 3), (4,))
    )
    expected = F.linear(x, weight, bias)
    try:
        products = _multiply(x, weight, bias), _multiply(x, weight, bias, relu=True)
    except (AttributeError, RuntimeError, TypeError):  # missing, not for this processor, or another one
        return False
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    pairs = zip(products, (expected, expected.relu()), strict=True)
    return all(torch.allclose(product, reference, atol=tolerance) for product, reference in pairs)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, through oneDNN whenever the layers of :func:`use_onednn` would use it.

    It is meant for products without parameters of a layer, such as mask embeddings times pixels.

    Args:
        x: (..., I).
        weight: (J, I).
        bias: (J,) or None.

    Returns:
        (..., J).
    """
    if not _takes_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        # As rows: with more axes the operator returns a view, and a function's view must not change in place.
        return _Product.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])
    return _multiply(x, weight, bias)


class OneDNNLinear(nn.Linear):
    """``nn.Linear`` through :func:`linear`: (..., in_features) to (..., out_features)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(*self.factors(x))

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The factors of the product for x (..., I): x, weight and bias, as they are or rounded."""
        return x, self.weight, self.bias


class OneDNNFeedForward(FeedForward):
    """A :class:`~detrex.layers.FeedForward` that computes ReLU within the first product for many rows.

    Without gradients, each block of rows passes both layers before the next block, so that the hidden layer
    never exists as a whole. With gradients it is kept: computing it again in the backward pass costs more.
    """

    def transform(self, x: Tensor) -> Tensor:
        first, second = self.linear1, self.linear2
        if (
            type(self.activation) is not nn.ReLU
            or (self.training and self.dropout.p)
            or not (_is_product(first) and _is_product(second))
        ):
            return super().transform(x)
        rows, weight1, bias1 = first.factors(x)
        _, weight2, bias2 = second.factors(rows)
        assert bias1 is not None and bias2 is not None, "looked at above"
        if not _takes_onednn(rows, weight1):
            return super().transform(x)
        parameters = weight1, bias1, weight2, bias2
        if torch.is_grad_enabled():
            return _TwoLayers.apply(rows.flatten(0, -2), *parameters).unflatten(0, rows.shape[:-1])
        many = rows.numel() // rows.shape[-1] >= 4 * _rows_at_once(rows, first.out_features)
        return _through_both(rows, *parameters) if many else super().transform(rows)


def _is_product(layer: nn.Module) -> TypeGuard[OneDNNLinear]:
    """Whether a call of the layer does nothing but multiply."""
    return isinstance(layer, OneDNNLinear) and layer.bias is not None and not is_hooked(layer)


def is_hooked(layer: nn.Module) -> bool:
    """Whether hooks run when the layer is called, such as for pruning weights or watching results."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _through_both(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """Applies both layers: (..., I) to (..., K)."""
    output = x.new_empty(*x.shape[:-1], len(weight2))
    for rows, result in _blocks(len(weight1), x, output):
        result.copy_(_multiply(_multiply(rows, weight1, bias1, relu=True), weight2, bias2))
    return output


def _blocks(hidden: int, *tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    """Splits all tensors (..., I) into the same blocks of rows, whose hidden layer fits the cache."""
    rows = _rows_at_once(tensors[0], hidden)
    return zip(*(t.flatten(0, -2).split(rows) for t in tensors), strict=True)


def _rows_at_once(x: Tensor, hidden: int) -> int:
    """How many rows of x have a hidden layer that fits the cache."""
    return items_in_cache(x.element_size() * hidden, x.device)


class _TwoLayers(torch.autograd.Function):
    """Both layers with their gradients: rows (N, I) to (N, K)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        hidden = _multiply(x, weight1, bias1, relu=True)  # (N, J)
        ctx.save_for_backward(x, weight1, weight2, hidden)
        return _multiply(hidden, weight2, bias2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight1, weight2, hidden = ctx.saved_tensors  # read once, as activation checkpointing demands
        needed = ctx.needs_input_grad
        hidden_grad = _multiply(grad, weight2.t())  # (N, J)
        torch.ops.aten.threshold_backward.grad_input(hidden_grad, hidden, 0, grad_input=hidden_grad)
        return (
            _multiply(hidden_grad, weight1.t()) if needed[0] else None,
            _transposed_product(hidden_grad, x) if needed[1] else None,
            hidden_grad.sum(0) if needed[2] else None,
            _transposed_product(grad, hidden) if needed[3] else None,
            grad.sum(0) if needed[4] else None,
        )


class _Product(torch.autograd.Function):
    """``x @ weight.T + bias`` of rows (N, I) with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_needed, weight_needed, bias_needed = ctx.needs_input_grad
        return (
            _multiply(grad, weight.t()) if x_needed else None,
            _transposed_product(grad, x) if weight_needed else None,
            grad.sum(0) if bias_needed else None,
        )


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """``a.T @ b`` for (N, I) and (N, J): (I, J). It is twice as fast with the smaller of I and J first."""
    if a.shape[1] > b.shape[1]:
        return _transposed_product(b, a).t()
    return _multiply(a.t(), b.t())


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then ReLU if wanted, by the private operator."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")


def _takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether this product goes to oneDNN: it is large, and no one traces or counts its operators."""
    return (
        not is_traced()
        and x.is_cpu
        and weight.is_cpu
        and x.dtype == weight.dtype
        and (_is_plain_float32(x) or (x.dtype == torch.bfloat16 and not torch.is_grad_enabled()))
        and x.dim() > 1
        and x.numel() * len(weight) >= LEAST_WORK
        and bool(torch.backends.mkldnn.enabled)
        and onednn_works(x.dtype)
    )


def _is_plain_float32(x: Tensor) -> bool:
    """Whether x is float32, and stays so in products."""
    return x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
