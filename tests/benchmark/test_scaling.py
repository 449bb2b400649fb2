"""How figures grow: exponents, where they bend, and the page."""

import math

import pytest

from detrex.benchmark import AXES, bend
from detrex.benchmark.model import Setup
from detrex.benchmark.scaling import exponents
from detrex.report.scaling_page import save_scaling_page
from tests.benchmark.conftest import CONFIG

VALUES = (1, 10, 100, 1000)


def points(figure):
    return [{"value": v, "seconds": figure(v), "processor_seconds": figure(v), "memory": v} for v in VALUES]


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_exponents_of_powers(power):
    assert exponents(points(lambda v: 3 * v**power), "seconds") == pytest.approx([power] * 3)


def test_where_growth_begins():
    assert bend(points(lambda v: 50 + v), "seconds") == 100
    assert bend(points(lambda v: 5 + 0 * v), "seconds") is None
    assert bend(points(lambda v: v), "seconds") == 1
    assert math.isnan(exponents(points(lambda v: 0 * v), "seconds")[0])


@pytest.mark.parametrize("name", AXES)
def test_each_axis_changes_one_thing(name):
    base = Setup(CONFIG, ("train.device=cpu",), size=(64, 64))
    axis = AXES[name]
    first, second = (axis.setup(base, name, value) for value in axis.values[:2])
    changed = {k for k in vars(first) if getattr(first, k) != getattr(second, k)}
    assert changed == ({"overrides"} if axis.key else {name}) and first.training == axis.training
    if axis.key:
        assert second.config()  # the key is one of the config


def test_the_page(tmp_path):
    axis = {
        "axis": "objects", "meaning": "objects in <an> image", "mode": "training", "points": points(float),
        "exponents": {key: exponents(points(float), key) for key in ("processor_seconds", "memory")},
        "stopped": "3000: too much memory",
    }  # fmt: skip
    save_scaling_page(tmp_path / "page.html", "Scaling", {"device": "cpu"}, [axis])
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2 and "objects in &lt;an&gt; image" in page and "Stopped at 3000" in page
    assert all(f">{value}</text>" in page for value in VALUES)  # marks of an axis of powers
