"""Masks for clicks and boxes, on a small model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.checkpoint import CheckpointError, load_pretrained
from detrex.checkpoint.published import from_published, to_published
from detrex.config import LazyConfig, instantiate
from detrex.data import CocoInstances, DataError, EvalMapper, OneClickMapper, SegmentAnythingFolder
from detrex.data.image_dataset import OneClass
from detrex.evaluation import OneClickEvaluator
from detrex.modeling.inference import Tiles
from detrex.modeling.prompts import AutomaticMasks, PromptDetector, RandomPrompts
from detrex.modeling.prompts.regions import stability, without_small_regions
from detrex.predict import Predictor
from detrex.structures import Categories, PromptedMasks, Prompts, RunLengthMasks, Sample, Targets
from tests.config_files import config_of

SMALL = (
    "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 2, num_layers: 1}",
    "model.decoder.layers={num_heads: 2, ffn_dim: 16, num_layers: 2}",
    "model.pixel_head.mask_dim=8",
    "model.criterion.points.num_points=64",
    "model.drawing.num_prompts=6",
    "+model.backbone.options.embed_dim=8",
    "+model.backbone.options.depths=[1,1,1,1]",
    "+model.backbone.options.num_heads=[1,1,2,2]",
    "model.points_as_boxes=false",
)


def small(*more: str) -> PromptDetector:
    torch.manual_seed(0)
    config = config_of("projects/semantic_sam/configs/semantic_sam_swin_tiny_sa1b.py")
    return instantiate(LazyConfig.apply_overrides(config, [*SMALL, *more]).model).eval()


@pytest.fixture(scope="module")
def model() -> PromptDetector:
    return small()


def targets() -> Targets:
    masks = torch.zeros(3, 128, 128, dtype=torch.bool)
    masks[0, 10:60, 20:70] = masks[1, 20:40, 30:50] = masks[2, 80:120, 5:100] = True
    boxes = torch.tensor([[20, 10, 70, 60], [30, 20, 50, 40], [5, 80, 100, 120]]).float()
    return Targets(torch.tensor([7, 3, 7]), boxes, masks, torch.ones(3, dtype=torch.bool))


def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_isolated_prompts_do_not_change_each_other(model):
    points = torch.tensor([[[0.2, 0.3], [0.7, 0.6], [0.5, 0.9]]])
    with torch.inference_mode():
        encoded = model.encode_images([Sample(image=image())])
        together = model.answer(encoded, Prompts.clicks(points)).final
        alone = model.answer(encoded, Prompts.clicks(points[:, 1:2])).final
        mixed = model.answer(encoded, Prompts.clicks(points), isolated=False).final
    torch.testing.assert_close(together.boxes[:, 6:12], alone.boxes)
    torch.testing.assert_close(together.logits[:, 6:12], alone.logits)
    assert not torch.allclose(mixed.logits[:, 6:12], alone.logits, atol=1e-5)


def test_clicks_are_answered_by_all_masks_around_their_pixel_and_boxes_by_their_own():
    torch.manual_seed(1)
    drawn = RandomPrompts(num_prompts=12, box_share=0.5, noise=0.0)(targets())
    assert drawn.kind.tolist() == [0] * 6 + [1] * 6
    masks = targets().masks
    for number, (box, kind) in enumerate(zip(drawn.boxes * 128, drawn.kind, strict=True)):
        answers = drawn.mask[drawn.prompt == number].tolist()
        if kind:
            x, y = box[:2].round().long().tolist()
            assert answers == masks[:, y, x].nonzero().squeeze(1).tolist() and box[2:].tolist() == [6, 6]
        else:
            (answer,) = answers
            assert torch.equal(box[2:], targets().boxes[answer, 2:] - targets().boxes[answer, :2])
    noisy = RandomPrompts(num_prompts=12, noise=0.4)(targets())
    assert noisy.boxes.min() >= 0 and noisy.boxes.max() <= 1
    assert RandomPrompts()(Targets.empty(8, 8)) is None
    with pytest.raises(ValueError, match="these data have boxes only"):
        RandomPrompts()(Targets(torch.zeros(0), torch.zeros(0, 4), None, torch.zeros(0)))


def test_tiles_find_the_masks_of_each(model):
    """The masks of two tiles side by side are those that each has by itself, in its place."""
    settings = AutomaticMasks(points_per_side=2, quality=-9, stability=0.0)
    mapper, categories = EvalMapper(128, 128), Categories.from_names(["object"])
    picture = image().permute(1, 2, 0).numpy()
    before, model.automatic = model.automatic, settings
    try:
        alone = Predictor(model, mapper, categories)(picture, score_threshold=0.0)
        model.inference = Tiles(size=128, overlap=0)
        found = Predictor(model, mapper, categories)(
            np.concatenate([picture, picture], 1), score_threshold=0.0
        )
    finally:
        model.automatic, model.inference = before, None
    assert len(alone) > 0 and len(found) == 2 * len(alone)
    left = found.masks[:, :, :128].flatten(1).any(1)
    assert int(left.sum()) == len(alone) and found.masks.shape[1:] == (128, 256)


@pytest.mark.parametrize(
    "changes", [(), ("model.criterion.match_every_layer=true", "model.drawing.box_share=0.5")]
)
def test_a_step_of_training_reaches_every_parameter(changes):
    model = small(*changes).train()
    empty = Targets.empty(128, 128)
    losses = model([Sample(image=image(), targets=targets()), Sample(image=image(), targets=empty)])
    assert {"loss_iou", "loss_mask_0", "loss_dice", "loss_giou"} <= set(losses)
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    with pytest.raises(ValueError, match="nothing to point at"):
        model([Sample(image=image(), targets=empty)])


def test_weights_of_the_published_names_come_back(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    published = to_published(state, model)
    names = ("pb_embedding.weight", "mask_tokens.weight", "iou_prediction_head.layers.2.bias", "lang_mapper")
    assert {f"sem_seg_head.predictor.{name}" for name in names} <= set(published)
    back = from_published(published, num_heads=2)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_a_published_file_that_does_not_fit_says_what_it_is_of(model, tmp_path):
    torch.save({"model": to_published(model.state_dict(), model)}, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match="The file is of a published Semantic-SAM"):
        load_pretrained(
            small("model.prompts.granularities=2", "model.levels=[1,0]"),
            tmp_path / "published.pth",
            strict=True,
        )


def test_small_holes_are_filled_and_small_islands_taken_away():
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[2:12, 2:12] = True
    mask[5:7, 5:7] = False  # a hole
    mask[15, 15] = True  # an island
    cleaned, changed = without_small_regions(mask, 10)
    assert changed and cleaned[2:12, 2:12].all() and not cleaned[15, 15]
    assert not without_small_regions(cleaned, 10)[1]
    only_small = torch.zeros(20, 20, dtype=torch.bool)
    only_small[1, 1:4] = only_small[10, 10] = True
    assert without_small_regions(only_small, 10)[0].nonzero().tolist() == [[1, 1], [1, 2], [1, 3]]
    logits = torch.tensor([[[2.0, 0.5, -0.5, -2.0]], [[2.0, 2.0, -2.0, -2.0]]])
    torch.testing.assert_close(stability(logits), torch.tensor([1 / 3, 1.0]))


def predictor(model: PromptDetector) -> Predictor:
    def mapper(record):
        return Sample(
            image=record["image"].as_subclass(torch.Tensor), height=record["height"], width=record["width"]
        )

    return Predictor(model, mapper, Categories.from_names(["object"]))


def test_a_predictor_answers_clicks_and_boxes_with_ranked_masks(model):
    predict = predictor(model)
    seen = predict.look_at(image())
    first, second = seen.prompt(points=[(30, 40)], boxes=[(5, 80, 100, 120)], min_quality=-9)
    for found in (first, second):
        assert found.quality.tolist() == sorted(found.quality.tolist(), reverse=True)
        assert 1 <= len(found) <= 6 and found.masks.size == (128, 128)
        assert set(found.level.tolist()) <= set(range(1, 7))
    (again,) = predict.prompt(image(), points=[(30, 40)], min_quality=-9)
    assert again.masks.rles == first.masks.rles
    everything = seen.everything(quality=-9, stability=0, points_per_side=3, levels=[3], nms_iou=1.0)
    assert everything.quality.tolist() == sorted(everything.quality.tolist(), reverse=True)
    assert set(everything.level.tolist()) == {3} and len(everything) <= 9
    model.automatic = AutomaticMasks(3, quality=-9, stability=0)
    result = predict(image(), max_detections=2)
    assert 1 <= len(result) <= 2 and result.instances.has("pred_masks")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give points="),
        ({"points": [(130, 5)]}, r"points: \[130.0, 5.0\] is not within the image of 128 x 128"),
        ({"points": [(float("nan"), 5)]}, "not within the image"),
        ({"points": [5, 6]}, "expected rows of 2 numbers"),
        ({"boxes": [(5, 5, 5, 9)]}, "x0 < x1"),
        ({"boxes": "abc"}, "expected rows of 4 numbers"),
    ],
)
def test_wrong_prompts_are_named(model, asked, message):
    with pytest.raises(ValueError, match=message):
        predictor(model).prompt(image(), **asked)


def test_one_click_is_in_the_middle_of_each_mask_and_its_answers_are_measured():
    record = dict(image=image(), image_id=4, file_name="a.jpg", height=128, width=128, targets=targets())
    sample = OneClickMapper(size=64)(record)
    centre = sample["prompts"].boxes[0, 1] * 128
    assert 35 <= centre[0] <= 45 and 25 <= centre[1] <= 35
    assert (sample["prompts"].boxes[0, 1, 2:] * 64).tolist() == [6, 6]
    truth = targets().masks
    half = truth[:1].clone()
    half[:, :35] = False  # half of the first mask
    masks = RunLengthMasks.encode(torch.cat([half, truth[:1], truth[1:2], truth[2:3]]))
    prompted = PromptedMasks(
        masks,
        torch.tensor([0.9, 0.5, 0.7, 0.7]),
        torch.ones(4, dtype=torch.int64),
        torch.tensor([0, 0, 1, 2]),
        torch.zeros(4, 4),
    )
    evaluator = OneClickEvaluator()
    evaluator.process([sample], [{"prompted": prompted}])
    found = evaluator.evaluate()
    assert found == {"one_click/IoU_max": pytest.approx(100 * 2.5 / 3), "one_click/IoU_oracle": 100.0}
    empty = OneClickMapper(size=64)({**record, "targets": Targets.empty(128, 128)})
    assert "prompts" not in empty  # so that the same config serves for prediction
    evaluator.process([empty], [{"instances": None}])
    with pytest.raises(ValueError, match="models that answer prompts"):
        evaluator.process([sample], [{"instances": None}])


def test_all_objects_are_of_one_class_where_that_is_wanted(tmp_path):
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(tmp_path / "a.png")
    shared = {"image_id": 1, "iscrowd": 0, "area": 9, "bbox": [1, 1, 3, 3]}
    objects = enumerate(RunLengthMasks.encode(targets().masks).to_coco())
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 128, "width": 128}],
        "annotations": [{"id": i, "category_id": 4 + i, "segmentation": rle, **shared} for i, rle in objects],
        "categories": [{"id": 4 + i, "name": f"c{i}"} for i in range(3)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = OneClass(CocoInstances(tmp_path, tmp_path / "a.json"))
    record = data[0]
    assert data.categories.names == ("object",) and record["targets"].labels.tolist() == [0, 0, 0]
    assert torch.equal(record["targets"].masks, targets().masks)


def test_masks_of_sa_1b_lie_beside_their_images(tmp_path):
    for name in ("sa_1", "sa_2"):
        Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(tmp_path / f"{name}.jpg")
    annotations = [{"segmentation": rle} for rle in RunLengthMasks.encode(targets().masks).to_coco()]
    content = {"image": {"image_id": 1, "height": 128, "width": 128}, "annotations": annotations}
    (tmp_path / "sa_1.json").write_text(json.dumps(content))
    data = SegmentAnythingFolder(tmp_path)
    assert len(data) == 1 and data.categories.names == ("object",)
    assert torch.equal(data[0]["targets"].masks, targets().masks) and data[0]["image_id"] == "sa_1"
    annotations[1]["segmentation"] = {"size": [128, 128], "counts": "x"}
    (tmp_path / "sa_1.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"sa_1.json: annotations\[1\]"):
        data[0]
    (tmp_path / "sa_1.json").write_text("[]")
    with pytest.raises(DataError, match="sa_1.json: expected an object"):
        data[0]
    with pytest.raises(DataError, match="no .jpg has a .json"):
        (tmp_path / "sa_1.json").unlink()
        SegmentAnythingFolder(tmp_path)
