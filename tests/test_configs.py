"""What holds for every config file of the repository."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from detrex.config import LazyConfig, instantiate
from detrex.config.lazy import name_of
from detrex.config.untrusted import declared_components
from detrex.config.walking import dotted as dotted_path
from detrex.config.walking import is_node, walk
from detrex.data import count_classes, read_categories, thing_classes
from detrex.runtime.shapes_only import shapes_only
from detrex.structures import Sample, Targets
from tests.config_files import config_of

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("configs/**/*.py"), *ROOT.glob("projects/*/configs/**/*.py")])
# Those with a model: the ones of projects, while configs/ has what they share.
MODELS = [path for path in FILES if "projects" in path.relative_to(ROOT).parts]
# Whole runs, and not the models and other pieces that they are made of.
RUNS = sorted(ROOT.glob("projects/*/configs/*.py"))

# What is made smaller for a step of training, where a config has it.
REDUCTIONS = {
    "model.num_classes": 6,
    "model.vocabulary.names": ["red", "green", "blue", "circle", "square", "star"],  # known to all
    "model.others": "null",
    "model.text.width": 16,
    "model.drawing.num_prompts": 5,
    "model.automatic.points_per_side": 3,
    "model.text.num_layers": 1,
    "model.postprocess.thing_classes": [0, 1, 2, 3],
    "model.*.hidden_dim": 64,
    "model.*.mask_dim": 16,
    "model.*.ffn_dim": 32,
    "model.*.num_heads": 4,
    "model.*decoder.num_points": 2,
    "model.*.points.num_points": 64,
    "model.*encoder.num_layers": 1,
    "model.encoder.num_layers": 1,
    "model.decoder.layers.num_layers": 2,
    "model.*.num_queries": 12,
    "model.backbone.channels": 32,
    "model.backbone.depth": 2,
    "model.backbone.depths": [1, 1, 1, 1],
    "model.backbone.embed_dim": 16,
    "model.backbone.groups": 2,
    "model.backbone.image_size": 64,
    "model.backbone.mlp_dim": 16,
    "model.backbone.width": 8,
    "model.backbone.pretrained": False,
}
# By the beginning of the name that timm has for a model: a tiny one of its kind.
BACKBONES = {
    "resnet": ("test_resnet", {}),
    "focalnet": ("test_convnext", {}),  # sizes of timm's FocalNets cannot be set
    "tf_efficientnet": ("mobilenetv3_small_050", {}),
    "convnext": ("test_convnext", {}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": [1, 1, 2, 1]}),
    "vit": ("vit_small_patch16_dinov3", {"embed_dim": 32, "depth": 2, "num_heads": 2}),
}
# What evaluators look for in a model's results.
RESULTS = {
    "coco": "instances",
    "tracks": "instances",
    "lvis": "instances",
    "cityscapes": "instances",
    "one_click": "instances",  # of everything, where there are no prompts
    "panoptic": "panoptic_seg",
    "semantic": "sem_seg",
}

# What a model's config has as a number or a list where it travels with weights.
READ_FROM_DATA = {name_of(count_classes), name_of(thing_classes)}


def each(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", files, ids=lambda path: path.relative_to(ROOT).as_posix())


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


def dotted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values of all that is in a config, as written."""
    for key, item in value.items() if isinstance(value, dict) else ():
        name = f"{path}.{key}" if path else key
        yield name, item
        yield from dotted(item, name)


def reduced(config: DictConfig) -> DictConfig:
    """The config with a model small enough for a step of training within a second."""
    written = dict(dotted(OmegaConf.to_container(config, resolve=False)))
    overrides = [
        f"{key}={value}"
        for pattern, value in REDUCTIONS.items()
        for key, old in written.items()
        if fnmatchcase(key, pattern) and old is not None and not str(old).startswith("${")
    ]
    config = LazyConfig.apply_overrides(config, overrides)
    for kind, (name, options) in BACKBONES.items():
        if str(written.get("model.backbone.name")).startswith(kind):
            config.model.backbone.name = name
            config.model.backbone.options.update(options)
    if "train" in config:
        config.train.iterations_per_epoch = 10  # what the data would say
    return config


def samples() -> list[Sample]:
    """Two images of noise, the second one smaller, with three objects each."""
    made = []
    for size in ((64, 64), (48, 60)):
        masks = torch.zeros(3, *size, dtype=torch.bool)
        masks[0, 5:20, 8:30] = masks[1, 18:40, 2:50] = masks[2, 30:44, 33:58] = True
        boxes = torch.tensor([[8, 5, 30, 20], [2, 18, 50, 40], [33, 30, 58, 44]]).float()
        targets = Targets(torch.tensor([0, 2, 5]), boxes, masks, torch.tensor([True, True, False]))
        made.append(Sample(image=torch.randint(0, 256, (3, *size), dtype=torch.uint8), targets=targets))
    return made


