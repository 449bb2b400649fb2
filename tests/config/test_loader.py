import builtins
import os
import subprocess
import sys
import traceback

import pytest
from omegaconf import DictConfig

import detrex.config.loader
from detrex.config import ConfigError, LazyConfig, get_config, instantiate

BASE = """
from __future__ import annotations
import math
from typing import Any
from config_targets import Thing, count
from detrex.config import LazyCall as L

_hidden = 1
num: int = 3
half = num / 2
train = dict(max_iter=10, sizes=(1, 2), nested={"a": None})
model = L(Thing)(size=L(count)(path="abc"), parts={"n": "${..size}"})

def make(size):
    return L(Thing)(size=size)

class Helper:
    pass
"""


def test_the_config_is_the_plain_values_and_nodes_of_a_file(write):
    cfg = LazyConfig.load(write("base.py", BASE))
    assert isinstance(cfg, DictConfig)
    assert set(cfg) == {"num", "half", "train", "model"}
    assert cfg.train == {"max_iter": 10, "sizes": [1, 2], "nested": {"a": None}}
    assert instantiate(cfg.model).parts == {"n": 3}


def test_relative_imports_within_and_across_folders(write):
    write("common/base.py", BASE)
    write("common/deep/more.py", "extra = [1]\n")
    path = write(
        "mine/big.py",
        "from ..common.base import model, train, make as _make\n"
        "from ..common.deep import more as _more\n"
        "from . import beside as _beside\n"
        "from .beside import *\n"
        "train.max_iter = 20\n"
        "model.parts = _make(9)\n"
        "extra = _more.extra\n"
        "def late():\n    from .beside import note\n    return note\n"
        "again = late()\n",
    )
    write("mine/beside.py", "note = 'x'\nother = _secret = 2\n")
    cfg = LazyConfig.load(path)
    assert set(cfg) == {"model", "train", "extra", "note", "other", "again"}
    assert cfg.train.max_iter == 20 and cfg.model.parts.size == 9 and cfg.again == "x"


def test_nothing_leaks_between_loads_or_importers(write):
    write("base.py", BASE)
    write("first.py", "from .base import train\ntrain.max_iter = 1\n")
    path = write("both.py", "from .first import train as a\nfrom .base import train as b\n")
    one, two = LazyConfig.load(path), LazyConfig.load(path)
    assert (one.a.max_iter, one.b.max_iter) == (1, 10)
    one.b.sizes.append(5)
    one.b.nested.a = 6
    assert two.b == {"max_iter": 10, "sizes": [1, 2], "nested": {"a": None}}


def test_each_load_reads_the_file_as_it_is_now(write):
    path = write("c.py", "from .d import x\n")
    write("d.py", "x = 1\n")
    assert LazyConfig.load(path).x == 1
    write("d.py", "x = 2\n")
    assert LazyConfig.load(path).x == 2


def test_the_import_machinery_is_left_alone(write):
    write("d.py", "x = 1\n")
    modules, finders, import_ = set(sys.modules), list(sys.meta_path), builtins.__import__
    LazyConfig.load(write("c.py", "from .d import x\n"))
    assert set(sys.modules) == modules and sys.meta_path == finders and builtins.__import__ is import_
    with pytest.raises(ImportError):
        exec("from .d import x", {"__name__": "elsewhere"})


def test_circular_import(write):
    path = write("a.py", "from .b import y\nx = 1\n")
    write("b.py", "from .a import x\ny = 1\n")
    with pytest.raises(ConfigError, match=r"circle: .*a\.py -> .*b\.py -> .*a\.py"):
        LazyConfig.load(path)


def test_missing_files_are_named_with_the_line_that_imports_them(write, tmp_path):
    path = write("c.py", "y = 1\n\nfrom .bsae import x\n")
    write("base.py", "x = 1\n")
    with pytest.raises(
        ConfigError, match=r"bsae\.py \(did you mean 'base\.py'\?\), imported in line 3 of .*c\.py"
    ):
        LazyConfig.load(path)
    with pytest.raises(ConfigError, match=r"there is no config file .*cc\.py \(did you mean 'c\.py'"):
        LazyConfig.load(tmp_path / "cc.py")
    with pytest.raises(ImportError, match="cannot import name 'z'"):
        LazyConfig.load(write("e.py", "from .base import z\n"))


def test_tracebacks_have_the_line_of_the_config_file(write):
    write("base.py", "x = 1\n\ny = 1 / 0\n")
    path = write("c.py", "\nfrom .base import x\n")
    with pytest.raises(ZeroDivisionError) as caught:
        LazyConfig.load(path)
    frames = [(f.filename.rpartition(os.sep)[2], f.lineno) for f in traceback.extract_tb(caught.tb)]
    assert ("c.py", 2) in frames and frames[-1] == ("base.py", 3)


def test_values_that_cannot_be_held_are_named(write):
    with pytest.raises(ConfigError, match=r"^train\.sizes: a config cannot hold a set"):
        LazyConfig.load(write("c.py", "train = dict(sizes={1, 2})\n"))
    text = "from config_targets import Thing\nfrom detrex.config import LazyCall as L\nmodel = L(Thing)\n"
    with pytest.raises(ConfigError, match=r"d\.py: model: .*is not called"):
        LazyConfig.load(write("d.py", text))
    text = "from detrex.config import LazyCall as L\ndef local(): pass\nmodel = L(local)()\n"
    with pytest.raises(ConfigError, match="local.*cannot be imported by name"):
        LazyConfig.load(write("e.py", text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "neither Python"),
        ("a.yaml", "a: [", "cannot be read"),
        ("a.yaml", "- 1\n", "a list at its top"),
    ],
)
def test_files_that_are_not_configs(write, name, text, message):
    with pytest.raises(ConfigError, match=message):
        LazyConfig.load(write(name, text))


@pytest.fixture
def project_configs(write, monkeypatch):
    """A stand-in for the folder of the project's configs."""
    folder = write("configs/common/train.py", "train = dict(seed=1)\n").parents[1]
    monkeypatch.setattr(detrex.config.loader, "configs_directory", lambda: folder)


@pytest.mark.usefixtures("project_configs")
def test_get_config_gives_each_caller_its_own():
    first = get_config("common/train.py").train
    first.seed = 2
    assert get_config("common/train.py").train.seed == 1
    with pytest.raises(ConfigError, match="did you mean 'train.py'"):
        get_config("common/trian.py")


def test_the_projects_configs_are_found_from_any_directory(tmp_path):
    root = detrex.config.loader.configs_directory()
    assert root.name == "configs" and (root / "common").is_dir()
    code = "from detrex.config.loader import configs_directory as d; import sys; sys.stdout.write(str(d()))"
    environment = {**os.environ, "PYTHONPATH": str(root.parent)}
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    assert output.stdout == str(root)


def test_an_installation_without_configs_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(detrex, "__file__", str(tmp_path / "detrex" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="has no configs/"):
        get_config("common/train.py")


def test_importing_the_package_leaves_other_packages_alone():
    code = "import sys; import detrex.config; assert 'projects' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
