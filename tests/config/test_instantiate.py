import functools

import pytest
from config_targets import Needy, Thing, anything, count, fail
from omegaconf import OmegaConf

from detrex.config import ConfigError, InstantiationError, instantiate
from detrex.config import LazyCall as L


def config(**values):
    return OmegaConf.create(values, flags={"allow_objects": True})


def test_builds_nested_nodes_with_plain_containers():
    thing = instantiate(L(Thing)(size=2, parts={"a": [L(Thing)(name="b"), {"c": 1}], 3: None}))
    assert isinstance(thing, Thing) and thing.size == 2
    assert type(thing.parts) is dict and type(thing.parts["a"]) is list and type(thing.parts["a"][1]) is dict
    assert thing.parts["a"][0].name == "b" and thing.parts[3] is None


def test_lists_dicts_and_scalars_at_the_top():
    assert [type(t) for t in instantiate([L(Thing)(), 1])] == [Thing, int]
    assert instantiate({"n": {"_target_": "config_targets.count", "path": "abc"}}) == {"n": 3}
    assert instantiate("text") == "text"


def test_target_may_be_a_callable():
    assert instantiate({"_target_": count, "path": "abcd"}) == 4


def test_overrides_are_passed_as_they_are_and_what_they_replace_is_not_built():
    marker = object()
    thing = instantiate(L(Thing)(parts=L(fail)(why="built")), parts=marker, size=5)
    assert thing.parts is marker and thing.size == 5
    with pytest.raises(InstantiationError, match="takes no arguments"):
        instantiate(config(a=1), b=2)


def test_partial():
    made = instantiate(L(Needy)(size=4, _partial_=True))
    assert isinstance(made, functools.partial) and made(parts=1).size == 4


def test_interpolations_reach_the_whole_config_from_a_part_of_it():
    cfg = config(data={"classes": 7}, model=L(Thing)(size="${data.classes}", parts={"n": "${..size}"}))
    thing = instantiate(cfg.model)
    assert thing.size == 7 and thing.parts == {"n": 7}


def test_a_node_behind_an_interpolation_is_built_for_each_reference():
    cfg = config(model={"num": L(count)(path="abc"), "a": "${.num}", "t": L(Thing)(), "u": "${model.t}"})
    built = instantiate(cfg.model)
    assert built["a"] == 3
    assert isinstance(built["u"], Thing) and built["u"] is not built["t"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            L(Thing)(nmae="x"),
            r"model\.parts\.0 \(config_targets\.Thing\): unexpected keyword 'nmae' \(did you mean 'name'",
        ),
        (L(Needy)(size=1), r"model\.parts\.0 \(config_targets\.Needy\): missing parts"),
        (L(fail)(why="disk full"), r"model\.parts\.0 \(config_targets\.fail\): OSError: disk full"),
        (L("config_targets.Thin")(), r"model\.parts\.0 \(config_targets\.Thin\): .*did you mean 'Thing'"),
        (L("config_targets.__name__")(), r"model\.parts\.0 .*cannot be called"),
        (L(Thing)(size="${nope.x}"), r"model\.parts\.0\.size = \$\{nope\.x\}: .*'nope\.x' not found"),
        (L(Thing)(size="???"), r"model\.parts\.0\.size = \?\?\?: "),
        (L(Thing)(parts="${model}"), r"model\.parts\.0\.parts = \$\{model\}: .*parent"),
    ],
    ids=["keyword", "missing", "fails", "unknown", "not callable", "interpolation", "mandatory", "circle"],
)
def test_errors_say_which_node_and_target(part, message):
    cfg = config(model=L(Thing)(parts=[part]))
    for build in (lambda: instantiate(cfg), lambda: instantiate(cfg.model)):
        with pytest.raises(InstantiationError, match=f"^{message}"):
            build()


def test_the_error_of_the_target_is_the_cause():
    with pytest.raises(ConfigError) as caught:
        instantiate(config(a={"b": L(fail)(why="x")}))
    assert isinstance(caught.value.__cause__, OSError)


def test_unknown_keyword_of_a_partial_is_found_at_once():
    with pytest.raises(InstantiationError, match="unexpected keyword 'siz'"):
        instantiate(L(Needy)(siz=1, _partial_=True))


def test_functions_that_take_any_keyword_get_them():
    assert instantiate(L(anything)(a=1, b=[2])) == {"a": 1, "b": [2]}


def test_nodes_that_refer_to_each_other():
    cfg = config(a={"b": "${c}"}, c={"d": "${a}"})
    with pytest.raises(InstantiationError, match=r"^a\.b\.d refers to a, which contains it"):
        instantiate(cfg)