def built_on_meta(config: DictConfig) -> torch.nn.Module:
    """The model without its weights: building it takes no memory."""
    with shapes_only():
        return instantiate(config.model)


@cache
def parameters(text: str) -> int:
    """Of the model of a config, given as YAML; configs that differ in the schedule share it."""
    return sum(p.numel() for p in built_on_meta(OmegaConf.create(text)).parameters())


def yaml_of(config: DictConfig, *parts: str) -> str:
    return OmegaConf.to_yaml(OmegaConf.masked_copy(config, parts), sort_keys=True)


def test_there_are_configs():
    assert FILES and MODELS and RUNS


@each(FILES)
def test_saved_or_printed_and_loaded_again_it_is_equal(path, tmp_path):
    config = config_of(path)
    content = OmegaConf.to_container(config)
    LazyConfig.save(config, tmp_path / "config.yaml")
    assert OmegaConf.to_container(LazyConfig.load(tmp_path / "config.yaml")) == content
    (tmp_path / "config.py").write_text(LazyConfig.to_py(config), encoding="utf-8")
    assert OmegaConf.to_container(LazyConfig.load(tmp_path / "config.py")) == content


@each([next(paths) for _, paths in groupby(RUNS, key=lambda path: path.parent)])
def test_changes_of_a_loaded_config_do_not_leak_into_the_next_load(path):
    config = LazyConfig.load(path)
    content = OmegaConf.to_container(config)
    spoil(config)
    assert OmegaConf.to_container(config) != content == OmegaConf.to_container(LazyConfig.load(path))


@lru_cache(maxsize=16)  # many configs of a project have the same model once it is small
def trained(model_config: str) -> tuple[torch.nn.Module, set[str]]:
    """A model, given as YAML, with the gradients of a step of training, and the kinds of its results."""
    torch.manual_seed(0)
    model = instantiate(OmegaConf.create(model_config).model)
    assert sum(p.numel() for p in model.parameters()) < 3e6
    with torch.inference_mode():
        results = model.eval()(samples())
    losses = model.train()(samples())
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    # A parameter without gradient would stop distributed training.
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    return model, set(results[0])


@each(MODELS)
def test_made_small_it_trains_and_predicts(path):
    config = reduced(config_of(path))
    model, results = trained(yaml_of(config, "model"))
    if "optimizer" in config:
        optimizer = instantiate(config.optimizer, model=model)
        scheduler = instantiate(config.scheduler, optimizer=optimizer)
        optimizer.step()
        scheduler.step()
    evaluators = config.dataloader.evaluators if "dataloader" in config else {}
    assert {RESULTS[name] for name in evaluators} <= results


@each(RUNS)
def test_the_docstring_has_the_command(path):
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert f"--config-file {path.relative_to(ROOT).as_posix()}" in doc


@each([path for path in RUNS if "this config builds" in " ".join(path.read_text().split())])
def test_the_docstring_has_the_number_of_parameters(path):
    doc = " ".join(path.read_text().split())
    (said,) = re.findall(r"this config builds ([\d.]+) M parameters", doc)
    built = parameters(yaml_of(config_of(path), "model", "dataloader")) / 1e6
    assert float(said) == pytest.approx(built, abs=0.006)
    published = re.search(r"([\d.]+) M parameters, \d+ GFLOPs", doc)
    if published and "hid1024" not in path.name:  # see there
        assert float(published[1]) == round(built)


@each(RUNS)
def test_its_parts_agree(path):
    config = config_of(path)
    if "category_file" in str(config.dataloader.categories):
        categories = read_categories(instantiate(config.dataloader.categories))
        count, things = config.model.num_classes, config.model.postprocess.thing_classes
        # Numbers, or nodes that read them from the list of classes.
        count, things = (instantiate(v) if isinstance(v, DictConfig) else v for v in (count, things))
        assert count == len(categories)
        assert things in (None, categories.thing_classes)
    if "milestones" in config.scheduler:
        config.train.iterations_per_epoch = 7500
        milestones, length = instantiate(config.scheduler.milestones), instantiate(config.train.max_iter)
        assert milestones[-1] < length


@each(RUNS)
def test_each_of_its_components_is_declared_for_its_place(path):
    """So that the config may travel with weights; see docs/security.md."""
    components, missing = declared_components(), []
    for keys, node in walk(OmegaConf.to_container(config_of(path))):
        if not is_node(node) or (keys[0] == "model" and node["_target_"] in READ_FROM_DATA):
            continue
        if not any(fnmatchcase(dotted_path(keys), place) for place in components.get(node["_target_"], ())):
            missing.append(f"{node['_target_']}: {dotted_path(keys)}")
    assert not missing, f"add to a components.yaml: {sorted(set(missing))}"
