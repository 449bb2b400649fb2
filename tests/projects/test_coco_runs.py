"""What the published runs of the DETR family say of backbones and learning rates."""

from pathlib import Path

import pytest
import torch

from detrex.config import LazyConfig, instantiate
from detrex.runtime.shapes_only import shapes_only
from tests.config_files import config_of

PROJECTS = Path(__file__).resolve().parent.parent.parent / "projects"
NAMES = (
    "align_detr",
    "anchor_detr",
    "conditional_detr",
    "dab_deformable_detr",
    "dab_detr",
    "deformable_detr",
    "deta",
    "detr",
    "dino",
    "dn_deformable_detr",
    "dn_detr",
    "focus_detr",
    "group_detr",
    "sqr_detr",
)
RUNS = [path for name in NAMES for path in sorted((PROJECTS / name / "configs").glob("*_r50_*coco_*ep.py"))]
BASES = [next(path for path in RUNS if path.parent.parent.name == name) for name in NAMES]
# Runs of DETA that the zoo's own trainer for it made.
DETA_TRAINER = {"deta_r50_5scale_coco_12ep", "deta_r50_5scale_trained_res2_coco_12ep"}
# Of torchvision's ResNets, without the norms of 17 blocks more, which are frozen here.
MORE_IN_R101 = 44_549_160 - 25_557_032 - 17 * 2 * (256 + 256 + 1024)


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda p: p.stem)


def count(config) -> int:
    with shapes_only():
        return sum(p.numel() for p in instantiate(config.model).parameters())


@named(BASES)
def test_a_resnet101_takes_one_override(path):
    config = config_of(path)
    deeper = LazyConfig.apply_overrides(config, ["model.backbone.name=resnet101.tv_in1k"])
    assert count(deeper) - count(config) == MORE_IN_R101


@named([path for path in RUNS if "dc5" in path.name])
def test_dc5_is_a_finer_map_of_the_last_stage(path):
    with shapes_only():
        backbone = instantiate(config_of(path).model.backbone)
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert {stride: tuple(m.shape) for stride, m in maps.items()} == {16: (1, 2048, 4, 6)}


@named(RUNS)
def test_learning_rates_are_as_published(path):
    config = config_of(path)
    with shapes_only():
        model = instantiate(config.model)
    optimizer = instantiate(config.optimizer, model=model)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    project = path.parent.parent.name
    zoo_trainer = path.stem in DETA_TRAINER
    fast = 2e-4 if zoo_trainer else 1e-4
    slow = {n for n, p in model.named_parameters() if p in rates and rates[p] == pytest.approx(fast / 10)}
    rest = {n for n, p in model.named_parameters() if p in rates} - slow
    assert all(rates[p] == fast for n, p in model.named_parameters() if n in rest)
    parts = ["backbone."]
    if project == "deformable_detr" or zoo_trainer:
        parts += ["sampling_offsets.", "query_init.point."]
    assert slow == {n for n in slow | rest if any(part in n for part in parts)}
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0.0, 1e-4}
    assert config.train.clip_grad.max_norm == (None if zoo_trainer else 0.1)
    assert config.dataloader.train.total_batch_size == (8 if "8images" in path.stem else 16)
