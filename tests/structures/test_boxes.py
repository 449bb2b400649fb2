"""Box geometry against torchvision and hand-computed numbers."""

import pytest
import torch
from torchvision.ops import generalized_box_iou, masks_to_boxes

from detrex.structures import aligned_giou, boxes_from_masks, pairwise_giou


def random_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 10
    return torch.cat([corner, corner + 0.1 + 5 * torch.rand(count, 2, generator=generator)], 1)


def test_pairwise_giou_is_torchvisions():
    a, b = random_boxes(7, 0), random_boxes(5, 1)
    torch.testing.assert_close(pairwise_giou(a, b), generalized_box_iou(a, b), atol=1e-4, rtol=0)


def test_pairwise_giou_takes_leading_dimensions():
    a, b = random_boxes(6, 0).view(2, 3, 4), random_boxes(8, 1).view(2, 4, 4)
    result = pairwise_giou(a, b)
    assert result.shape == (2, 3, 4)
    torch.testing.assert_close(result[1], generalized_box_iou(a[1], b[1]), atol=1e-4, rtol=0)


def test_aligned_giou_is_the_diagonal_of_the_pairwise_one():
    a, b = random_boxes(6, 2), random_boxes(6, 3)
    torch.testing.assert_close(aligned_giou(a, b), generalized_box_iou(a, b).diagonal(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 2, 2], 1.0),
        ([1, 0, 3, 2], 2 / 6),  # the hull is the union
        ([4, 0, 6, 2], -4 / 12),  # apart: 4 of the hull's 12 are in neither
        ([2, 2, 4, 4], -8 / 16),  # touching at a corner
    ],
)
def test_giou_by_hand(other, expected):
    giou = aligned_giou(torch.tensor([0.0, 0, 2, 2]), torch.tensor(other).float())
    assert giou.item() == pytest.approx(expected, abs=1e-5)


def test_degenerate_boxes_have_finite_giou_and_gradients():
    points = torch.zeros(2, 4, requires_grad=True)
    giou = pairwise_giou(points, torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]]))
    giou.sum().backward()
    assert giou.isfinite().all()
    assert points.grad.isfinite().all()


def random_masks(seed=0):
    masks = torch.rand(6, 9, 13, generator=torch.Generator().manual_seed(seed)) > 0.95
    assert masks.flatten(1).any(1).all()
    return masks


def test_inclusive_boxes_are_torchvisions():
    masks = random_masks()
    assert torch.equal(boxes_from_masks(masks, inclusive=True), masks_to_boxes(masks))


def test_exclusive_boxes_reach_one_pixel_further():
    masks = random_masks()
    expected = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    assert torch.equal(boxes_from_masks(masks, inclusive=False), expected)


def test_a_slice_by_an_exclusive_box_holds_the_whole_mask():
    mask = random_masks()[0]
    x0, y0, x1, y1 = boxes_from_masks(mask, inclusive=False).int().tolist()
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()


def test_masks_over_the_whole_frame_and_of_one_pixel():
    masks = torch.zeros(2, 3, 5, dtype=torch.bool)
    masks[0] = True
    masks[1, 2, 4] = True
    assert boxes_from_masks(masks, inclusive=False).tolist() == [[0, 0, 5, 3], [4, 2, 5, 3]]
    assert boxes_from_masks(masks, inclusive=True).tolist() == [[0, 0, 4, 2], [4, 2, 4, 2]]


def test_boxes_of_empty_masks_lie_at_a_corner():
    empty = torch.zeros(1, 3, 5, dtype=torch.bool)
    assert boxes_from_masks(empty, inclusive=False).tolist() == [[0, 0, 0, 0]]
    assert boxes_from_masks(empty, inclusive=True).tolist() == [[5, 3, 5, 3]]


@pytest.mark.parametrize("inclusive", [True, False])
def test_shapes_of_boxes_of_masks(inclusive):
    assert boxes_from_masks(torch.zeros(0, 3, 5, dtype=torch.bool), inclusive=inclusive).shape == (0, 4)
    nested = boxes_from_masks(torch.ones(2, 3, 4, 5, dtype=torch.bool), inclusive=inclusive)
    assert nested.shape == (2, 3, 4)
    assert nested.dtype == torch.float32
