"""The foreground loss (Focus-DETR, arXiv 2307.12612) by hand."""

import math

import pytest
import torch

from detrex.modeling import ForegroundLoss
from detrex.structures import BatchTargets, PaddedImages, Pyramid


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def focal(logit, wanted):
    probability = sigmoid(logit)
    if wanted:
        return 0.25 * (1 - probability) ** 2 * -math.log(probability)
    return 0.75 * probability**2 * -math.log(1 - probability)


def test_tokens_in_a_box_of_the_size_of_their_level_are_foreground():
    """Levels of 4 x 4 and 2 x 2 cells; sizes up to 64 pixels belong to the first, others to the last."""
    torch.manual_seed(0)
    shapes = ((4, 4), (2, 2))
    scores = torch.randn(2, 20)
    memory = Pyramid(torch.zeros(2, 20, 8), shapes).with_scores(scores)
    images = PaddedImages(torch.zeros(2, 3, 128, 128), [(128, 128), (64, 128)])
    corners = torch.tensor([[10.0, 14, 50, 60], [0, 0, 128, 128], [20, 20, 90, 60]])  # the last in image 1
    sizes = torch.tensor([[128.0, 128], [128, 128], [128, 64]]).repeat(1, 2)
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1) / sizes
    targets = BatchTargets(
        torch.zeros(3, dtype=torch.int64), boxes, None, torch.ones(3) > 0, torch.tensor([0, 0, 1]), [2, 1]
    )
    loss = ForegroundLoss((32, 64), weight=1.5)(memory, images, targets)["select_loss"]

    means = []
    for image, objects in enumerate(([0, 1], [2])):
        wanted = []
        for stride, (height, width), (low, high) in zip(
            (32, 64), shapes, ((-1, 64), (64, 999999)), strict=True
        ):
            for row in range(height):
                for column in range(width):
                    x, y = column * stride + stride // 2, row * stride + stride // 2
                    sides = [(x - a, y - b, c - x, d - y) for a, b, c, d in corners[objects].tolist()]
                    wanted.append(any(min(s) > 0 and low < max(s) <= high for s in sides))
        assert 0 < sum(wanted) < 20
        total = sum(focal(score, w) for score, w in zip(scores[image].tolist(), wanted, strict=True))
        means.append(total / sum(wanted))
    assert loss.item() == pytest.approx(1.5 * sum(means) / 2, rel=1e-5)


def test_an_image_without_objects_is_all_background():
    memory = Pyramid(torch.zeros(1, 4, 8), ((2, 2),)).with_scores(torch.zeros(1, 4))
    images = PaddedImages(torch.zeros(1, 3, 64, 64), [(64, 64)])
    nothing = torch.zeros(0, dtype=torch.int64)
    targets = BatchTargets(nothing, torch.zeros(0, 4), None, nothing > 0, nothing, [0])
    loss = ForegroundLoss((32,), weight=1.0)(memory, images, targets)["select_loss"]
    assert loss.item() == pytest.approx(4 * focal(0.0, False), rel=1e-5)
