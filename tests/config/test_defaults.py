"""Configs that say only what differs from the signatures of their targets."""

import pytest
from config_targets import Color, Derived, Needy, Points, Thing, anything, count
from omegaconf import OmegaConf

from detrex.config import ConfigError, LazyConfig, complete, get_config, instantiate
from detrex.config import LazyCall as L
from detrex.config.lazy import make_config

DEFAULTS = {
    "_target_": "config_targets.Derived",
    "width": 7,
    "rates": [0.1, 0.2],
    "points": {"_target_": "config_targets.Points", "count": 3, "share": 0.75, "kinds": ["a"]},
    "more_points": None,
    "limit": None,
    "activation": {"_target_": "detrex.config.lazy.locate", "name": "config_targets.count"},
    "color": {"_target_": "detrex.config.lazy.locate", "name": "config_targets.Color.RED"},
    "size": [1, 2],
    "options": None,
    "where": "x",
    "thing": None,
    "untyped": 5,
    "depth": 2,
    "mode": "fast",
}


@pytest.fixture
def config():
    return make_config({"model": L(Derived)(width=7), "other": {"depth": "${model.depth}", "n": 1}})


def changed(config, *overrides):
    return LazyConfig.apply_overrides(config, overrides)


def test_a_complete_config_has_all_defaults_that_are_plain(config):
    assert OmegaConf.to_container(complete(config).model) == DEFAULTS
    assert complete(complete(config)) == complete(config)
    assert OmegaConf.to_container(config.model) == {"_target_": "config_targets.Derived", "width": 7}


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("model.depth=3", "depth", 3),
        ("model.mode=exact", "mode", "exact"),
        ("model.rates=[1,2]", "rates", [1.0, 2.0]),
        ("model.rates.1=1", "rates", [0.1, 1.0]),
        ("model.points.count=5", "points", {**DEFAULTS["points"], "count": 5}),
        ("model.points={share:1}", "points", {**DEFAULTS["points"], "share": 1.0}),
        ("model.more_points.count=5", "more_points", {**DEFAULTS["points"], "count": 5}),
        ("model.more_points={count:5}", "more_points", {**DEFAULTS["points"], "count": 5}),
        ("model.limit=1", "limit", 1.0),
        ("model.limit=null", "limit", None),
        ("model.activation=config_targets.anything", "activation.name", "config_targets.anything"),
        ("model.size=[3,4]", "size", [3, 4]),
        ("model.rates={_target_:config_targets.Thing}", "rates.size", 1),  # any object that is a sequence
        ("model.options={a:1}", "options", {"a": 1}),
        ("model.where=/a", "where", "/a"),
        ("model.thing={_target_:config_targets.Thing,size:2}", "thing.name", "a"),
        ("model.hidden=3", "hidden", 3),
        ("model.untyped=6", "untyped", 6),
        ("model.width='${other.depth}'", "width", 2),
        ("model.width={_target_:config_targets.count,path:abc}", "width.path", "abc"),
        ("+model.hidden=3", "hidden", 3),
        ("+model.depth=3", "depth", 3),
        ("++model.depth=3", "depth", 3),
        ("~model.depth", "depth", 2),
    ],
)
def test_overrides_of_what_the_config_leaves_out(config, override, path, expected, tmp_path):
    result = changed(config, override)
    found = OmegaConf.select(result, f"model.{path}")
    assert found == expected and (OmegaConf.is_config(found) or type(found) is type(expected))
    LazyConfig.save(result, tmp_path / "config.yaml")
    assert LazyConfig.load(tmp_path / "config.yaml") == result


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dept=3", r"there is no 'model.dept'; the nearest .*'model.depth'"),
        ("model.pionts.count=3", r"the nearest .*'model.points.count'"),
        ("model.points.cuont=3", r"the nearest .*'model.points.count'"),
        ("model.points={cuont:3}", r"the nearest .*'model.points.count'"),
        ("+model.dept=3", r"there is no 'model.dept'; the nearest .*'model.depth'"),
        ("model.thing={_target_:config_targets.Thing,sise:2}", r"'sise' \(did you mean 'size'"),
        ("model.depth=1.5", r"'model.depth' expects int, not 1.5"),
        ("model.depth=null", r"'model.depth' expects int, not None"),
        ("model.mode=fats", r"expects 'fast' or 'exact' \(did you mean 'fast'\?\), not 'fats'"),
        ("model.rates=1", r"'model.rates' expects list, not 1"),
        ("model.rates=[1,a]", r"'model.rates', entry 1, expects float, not 'a'"),
        ("model.points=3", r"'model.points' expects a node like the present config_targets.Points, not 3"),
        ("model.points.share=a", r"'model.points.share' expects float, not 'a'"),
        ("model.more_points=3", r"'model.more_points' expects a node \(Points\) or null, not 3"),
        ("model.limit=a", r"expects float or null, not 'a'"),
        ("model.activation=3", r"expects the dotted name of a class or function .*, not 3"),
        ("model.activation=config_targets.cuont", "did you mean 'count'"),
        ("model.size=[1,2,3]", r"expects a list of 2 entries"),
        ("model.options={a:b}", r"'model.options', entry a, expects int, not 'b'"),
        ("model.where=3", r"expects str, not 3"),
        ("model.thing.size=3", r"'model.thing' is None, there are no keys in it"),
        ("model.untyped=a", r"expects int, not 'a'"),
        ("model.width={_target_:config_targets.Thing}", "expects int, not {"),
    ],
)
def test_names_and_types_come_from_the_signature(config, override, message):
    with pytest.raises(ConfigError, match=message):
        changed(config, override)


