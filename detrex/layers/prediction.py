"""Layers of a model that predicts: norms folded into convolutions, and weights prepared once for many images.

Parameters and their names stay as they are. Next to them, layers keep a copy in the form that suits the
processor, which is made anew when a parameter has changed. When gradients are wanted, and while operators are
traced, compiled or counted, the layers compute what they computed before.

Shape letters: I channels in, J channels out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from timm.layers.norm_act import FrozenBatchNorm2d, FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.utils import _python_dispatch as python_dispatch
from torch.utils._pytree import tree_leaves

from detrex.layers.onednn import OneDNNLinear, is_hooked, linear
from detrex.layers.tracing import is_traced


def prepare_for_prediction(model: nn.Module, forward: Callable[[], Any]) -> None:
    """Makes a model keep weights in the form that suits its device; call it once, after loading the weights.

    Every ``nn.Conv2d`` and ``nn.Linear`` (not their subclasses, except those of
    :func:`~detrex.layers.use_onednn`) becomes an object of a subclass, in place. So does every batch norm
    that is the only user of a convolution's result: the convolution's copy contains the norm. Results differ
    by rounding.

    Args:
        model: any module, in evaluation mode.
        forward: runs, once, the part of the model in which batch norms are to be folded.
    """
    for norm, convolution in _followers(model, forward):
        # In their __dict__, because neither is a submodule of the other.
        vars(norm)["_convolution"], vars(convolution)["_norm"] = convolution, norm
        norm.__class__ = _FOLDED[type(norm)]
    for module in model.modules():
        if type(module) in _PREPARED and not is_hooked(module) and not _pads(module):
            module.__class__ = _PREPARED[type(module)]


def _pads(module: nn.Module) -> bool:
    """Whether the module is a convolution whose padding is not zeros, or not given as numbers of pixels."""
    return isinstance(module, nn.Conv2d) and (
        module.padding_mode != "zeros" or isinstance(module.padding, str)
    )


def _keeps_weights() -> bool:
    """Whether copies of the present weights will serve for later calls, too."""
    return not (torch.is_grad_enabled() or is_traced())


def _state(tensors: Sequence[Tensor | None]) -> list[Any]:
    """A value that differs after tensors were changed, moved or exchanged."""
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors if t is not None]


class _Kept(nn.Module):
    """A layer that keeps tensors made of its parameters."""

    def _kept(self, sources: Sequence[Tensor | None], purpose: Any, make: Callable[[], Any]) -> Any:
        """The result of ``make()``, computed again for another purpose or when a source has changed."""
        key = purpose, _state(sources)
        kept = vars(self).get("_copy")
        if kept is None or kept[0] != key:
            kept = vars(self)["_copy"] = key, make()
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        # Copies and files of a layer hold its parameters only.
        return {name: value for name, value in vars(self).items() if name != "_copy"}


class PredictionConv2d(_Kept, nn.Conv2d):
    """``nn.Conv2d`` whose weights include the batch norm after it, if any: (B, I, H, W) to (B, J, H, W)."""

    _norm: Any = None

    def folds(self) -> bool:
        """Whether this layer computes the norm at present."""
        return self._norm is not None and not self._norm.training and _keeps_weights()

    def forward(self, x: Tensor) -> Tensor:
        if not _keeps_weights():
            return super().forward(x)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x = x.to(dtype)
        norm = self._norm if self.folds() else None

        def prepare() -> tuple[Tensor, Tensor | None]:
            weight, bias = self._folded(norm)
            if x.is_cpu:
                weight = weight.contiguous(memory_format=torch.channels_last)
            return weight.to(dtype), None if bias is None else bias.to(dtype)

        sources = [self.weight, self.bias]
        if norm is not None:
            sources += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        weight, bias = self._kept(sources, dtype, prepare)
        if self._is_product(x):  # PyTorch's convolution would go to MKL with one thread, which takes longer
            return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _is_product(self, x: Tensor) -> bool:
        """Whether this is a linear layer over the pixels of x (B, I, H, W) in their present memory layout."""
        return (
            x.is_cpu
            and x.dim() == 4
            and self.kernel_size == self.stride == (1, 1)
            and self.padding == (0, 0)
            and self.groups == 1
            and x.is_contiguous(memory_format=torch.channels_last)
        )

    def _folded(self, norm: Any) -> tuple[Tensor, Tensor | None]:
        """Weight (J, I / groups, h, w) and bias (J,) that include the norm."""
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        if norm is None:
            return weight, bias
        scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()  # (J,)
        shift = -norm.running_mean if bias is None else bias - norm.running_mean  # (J,)
        return weight * scale[:, None, None, None], norm.bias.detach() + shift * scale


class PredictionLinear(_Kept, OneDNNLinear):
    """``nn.Linear`` that rounds its weights at most once: (..., in_features) to (..., out_features)."""

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        kind = x.device.type
        if not torch.is_autocast_enabled(kind) or not _keeps_weights():
            return super().factors(x)
        dtype = torch.get_autocast_dtype(kind)
        sources = [self.weight, self.bias]
        weight, bias = self._kept(
            sources, dtype, lambda: [None if t is None else t.to(dtype) for t in sources]
        )
        return x.to(dtype), weight, bias


class _FoldedNorm(nn.Module):
    """A batch norm that does nothing whenever the convolution before it includes the norm."""

    _convolution: PredictionConv2d

    def forward(self, x: Tensor) -> Tensor:
        if not self._convolution.folds():
            return super().forward(x)
        activation: Any = self
        return activation.act(activation.drop(x)) if hasattr(self, "act") else x


class _FoldedBatchNorm2d(_FoldedNorm, nn.BatchNorm2d): ...


class _FoldedBatchNormAct2d(_FoldedNorm, BatchNormAct2d): ...


class _FoldedFrozenBatchNorm2d(_FoldedNorm, FrozenBatchNorm2d): ...


class _FoldedFrozenBatchNormAct2d(_FoldedNorm, FrozenBatchNormAct2d): ...


_FOLDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: _FoldedBatchNorm2d,
    BatchNormAct2d: _FoldedBatchNormAct2d,
    FrozenBatchNorm2d: _FoldedFrozenBatchNorm2d,
    FrozenBatchNormAct2d: _FoldedFrozenBatchNormAct2d,
}
_PREPARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: PredictionConv2d,
    nn.Linear: PredictionLinear,
    OneDNNLinear: PredictionLinear,
}


class _Uses(python_dispatch.TorchDispatchMode):
    """Counts how often operators take the memory of watched tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[Tensor] = []  # kept alive, so that no other tensor gets their memory
        self.counts: Counter[int] = Counter()

    def watch(self, result: Tensor) -> None:
        self.watched.append(result)
        self.counts[result.untyped_storage().data_ptr()] = 0

    def count(self, values: Any) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and (place := value.untyped_storage().data_ptr()) in self.counts:
                self.counts[place] += 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count((args, kwargs))
        return func(*args, **(kwargs or {}))


