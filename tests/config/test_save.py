import ast
import math

import pytest
import torch
from config_targets import Color, Thing, anything, count
from omegaconf import OmegaConf
from torch import nn

from detrex.config import ConfigError, LazyConfig, complete, instantiate
from detrex.config import LazyCall as L
from detrex.structures import Categories


@pytest.fixture
def config():
    awkward = [
        "1e-4",
        "on",
        "no",
        "null",
        "~",
        "0x1f",
        "1_000",
        "2020-01-01",
        "12:30",
        "???",
        "",
        " x ",
        "a\nb",
    ]
    return OmegaConf.create(
        {
            "model": L(Thing)(
                size=L(count)(path="${data.path}"),
                parts=[
                    L(nn.Linear)(in_features=1, out_features="${..0.in_features}"),
                    nn.ReLU,
                    torch.float16,
                ],
            ),
            "data": {
                "path": "a/b é",
                0: {"x-y": True},
                "color": L(anything)(c=Color.RED, **{"not-a-name": 1}),
            },
            "awkward": [*awkward, "it's", 'say "x"', "back\\slash", "${data.path}", "\\${kept}"],
            "numbers": [1e-5, 1e20, -0.0, math.inf, 3, None, False],
            "empty": {"a": [], "b": {}},
            "names": L(Categories.from_names)(names=["a"]),
            "by_name": L("not_installed.module.Class")(a=1),
            "Thing": 1,
        }
    )


def test_saved_yaml_loads_to_the_complete_config(config, tmp_path):
    path = tmp_path / "new" / "config.yaml"
    LazyConfig.save(config, path)
    loaded = LazyConfig.load(path)
    assert loaded == complete(config)
    assert OmegaConf.to_container(loaded) == OmegaConf.to_container(complete(config))
    assert type(loaded.awkward[0]) is str and type(loaded.numbers[0]) is float
    assert OmegaConf.is_interpolation(loaded.model.size, "path")


def test_a_loaded_config_builds_the_same(config, tmp_path):
    LazyConfig.save(config, tmp_path / "c.yaml")
    thing = instantiate(LazyConfig.load(tmp_path / "c.yaml").model)
    assert thing.size == len("a/b é") and thing.parts[0].out_features == 1
    assert thing.parts[1:] == [nn.ReLU, torch.float16]


def test_python_text_loads_to_the_complete_config(config, write):
    text = LazyConfig.to_py(config)
    ast.parse(text)
    assert LazyConfig.load(write("printed.py", text)) == complete(config)


def test_python_text_reads_like_a_config_file():
    config = OmegaConf.create(
        {
            "model": L(Thing)(size=2, name="m", parts=[L(Thing)(name="x" * 40), L(Thing)(name="y" * 40)]),
            "train": {"max_iter": 10, "betas": [0.9, 0.999]},
        }
    )
    assert LazyConfig.to_py(config) == (
        "from config_targets import Thing\n"
        "from detrex.config import LazyCall as L\n\n"
        "model = L(Thing)(\n"
        "    size=2,\n"
        '    name="m",\n'
        "    parts=[\n"
        f'        L(Thing)(name="{"x" * 40}"),\n'
        f'        L(Thing)(name="{"y" * 40}"),\n'
        "    ],\n"
        ")\n"
        "train = dict(max_iter=10, betas=[0.9, 0.999])\n"
    )


@pytest.mark.parametrize("name", ["not-a-name", "class", "_hidden", 3])
def test_python_text_needs_names_at_the_top(name):
    with pytest.raises(ConfigError, match="cannot be the name of a variable"):
        LazyConfig.to_py(OmegaConf.create({name: 1}))
