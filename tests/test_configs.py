"""What holds for every config file of the repository."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf

from detrex.config import LazyConfig

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("configs/**/*.py"), *ROOT.glob("projects/*/configs/**/*.py")])

each_config = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())


def spoil(node: DictConfig | ListConfig) -> None:
    """Changes every container in place, as a careless user of a config might."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            if isinstance(node[key], DictConfig | ListConfig):
                spoil(node[key])
    if isinstance(node, ListConfig):
        node.append("spoilt")
    else:
        node["spoilt"] = True


def test_there_are_configs():
    assert FILES


@each_config
def test_saved_and_loaded_again_it_is_equal(path, tmp_path):
    config = LazyConfig.load(path)
    LazyConfig.save(config, tmp_path / "config.yaml")
    assert LazyConfig.load(tmp_path / "config.yaml") == config


@each_config
def test_printed_as_python_it_is_equal(path, tmp_path):
    config = LazyConfig.load(path)
    (tmp_path / "config.py").write_text(LazyConfig.to_py(config), encoding="utf-8")
    assert LazyConfig.load(tmp_path / "config.py") == config


@each_config
def test_a_changed_config_does_not_leak_into_the_next_load(path):
    first = LazyConfig.load(path)
    before = OmegaConf.to_container(first)
    spoil(first)
    assert OmegaConf.to_container(LazyConfig.load(path)) == before != OmegaConf.to_container(first)
