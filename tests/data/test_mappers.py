import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from detrex.data import (
    CocoInstances,
    DetrMapper,
    EvalMapper,
    LargeScaleJitterMapper,
    SemanticMapper,
    TrainingMapper,
    build_train_loader,
)
from detrex.data.outlines import draw, visible_boxes
from detrex.data.transforms import Region, RegionResize

MAPPERS = [
    LargeScaleJitterMapper(64),
    LargeScaleJitterMapper(64, min_scale=3.0, max_scale=4.0),
    DetrMapper([40, 60], 100, crop_probability=1.0, crop_base_sizes=[100], crop_range=(30, 60)),
    DetrMapper([40], 100, color_jitter=v2.ColorJitter(0.5, 0.5, 0.5, 0.1)),
    SemanticMapper([40, 60, 120], 200, (48, 64), max_class_share=0.9),
]


@pytest.fixture
def dataset(coco):
    image_id = coco.add_image(60, 80)
    for x in range(0, 75, 5):
        y = x % 50
        coco.add_object(image_id, ((x, y, x + 4, y, x + 4, y + 6, x, y + 6),), bbox=[x, y, 4, 6])
    coco.add_image(60, 80)
    return CocoInstances(*coco.write())


@pytest.mark.parametrize("mapper", MAPPERS)
def test_boxes_follow_the_masks_and_objects_that_are_gone_are_dropped(dataset, mapper):
    counts = set()
    for seed in range(15):
        torch.manual_seed(seed)
        sample = mapper(dataset[0])
        targets = sample["targets"]
        counts.add(len(targets))
        assert type(sample["image"]) is type(targets.masks) is torch.Tensor
        assert sample["image"].shape[-2:] == targets.masks.shape[-2:] == (sample["height"], sample["width"])
        assert targets.masks.flatten(1).any(1).all()
        assert len(targets.labels) == len(targets.is_thing) == len(targets.boxes) == len(targets)
        if len(targets):
            expected = masks_to_boxes(targets.masks) + torch.tensor([0, 0, 1, 1])
            assert torch.equal(targets.boxes, expected)
    if mapper is not MAPPERS[3]:
        assert min(counts) < 15  # some crop lost something


@pytest.mark.parametrize("mapper", MAPPERS)
def test_images_without_objects(dataset, mapper):
    sample = mapper(dataset[1])
    assert len(sample["targets"]) == 0
    assert sample["targets"].masks.shape == (0, *sample["image"].shape[-2:])
    assert sample["targets"].boxes.shape == (0, 4)


def test_a_crop_may_leave_no_object(coco):
    coco.add_object(coco.add_image(60, 80), ((0, 0, 3, 0, 3, 3, 0, 3),))
    dataset = CocoInstances(*coco.write())
    torch.manual_seed(0)
    left = [len(MAPPERS[1](dataset[0])["targets"]) for _ in range(10)]
    assert 0 in left


class RegionTwice(RegionResize):
    """The left half of an image of 60 x 80, at twice the size."""

    def make_params(self, flat_inputs):  # noqa: ARG002
        return {"region": Region(0, 0, 60, 40), "size": (120, 80)}


RINGS = [
    [[10.3, 5.2, 30.8, 7.9, 22.1, 40.6]],
    [[50.5, 10.5, 60.25, 12.0, 55.0, 20.0], [40.0, 40.0, 70.0, 42.0, 66.5, 55.5, 41.0, 50.0]],
    [[-20.0, 45.0, 6.0, 44.0, 5.5, 80.0]],  # reaches out of the image
]


@pytest.fixture
def outlined(coco):
    """Objects with polygons, and between them one with an RLE: rows 20 to 29, columns 5 to 14."""
    image_id = coco.add_image(60, 80)
    square = np.zeros((60, 80), np.uint8, order="F")
    square[20:30, 5:15] = 1
    rle = coco_mask.encode(square)
    encoded = {"size": rle["size"], "counts": rle["counts"].decode()}
    for shape in (RINGS[0], encoded, RINGS[1], RINGS[2]):
        coco.add_object(image_id, shape)
    return CocoInstances(*coco.write())


def test_polygons_move_before_they_are_drawn(outlined):
    """A flip, a crop to the left half of the flipped image and twice the size, by hand."""
    crop = RegionTwice()
    mapper = TrainingMapper(v2.Compose([v2.RandomHorizontalFlip(1.0), crop]), move_polygons=True)
    targets = mapper(outlined.record(0, draw_masks=False))["targets"]
    moved = [[np.array(ring).reshape(-1, 2) for ring in rings] for rings in RINGS]
    moved = [[np.stack([2 * (80 - p[:, 0]), 2 * p[:, 1]], 1) for p in rings] for rings in moved]
    drawn = draw(moved, 120, 80)
    assert drawn.flatten(1).any(1).tolist() == [False, True, False]  # the others are in the right half
    assert len(targets) == 1
    assert torch.equal(targets.masks[0], drawn[1])
    torch.testing.assert_close(targets.boxes, visible_boxes(moved, 120, 80)[1:2])


