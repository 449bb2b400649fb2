"""The data sets of the papers, in made samples of their official layouts, and their evaluators."""

import json
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.config import LazyConfig, get_config, instantiate
from detrex.data import category_file, dataset_root, read_categories
from detrex.data.preparation import prepare_ade20k, prepare_cityscapes
from detrex.evaluation import CityscapesInstanceEvaluator, PanopticEvaluator
from detrex.evaluation.cityscapes import VOID
from detrex.evaluation.per_image import panoptic_map
from detrex.structures import Instances
from tools.prepare_dataset import main as prepare

SIZE = (96, 128)


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def load(name, *overrides):
    config = get_config(f"common/data/{name}.py")
    config.train = {"seed": 0}
    small = ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    return LazyConfig.apply_overrides(config, [*small, "dataloader.train.total_batch_size=2", *overrides])


def perfect_results(config):
    """Metrics of the test data's own annotations as results, after a batch of training was read."""
    config.dataloader.train.mapper.image_size = 64
    batch = next(iter(instantiate(config.dataloader.train)))
    assert [sample["image"].shape for sample in batch] == [(3, 64, 64)] * 2
    assert any(len(sample["targets"]) for sample in batch)
    dataset = instantiate(config.dataloader.test.dataset, targets=True)
    evaluators = instantiate(config.dataloader.evaluators)
    classes = len(read_categories(instantiate(config.dataloader.categories)))
    metrics = {}
    for index in range(len(dataset)):
        record = dataset[index]
        targets = record["targets"]
        things = targets[targets.is_thing] if targets.is_thing.any() else targets
        found = Instances(SIZE, things.boxes, torch.ones(len(things)), things.labels, things.masks)
        output = {"instances": found}
        if targets.masks is not None:
            labels = torch.zeros(SIZE, dtype=torch.int64)
            for mask, label in zip(targets.masks, targets.labels, strict=True):
                labels[mask] = label
            output["sem_seg"] = torch.nn.functional.one_hot(labels, classes).permute(2, 0, 1).float()
            output["panoptic_seg"] = panoptic_map(targets)
        for evaluator in evaluators.values():
            evaluator.process([record], [output])
    for evaluator in evaluators.values():
        metrics |= evaluator.evaluate()
    return metrics


def cityscapes_ids(seed):
    """Instance ids: sky, road, void, two cars, a group of persons, a small rider."""
    ids = np.full(SIZE, 23, np.int32)
    ids[60:] = 7
    ids[:, :6] = 3
    ids[50:80, 20:50] = 26000
    ids[55:85, 70 + seed : 100 + seed] = 26001
    ids[40:60, 105:120] = 24
    ids[30:36, 60:66] = 25000
    return ids


