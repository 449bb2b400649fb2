"""With detectron2, where it is installed: the same data, metrics, losses and results on both sides."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.config import LazyCall, instantiate
from detrex.data import CocoInstances, DataError
from detrex.evaluation import CocoEvaluator
from detrex.interop import detectron2 as interop
from detrex.structures import Categories
from tests.config_files import ROOT, config_of
from tests.made_instances import square_instances

pytest.importorskip("detectron2.modeling")

SIZE = (96, 128)
SHAPES = "projects/maskdino/configs/maskdino_shapes.py"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A COCO file with gaps in its ids, its images, and label maps in detectron2's forms."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    for image_id in (11, 12, 13):
        name = f"{image_id}.png"
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(root / name)
        content["images"].append({"id": image_id, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for k in range(3):
            x, y, side = 4 + 40 * k, 8 + 10 * k, 30
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": (3, 7)[k % 2],
                    "bbox": [x, y, side, side],
                    "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
                    "area": side * side,
                    "iscrowd": int(k == 2 and image_id == 13),
                }
            )
    (root / "instances.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def name(files):
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances("detrex_made", {}, str(files / "instances.json"), str(files))
    DatasetCatalog.get("detrex_made")  # only then its classes are known
    return "detrex_made"


@pytest.fixture(scope="module")
def model():
    config = config_of(SHAPES).model
    config.num_classes = 2
    torch.manual_seed(0)
    return instantiate(config)


def test_a_data_set_of_the_catalogue_is_what_the_file_says(name, files):
    catalog, listed = interop.CatalogDataset(name), CocoInstances(files, files / "instances.json")
    assert catalog.categories == listed.categories and len(catalog) == len(listed)
    for a, b in zip(catalog, listed, strict=True):
        assert a["image_id"] == b["image_id"] and torch.equal(a["image"], b["image"])
        for key in ("labels", "boxes", "masks", "is_thing"):
            assert torch.equal(getattr(a["targets"], key), getattr(b["targets"], key)), key


def test_label_maps_of_the_catalogue(files):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    labels = np.full(SIZE, 255, np.uint8)
    labels[:40], labels[40:60, :50] = 0, 1
    Image.fromarray(labels).save(files / "labels.png")
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[:40, :, 1], colors[40:60, :50, 0] = 2, 5  # ids 512 and 5
    Image.fromarray(colors).save(files / "segments.png")
    entry = {
        "file_name": str(files / "11.png"), "image_id": 11, "height": SIZE[0], "width": SIZE[1],
        "sem_seg_file_name": str(files / "labels.png"), "pan_seg_file_name": str(files / "segments.png"),
        "segments_info": [
            {"id": 512, "category_id": 0, "iscrowd": 0, "isthing": False},
            {"id": 5, "category_id": 1, "iscrowd": 0, "isthing": True},
        ],
    }  # fmt: skip
    DatasetCatalog.register("detrex_regions", lambda: [entry])
    MetadataCatalog.get("detrex_regions").set(
        stuff_classes=["sky", "cat"],
        stuff_dataset_id_to_contiguous_id={20: 0},
        thing_dataset_id_to_contiguous_id={30: 1},
    )
    masks = torch.from_numpy(np.stack([labels == 0, labels == 1]))
    for task, things in (("semantic", [False, False]), ("panoptic", [False, True])):
        dataset = interop.CatalogDataset("detrex_regions", task)
        targets = dataset[0]["targets"]
        assert torch.equal(targets.masks, masks) and targets.labels.tolist() == [0, 1]
        assert targets.is_thing.tolist() == things
    assert dataset.categories.ids == (20, 30) and dataset.categories.is_thing == (False, True)
    entry["segments_info"][0]["category_id"] = 9
    with pytest.raises(DataError, match=r"detrex_regions, image 11.* classes \[9\]"):
        dataset[0]
    del entry["segments_info"]
    with pytest.raises(DataError, match="detrex_regions, image 11.*'panoptic'.*segments_info"):
        dataset[0]
    with pytest.raises(DataError, match="no 'nowhere'"):
        interop.CatalogDataset("nowhere")
    with pytest.raises(DataError, match="no thing_classes"):
        interop.CatalogDataset("detrex_regions")


def test_its_evaluator_measures_what_ours_does(name, files, tmp_path):
    from detectron2.evaluation import COCOEvaluator

    ours = CocoEvaluator(files / "instances.json")
    reference = COCOEvaluator(
        name, ("bbox", "segm"), distributed=False, output_dir=str(tmp_path), use_fast_impl=False
    )
    reference.reset()
    for image_id, shift in ((11, 0), (12, 3), (13, 8)):
        found = square_instances(
            (0, 0.9, 4 + shift, 8, 30), (1, 0.6, 44, 18 + shift, 28), (1, 0.3, 5, 60, 9), size=SIZE
        )
        sample, result = {"image_id": image_id, "file_name": f"{image_id}.png"}, {"instances": found}
        ours.process([sample], [result])
        reference.process([sample], [interop.to_output(result)])
    expected, metrics = reference.evaluate(), ours.evaluate()
    for task in ("bbox", "segm"):
        for key in ("AP", "AP50", "AP75"):
            assert metrics[f"{task}/{key}"] == pytest.approx(expected[task][key], abs=1e-9)
    assert 0 < metrics["segm/AP"] < 100


def test_its_visualiser_draws_our_results():
    from detectron2.utils.visualizer import Visualizer

    metadata = interop.set_metadata("detrex_pictures", Categories.from_names(["cat", "dog"]))
    found = square_instances((0, 0.9, 4, 8, 30), (1, 0.6, 44, 18, 28), size=SIZE)
    black = np.zeros((*SIZE, 3), np.uint8)
    drawn = Visualizer(black, metadata).draw_instance_predictions(interop.to_instances(found))
    assert drawn.get_image()[10:36, 6:30].mean() > 20
    assert metadata.thing_dataset_id_to_contiguous_id == {0: 0, 1: 1}


def test_our_model_trains_and_is_evaluated_in_its_loops(name, model):
    from detectron2.data import (
        DatasetCatalog,
        DatasetMapper,
        build_detection_test_loader,
        build_detection_train_loader,
    )
    from detectron2.engine import SimpleTrainer
    from detectron2.evaluation import COCOEvaluator, inference_on_dataset

    wrapped = interop.Detectron2Model(model)
    assert wrapped.device.type == "cpu"
    for mask_format in ("polygon", "bitmask"):
        mapper = DatasetMapper(
            is_train=True,
            augmentations=[],
            image_format="BGR",
            use_instance_mask=True,
            instance_mask_format=mask_format,
        )
        loader = build_detection_train_loader(
            DatasetCatalog.get(name), mapper=mapper, total_batch_size=1, num_workers=0
        )
        before = [p.detach().clone() for p in model.parameters()]
        trainer = SimpleTrainer(wrapped.train(), loader, torch.optim.SGD(model.parameters(), 1e-4))
        trainer.train(0, 1)
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    loader = build_detection_test_loader(
        DatasetCatalog.get(name),
        mapper=DatasetMapper(is_train=False, augmentations=[], image_format="BGR"),
        num_workers=0,
    )
    evaluator = COCOEvaluator(name, ("bbox", "segm"), distributed=False, use_fast_impl=False)
    assert "AP" in inference_on_dataset(wrapped.eval(), loader, evaluator)["bbox"]
    with pytest.raises(ValueError, match="image 11 .* neither 'instances' nor 'sem_seg'"):
        wrapped.train()([{"image": torch.zeros(3, 32, 32), "image_id": 11}])


def test_samples_are_the_same_by_both_ways(name, files, model):
    from detectron2.data import DatasetCatalog, DatasetMapper

    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="polygon",
    )
    entry = mapper(DatasetCatalog.get(name)[0])
    record = CocoInstances(files, files / "instances.json")[0]
    wrapped = interop.Detectron2Model(model).train()
    losses = []
    for compute in (lambda: wrapped([entry]), lambda: model.losses([record])):
        torch.manual_seed(0)
        losses.append({k: v.item() for k, v in compute().items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    regions = {"image": entry["image"], "sem_seg": torch.zeros(SIZE, dtype=torch.uint8)}
    assert all(torch.isfinite(v) for v in wrapped([regions]).values())


def test_our_configs_in_its_instantiate(model):
    from detectron2.config import instantiate as their_instantiate

    config = config_of(SHAPES)
    config.model.num_classes = 2
    built = their_instantiate(interop.lazy_config(config.model))
    built.load_state_dict(model.state_dict())
    sample = {"image": torch.arange(3 * 64 * 64).reshape(3, 64, 64) % 255}
    with torch.no_grad():
        expected, found = (m.eval()([sample])[0]["instances"] for m in (model, built))
    assert torch.equal(expected.scores, found.scores) and torch.equal(expected.pred_boxes, found.pred_boxes)
    bound = their_instantiate(interop.lazy_config(LazyCall(int)(_partial_=True, base=16)))
    assert bound("ff") == 255


def test_its_backbones_in_our_models():
    from detectron2.modeling.backbone import BasicStem, ResNet

    stages = LazyCall(ResNet.make_default_stages)(depth=18, norm="FrozenBN")
    backbone = LazyCall(ResNet)(
        stem=LazyCall(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=stages,
        out_features=["res3", "res4", "res5"],
    )
    node = LazyCall(interop.Detectron2Backbone)(backbone=backbone)
    built = instantiate(node)
    maps = built(torch.zeros(1, 3, 64, 96))
    assert {stride: tuple(m.shape[1:]) for stride, m in maps.items()} == {
        8: (128, 8, 12), 16: (256, 4, 6), 32: (512, 2, 3)
    }  # fmt: skip
    assert built.channels == {8: 128, 16: 256, 32: 512}
    with pytest.raises(ValueError, match=r"strides \[8, 16, 32\], not at \[4\]"):
        interop.Detectron2Backbone(built.backbone, [4, 8])


def test_what_the_page_shows_runs(name):
    from detectron2.data import DatasetCatalog

    DatasetCatalog.register("mydata", lambda: DatasetCatalog.get(name))
    page = (ROOT / "docs/coming_from.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(block, "coming_from.md", "exec"), {})