def test_polygons_and_rle_keep_their_order(outlined):
    mapper = LargeScaleJitterMapper((60, 80), 1.0, 1.0, flip_probability=0.0)
    targets = mapper(outlined.record(0, draw_masks=False))["targets"]
    assert torch.equal(targets.masks, outlined[0]["targets"].masks)
    expected = [[10.3, 5.2, 30.8, 40.6], [5, 20, 15, 30], [40, 10.5, 70, 55.5], [0, 44, 6, 60]]
    torch.testing.assert_close(targets.boxes, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mapper", MAPPERS)
def test_drawn_and_undrawn_records_give_nearly_the_same(outlined, mapper):
    for seed in range(10):
        found = []
        for drawn in (True, False):
            torch.manual_seed(seed)
            found.append(mapper(outlined.record(0, draw_masks=drawn)))
        (a, b), image = (f["targets"] for f in found), found[0]["image"]
        assert torch.equal(image, found[1]["image"])
        assert (a.masks.any(0) != b.masks.any(0)).float().mean() < 0.04  # pixels at edges


def test_other_transforms_get_masks(outlined):
    sample = TrainingMapper(v2.CenterCrop([40, 50]))(outlined.record(0, draw_masks=False))
    assert torch.equal(sample["targets"].masks[0], outlined[0]["targets"].masks[0, 10:50, 15:65])


def test_training_loaders_leave_drawing_to_the_mapper(outlined):
    mapper = LargeScaleJitterMapper((60, 80), 1.0, 1.0, flip_probability=0.0)
    (sample,) = next(iter(build_train_loader(outlined, mapper, total_batch_size=1, num_workers=0)))
    assert sample["targets"].boxes[0].tolist() == pytest.approx([10.3, 5.2, 30.8, 40.6])


@pytest.mark.parametrize("masks", [True, False])
def test_objects_that_a_crop_cuts_away_may_stay(dataset, coco, masks):
    dataset = CocoInstances(coco.images, coco.annotations, masks=masks)
    dropping, keeping = (LargeScaleJitterMapper(64, 3.0, 4.0, drop_invisible=drop) for drop in (True, False))
    for seed in range(5):
        torch.manual_seed(seed)
        visible = dropping(dataset[0])["targets"]
        torch.manual_seed(seed)
        found = keeping(dataset[0])["targets"]
        assert len(found) == len(found.boxes) == 15 > len(visible)
        gone = (found.boxes == 0).all(1)
        assert torch.equal(found.boxes[~gone], visible.boxes)
        assert torch.equal(found.labels[~gone], visible.labels)
        if masks:
            assert torch.equal(found.masks[~gone], visible.masks) and not found.masks[gone].any()


@pytest.mark.parametrize("mapper", MAPPERS)
def test_boxes_alone(dataset, coco, mapper):
    dataset = CocoInstances(coco.images, coco.annotations, masks=False)
    for seed in range(10):
        torch.manual_seed(seed)
        sample = mapper(dataset[0])
        targets = sample["targets"]
        height, width = sample["image"].shape[-2:]
        assert targets.masks is None and type(targets.boxes) is torch.Tensor
        assert (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()
        assert (targets.boxes >= 0).all() and (targets.boxes <= torch.tensor([width, height] * 2)).all()


def test_flip_is_exact(dataset):
    record = dataset[0]
    mapper = DetrMapper([60], 80, crop_probability=0, flip_probability=1.0)
    sample = mapper(record)
    assert torch.equal(sample["image"], torch.Tensor(record["image"]).flip(-1).to(torch.uint8))
    assert torch.equal(sample["targets"].masks, record["targets"].masks.flip(-1))


def test_padding_is_on_the_right_after_a_flip(coco):
    coco.add_image(60, 80)
    dataset = CocoInstances(*coco.write())
    mapper = LargeScaleJitterMapper(64, 0.5, 0.5, flip_probability=1.0, pad_value=77)
    image = mapper(dataset[0])["image"]
    assert (image[:, :24, :32] == 1).all() and (image[:, :, 32:] == 77).all() and (image[:, 24:] == 77).all()


def test_any_transform_of_torchvision_can_be_used(dataset):
    sample = TrainingMapper(v2.CenterCrop([20, 30]))(dataset[0])
    assert sample["image"].shape == (3, 20, 30) and 0 < len(sample["targets"]) < 15


def test_evaluation_keeps_the_original_size_for_results(dataset):
    sample = EvalMapper(size=30, max_size=100)(dataset[0])
    assert sample["image"].shape == (3, 30, 40)
    assert (sample["height"], sample["width"]) == (60, 80)
    assert "targets" not in sample and sample["image_id"] == 1