@pytest.fixture
def cityscapes(tmp_path):
    root = tmp_path / "cityscapes"
    for split in ("train", "val"):
        for seed in (0, 1):
            name = f"{split}/aachen/aachen_00000{seed}_000019"
            picture(root / "leftImg8bit" / f"{name}_leftImg8bit.png", seed)
            ids = cityscapes_ids(seed)
            save(root / "gtFine" / f"{name}_gtFine_instanceIds.png", ids.astype(np.uint16))
            labels = np.where(ids < 1000, ids, ids // 1000).astype(np.uint8)
            save(root / "gtFine" / f"{name}_gtFine_labelIds.png", labels)
    return root


def test_cityscapes(cityscapes, capsys):
    for kind in ("instance", "panoptic"):
        prepare([f"cityscapes-{kind}", str(cityscapes)])
    text = capsys.readouterr().out
    assert "instance_train.json: 2 images, 8 objects" in text
    assert "panoptic_val.json: 2 images, 12 segments" in text
    root = f"dataloader.root={cityscapes}"
    metrics = perfect_results(load("cityscapes_instance", root))
    assert metrics["cityscapes/AP"] == metrics["segm/AP"] == pytest.approx(100)
    metrics = perfect_results(load("cityscapes_panoptic", root))
    assert metrics["panoptic/PQ"] == metrics["cityscapes/AP"] == pytest.approx(100)
    assert metrics["semantic/mIoU"] < 100  # the group of persons is in no target
    content = json.loads((cityscapes / "annotations/panoptic_val.json").read_text())
    crowds = [s["category_id"] for s in content["annotations"][0]["segments_info"] if s["iscrowd"]]
    assert crowds == [24]


def test_labels_are_those_of_cityscapes_own_list():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    evaluated = [label for label in labels if not label.ignoreInEval]
    ours = read_categories(category_file("cityscapes_semantic"))
    assert ours.ids == tuple(label.id for label in evaluated)
    assert ours.names == tuple(label.name for label in evaluated)
    assert ours.is_thing == tuple(label.hasInstances for label in evaluated)
    assert ours.colors == tuple(label.color for label in evaluated)
    assert {label.id for label in labels if label.ignoreInEval} == set(VOID)
    ignored = get_config("common/data/cityscapes_semantic.py").dataloader.train.dataset.ignore_label
    assert set(ignored) | {-1} == set(VOID)


def made_results(rng, ids):
    """Masks, scores and class indices of detections, right, shifted and wrong."""
    masks, labels = [], []
    for value in np.unique(ids[ids >= 1000]).tolist():
        for _ in range(3):
            shift = rng.integers(-6, 7, 2)
            masks.append(np.roll(ids == value, shift, (0, 1)))
            labels.append(value // 1000 if rng.random() < 0.8 else 24)
    for label in (24, 26, 33):
        mask = np.zeros(SIZE, bool)
        y, x = rng.integers(0, 60), rng.integers(0, 90)
        mask[y : y + 30, x : x + 30] = True
        masks.append(mask)
        labels.append(label)
    group = np.zeros(SIZE, bool)
    group[38:58, 104:122] = True
    masks.append(group)
    labels.append(24)
    scores = rng.random(len(masks)).round(2)  # with some that are equal
    return np.stack(masks), scores, labels


def test_instances_are_measured_as_by_the_official_script(tmp_path, monkeypatch):
    script = script_of("evalInstanceLevelSemanticLabeling", monkeypatch)
    monkeypatch.setattr(script, "writeDict2JSON", lambda *_: None)  # it cannot write NumPy's numbers of today
    rng = np.random.default_rng(0)
    categories = read_categories(category_file("cityscapes_instance"))
    truth_files, result_files, outputs = [], [], {}
    for seed in range(6):
        ids = cityscapes_ids(seed % 4)
        stem = f"val/aachen/aachen_00000{seed}_000019"
        save(tmp_path / "gtFine" / f"{stem}_gtFine_instanceIds.png", ids.astype(np.uint16))
        truth_files.append(str(tmp_path / "gtFine" / f"{stem}_gtFine_instanceIds.png"))
        masks, scores, labels = made_results(rng, ids)
        lines = []
        for k, (mask, score, label) in enumerate(zip(masks, scores, labels, strict=True)):
            save(tmp_path / "found" / f"{seed}_{k}.png", mask.astype(np.uint8) * 255)
            lines.append(f"{seed}_{k}.png {label} {score}")
        (tmp_path / "found" / f"aachen_00000{seed}_000019.txt").write_text("\n".join(lines))
        result_files.append(str(tmp_path / "found" / f"aachen_00000{seed}_000019.txt"))
        classes = torch.tensor([categories.index_of[label] for label in labels])
        boxes = torch.zeros(len(masks), 4)
        outputs[stem.removeprefix("val/")] = Instances(
            SIZE, boxes, torch.tensor(scores), classes, torch.from_numpy(masks)
        )
    evaluator = CityscapesInstanceEvaluator(tmp_path / "gtFine" / "val")
    for stem, found in outputs.items():
        sample = {"image_id": stem, "file_name": f"{stem}_leftImg8bit.png"}
        evaluator.process([sample], [{"instances": found}])
    metrics = evaluator.evaluate()
    script.args.quiet = True
    script.args.JSONOutput = False
    script.args.gtInstancesFile = str(tmp_path / "instances.json")
    script.args.predictionPath = str(tmp_path / "found")
    script.args.predictionWalk = None
    script.setInstanceLabels(script.args)
    expected = script.evaluateImgLists(result_files, truth_files, script.args)["averages"]
    assert 0.1 < expected["allAp"] < 0.9
    assert metrics["cityscapes/AP"] == pytest.approx(100 * expected["allAp"], abs=1e-9)
    assert metrics["cityscapes/AP50"] == pytest.approx(100 * expected["allAp50%"], abs=1e-9)
    for label, values in expected["classes"].items():
        found = evaluator.per_class["cityscapes/AP"][label]
        assert np.isnan(found) if np.isnan(values["ap"]) else found == pytest.approx(100 * values["ap"])


def script_of(name, monkeypatch):
    """A module of Cityscapes' own evaluation, whose drawing needs packages that are not installed here."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # a name of old that the scripts use
    for module in ("matplotlib", "matplotlib.pyplot", "pyquaternion", "coloredlogs", "tqdm"):
        monkeypatch.setitem(sys.modules, module, MagicMock())
    return pytest.importorskip(f"cityscapesscripts.evaluation.{name}")


def test_pixels_are_measured_as_by_the_official_script(cityscapes, monkeypatch):
    script = script_of("evalPixelLevelSemanticLabeling", monkeypatch)
    config = load("cityscapes_semantic", f"dataloader.root={cityscapes}")
    evaluator = instantiate(config.dataloader.evaluators)["semantic"]
    categories = evaluator.categories
    rng, truth_files, result_files = np.random.default_rng(0), [], []
    for path in sorted((cityscapes / "gtFine/val").rglob("*_labelIds.png")):
        truth = np.asarray(Image.open(path))
        guess = np.array(categories.ids)[rng.integers(0, len(categories), SIZE)]
        found = np.where((rng.random(SIZE) < 0.7) & np.isin(truth, categories.ids), truth, guess).astype(
            np.uint8
        )
        save(cityscapes / "found" / path.name, found)
        truth_files.append(str(path))
        result_files.append(str(cityscapes / "found" / path.name))
        index = np.vectorize(categories.index_of.__getitem__)(found)
        scores = torch.nn.functional.one_hot(torch.tensor(index), len(categories)).permute(2, 0, 1).float()
        name = (
            path.relative_to(cityscapes / "gtFine/val").as_posix().replace("gtFine_labelIds", "leftImg8bit")
        )
        evaluator.process([{"image_id": name, "file_name": name}], [{"sem_seg": scores}])
    metrics = evaluator.evaluate()
    script.args.quiet, script.args.JSONOutput = True, False
    script.args.evalInstLevelScore = False
    expected = script.evaluateImgLists(result_files, truth_files, script.args)["classScores"]
    for name, iou in evaluator.per_class["semantic/IoU"].items():
        # Where a class is found but not there, the script says 0 as well.
        assert iou == pytest.approx(100 * expected[name], abs=1e-9), name
    assert metrics["semantic/mIoU"] == pytest.approx(100 * np.nanmean(list(expected.values())))


def test_segments_are_measured_as_by_the_official_script(cityscapes, tmp_path, monkeypatch):
    script = script_of("evalPanopticSemanticLabeling", monkeypatch)
    list(prepare_cityscapes(cityscapes, "panoptic", ["val"]))
    annotations = cityscapes / "annotations/panoptic_val.json"
    segments = cityscapes / "annotations/panoptic_val"
    evaluator = PanopticEvaluator(annotations, segments, output_dir=tmp_path / "found")
    content = json.loads(annotations.read_text())
    for number, image in enumerate(content["annotations"]):
        ids = np.roll(cityscapes_ids(number), (3, 5 * number), (0, 1))
        ids[70:, 90:] = 26002  # a car that is none
        infos = []
        for value in np.unique(ids).tolist():
            label = value if value < 1000 else value // 1000
            if label in evaluator.categories.index_of:
                infos.append({"id": value, "category_id": evaluator.categories.index_of[label]})
            else:
                ids[ids == value] = 0
        panoptic = torch.tensor(ids), infos
        evaluator.process([{"image_id": image["image_id"]}], [{"panoptic_seg": panoptic}])
    metrics = evaluator.evaluate()
    results = json.loads((tmp_path / "found/panoptic_results.json").read_text())
    found = {entry["image_id"]: entry for entry in results["annotations"]}
    pairs = [(entry, found[entry["image_id"]]) for entry in content["annotations"]]
    categories = {entry["id"]: entry for entry in content["categories"]}
    folders = str(segments), str(tmp_path / "found/panoptic_results")
    counts = script.pq_compute_single_core(0, pairs, *folders, categories)
    expected = script.average_pq(counts, categories)
    assert 0 < expected["All"]["pq"] < 1
    for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert metrics[f"panoptic/{name.upper()}{suffix}"] == pytest.approx(100 * expected[group][name])


@pytest.fixture
def ade20k(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for split, first in (("training", 1), ("validation", 5)):
        for number in (first, first + 1):
            name = f"ADE_{split[:3]}_{number:08d}"
            picture(root / f"images/{split}/{name}.jpg", number)
            semantic = np.full(SIZE, 3, np.uint8)  # sky
            semantic[60:] = 7  # road
            semantic[:, :5] = 0
            objects = np.zeros((*SIZE, 3), np.uint8)
            objects[50:80, 20:50] = (4, 1, 0)  # the fourth thing: person
            objects[50:80, 60:90] = (4, 2, 0)
            semantic[objects[..., 0] > 0] = 13
            save(root / f"annotations/{split}/{name}.png", semantic)
            save(root / f"annotations_instance/{split}/{name}.png", objects)
    return root


def test_ade20k(ade20k):
    for kind in ("instance", "panoptic"):
        assert len(list(prepare_ade20k(ade20k, kind))) == 2
    root = f"dataloader.root={ade20k}"
    assert perfect_results(load("ade20k_instance", root))["segm/AP"] == pytest.approx(100)
    metrics = perfect_results(load("ade20k_panoptic", root))
    assert metrics["panoptic/PQ_things"] == metrics["panoptic/PQ_stuff"] == pytest.approx(100)
    assert metrics["semantic/mIoU"] == metrics["segm/AP"] == pytest.approx(100)
    content = json.loads((ade20k / "ade20k_panoptic_val.json").read_text())
    assert [s["category_id"] for s in content["annotations"][0]["segments_info"]] == [3, 7, 13, 13]
    (ade20k / "categoryMapping.txt").write_text(
        "number id name\n1 8 bed\n2 9 windowpane\n3 11 cabinet\n4 21 car\n"
    )
    list(prepare_ade20k(ade20k, "instance"))
    content = json.loads((ade20k / "ade20k_instance_val.json").read_text())
    assert {a["category_id"] for a in content["annotations"]} == {21}


def test_things_of_ade20k_are_those_of_its_instance_challenge(shared_data):
    listed = json.loads((shared_data / "ade20k_sample/categories150.json").read_text())
    things = [c["id"] for c in listed if c["isthing"]]
    assert read_categories(category_file("ade20k_instance")).ids == tuple(things) and len(things) == 100
    panoptic = read_categories(category_file("ade20k_panoptic"))
    assert [panoptic.ids[k] for k in panoptic.thing_classes] == things


def test_mapillary_vistas(tmp_path):
    labels = [
        {"name": f"x--{k}", "readable": name, "instances": k == 1, "color": [k, 0, 0], "evaluate": k < 3}
        for k, name in enumerate(["Road", "Car", "Sky", "Unlabeled"])
    ]
    (tmp_path / "config_v1.2.json").write_text(json.dumps({"labels": labels, "version": "1.2"}))
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[:40, :, 0], ids[40:, :, 0], ids[40:60, :30, 0] = 1, 2, 3
    segments = [{"id": 1, "category_id": 3}, {"id": 2, "category_id": 1}, {"id": 3, "category_id": 2}]
    categories = [
        {"id": k + 1, "name": label["readable"], "isthing": int(label["instances"])}
        for k, label in enumerate(labels)
    ]
    for split in ("training", "validation"):
        for number in (1, 2):
            picture(tmp_path / split / "images" / f"{number}.jpg", number)
            save(tmp_path / split / "labels" / f"{number}.png", np.array([0, 2, 0, 1], np.uint8)[ids[..., 0]])
            save(tmp_path / split / "panoptic" / f"{number}.png", ids)
        content = {
            "images": [
                {"id": str(n), "file_name": f"{n}.jpg", "height": SIZE[0], "width": SIZE[1]} for n in (1, 2)
            ],
            "annotations": [
                {"image_id": str(n), "file_name": f"{n}.png", "segments_info": segments} for n in (1, 2)
            ],
            "categories": categories,
        }
        (tmp_path / split / "panoptic/panoptic_2018.json").write_text(json.dumps(content))
    root = f"dataloader.root={tmp_path}"
    semantic = load("mapillary_vistas_semantic", root, "dataloader.train.dataset.ignore_label=3")
    assert perfect_results(semantic)["semantic/mIoU"] == pytest.approx(100)
    found = read_categories(tmp_path / "config_v1.2.json")
    assert found.names == ("Road", "Car", "Sky") and found.is_thing == (False, True, False)
    assert perfect_results(load("mapillary_vistas_panoptic", root))["panoptic/PQ"] == pytest.approx(100)


def coco_like(folder, split, extra=None, masks=True):
    """Content of a COCO file for two images in a folder."""
    images, annotations = [], []
    for number in (1, 2):
        picture(folder / f"{number:012d}.jpg", number)
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for k, x in enumerate((10, 70)):
            shape = {"segmentation": [[x, 20, x + 40, 20, x + 40, 70, x, 70]]} if masks else {}
            box = {"bbox": [x, 20, 40, 50], "area": 2000, "iscrowd": 0}
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": k + 1, **box, **shape}
            annotations.append(entry)
    categories = [{"id": k, "name": name, "frequency": f} for k, name, f in ((1, "a", "r"), (2, "b", "f"))]
    for image in images:
        image.update(extra(image, split) if extra else {})
    return {"images": images, "annotations": annotations, "categories": categories}


def test_lvis(tmp_path):
    def extra(image, split):
        name = image.pop("file_name")
        address = f"http://images.cocodataset.org/{split}2017/{name}"
        return {"coco_url": address, "neg_category_ids": [2], "not_exhaustive_category_ids": []}

    for split in ("train", "val"):
        # Validation has images of COCO's training split, too.
        content = coco_like(tmp_path / "coco" / f"{split}2017", split, extra)
        if split == "val":
            content["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/000000000001.jpg"
        (tmp_path / "lvis").mkdir(exist_ok=True)
        (tmp_path / f"lvis/lvis_v1_{split}.json").write_text(json.dumps(content))
    metrics = perfect_results(load("lvis_v1_instance", f"dataloader.root={tmp_path}"))
    assert metrics["segm/AP"] == metrics["segm/APr"] == metrics["bbox/APf"] == pytest.approx(100)
    assert np.isnan(metrics["bbox/APc"])


def test_objects365(tmp_path):
    for split in ("train", "val"):
        content = coco_like(tmp_path / split / "patch3", split, masks=False)
        for image in content["images"]:
            image["file_name"] = f"images/v2/patch3/{image['file_name']}"
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/zhiyuan_objv2_{split}.json").write_text(json.dumps(content))
    assert perfect_results(load("objects365_detection", f"dataloader.root={tmp_path}"))[
        "bbox/AP"
    ] == pytest.approx(100)


def test_the_root_is_that_of_the_environment(monkeypatch):
    for variable in ("DETREX_DATASETS", "DETECTRON2_DATASETS"):
        monkeypatch.delenv(variable, raising=False)
    assert dataset_root("coco") == "datasets/coco"
    monkeypatch.setenv("DETECTRON2_DATASETS", "/d2")
    assert dataset_root("coco") == "/d2/coco"
    monkeypatch.setenv("DETREX_DATASETS", "/ours")
    assert get_config("common/data/coco_instance.py").dataloader.root == "/ours/coco"
    assert get_config("common/data/lvis_v1_instance.py").dataloader.root == "/ours"


def test_missing_data_is_named(tmp_path):
    with pytest.raises(ValueError, match="unpack gtFine_trainvaltest.zip"):
        list(prepare_cityscapes(tmp_path, "instance"))
    with pytest.raises(ValueError, match="unpack annotations_instance.tar"):
        list(prepare_ade20k(tmp_path, "panoptic"))
    with pytest.raises(SystemExit):
        prepare(["cityscapes-instance", str(tmp_path)])
