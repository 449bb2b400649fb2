"""Bad and unusual input, from the command line to the end of a run of a real model."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tools.conftest import HEIGHT, WIDTH

WHOLE_RUN = ("train.checkpoint.period=1",)


def assert_sound(run, steps=2):
    """It trained, with finite losses, evaluated and made the pictures."""
    assert [step["iteration"] for step in run.steps] == list(range(1, steps + 1))
    for step in run.steps:
        assert all(value is not None and math.isfinite(value) for value in step.values())
    assert {"bbox/AP", "segm/AP"} <= set(run.results["metrics"])
    assert (run.output / "predictions.png").is_file()


@pytest.mark.parametrize(("split", "loader"), [("train", "train"), ("val", "test")])
def test_missing_annotation_file(data, refused, split, loader):
    data.annotations(split).unlink()
    message = refused()
    assert f"Annotation file {data.annotations(split)} does not exist" in message
    assert f"dataloader.{loader}.dataset" in message


def test_missing_image(data, refused):
    (data.root / "train/2.png").unlink()
    assert "the first being 2.png (image id 2)" in refused()


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_does_not_decode(data, refused, workers):
    path = data.root / "train/2.png"
    path.write_bytes(path.read_bytes()[:300])
    message = refused(f"dataloader.train.num_workers={workers}")
    assert message.startswith(f"Image {path} (image id 2) cannot be decoded")


def test_image_for_evaluation_that_does_not_decode(data, train, refused):
    path = data.root / "val/2.png"
    path.write_bytes(b"no image")
    message = refused("dataloader.test.num_workers=1")
    assert message.startswith(f"Image {path} (image id 2) cannot be decoded")
    data.save("val", 2, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert_sound(train("--resume"))  # the training was not lost


def test_an_augmentation_that_fails_in_a_worker(refused):
    jitter = "{_target_:torchvision.transforms.v2.Normalize,mean:[0,0],std:[1,1]}"
    message = refused("dataloader.train.num_workers=1", f"dataloader.train.mapper.color_jitter={jitter}")
    assert "(image id " in message and "could not be transformed" in message


def test_listed_size_that_is_not_the_image_s(data, refused):
    data.content["images"][0]["width"] = 99
    data.write()
    assert "1.png (image id 1) has 48 x 64 pixels (height x width), but" in refused()


def test_all_kinds_of_images(data, train):
    rng = np.random.default_rng(0)
    kinds = {
        "grey.png": Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)),
        "rgba.png": Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)),
        "cmyk.jpg": Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8), mode="CMYK"),
        "deep.png": Image.fromarray(rng.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)),
        "turned.jpg": Image.fromarray(rng.integers(0, 256, (WIDTH, HEIGHT, 3), np.uint8)),
    }
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise, which makes it HEIGHT x WIDTH
    for split in ("train", "val"):
        for name, image in kinds.items():
            image.save(data.root / split / name, **({"exif": exif} if name == "turned.jpg" else {}))
    data.content["images"] = [
        {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(kinds, 1)
    ]
    data.write()
    run = train("train.max_iter=3", "train.pictures.count=5")
    assert_sound(run, steps=3)  # two images a step: all five were seen
    assert "evaluated 5 images" in run.log


def test_results_have_the_category_ids_of_the_file(train, tmp_path):
    run = train(f"dataloader.evaluators.coco.output_dir={tmp_path}")
    assert_sound(run)
    assert set(run.results["per_class"]["segm/AP"]) == {"cat", "dog"}
    found = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert {d["category_id"] for d in found} == {3, 7} and {d["image_id"] for d in found} == {1, 2, 3}


@pytest.mark.parametrize("split", ["train", "val"])
def test_category_that_is_not_listed(data, refused, split):
    data.content["annotations"][0]["category_id"] = 5
    data.write(split)
    message = refused()
    assert "annotation" in message and "5" in message and "Add the category, or correct the id" in message


def test_class_of_the_evaluation_alone(data, refused):
    data.content["categories"].append({"id": 9, "name": "cow"})
    data.write("val")
    assert "category 9 ('cow') is missing among the model's classes" in refused()


def test_class_of_the_training_alone(data, train):
    data.content["categories"].pop()
    data.content["annotations"] = [a for a in data.content["annotations"] if a["category_id"] == 3]
    data.write("val")
    # Every detection is drawn, those of the second class too.
    assert_sound(train("train.pictures.score_threshold=0.0", "train.pictures.count=3"))


def test_class_count_that_is_not_the_data_s(refused):
    assert "model.num_classes is 80, but the training data has 2 classes" in refused("model.num_classes=80")


def test_degenerate_objects(data, train):
    point, outside, flat, thin = data.content["annotations"][:4]
    point.update(segmentation=[[5, 5, 5, 5, 5, 5]], bbox=[5, 5, 0, 0])
    outside.update(segmentation=[[100, 100, 120, 100, 120, 120]], bbox=[100, 100, 20, 20])
    flat.update(segmentation=[[1, 1, 9, 9]], bbox=[1, 1, 8, 8])
    thin.update(bbox=[-5, -5, -3, 4])  # a wrong box around a good mask
    data.write()
    run = train()
    assert_sound(run)
    for split in ("train", "val"):  # training and evaluation leave out the same
        start = (
            f"instances_{split}.json: 3 objects with a degenerate segmentation are left out (annotation id 1"
        )
        assert start in run.log


def test_a_polygon_far_outside_is_refused(data, refused):
    data.content["annotations"][1]["segmentation"] = [[1e7, 1e7, 1e7 + 9, 1e7, 1e7 + 9, 1e7 + 9]]
    data.write()
    message = refused()
    assert "annotation id 2 of image id" in message and "far outside of the image" in message


def test_coordinates_that_are_not_finite(data, refused):
    data.content["annotations"][0]["segmentation"] = [[1, 1, math.nan, 9, 9, 9]]
    data.write()
    assert "annotation id 1 of image id 1 has a polygon that is not a list of finite numbers" in refused()


def test_boxes_without_masks(data, train, refused):
    for annotation in data.content["annotations"]:
        del annotation["segmentation"]
    data.content["annotations"][0]["bbox"] = [5, 5, 0, 0]
    data.write()
    assert "has no 'segmentation'" in refused()
    run = train("dataloader.train.dataset.masks=false", "dataloader.evaluators.coco.tasks=[bbox]")
    assert "1 objects with a degenerate bbox are left out (annotation id 1" in run.log
    assert "loss_bbox" in run.steps[1] and "loss_mask" not in run.steps[1]
    assert "bbox/AP" in run.results["metrics"] and (run.output / "predictions.png").is_file()


def test_images_without_annotations(data, train):
    data.content["annotations"] = [a for a in data.content["annotations"] if a["image_id"] > 1]
    data.write()
    assert_sound(train())


def test_no_annotations_at_all_are_refused(data, refused):
    data.content["annotations"] = []
    data.write()
    assert "nothing to learn from" in refused()


def test_crops_without_objects(train):
    run = train(
        "dataloader.train.mapper.min_scale=20", "dataloader.train.mapper.max_scale=30", "train.max_iter=4"
    )
    assert_sound(run, steps=4)
    # Without objects there is only the loss of the background class.
    assert any("loss_mask" not in s or s["loss_mask"] == 0 for s in run.steps)
    assert any(s.get("loss_mask", 0) > 0 for s in run.steps)


def test_only_crowds_are_refused(data, refused):
    for annotation in data.content["annotations"]:
        annotation["iscrowd"] = 1
    data.write()
    assert "are crowds (iscrowd 1), which nothing can be learned from" in refused()


def test_more_objects_than_queries(data, train):
    data.content["annotations"] = [data.object(1, 3, x, side=4) for x in range(0, 60, 5)]
    data.number()
    data.write()
    run = train("model.decoder.query_init.num_queries=3", "model.denoising.num_queries=3")
    assert_sound(run)
    assert any(step["loss_mask"] > 0 for step in run.steps)


def test_a_loss_that_is_not_finite(data, refused, tmp_path):
    message = refused(
        "optimizer.lr=1e30",
        "scheduler.warmup_iters=0",
        "train.clip_grad.max_norm=null",
        "train.max_skipped_steps=0",
    )
    assert "the loss is not finite at iteration 2" in message and ".png" in message
    report = tmp_path / "run/nonfinite/iteration_0000002_process_0.json"
    assert str(report) in message
    summary = json.loads(report.read_text())
    images = {image["id"]: image["file_name"] for image in data.content["images"]}
    assert len(summary["images"]) == 2
    assert all(images[i["image_id"]] == i["file_name"] for i in summary["images"])
    saved = torch.load(report.with_suffix(".pt"), weights_only=True)
    assert saved["samples"][0]["image"].shape == (3, 64, 64)
    assert saved["samples"][0]["targets"]["masks"].shape[1:] == (64, 64)
    assert "decoder.heads.sets.0.classes.weight" in saved["model"]
    assert not (tmp_path / "run/model_final.safetensors").exists()


def test_a_checkpoint_of_another_class_count(data, train, refused):
    weights = f"train.init_checkpoint={train(output='first').output / 'model_final.safetensors'}"
    data.content["categories"].append({"id": 9, "name": "cow"})
    data.write()
    run = train(weights)
    assert_sound(run)
    heads = (
        "decoder.heads.sets.0.classes.weight",
        "decoder.heads.sets.0.classes.bias",
        "denoising.label_embed.weight",
    )
    for name in heads:
        assert f"partly loaded: {name}, rows of 2: cat, dog" in run.log
    assert "does not fit the model" in refused(weights, "--eval-only", output="evaluation")


def test_a_truncated_checkpoint(train, refused):
    run = train(*WHOLE_RUN)
    weights = run.output / "model_final.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    message = refused(f"train.init_checkpoint={weights}", output="other")
    assert f"{weights} (5000 bytes) cannot be read; it is truncated" in message

    steps = run.steps
    for name in ("model.safetensors", "state.pt"):
        last = run.output / "checkpoints/iteration_0000002" / name
        last.write_bytes(last.read_bytes()[:1000])
        train("--resume", *WHOLE_RUN)
        assert f"{last} (1000 bytes) cannot be read" in run.log
        assert "going on after iteration 1" in run.log
        assert run.steps == steps


def test_the_saved_config_repeats_the_run_and_the_saved_weights_the_evaluation(train):
    first = train("train.max_iter=3", output="first")
    again = train("--config-file", str(first.output / "config.yaml"), "train.max_iter=3", output="again")
    assert again.steps == first.steps and again.results == first.results
    weights = f"train.init_checkpoint={first.output / 'model_final.safetensors'}"
    assert train(weights, "--eval-only", output="evaluation").results == first.results


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(train):
    longer = ("scheduler.max_iter=4", "dataloader.train.num_workers=1")
    whole = train(*longer, "train.max_iter=4", output="whole")
    train(*longer, output="parts")
    parts = train(*longer, "train.max_iter=4", "--resume", output="parts")
    assert parts.steps == whole.steps and parts.results == whole.results


def test_score_threshold_and_number_of_detections_hold_in_evaluation(train, tmp_path):
    def detections(*overrides: str) -> list[dict]:
        train("train.max_iter=1", f"dataloader.evaluators.coco.output_dir={tmp_path}", *overrides)
        return json.loads((tmp_path / "coco_instances_results.json").read_text())

    everything = detections()
    assert len(everything) == 3 * 10 * 2  # images, queries, classes
    assert len(detections("model.postprocess.instance.max_detections=4")) == 3 * 4
    threshold = float(np.median([d["score"] for d in everything]))
    kept = detections(f"model.postprocess.instance.score_threshold={threshold}")
    assert 0 < len(kept) < len(everything) and min(d["score"] for d in kept) >= threshold
