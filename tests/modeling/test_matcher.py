"""The assignment is the best of all, by costs computed otherwise and tried out one by one."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou

from detrex.modeling import GridPoints, HungarianMatcher
from detrex.modeling.supervision import Part
from detrex.structures import BatchTargets, PackedMasks, Prediction

WEIGHTS = dict(class_cost=4.0, box_cost=5.0, giou_cost=2.0, mask_cost=5.0, dice_cost=3.0)


def points_of_masks(logits, truth, side):
    centre = (torch.arange(side) + 0.5) / side * 2 - 1
    grid = torch.stack(torch.meshgrid(centre, centre, indexing="ij")[::-1], -1)[None]
    both = (
        F.grid_sample(m[None, None].float(), grid, align_corners=False).flatten() for m in (logits, truth)
    )
    return tuple(both)


def cost_of_pair(prediction, image, query, pixels, targets, obj, side):
    """The paper's terms, for one query and one object."""
    p = prediction.logits[image, query, targets.labels[obj]].sigmoid()
    focal = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
    box, truth = prediction.boxes[image, query], targets.boxes[obj]
    corners = [box_convert(b[None], "cxcywh", "xyxy") for b in (box, truth)]
    cost = 4 * focal + 5 * (box - truth).abs().sum() - 2 * generalized_box_iou(*corners)[0, 0]
    if pixels is None:
        return cost.item()
    mask = torch.einsum("d,dhw->hw", prediction.mask_embed[image, query], pixels[image])
    logits, inside = points_of_masks(mask, targets.masks.unpack()[obj], side)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * inside).sum() + 1) / (probability.sum() + inside.sum() + 1)
    return (cost + 5 * F.binary_cross_entropy_with_logits(logits, inside) + 3 * dice).item()


def best_by_trying(cost):
    """Least total over all ways to give every object (row) its own query, or every query its own object."""
    objects, queries = len(cost), len(cost[0])
    if objects <= queries:
        ways = (list(enumerate(p)) for p in permutations(range(queries), objects))
    else:
        ways = ([(o, q) for q, o in enumerate(p)] for p in permutations(range(objects), queries))
    return min(ways, key=lambda way: sum(cost[o][q] for o, q in way))


def whole(*predictions):
    """Predictions as parts matched one to one."""
    return [Part(f"_{i}", p) for i, p in enumerate(predictions)]


def pairs(matches, part=0, image=0):
    chosen = (matches.part == part) & (matches.image == image)
    return set(zip(matches.object[chosen].tolist(), matches.query[chosen].tolist(), strict=True))


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_no_other_assignment_costs_less(collate, random_prediction, masks, seed):
    torch.manual_seed(seed)
    targets = collate([0, 1, 2], [], [3, 3])
    parts = [random_prediction(batch=3, queries=n) for n in (5, 4)]
    pixels = torch.randn(3, 16, 8, 8) if masks else None
    matches = HungarianMatcher(**WEIGHTS, points=GridPoints(36))(whole(*parts), pixels, targets)
    assert len(matches.part) == 2 * len(targets)
    for part, prediction in enumerate(parts):
        first = 0
        for image, count in enumerate(targets.counts):
            cost = [
                [
                    cost_of_pair(prediction, image, q, pixels, targets, first + o, 6)
                    for q in range(prediction.logits.shape[1])
                ]
                for o in range(count)
            ]
            expected = {(first + o, q) for o, q in best_by_trying(cost)} if count else set()
            assert pairs(matches, part, image) == expected
            first += count


def test_parts_are_matched_by_themselves(collate, random_prediction):
    targets = collate([0, 1, 2], [3])
    parts = [random_prediction(), random_prediction(), random_prediction(queries=6)]
    pixels = torch.randn(2, 16, 8, 8)
    matcher = HungarianMatcher(**WEIGHTS, points=GridPoints(36))
    together = matcher(whole(*parts), pixels, targets)
    backwards = matcher(whole(*parts[::-1]), pixels, targets)
    for part in range(3):
        alone = matcher(whole(parts[part]), pixels, targets)
        for image in range(2):
            assert pairs(together, part, image) == pairs(alone, 0, image) == pairs(backwards, 2 - part, image)