def test_an_interpolation_reaches_a_default_and_what_an_override_makes_of_it(config):
    config.model.thing = L(Thing)(size="${..points.count}", parts={"depth": "${...depth}"})
    built = instantiate(config.model)
    assert (built.thing.size, built.thing.parts["depth"]) == (3, 2)
    assert instantiate(config.other) == {"depth": 2, "n": 1}
    built = instantiate(changed(config, "model.points.count=5", "model.depth=4").model)
    assert (built.thing.size, built.thing.parts["depth"]) == (5, 4)
    assert complete(config).other.depth == 2


def test_a_built_node_has_its_defaults(config):
    built = instantiate(config.model)
    assert built.points == Points(count=3) and built.activation is count and built.color is Color.RED
    marker = object()
    assert instantiate(config.model, points=marker).points is marker


def test_merged_dicts_change_defaults_that_are_nodes_and_unknown_keys_are_found(write):
    text = (
        "from config_targets import Derived\nfrom detrex.config import LazyCall as L\n"
        "model = L(Derived)(width=1)\nmodel.merge_with(dict({changes}))\n"
    )
    loaded = LazyConfig.load(write("a.py", text.format(changes="depth=5, points=dict(count=6)")))
    assert instantiate(loaded.model).points == Points(count=6) and loaded.model.depth == 5
    with pytest.raises(ConfigError, match=r"b\.py: model\.points .*'cuont' \(did you mean 'count'\?\)"):
        LazyConfig.load(write("b.py", text.format(changes="points=dict(cuont=6)")))
    with pytest.raises(ConfigError, match=r"c\.py: model .*'dpeth' \(did you mean 'depth'\?\)"):
        LazyConfig.load(write("c.py", text.format(changes="dpeth=6")))


def test_another_target_keeps_what_is_not_at_its_default(config):
    changed_target = changed(config, "model.depth=9", "model._target_=config_targets.Base").model
    assert changed_target == {"_target_": "config_targets.Base", "width": 7, "depth": 9, "mode": "fast"}
    with pytest.raises(ConfigError, match="unexpected keyword 'untyped'"):
        changed(config, "model.untyped=9", "model._target_=config_targets.Base")


def test_targets_that_take_anything_cannot_be_imported_or_are_partial_stay_as_they_are():
    config = make_config(
        {"a": L(anything)(x=1), "b": L("not_installed.Thing")(x=1), "c": L(Thing)(size=2, _partial_=True)}
    )
    assert complete(config) == config
    assert changed(config, "a.x=2", "+a.y=3", "+b.y=3", "c.name=n") == {
        "a": {"_target_": "config_targets.anything", "x": 2, "y": 3},
        "b": {"_target_": "not_installed.Thing", "x": 1, "y": 3},
        "c": {"_target_": "config_targets.Thing", "size": 2, "_partial_": True, "name": "n"},
    }
    assert instantiate(config.c)().size == 2


def test_what_has_no_default_can_be_given():
    config = make_config({"a": L(Needy)(size=1)})
    assert changed(config, "a.parts=3").a.parts == 3
    with pytest.raises(ConfigError, match="missing parts"):
        instantiate(complete(config).a)


def test_a_model_of_the_toolbox_that_leaves_out_its_defaults():
    model = get_config("common/models/dab_detr.py").model
    for key in ("box_stuff", "memory_limit_mb"):
        del model.criterion[key]  # to which criterion.matcher refers
    del model.pixel_mean, model.backbone.frozen_norm
    del model.encoder.num_layers
    config = make_config({"model": model})
    config = changed(config, "model.encoder.num_layers=3", "model.criterion.box_stuff=false")
    assert config.model.criterion.matcher.box_stuff is False
    assert config.model.criterion.matcher.memory_limit_mb == 2048
    assert config.model.encoder.num_layers == 3 and len(config.model.pixel_mean) == 3
