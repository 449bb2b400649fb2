"""How figures grow: exponents, where they bend, and the page."""

import math
from xml.etree import ElementTree

import pytest

from detrex.benchmark import AXES, bend
from detrex.benchmark.model import Setup
from detrex.benchmark.scaling import exponents
from detrex.report.scaling_page import save_scaling_page, save_scaling_picture
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


@pytest.fixture
def axis():
    return {
        "axis": "objects", "meaning": "objects in <an> image", "mode": "training", "points": points(float),
        "exponents": {key: exponents(points(float), key) for key in ("processor_seconds", "memory")},
        "bends": {"processor_seconds": 10, "memory": None}, "stopped": "3000: too much memory",
    }  # fmt: skip


def test_the_page(tmp_path, axis):
    save_scaling_page(tmp_path / "page.html", "Scaling", {"device": "cpu"}, [axis])
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2 and "objects in &lt;an&gt; image" in page and "Stopped at 3000" in page
    assert all(f">{value}</text>" in page for value in VALUES)  # marks of an axis of powers
    assert "Processor time grows from 10 on, with the power 1.00 at most. Memory hardly grows." in page


def test_the_picture_is_a_file_by_itself(tmp_path, axis):
    nothing = {**axis, "points": points(lambda v: 0 * v)}
    save_scaling_picture(tmp_path / "curves.svg", [axis, nothing])
    root = ElementTree.parse(tmp_path / "curves.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [
        text.text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "title"
    ]
    assert titles[0] == "objects in <an> image (training): processor seconds"
    assert len(titles) == 3  # none of the time of runs that take none
