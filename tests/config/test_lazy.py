import functools
from pathlib import Path

import pytest
import torch
from config_targets import Color, Thing, anything
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config import ConfigError, LazyCall, LazyConfig, instantiate, locate
from detrex.structures import Categories

L = LazyCall


def test_a_call_becomes_a_node_with_the_dotted_name_of_its_target():
    node = L(Thing)(size=3, name="${..x}")
    assert isinstance(node, DictConfig)
    assert OmegaConf.to_container(node) == {
        "_target_": "config_targets.Thing",
        "size": 3,
        "name": "${..x}",
    }
    assert L("some.where.Class")()["_target_"] == "some.where.Class"
    assert L(Categories.from_names)()["_target_"] == "detrex.structures.categories.Categories.from_names"


@pytest.mark.parametrize(
    "target",
    [lambda: 0, functools.partial(Thing), nn.Linear(1, 1), torch.relu],
    ids=["lambda", "partial", "object", "builtin without module"],
)
def test_a_target_that_no_name_leads_to_is_an_error(target):
    with pytest.raises(ConfigError, match="cannot be imported by name"):
        L(target)


def test_nodes_are_copied_into_nodes():
    part = L(Thing)(size=1)
    both = L(Thing)(parts=[part, part])
    both.parts[0].size = 2
    assert (part.size, both.parts[1].size) == (1, 1)


def test_values_that_yaml_cannot_hold_have_a_plain_form_that_instantiate_turns_back():
    node = L(anything)(
        cls=nn.ReLU,
        function=nn.functional.relu,
        dtype=torch.bfloat16,
        color=Color.RED,
        path=Path("a/b"),
        pair=(1, (2, 3)),
        steps=range(3),
    )
    assert node.cls == {"_target_": "detrex.config.lazy.locate", "name": "torch.nn.modules.activation.ReLU"}
    built = instantiate(node)
    assert built["cls"] is nn.ReLU and built["function"] is nn.functional.relu
    assert built["dtype"] is torch.bfloat16 and built["color"] is Color.RED
    assert built["path"] == "a/b" and built["pair"] == [1, [2, 3]] and built["steps"] == [0, 1, 2]


@pytest.mark.parametrize(
    "value", [{1, 2}, torch.zeros(2), Categories.from_names(["a"]), 1j], ids=lambda v: type(v).__name__
)
def test_values_that_a_config_cannot_hold_are_named_with_their_path(value):
    with pytest.raises(ConfigError, match=rf"Thing\.parts\.0\.deep: .*{type(value).__name__}"):
        L(Thing)(parts=[{"deep": value}])


def test_objects_assigned_later_are_refused_when_saved(tmp_path):
    config = OmegaConf.create({"model": L(Thing)()}, flags={"allow_objects": True})
    config.model.parts = [1, torch.zeros(1)]
    with pytest.raises(ConfigError, match=r"^model\.parts\.1: .*Tensor"):
        LazyConfig.save(config, tmp_path / "c.yaml")


def test_forgotten_call_and_malformed_interpolation():
    with pytest.raises(ConfigError, match=r"parts: .*is not called"):
        L(Thing)(parts=L(Thing))
    with pytest.raises(ConfigError, match=r"\$\{x"):
        L(Thing)(name="${x")


def test_locate_names_the_nearest():
    assert locate("detrex.structures.Categories.from_names") == Categories.from_names
    with pytest.raises(ConfigError, match="did you mean 'Categories'"):
        locate("detrex.structures.Categoris")
    with pytest.raises(ConfigError, match="no module named 'nowhere'"):
        locate("nowhere.at.all")
    with pytest.raises(ConfigError, match="not a dotted name"):
        locate("single")


def test_locate_names_the_module_that_an_import_needs(write, monkeypatch):
    path = write("wants_missing.py", "import not_installed_here\n")
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(ConfigError, match="'wants_missing' needs 'not_installed_here'"):
        locate("wants_missing.Thing")
