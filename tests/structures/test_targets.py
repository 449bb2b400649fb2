"""Targets of an image, of a batch, and instances."""

import numpy as np
import pytest
import torch

from detrex.structures import BatchTargets, Instances, PackedMasks, Prediction, Targets
from detrex.structures.panoptic import ids_from_rgb, rgb_from_ids

CPU = torch.device("cpu")


def targets(boxes, height, width, masks=True):
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool) if masks else None
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        if masks is not None:
            masks[i, y0:y1, x0:x1] = True
    return Targets(
        labels=torch.arange(len(boxes)),
        boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        masks=masks,
        is_thing=torch.arange(len(boxes)) % 2 == 0,
    )


THREE = [(0, 0, 4, 2), (1, 1, 3, 5), (2, 0, 8, 6)]


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_chosen_objects_keep_all_their_fields(index):
    whole = targets(THREE, 6, 8)
    chosen = whole[index]
    order = index if index.dtype == torch.int64 else index.nonzero().flatten()
    assert chosen.labels.tolist() == order.tolist()
    for row, i in enumerate(order.tolist()):
        assert torch.equal(chosen.boxes[row], whole.boxes[i])
        assert torch.equal(chosen.masks[row], whole.masks[i])
        assert chosen.is_thing[row] == whole.is_thing[i]


def test_targets_without_masks_can_be_chosen_and_moved():
    chosen = targets(THREE, 6, 8, masks=False)[torch.tensor([1])].to("cpu")
    assert chosen.masks is None
    assert len(chosen) == 1


def test_empty_targets():
    empty = Targets.empty(5, 7)
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert empty.masks.shape == (0, 5, 7)


def test_collating_normalises_boxes_by_the_padded_size():
    batch = BatchTargets.collate([targets([(2, 3, 10, 9)], 12, 15)], (20, 40), CPU)
    assert batch.boxes.flatten().tolist() == pytest.approx([6 / 40, 6 / 20, 8 / 40, 6 / 20])


def test_collating_keeps_objects_apart_by_image():
    parts = [targets(THREE[:2], 5, 4), Targets.empty(6, 6), targets(THREE, 6, 8)]
    batch = BatchTargets.collate(parts, (8, 8), CPU)
    assert len(batch) == 5
    assert batch.counts == [2, 0, 3]
    assert batch.image.tolist() == [0, 0, 2, 2, 2]
    assert batch.labels.tolist() == [0, 1, 0, 1, 2]
    assert batch.is_thing.tolist() == [True, False, True, False, True]


def test_collating_pads_masks_right_and_below():
    parts = [targets(THREE[:2], 5, 4), targets(THREE, 6, 8)]
    masks = BatchTargets.collate(parts, (8, 10), CPU).masks.unpack()
    assert masks.shape == (5, 8, 10) and masks.dtype == torch.bool
    assert torch.equal(masks[:2, :5, :4], parts[0].masks)
    assert torch.equal(masks[2:, :6, :8], parts[1].masks)
    assert masks.sum() == parts[0].masks.sum() + parts[1].masks.sum()


def test_collating_images_without_any_object():
    batch = BatchTargets.collate([Targets.empty(4, 4), Targets.empty(3, 5)], (4, 5), CPU)
    assert batch.counts == [0, 0]
    assert batch.boxes.shape == (0, 4)
    assert batch.masks.unpack().shape == (0, 4, 5)
    assert batch.image.shape == (0,)


def test_collating_boxes_without_masks():
    assert BatchTargets.collate([targets(THREE, 6, 8, masks=False)], (8, 8), CPU).masks is None


def test_instances_are_chosen_field_by_field():
    found = Instances((4, 5), torch.rand(3, 4), torch.tensor([0.9, 0.5, 0.1]), torch.tensor([2, 0, 1]))
    kept = found[found.scores >= 0.5]
    assert len(kept) == 2 and kept.pred_classes.tolist() == [2, 0]
    assert torch.equal(kept.pred_boxes, found.pred_boxes[:2])
    assert kept.image_size == (4, 5)
    assert kept.has("scores") and not kept.has("pred_masks") and not kept.has("pred_keypoints")


def test_predictions_are_concatenated_and_cut_along_queries():
    a, b = (Prediction(torch.rand(2, n, 3), torch.rand(2, n, 4), torch.rand(2, n, 5)) for n in (4, 6))
    joined = Prediction.concatenate([a, b])
    assert joined.logits.shape == (2, 10, 3)
    for again, before in zip(joined.split([4, 6]), (a, b), strict=True):
        assert torch.equal(again.logits, before.logits) and torch.equal(again.boxes, before.boxes)
        assert torch.equal(again.mask_embed, before.mask_embed)
    without = Prediction.concatenate([Prediction(a.logits, a.boxes), Prediction(b.logits, b.boxes)])
    assert without.mask_embed is None and all(part.mask_embed is None for part in without.split([2, 8]))


def test_mask_logits_are_products_of_embeddings():
    prediction = Prediction(torch.rand(2, 3, 1), torch.rand(2, 3, 4), torch.rand(2, 3, 5))
    pixels = torch.rand(2, 5, 4, 6)
    value = prediction.mask_logits(pixels)
    assert value.shape == (2, 3, 4, 6)
    expected = prediction.mask_embed[1, 2] @ pixels[1, :, 3, 5]
    torch.testing.assert_close(value[1, 2, 3, 5], expected)


def test_segment_ids_in_pixels_of_a_panoptic_file():
    rgb = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [255, 255, 255]]], np.uint8)
    ids = ids_from_rgb(rgb)
    assert ids.tolist() == [[1, 256, 65536, 2**24 - 1]]
    assert np.array_equal(rgb_from_ids(ids), rgb)


@pytest.mark.parametrize("width", range(1, 16))
def test_packed_masks_come_back(width):
    masks = torch.rand(70, 3, width) > 0.5  # more than are packed at one time
    packed = PackedMasks.pack([masks[:4], masks[4:4], masks[4:]], (5, width + 2))
    assert len(packed) == 70 and packed.rows.dtype == torch.uint8
    whole = packed.to(CPU).unpack()
    assert whole.shape == (70, 5, width + 2) and whole.dtype == torch.bool
    assert torch.equal(whole[:, :3, :width], masks) and whole.sum() == masks.sum()


def test_packed_masks_take_a_seventh_of_a_byte_a_pixel():
    packed = PackedMasks.pack([torch.zeros(2, 300, 400, dtype=torch.bool)], (300, 400))
    assert packed.rows.numel() < 2 * 300 * 400 / 6.5


def test_collating_normalises_boxes_by_their_images_if_so_chosen():
    parts = [targets([(2, 3, 10, 9)], 12, 15), Targets.empty(8, 8), targets([(0, 0, 4, 4)], 8, 10)]
    batch = BatchTargets.collate(parts, (20, 40), CPU, box_sizes=[(12, 15), (8, 8), (8, 10)])
    expected = [[6 / 15, 6 / 12, 8 / 15, 6 / 12], [2 / 10, 2 / 8, 4 / 10, 4 / 8]]
    torch.testing.assert_close(batch.boxes, torch.tensor(expected))
