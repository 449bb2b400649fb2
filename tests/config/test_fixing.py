import json

import pytest
from config_targets import Thing

from detrex.config import InstantiationError, complete, fix_values, instantiate
from detrex.config import LazyCall as L
from detrex.config.lazy import make_config
from detrex.data import count_classes, thing_classes


@pytest.fixture
def config(tmp_path):
    names = tmp_path / "classes.json"
    names.write_text(json.dumps([{"id": 3, "name": "a"}, {"id": 5, "name": "b", "isthing": 0}]))
    return make_config(
        {
            "file": str(names),
            "model": {
                "classes": L(count_classes)(annotations="${file}"),
                "inner": [L(thing_classes)(annotations="${file}"), L(Thing)(size="${model.classes}")],
            },
            "data": {"classes": L(count_classes)(annotations="${file}")},
        }
    )


def test_values_of_the_part_are_fetched_and_the_rest_stays(config, tmp_path):
    fixed = fix_values(config, "model")
    assert fixed.model.classes == 2 and fixed.model.inner[0] == [0]
    assert fixed.data == config.data and "classes" in config.model  # the original is as it was
    (tmp_path / "classes.json").unlink()
    assert instantiate(fixed.model)["inner"][1].size == 2


def test_a_value_that_cannot_be_fetched_is_an_error(config, tmp_path):
    (tmp_path / "classes.json").unlink()
    with pytest.raises(InstantiationError, match=r"model\.classes"):
        fix_values(config, "model")


def test_without_the_part_nothing_is_fetched(config):
    assert fix_values(config, "optimizer") == complete(config)