def _followers(model: nn.Module, forward: Callable[[], Any]) -> list[tuple[nn.Module, nn.Module]]:
    """Batch norms and the convolutions before them, whose results only these norms take."""
    calls: Counter[nn.Module] = Counter()
    made: dict[int, nn.Module] = {}
    before: dict[nn.Module, tuple[nn.Module, int]] = {}
    uses = _Uses()

    def after_convolution(module: nn.Module, _: Any, result: Tensor) -> None:
        calls[module] += 1
        uses.watch(result)
        made[id(result)] = module

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if id(inputs[0]) in made:
            before[module] = made[id(inputs[0])], inputs[0].untyped_storage().data_ptr()

    convolutions = [m for m in model.modules() if type(m) is nn.Conv2d and not is_hooked(m) and not _pads(m)]
    norms = [m for m in model.modules() if _can_fold(m)]
    if not norms:
        return []
    with ExitStack() as stack:
        for convolution in convolutions:
            stack.callback(convolution.register_forward_hook(after_convolution).remove)
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(before_norm).remove)
        with torch.no_grad(), uses:
            uses.count(forward())
    return [
        (norm, convolution)
        for norm, (convolution, place) in before.items()
        if uses.counts[place] == calls[norm] == calls[convolution] == 1
    ]


def _can_fold(module: nn.Module) -> bool:
    """Whether the module is a batch norm with weight, bias and running statistics."""
    tensors = ("weight", "bias", "running_mean", "running_var")
    known = type(module) in _FOLDED and not is_hooked(module)
    return known and all(getattr(module, name) is not None for name in tensors)
