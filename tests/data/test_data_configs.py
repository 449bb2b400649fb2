"""The data configs, each on data: in part real, in part the shapes."""

import pytest

from detrex.config import LazyConfig, get_config, instantiate


def load(name, *overrides):
    config = get_config(f"common/data/{name}.py")
    config.train = {"seed": 0}
    small = ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    return LazyConfig.apply_overrides(config, [*small, "dataloader.train.total_batch_size=2", *overrides])


def first_batches(config):
    instantiate(config.dataloader.evaluators)
    loaders = (instantiate(config.dataloader.train), instantiate(config.dataloader.test))
    return [next(iter(loader)) for loader in loaders]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("coco_instance", "coco"),
        ("coco_panoptic", "coco"),
        ("custom_instance", "nuclei"),
        ("semantic", "camvid"),
    ],
)
def test_on_real_data(shared_data, name, folder):
    config = load(name, f"dataloader.root={shared_data / folder}", "dataloader.train.mapper.image_size=64")
    train, test = first_batches(config)
    assert [s["image"].shape for s in train] == [(3, 64, 64)] * 2
    assert len(test) == 1 and "targets" not in test[0]


def test_detection_with_sizes_from_the_command_line(shared_data):
    config = load(
        "coco_detection", f"dataloader.root={shared_data / 'coco'}", "dataloader.train.mapper.sizes=[32,35]"
    )
    train, _ = first_batches(config)
    assert all(min(s["image"].shape[-2:]) in (32, 35) and s["targets"].masks is None for s in train)


def test_custom_panoptic_paths_can_all_be_set(shared_data):
    paths = {
        "images": "{0}2017",
        "annotations": "annotations/panoptic_{0}2017.json",
        "segments": "annotations/panoptic_{0}2017",
    }
    config = load(
        "custom_panoptic",
        f"dataloader.root={shared_data / 'coco'}",
        *(f"dataloader.train.dataset.{k}=${{dataloader.root}}/{p.format('train')}" for k, p in paths.items()),
        *(f"dataloader.test.dataset.{k}=${{dataloader.root}}/{p.format('val')}" for k, p in paths.items()),
    )
    train, _ = first_batches(config)
    assert [s["image"].shape for s in train] == [(3, 640, 640)] * 2


def test_shapes_are_drawn_when_needed(tmp_path):
    config = load(
        "shapes",
        f"dataloader.root={tmp_path / 'shapes'}",
        "dataloader.splits.train=4",
        "dataloader.splits.val=3",
        "dataloader.image_size=48",
    )
    train, test = first_batches(config)
    assert [s["image"].shape for s in train] == [(3, 48, 48)] * 2
    assert len(test) == 3
    assert {bool(thing) for s in train for thing in s["targets"].is_thing} == {True, False}
