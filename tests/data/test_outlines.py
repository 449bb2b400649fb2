"""Polygons that are drawn after they have moved."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.transforms import v2

from detrex.data.outlines import Points, draw, visible_boxes


def star(x, y, radius, points=7, seed=0):
    """A polygon with points at random distances from its centre."""
    random = np.random.default_rng(seed)
    angle = np.arange(2 * points) * np.pi / points
    distance = radius * random.uniform(0.2, 1.0, 2 * points)
    return np.stack([x + distance * np.cos(angle), y + distance * np.sin(angle)], 1)


def fine_box(polygon, height, width, scale=40):
    """The box of what is inside the image, from a drawing in so many times more pixels."""
    rle = coco_mask.frPyObjects([(polygon * scale).reshape(-1)], height * scale, width * scale)
    x, y, w, h = (coco_mask.toBbox(rle)[0] / scale).tolist()
    return [x, y, x + w, y + h]


@pytest.mark.parametrize("seed", range(12))
def test_boxes_are_those_of_what_is_inside(seed):
    centre = np.random.default_rng(100 + seed).uniform(-5, 45, 2)
    polygon = star(*centre, 25, seed=seed)
    found = visible_boxes([[polygon]], 30, 40)[0]
    expected = torch.tensor(fine_box(polygon, 30, 40))
    torch.testing.assert_close(found, expected.float(), atol=0.06, rtol=0)


def test_boxes_of_several_polygons_and_of_none():
    square = np.array([[2.0, 3], [6, 3], [6, 8], [2, 8]])
    around = np.array([[-5.0, -5], [90, -5], [90, 90], [-5, 90]])
    objects = [[square], [square, square + 20], [square - 50], [], [around], [square, square - 50]]
    assert visible_boxes(objects, 30, 40).tolist() == [
        [2, 3, 6, 8],
        [2, 3, 26, 28],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 40, 30],
        [2, 3, 6, 8],
    ]


def test_drawn_as_pycocotools_draws():
    objects = [[star(10, 10, 9)], [star(5, 20, 6, seed=1), star(35, 5, 12, seed=2)], []]
    masks = draw(objects, 30, 40)
    assert masks.shape == (3, 30, 40) and masks.dtype == torch.bool and not masks[2].any()
    for mask, polygons in zip(masks, objects[:2], strict=False):
        expected = np.zeros((30, 40), bool)
        for polygon in polygons:
            expected |= coco_mask.decode(coco_mask.frPyObjects([polygon.reshape(-1)], 30, 40)[0]) > 0
        assert np.array_equal(mask.numpy(), expected)


def test_a_flip_moves_points_and_colours_do_not():
    points = Points.on_canvas(torch.tensor([[1.0, 2], [-3, 4]], dtype=torch.float64), (30, 40))
    flipped = v2.RandomHorizontalFlip(1.0)({"points": points})["points"]
    assert flipped.tolist() == [[39, 2], [43, 4]] and flipped.canvas_size == (30, 40)
    twice = v2.RandomHorizontalFlip(1.0)({"points": flipped})["points"]
    assert torch.equal(twice.as_subclass(torch.Tensor), points.as_subclass(torch.Tensor))
    same = v2.ColorJitter(0.5)({"points": points})["points"]
    assert same is points
