"""The data configs, each on data: in part real, in part the shapes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.config import LazyConfig, get_config, instantiate
from detrex.data import read_categories


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


def scores_of(label_map, ignored, categories):
    """The scores (C, H, W) of a model that is right everywhere; class 0 where nothing is labelled."""
    index = np.zeros(256, np.int64)
    index[list(categories.ids)] = np.arange(len(categories))
    labels = torch.from_numpy(index[np.where(np.isin(label_map, ignored), 0, label_map)])
    return torch.nn.functional.one_hot(labels, len(categories)).permute(2, 0, 1).float()


def perfect_score(config, label_map):
    """mIoU of right predictions for the test data; ``label_map`` is the path of that of image ``{}``."""
    loader, evaluator = (instantiate(config.dataloader[k]) for k in ("test", "evaluators"))
    categories = read_categories(instantiate(config.dataloader.categories))
    ignored = config.dataloader.test.dataset.ignore_label
    for samples in loader:
        truth = np.asarray(Image.open(str(label_map).format(samples[0]["image_id"])))
        evaluator["semantic"].process(samples, [{"sem_seg": scores_of(truth, ignored, categories)}])
    return evaluator["semantic"].evaluate()["semantic/mIoU"]


def test_ade20k(shared_data):
    root = shared_data / "ade20k_sample"
    config = load("ade20k_semantic", f"dataloader.root={root}")
    train, test = first_batches(config)
    assert [s["image"].shape for s in train] == [(3, 512, 512)] * 2
    assert min(test[0]["image"].shape[-2:]) == 512
    label_map = Image.open(root / "annotations/training" / f"{train[0]['image_id']}.png")
    present = {i - 1 for i in np.unique(np.asarray(label_map)).tolist()} - {-1}
    assert set(train[0]["targets"].labels.tolist()) <= present
    assert perfect_score(config, root / "annotations/validation/{}.png") == 100


# What of CamVid's classes Cityscapes has, by Cityscapes' ids; its road markings are no class there.
CITYSCAPES_IDS = {
    "sky": 23,
    "building": 11,
    "pole": 17,
    "road": 7,
    "pavement": 8,
    "tree": 21,
    "sign_symbol": 20,
    "fence": 13,
    "car": 26,
    "pedestrian": 24,
    "bicyclist": 25,
}


@pytest.fixture
def cityscapes(shared_data, tmp_path):
    """CamVid's scenes, a few of each split, in Cityscapes' files and ids."""
    names = json.loads((shared_data / "camvid/classes.json").read_text())["classes"]
    table = np.zeros(256, np.uint8)
    table[: len(names)] = [CITYSCAPES_IDS[name] for name in names]
    for split in ("train", "val"):
        images, labels = (tmp_path / f"{kind}/{split}/cambridge" for kind in ("leftImg8bit", "gtFine"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for path in sorted((shared_data / "camvid/images" / split).glob("*.jpg"))[:3]:
            Image.open(path).save(images / f"{path.stem}_leftImg8bit.png")
            label_map = np.asarray(Image.open(shared_data / f"camvid/annotations/{split}/{path.stem}.png"))
            Image.fromarray(table[label_map]).save(labels / f"{path.stem}_gtFine_labelIds.png")
            Image.new("RGB", (1, 1)).save(labels / f"{path.stem}_gtFine_color.png")  # there too, not used
    return tmp_path


def test_cityscapes(cityscapes):
    config = load("cityscapes_semantic", f"dataloader.root={cityscapes}")
    train, test = first_batches(config)
    assert [s["image"].shape for s in train] == [(3, 512, 1024)] * 2
    assert test[0]["image_id"].startswith("cambridge/")
    assert min(test[0]["image"].shape[-2:]) == 1024
    assert perfect_score(config, cityscapes / "gtFine/val/{}_gtFine_labelIds.png") == 100


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
