"""AdamW with learning rates per part of the model, and without weight decay where it would do harm."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import AdamW, Optimizer

LEARNED_EMBEDDINGS = (
    "*level_embed*",
    "*pos_embed*",
    "*relative_position_bias_table*",
    "*cls_token*",
    "*reg_token*",
)
"""Names of parameters that are embeddings without being an ``nn.Embedding``, in this package and in timm."""

_BLOCK = re.compile(r"(?:^|.*\.)blocks\.\d+(?=\.)")  # of timm's transformers and ConvNeXts, in stages or not

logger = logging.getLogger(__name__)


def build_adamw(
    model: nn.Module,
    lr: float = 1e-4,
    weight_decay: float = 0.05,
    lr_factors: Mapping[str, float] | None = None,
    layer_decay: Mapping[str, float] | None = None,
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
        weight_decay: of all parameters to which no rule below applies.
        lr_factors: factors on ``lr`` by part of the model. A part is a prefix of parameter names
            (``backbone``, ``decoder.layers.0``) or a pattern with ``*``, ``?`` or ``[...]`` for the whole
            name (``*.sampling_offsets.*``). If several fit, the last one counts.
        layer_decay: by part of the model, such as ``backbone``, the factor by which the learning rate falls
            from each layer to the one before; combined with ``lr_factors``. See :func:`layer_factors`.
        norm_weight_decay: of weights and biases of normalisation layers.
        embedding_weight_decay: of ``nn.Embedding`` and of parameters that fit ``embedding_names``.
        bias_weight_decay: of other biases; None for ``weight_decay``.
        embedding_names: patterns for whole parameter names.
        betas: decay of the two moments.
        eps: added to the denominator.

    Raises:
        ValueError: an entry of ``lr_factors`` fits no parameter, an entry of ``layer_decay`` fits no part
            with layers, or nothing is trainable.
    """
    lr_factors = dict(lr_factors or {})
    _check_factors(model, lr_factors)
    by_layer = {
        name: factor
        for part, decay in (layer_decay or {}).items()
        for name, factor in layer_factors(model, part, decay).items()
    }

    def decay_of(name: str, owner: nn.Module) -> float:
        if _is_norm(owner):
            return norm_weight_decay
        if isinstance(owner, nn.Embedding) or any(fnmatchcase(name, p) for p in embedding_names):
            return embedding_weight_decay
        is_bias = name.rpartition(".")[2] == "bias"
        return bias_weight_decay if is_bias and bias_weight_decay is not None else weight_decay

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, owner in _trainable_parameters(model):
        settings = (lr * _factor(name, lr_factors) * by_layer.get(name, 1.0), decay_of(name, owner))
        groups.setdefault(settings, []).append(parameter)
    return _adamw(groups, betas=tuple(betas), eps=eps)


def layer_factors(model: nn.Module, part: str, decay: float) -> dict[str, float]:
    """Factors on the learning rate that fall towards the input, by parameter name (arXiv 1801.06146).

    A layer is a block of a transformer or a ConvNeXt, as named by timm (``blocks.3``, ``layers_2.blocks.0``);
    parameters between two blocks, such as a reduction of the map, belong to the second one. N blocks have
    factors from ``decay ** N`` to ``decay``; parameters before the first block (patch embedding, position
    embedding, stem) have ``decay ** (N + 1)``, and parameters after the last one have 1.

    Args:
        model: with the parameters.
        part: prefix of the names of the layers' parameters, such as ``backbone``.
        decay: above 0 and at most 1.

    Raises:
        ValueError: ``decay`` is out of range, there is no such part, or the part has no blocks.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"optimizer.layer_decay.{part} must be above 0 and at most 1, not {decay}")
    names = [name for name, _ in model.named_parameters() if _fits(name, part)]
    blocks = {name: match[0] for name in names if (match := _BLOCK.match(name))}
    if not blocks:
        raise ValueError(
            f"optimizer.layer_decay: {part!r} has no blocks; it must be a part of the model with a "
            "transformer or a ConvNeXt, such as 'backbone'"
        )
    order = list(dict.fromkeys(blocks.values()))  # parameters are listed from input to output
    factors, after = {}, 1.0
    for name in reversed(names):
        if name in blocks:
            after = decay ** (len(order) - order.index(blocks[name]))
        factors[name] = after
    for name in names[: names.index(next(iter(blocks)))]:
        factors[name] = decay ** (len(order) + 1)
    return factors


def scale_learning_rates(
    optimizer: Optimizer, rule: str, images_per_step: int | None, base_batch_size: int
) -> None:
    """Adapts learning rates, which were chosen for one batch size, to another one; logs the change.

    Args:
        optimizer: its groups are changed; the schedule must be made afterwards.
        rule: ``off``; ``linear`` (arXiv 1706.02677): times the ratio of the batch sizes; ``sqrt``: times its
            square root, as for Adam (arXiv 2205.10287).
        images_per_step: images in one optimizer step, over all processes and accumulated batches; None if it
            is not known, which is an error unless ``rule`` is ``off``.
        base_batch_size: batch size that the learning rates were chosen for.

    Raises:
        ValueError: there is no such rule, or a batch size is missing or below 1.
    """
    rules = {"off": lambda _: 1.0, "linear": lambda ratio: ratio, "sqrt": math.sqrt}
    if rule not in rules:
        raise ValueError(f"train.lr_scaling.rule must be one of {', '.join(rules)}, not {rule!r}")
    if rule == "off":
        return
    if base_batch_size < 1 or not images_per_step:
        raise ValueError(
            f"train.lr_scaling.rule={rule} needs dataloader.train.total_batch_size and "
            f"train.lr_scaling.base_batch_size, at least 1 each, not {images_per_step} and {base_batch_size}"
        )
    factor = rules[rule](images_per_step / base_batch_size)
    before = max(group["lr"] for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        group["lr"] *= factor
    logger.info(
        "train.lr_scaling=%s: all learning rates x %.4g, for %d images per step in place of %d; "
        "the largest is %.4g, not %.4g",
        rule,
        factor,
        images_per_step,
        base_batch_size,
        before * factor,
        before,
    )


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
    """Decides by the name of the class: PyTorch's norms have no common base, and timm has further ones."""
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
