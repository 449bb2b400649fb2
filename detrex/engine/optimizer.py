"""AdamW with learning rates per part of the model and no weight decay where it does harm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import AdamW

LEARNED_EMBEDDINGS = ("*level_embed*", "*pos_embed*", "*relative_position_bias_table*", "*cls_token*")
"""Names of parameters that are embeddings without being an ``nn.Embedding``, in this package and in timm."""


def build_adamw(
    model: nn.Module,
    lr: float = 1e-4,
    weight_decay: float = 0.05,
    lr_factors: Mapping[str, float] | None = None,
    norm_weight_decay: float = 0.0,
    embedding_weight_decay: float = 0.0,
    bias_weight_decay: float | None = None,
    embedding_names: Sequence[str] = LEARNED_EMBEDDINGS,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> AdamW:
    """AdamW (arXiv 1711.05101) over the trainable parameters, in one group per (learning rate, weight decay).

    Args:
        model: on its final device.
        lr: learning rate before the schedule.
        weight_decay: of all parameters without a rule below.
        lr_factors: from a part of the model to the factor on ``lr``. A part is a prefix of parameter names
            (``backbone``, ``decoder.layers.0``) or a pattern with ``*``, ``?`` or ``[...]`` for the whole
            name (``*.sampling_offsets.*``). Where several fit, the last one counts.
        norm_weight_decay: of weights and biases of normalisation layers.
        embedding_weight_decay: of ``nn.Embedding`` and of parameters that fit ``embedding_names``.
        bias_weight_decay: of other biases; None for ``weight_decay``.
        embedding_names: patterns for whole parameter names.
        betas: decay of the two moments.
        eps: added to the denominator.

    Raises:
        ValueError: an entry of ``lr_factors`` fits no parameter, or nothing is trainable.
    """
    lr_factors = dict(lr_factors or {})
    _check_factors(model, lr_factors)

    def decay_of(name: str, owner: nn.Module) -> float:
        if _is_norm(owner):
            return norm_weight_decay
        if isinstance(owner, nn.Embedding) or any(fnmatchcase(name, p) for p in embedding_names):
            return embedding_weight_decay
        is_bias = name.rpartition(".")[2] == "bias"
        return bias_weight_decay if is_bias and bias_weight_decay is not None else weight_decay

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, owner in _trainable_parameters(model):
        settings = (lr * _factor(name, lr_factors), decay_of(name, owner))
        groups.setdefault(settings, []).append(parameter)
    return _adamw(groups, betas=tuple(betas), eps=eps)


def _adamw(groups: dict[tuple[float, float], list[nn.Parameter]], **options) -> AdamW:
    parameters = [p for group in groups.values() for p in group]
    if not parameters:
        raise ValueError("the model has no trainable parameters")
    return AdamW(
        [{"params": g, "lr": lr, "weight_decay": decay} for (lr, decay), g in groups.items()],
        fused=all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters),
        **options,
    )


def _trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Name, parameter and the module that owns it; a shared parameter once, under its first name."""
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{prefix}.{name}" if prefix else name, parameter, module


def _is_norm(module: nn.Module) -> bool:
    """By the name of the class: PyTorch's norms have no common base, and timm has its own besides."""
    return "norm" in type(module).__name__.lower()


def _check_factors(model: nn.Module, lr_factors: Mapping[str, float]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for part in lr_factors:
        if not any(_fits(name, part) for name in names):
            top = sorted({name.partition(".")[0] for name in names})
            raise ValueError(
                f"optimizer.lr_factors: {part!r} fits no parameter; the model's parts are {', '.join(top)}"
            )


def _factor(name: str, lr_factors: Mapping[str, float]) -> float:
    fitting = [factor for part, factor in lr_factors.items() if _fits(name, part)]
    return fitting[-1] if fitting else 1.0


def _fits(name: str, part: str) -> bool:
    if any(c in part for c in "*?["):
        return fnmatchcase(name, part)
    return name == part or name.startswith(f"{part}.")
