"""Configs that came with weights: they describe a model and nothing else, whatever is written in them.

What is refused is told with the file's name; nothing that a config names is imported before it is checked.
"""

import copy
import json
import random
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detrex.checkpoint import CheckpointError, write_weights
from detrex.cli.arguments import add_config, add_overrides, command_parser, parse, read_config
from detrex.config import ConfigError, LazyConfig, instantiate, locate
from detrex.config.untrusted import declared_components, load_untrusted
from detrex.config.walking import is_node, walk
from detrex.engine.folder import checkpoint_metadata
from detrex.predict import load
from tests.predict.tiny_run import CATEGORIES, FIXED, tiny_config
from tests.reliability.fuzzing import MANY, REASONABLE, within_a_gibibyte

ROOT = Path(__file__).resolve().parents[2]


class Weights:
    """A file of weights of a tiny model, into which any config can be put."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "w.safetensors"
        config = LazyConfig.apply_overrides(tiny_config(), FIXED)
        self.tensors = instantiate(config.model).state_dict()
        self.metadata = checkpoint_metadata(config, CATEGORIES)
        self.config = OmegaConf.to_container(config)

    def load(self, config: object, **options):
        text = config if isinstance(config, str) else yaml.safe_dump(config)
        write_weights(self.path, self.tensors, {**self.metadata, "config": text})
        return load(self.path, device="cpu", keep_memory=False, **options)

    def changed(self, path: str, value: object) -> dict:
        config = copy.deepcopy(self.config)
        *way, last = path.split(".")
        container = config
        for key in way:
            container = container[key]
        container[last] = value
        return config


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Weights:
    return Weights(tmp_path_factory.mktemp("weights"))


def test_a_whole_config_of_the_toolbox_is_data():
    path = ROOT / "projects/dino/configs/dino_r50_4scale_coco_12ep.py"
    config = LazyConfig.load(path)
    text = OmegaConf.to_yaml(config)
    assert load_untrusted(text, path, [str(key) for key in config]) == config
    assert load_untrusted(text, path).model == config.model


def test_every_declared_component_exists():
    for name in declared_components():
        locate(name)


HOSTILE = {
    "system": ("model.backbone", {"_target_": "os.system", "command": "touch {marker}"}, "'os.system'"),
    "through this package": (
        "model.encoder",
        {"_target_": "detrex.config.loader.load_config", "path": "{marker}.py"},
        "'detrex.config.loader.load_config'",
    ),
    "a module's import": (
        "model.decoder",
        {"_target_": "detrex.cli.gallery.Path", "x": 1},
        "'detrex.cli.gallery.Path'",
    ),
    "a function that writes": (
        "model.num_classes",
        {"_target_": "detrex.data.shapes.ensure_shapes", "root": "{marker}"},
        "'detrex.data.shapes.ensure_shapes', which belongs to dataloader",
    ),
    "the wrong place": (
        "model.encoder",
        {"_target_": "detrex.modeling.backbones.timm_backbone.TimmBackbone"},
        "TimmBackbone', which belongs to model.backbone, at model.encoder",
    ),
    "another name": ("model.backbone._target_", "detrex.modeling.TimmBackbone", "TimmBackbone'"),
    "the mapper": ("dataloader.test.mapper", {"_target_": "builtins.open", "file": "x"}, "'builtins.open'"),
    "by locate": (
        "model.backbone.options",
        {"norm_layer": {"_target_": "detrex.config.lazy.locate", "name": "antigravity.x"}},
        "'antigravity.x'",
    ),
    "deep inside": (
        "model.backbone.options",
        {"a": [{"b": {"_target_": "subprocess.run"}}]},
        "'subprocess.run'",
    ),
    "a target by reference": (
        "model.backbone._target_",
        "${model.encoder._target_}",
        r"model\.encoder\._target_",
    ),
    "no text as target": ("model.backbone._target_", ["os", "system"], "no name as its _target_"),
    "partial": ("model.backbone._partial_", True, "_partial_"),
    "resolver": ("model.backbone.name", "${oc.env:HOME}", "only references to other keys"),
    "nested resolver": ("model.backbone.name", "${model.${oc.env:HOME}}", "only references to other keys"),
    "resolver elsewhere": ("model.backbone.name", "${dataloader.root}", "model.backbone.name"),
    "hub": ("model.backbone.name", "hf-hub:someone/model", "model.backbone.name"),
    "folder": ("model.backbone.name", "local-dir:/tmp", "model.backbone.name"),
    "file in options": ("model.backbone.options", {"checkpoint_path": "w.pth"}, "checkpoint_path"),
    "download in options": (
        "model.backbone.options",
        {"pretrained_cfg_overlay": {"hf_hub_id": "a"}},
        "pretrained_cfg_overlay",
    ),
    "cache in options": ("model.backbone.options", {"cache_dir": "x"}, "cache_dir"),
    "pretrained in options": ("model.backbone.options", {"pretrained": True}, "pretrained"),
    "many classes": ("model.num_classes", 10**9, "num_classes is 1,000,000,000"),
    "many layers": ("model.decoder.layers.num_layers", 1000, "num_layers is 1,000"),
    "wide layers": ("model.encoder.hidden_dim", 80_000, "far larger than its weights"),
    "many queries": ("model.denoising.num_queries", 10**7, "10,000,000"),
    "large images": ("dataloader.test.mapper.size", 10**5, "dataloader.test.mapper.size is 100,000"),
    "large padding": ("model.size_divisor", 10**5, "model.size_divisor is 100,000"),
    "long text": ("model.backbone.name", "a" * 10**5, "more than 1,000 characters"),
    "not a number": ("model.postprocess.temperature", float("nan"), "nan"),
    "a text for a number": ("model.encoder.num_layers", "three", "expects int, not 'three'"),
    "a flag for a number": ("model.encoder.num_layers", True, "expects int, not True"),
    "a number for a part": ("model.encoder", 3, "model.encoder"),
    "no model": ("model", None, "no 'model'"),
    "a list for a model": ("model", [1], "no 'model'"),
    "unknown keyword": ("model.encoder.num_layer", 3, "did you mean 'num_layers'"),
    "itself": ("model.encoder", "${model.encoder}", "nested more than|not there"),
    "its parent": ("model.encoder.strides", "${..}", "only references"),
    "in a circle": ("model.encoder.strides", ["${model.encoder.strides}"], "nested more than"),
    "out of the config": ("model.encoder.strides", "${......strides}", "out of the config"),
    "nowhere": ("model.encoder.strides", "${not.there}", "'not'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs_are_refused_and_named(weights, tmp_path, name):
    place, value, message = HOSTILE[name]
    marker = tmp_path / "marker"
    value = json.loads(json.dumps(value).replace("{marker}", str(marker)))
    with pytest.raises(ConfigError, match=message) as caught:
        weights.load(weights.changed(place, value))
    assert str(weights.path) in str(caught.value)
    assert not marker.exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("&a [&b [*a]]", "aliases"),
        ("model: !!python/object/apply:os.system ['id']", "tag"),
        ("[" * 5000, "nested more than"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested more than"),
        ("- 1\n" * 100_000, "larger than|more than"),
        ("a: b: c", "cannot be read"),
        ("- 1", "is a list"),
        ("", "is a NoneType"),
        ("a: " + "9" * 10_000, "cannot be read|no 'model'"),
        ("\x00", "cannot be read"),
        ("? [a]\n: b", "cannot be read"),
        ("a: 1\nmodel: {? {b: c} : d}", "cannot be read"),
    ],
)
def test_texts_that_are_no_config(weights, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        weights.load(text)
    assert str(weights.path) in str(caught.value)


def test_references_that_multiply_are_counted(weights):
    config = copy.deepcopy(weights.config)
    config["x0"] = [1] * 10
    for i in range(1, 12):
        config[f"x{i}"] = [f"${{x{i - 1}}}"] * 10
    config["model"]["encoder"]["strides"] = "${x11}"
    with pytest.raises(ConfigError, match="more than 20,000 values"):
        weights.load(config)


def test_the_rest_of_a_config_is_not_looked_at(weights):
    config = weights.changed("train", {"_target_": "os.system", "x": "${oc.env:HOME}"})
    config["model"]["size_divisor"] = "${elsewhere.divisor}"
    config["elsewhere"] = {"divisor": 32}
    assert weights.load(config).categories == CATEGORIES
    with pytest.raises(ConfigError, match="'elsewhere"):
        weights.load(config, overrides=["elsewhere.divisor=1"])


def test_pretrained_weights_are_not_asked_for(weights):
    assert weights.load(weights.changed("model.backbone.pretrained", True)).categories == CATEGORIES


def test_code_runs_only_where_it_is_trusted(weights, tmp_path, monkeypatch):
    (tmp_path / "component_of_mine.py").write_text(
        "from detrex.modeling import TimmBackbone\nclass Mine(TimmBackbone):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = weights.changed("model.backbone._target_", "component_of_mine.Mine")
    with pytest.raises(ConfigError, match=r"'component_of_mine\.Mine' at model\.backbone.*trust_code=True"):
        weights.load(config)
    assert "component_of_mine" not in sys.modules
    assert weights.load(config, trust_code=True).categories == CATEGORIES


@pytest.mark.parametrize("place", ["model", "dataloader.test.mapper"])
def test_what_is_built_says_what_it_is(weights, place):
    config = copy.deepcopy(weights.config)
    node = _at(config, place.split("."))
    node["None"] = node.pop("_target_")
    with pytest.raises(ConfigError, match=f"{place}.* _target_") as caught:
        weights.load(config)
    assert str(weights.path) in str(caught.value)


def test_what_the_user_replaces_is_not_refused(weights):
    config = weights.changed("model.num_classes", {"_target_": "os.system"})
    assert weights.load(config, overrides=["model.num_classes=3"]).categories == CATEGORIES


def test_a_yaml_beside_weights_is_data_on_the_command_line_too(weights, tmp_path):
    parser = command_parser("")
    add_config(parser)
    add_overrides(parser)
    run, alone = tmp_path / "run", tmp_path / "alone"
    for folder in (run, alone):
        folder.mkdir()
        config = weights.changed("optimizer", {"_target_": "collections.OrderedDict", "lr": 1})
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "model_final.safetensors").touch()

    def read(folder, *arguments):
        return read_config(parse(parser, ["--config-file", str(folder / "config.yaml"), *arguments]))

    assert read(alone).optimizer.lr == read(run, "--trust-code").optimizer.lr == 1
    with pytest.raises(ConfigError, match=r"run/config\.yaml.*'collections\.OrderedDict' at optimizer"):
        read(run)
    (run / "config.yaml").write_text(yaml.safe_dump(weights.config))
    config = read(run, "train.seed=3")
    assert config.train.seed == 3 and config.train.output_dir == str(run)
    for place, value in {
        "train.writers.wandb.writer.directory": "/somewhere",
        "train.writers.tensorboard.writer.directory": "${train.output_dir}/../../x",
    }.items():
        (run / "config.yaml").write_text(yaml.safe_dump(weights.changed(place, value)))
        with pytest.raises(ConfigError, match=f"{place} is .*writes below"):
            read(run)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([0, -1, 10**5, 10**9, 2**70]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "os.system",
            "hf-hub:a/b",
            "/etc/passwd",
            "../x",
            "${model}",
            "${..num_classes}",
            "${oc.env:HOME}",
            "${oc.decode:x}",
            "${x",
            "???",
            "(a+)+$",
        ]
    ),
    # Copied, since later changes of the same case may go into them.
    st.sampled_from([[], {}, [[]], {"_target_": "os.getcwd"}, {"_target_": 3}, {1: 2}]).map(copy.deepcopy),
)
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), VALUES), min_size=1, max_size=3)


def mutated(config: dict, changes: list) -> dict:
    """Values, keys and targets in the parts that are built replaced, by their number."""
    config = copy.deepcopy(config)
    for number, value in changes:
        places = [
            (keys, item)
            for part in (("model",), ("dataloader", "test"))
            for keys, item in walk(_at(config, part), part)
            if len(keys) > len(part)
        ]
        keys, item = places[number % len(places)]
        container = _at(config, keys[:-1])
        choice = random.Random(number).random()
        if choice < 0.1 and is_node(item):
            item["_target_"] = random.Random(number).choice(list(declared_components()))
        elif choice < 0.2 and isinstance(container, dict):
            container[str(value)] = container.pop(keys[-1])
        else:
            container[keys[-1]] = value
    return config


def _at(config, keys):
    for key in keys:
        config = config[key]
    return config


def check_outcome(weights: Weights, config: object) -> None:
    try:
        weights.load(config)
    except (ConfigError, CheckpointError) as error:
        assert str(weights.path) in str(error)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("examples", [100, pytest.param(MANY, marks=pytest.mark.slow)])
def test_changed_values(weights, examples):
    weights.load(weights.config)

    @settings(REASONABLE, max_examples=examples)
    @given(CHANGES)
    def check(changes):
        check_outcome(weights, mutated(weights.config, changes))

    with within_a_gibibyte():
        check()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("examples", [100, pytest.param(MANY, marks=pytest.mark.slow)])
def test_changed_texts_and_other_metadata(weights, examples):
    text = yaml.safe_dump({part: weights.config[part] for part in ("model", "dataloader")})

    @settings(REASONABLE, max_examples=examples)
    @given(st.integers(0, len(text)), st.integers(0, 40), st.text(max_size=12))
    def check(start, length, inserted):
        changed = text[:start] + inserted + text[start + length :]
        try:
            load_untrusted(changed, "file.yaml")
        except ConfigError as error:
            assert "file.yaml" in str(error)

    @settings(REASONABLE, max_examples=examples // 4)
    @given(st.recursive(VALUES, lambda inner: st.dictionaries(st.text(max_size=9), inner) | st.lists(inner)))
    def check_categories(content):
        known = json.loads(weights.metadata["categories"])
        for written in (content, {**known, "names": content}, {**known, "colors": content}):
            metadata = {**weights.metadata, "categories": json.dumps(written)}
            write_weights(weights.path, weights.tensors, metadata)
            try:
                load(weights.path, device="cpu", keep_memory=False)
            except (ConfigError, CheckpointError) as error:
                assert str(weights.path) in str(error)

    check()
    check_categories()
