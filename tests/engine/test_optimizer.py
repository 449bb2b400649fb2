import logging
import re

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from detrex.engine import build_adamw
from detrex.engine.optimizer import scale_learning_rates
from detrex.modeling import SwinBackbone, TimmBackbone, VitPyramid
from tests.engine.dummy import Model


def settings(model: nn.Module, **kwargs) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) by parameter name."""
    optimizer = build_adamw(model, **kwargs)
    by_id = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {name: by_id[id(p)] for name, p in model.named_parameters() if id(p) in by_id}


def test_learning_rates_and_weight_decay_by_kind():
    found = settings(Model(), lr=1.0, weight_decay=0.5, lr_factors={"backbone": 0.25})
    assert found == {
        "level_embed": (1.0, 0.0),
        "backbone.weight": (0.25, 0.5),
        "backbone.bias": (0.25, 0.5),
        "norm.weight": (1.0, 0.0),
        "norm.bias": (1.0, 0.0),
        "query.weight": (1.0, 0.0),
        "head.weight": (1.0, 0.5),
        "head.bias": (1.0, 0.5),
    }


def test_each_kind_of_decay_can_be_set():
    found = settings(
        Model(), weight_decay=0.5, norm_weight_decay=0.1, embedding_weight_decay=0.2, bias_weight_decay=0.3
    )
    decays = {name: decay for name, (_, decay) in found.items()}
    assert decays["norm.weight"] == decays["norm.bias"] == 0.1
    assert decays["query.weight"] == decays["level_embed"] == 0.2
    assert decays["backbone.bias"] == 0.3
    assert decays["backbone.weight"] == 0.5


def test_one_group_for_each_pair_of_rate_and_decay():
    assert len(build_adamw(Model(), lr_factors={"backbone": 0.1}).param_groups) == 3


def test_factors_take_patterns_and_the_last_fitting_one_counts():
    found = settings(Model(), lr=1.0, lr_factors={"*.weight": 0.5, "head": 0.1})
    rates = {name: lr for name, (lr, _) in found.items()}
    assert rates["backbone.weight"] == 0.5 and rates["backbone.bias"] == 1.0
    assert rates["head.weight"] == rates["head.bias"] == 0.1


def test_a_prefix_ends_at_a_dot():
    with pytest.raises(ValueError, match="'back' fits no parameter; .*backbone"):
        build_adamw(Model(), lr_factors={"back": 0.1})


def test_a_factor_of_a_frozen_part_is_no_error():
    model = Model()
    model.backbone.requires_grad_(False)
    found = settings(model, lr_factors={"backbone": 0.1})
    assert "backbone.weight" not in found


def test_a_model_without_trainable_parameters_is_an_error():
    with pytest.raises(ValueError, match="no trainable"):
        build_adamw(Model().requires_grad_(False))


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(1, 4), nn.BatchNorm2d(4), nn.InstanceNorm1d(4, affine=True), nn.RMSNorm(4)]
)
def test_no_decay_in_any_norm(norm):
    assert {decay for _, decay in settings(nn.Sequential(norm), weight_decay=0.5).values()} == {0.0}


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    parameters = [p for g in build_adamw(model).param_groups for p in g["params"]]
    assert len(parameters) == 3


def test_a_step_is_adamw():
    # First step of Adam: the update is lr * sign(gradient), after decay of lr * weight_decay * value.
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = build_adamw(model, lr=0.1, weight_decay=0.5, eps=0.0)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


class Detector(nn.Module):
    """A backbone of timm and a head."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(2, 2)


def timm_factors(name: str, decay: float, **options) -> dict[str, float]:
    """What timm itself gives the parameters of a whole model, by the names they have in its feature maps."""
    model = timm.create_model(name, **options)
    factors = {}
    for group in param_groups_layer_decay(model, layer_decay=decay, verbose=False):
        factors |= {id(p): group["lr_scale"] for p in group["params"]}
    names = ((n, factors[id(p)]) for n, p in model.named_parameters())
    return {re.sub(r"^(layers|stages|stem)\.(\d)", r"\1_\2", name): factor for name, factor in names}


@pytest.mark.parametrize(
    ("backbone", "name", "options"),
    [
        (TimmBackbone, "convnext_atto", {}),
        (SwinBackbone, "swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": (1, 2, 3, 1)}),
        (VitPyramid, "vit_tiny_patch16_224", {"embed_dim": 12, "depth": 4}),
        (VitPyramid, "vit_small_patch16_dinov3", {"embed_dim": 24, "depth": 4, "num_heads": 2}),
    ],
)
def test_rates_fall_from_layer_to_layer_as_in_timm(backbone, name, options):
    model = Detector(backbone(name, options=options))
    found = {n: lr for n, (lr, _) in settings(model, lr=1.0, layer_decay={"backbone": 0.7}).items()}
    published = timm_factors(name, 0.7, **options)
    prefix = "backbone.model." + ("model." if backbone is VitPyramid else "")
    last = max(f for n, f in published.items() if "blocks" in n)  # timm counts norm and head as layers above
    compared = {n.removeprefix(prefix): lr for n, lr in found.items() if n.startswith(prefix)}
    assert len({*compared.values()}) > 3 and min(compared.values()) < 0.7**4
    assert compared == pytest.approx({n: 0.7 * published[n] / last for n in compared})
    assert {lr for n, lr in found.items() if not n.startswith(prefix)} == {1.0}  # head, norms and pyramid


def test_layers_and_factors_multiply():
    model = Detector(nn.ModuleDict({"blocks": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))}))
    found = settings(model, lr=1.0, lr_factors={"backbone": 0.1}, layer_decay={"backbone": 0.5})
    rates = {name: lr for name, (lr, _) in found.items()}
    assert rates["backbone.blocks.0.weight"] == pytest.approx(0.1 * 0.25)
    assert rates["backbone.blocks.1.bias"] == pytest.approx(0.1 * 0.5) and rates["head.bias"] == 1.0


def test_layer_decay_needs_layers_and_a_factor():
    for part in ("head", "nothing"):
        with pytest.raises(ValueError, match=f"'{part}' has no blocks"):
            build_adamw(Model(), layer_decay={part: 0.5})
    with pytest.raises(ValueError, match=r"layer_decay\.backbone must be above 0"):
        build_adamw(Model(), layer_decay={"backbone": 1.5})


@pytest.mark.parametrize(("rule", "factor"), [("off", 1), ("linear", 4), ("sqrt", 2)])
def test_scaled_learning_rates(rule, factor, caplog):
    optimizer = build_adamw(Model(), lr=1.0, lr_factors={"backbone": 0.5})
    with caplog.at_level(logging.INFO):
        scale_learning_rates(optimizer, rule, images_per_step=64, base_batch_size=16)
    assert {g["lr"] for g in optimizer.param_groups} == {factor, 0.5 * factor}
    assert (f"all learning rates x {factor}, for 64 images per step in place of 16" in caplog.text) == (
        rule != "off"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("cubic", 4, 4), "one of off, linear, sqrt"), (("linear", None, 4), "None and 4")],
)
def test_scaling_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        scale_learning_rates(build_adamw(Model()), *arguments)
