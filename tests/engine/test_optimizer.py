import pytest
import torch
from torch import nn

from detrex.engine import build_adamw
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