def test_with_more_objects_than_queries_every_query_has_one(collate, random_prediction):
    targets = collate([0, 1, 2, 3, 4, 0])
    prediction = random_prediction(batch=1, queries=3)
    pixels = torch.randn(1, 16, 8, 8)
    matches = HungarianMatcher(**WEIGHTS, points=GridPoints(36))(whole(prediction), pixels, targets)
    assert sorted(matches.query.tolist()) == [0, 1, 2]
    assert len(set(matches.object.tolist())) == 3
    cost = [[cost_of_pair(prediction, 0, q, pixels, targets, o, 6) for q in range(3)] for o in range(6)]
    assert pairs(matches) == set(best_by_trying(cost))


def test_without_objects_there_are_no_matches(collate, random_prediction):
    matches = HungarianMatcher()(whole(random_prediction()), torch.randn(2, 16, 8, 8), collate([], []))
    assert all(column.shape == (0,) and column.dtype == torch.int64 for column in vars(matches).values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("field", ["logits", "boxes", "mask_embed"])
def test_predictions_that_are_not_finite_are_matched_all_the_same(collate, random_prediction, value, field):
    prediction = random_prediction()
    getattr(prediction, field)[0, 1:] = value
    getattr(prediction, field)[1] = value
    targets = collate([0, 1, 2], [3, 4])
    matches = HungarianMatcher(points=GridPoints(36))(whole(prediction), torch.randn(2, 16, 8, 8), targets)
    assert sorted(matches.object.tolist()) == [0, 1, 2, 3, 4]
    assert len(pairs(matches, image=0)) == 3 and len(pairs(matches, image=1)) == 2


def moved(targets, which):
    boxes = targets.boxes.clone()
    boxes[which] = torch.rand(int(which.sum()), 4) * 0.3 + 0.1
    return BatchTargets(**{**vars(targets), "boxes": boxes})


def test_boxes_of_stuff_do_not_count_if_so_chosen(collate, random_prediction):
    prediction = random_prediction(batch=1)
    pixels = torch.randn(1, 16, 8, 8)
    things = collate([0, 1, 3, 4], stuff=(3, 4))
    free = HungarianMatcher(**WEIGHTS, points=GridPoints(36), box_stuff=False)
    strict = HungarianMatcher(**WEIGHTS, points=GridPoints(36), box_stuff=True)

    def changed(matcher, which):
        """Whether the matches change where boxes of objects do."""
        before = pairs(matcher(whole(prediction), pixels, things))
        others = (moved(things, which) for _ in range(20))
        return [pairs(matcher(whole(prediction), pixels, t)) != before for t in others]

    assert not any(changed(free, ~things.is_thing))
    assert any(changed(strict, ~things.is_thing))
    assert any(changed(free, things.is_thing))


def test_images_of_stuff_alone_match_by_class_and_mask(collate):
    targets = collate([3, 4], stuff=(3, 4))
    logits = torch.full((1, 4, 5), -5.0)
    logits[0, 2, 3] = logits[0, 1, 4] = 5.0
    prediction = Prediction(logits, torch.rand(1, 4, 4), torch.zeros(1, 4, 16))
    matcher = HungarianMatcher(points=GridPoints(36), box_stuff=False)
    assert pairs(matcher(whole(prediction), torch.randn(1, 16, 8, 8), targets)) == {(0, 2), (1, 1)}


def test_the_dice_cost_prefers_a_missed_small_object_to_one_drowned():
    """By its smoothing: 1 - 1 / 2 for no point of one, 1 - 3 / 38 for all 36 points."""
    masks = torch.zeros(1, 60, 60, dtype=torch.bool)
    masks[0, 10:20, 30:40] = True  # one cell of the grid
    thing = torch.tensor([True])
    frame = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    targets = BatchTargets(
        torch.tensor([0]), frame, PackedMasks.pack([masks], (60, 60)), thing, torch.tensor([0]), [1]
    )
    embed = torch.tensor([[[30.0], [-30.0]]])
    prediction = Prediction(torch.zeros(1, 2, 1), frame.expand(1, 2, 4), embed)
    matcher = HungarianMatcher(
        class_cost=0, box_cost=0, giou_cost=0, mask_cost=0, dice_cost=1, points=GridPoints(36)
    )
    assert pairs(matcher(whole(prediction), torch.ones(1, 1, 60, 60), targets)) == {(0, 1)}
