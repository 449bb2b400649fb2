"""Python values written as overrides come back as they were."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from detrex.config import ConfigError, LazyConfig
from detrex.config.override_text import overrides_of

VALUES = [
    None,
    True,
    0,
    -2.5e-7,
    "plain",
    "with 'both' \"quotes\", commas: = {x} [y]",
    "back\\slash\\",
    "quote after \\'",
    "",
    " spaces ",
    "null",
    "ümlaut/путь",
    [1, [2.5, "a'b"], None],
    [],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back(value):
    config = OmegaConf.create({"a": {"b": None}})
    (text,) = overrides_of({"a": {"b": value}})
    assert OmegaConf.to_container(LazyConfig.apply_overrides(config, [text])) == {"a": {"b": value}}


def test_dicts_change_their_keys_alone():
    settings = {"a": {"b": 1, "c": {"d": Path("x/y")}}, "e.f": ()}
    assert overrides_of(settings) == ["a.b=1", "a.c.d='x/y'", "e.f=[]"]


def test_what_cannot_be_written_is_named():
    with pytest.raises(ConfigError, match=r"a\.b: a set"):
        overrides_of({"a": {"b": {1}}})
