"""The assignment is the best of all, by costs computed otherwise and tried out one by one."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou

from detrex.modeling import Assignment, GridPoints, Known, Matcher, OneToOne, SoftmaxScore
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


def pairs(matches, stage=0, image=0):
    """(object, query) of the matches of a prediction and an image."""
    chosen = (matches.stage == stage) & (matches.image == image)
    return set(zip(matches.object[chosen].tolist(), matches.query[chosen].tolist(), strict=True))


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_no_other_assignment_costs_less(collate, random_prediction, supervise, masks, seed):
    torch.manual_seed(seed)
    targets = collate([0, 1, 2], [], [3, 3])
    predictions = [random_prediction(batch=3, queries=n) for n in (5, 4)]
    pixels = torch.randn(3, 16, 8, 8) if masks else None
    matches = Matcher(**WEIGHTS, points=GridPoints(36))(supervise(*predictions), pixels, targets)
    assert len(matches.stage) == 2 * len(targets)
    for stage, prediction in enumerate(predictions):
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
            assert pairs(matches, stage, image) == expected
            first += count


def test_predictions_are_matched_by_themselves(collate, random_prediction, supervise):
    targets = collate([0, 1, 2], [3])
    predictions = [random_prediction(), random_prediction(), random_prediction(queries=6)]
    pixels = torch.randn(2, 16, 8, 8)
    matcher = Matcher(**WEIGHTS, points=GridPoints(36))
    together = matcher(supervise(*predictions), pixels, targets)
    backwards = matcher(supervise(*predictions[::-1]), pixels, targets)
    for stage in range(3):
        alone = matcher(supervise(predictions[stage]), pixels, targets)
        for image in range(2):
            assert (
                pairs(together, stage, image) == pairs(alone, 0, image) == pairs(backwards, 2 - stage, image)
            )


def test_with_more_objects_than_queries_every_query_has_one(collate, random_prediction, supervise):
    targets = collate([0, 1, 2, 3, 4, 0])
    prediction = random_prediction(batch=1, queries=3)
    pixels = torch.randn(1, 16, 8, 8)
    matches = Matcher(**WEIGHTS, points=GridPoints(36))(supervise(prediction), pixels, targets)
    assert sorted(matches.query.tolist()) == [0, 1, 2]
    assert len(set(matches.object.tolist())) == 3
    cost = [[cost_of_pair(prediction, 0, q, pixels, targets, o, 6) for q in range(3)] for o in range(6)]
    assert pairs(matches) == set(best_by_trying(cost))


def test_without_objects_there_are_no_matches(collate, random_prediction, supervise):
    matches = Matcher()(supervise(random_prediction()), torch.randn(2, 16, 8, 8), collate([], []))
    assert all(column.shape == (0,) and column.dtype == torch.int64 for column in vars(matches).values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("field", ["logits", "boxes", "mask_embed"])
def test_predictions_that_are_not_finite_are_matched_all_the_same(
    collate, random_prediction, supervise, value, field
):
    prediction = random_prediction()
    getattr(prediction, field)[0, 1:] = value
    getattr(prediction, field)[1] = value
    targets = collate([0, 1, 2], [3, 4])
    matcher = Matcher(**WEIGHTS, points=GridPoints(36))
    matches = matcher(supervise(prediction), torch.randn(2, 16, 8, 8), targets)
    assert sorted(matches.object.tolist()) == [0, 1, 2, 3, 4]
    assert len(pairs(matches, image=0)) == 3 and len(pairs(matches, image=1)) == 2


def moved(targets, which):
    boxes = targets.boxes.clone()
    boxes[which] = torch.rand(int(which.sum()), 4) * 0.3 + 0.1
    return BatchTargets(**{**vars(targets), "boxes": boxes})


def test_boxes_of_stuff_do_not_count_if_so_chosen(collate, random_prediction, supervise):
    prediction = random_prediction(batch=1)
    pixels = torch.randn(1, 16, 8, 8)
    things = collate([0, 1, 3, 4], stuff=(3, 4))
    free = Matcher(**WEIGHTS, points=GridPoints(36), box_stuff=False)
    strict = Matcher(**WEIGHTS, points=GridPoints(36), box_stuff=True)

    def changed(matcher, which):
        """Whether the matches change where boxes of objects do."""
        before = pairs(matcher(supervise(prediction), pixels, things))
        others = (moved(things, which) for _ in range(20))
        return [pairs(matcher(supervise(prediction), pixels, t)) != before for t in others]

    assert not any(changed(free, ~things.is_thing))
    assert any(changed(strict, ~things.is_thing))
    assert any(changed(free, things.is_thing))


def test_images_of_stuff_alone_match_by_class_and_mask(collate, supervise):
    targets = collate([3, 4], stuff=(3, 4))
    logits = torch.full((1, 4, 5), -5.0)
    logits[0, 2, 3] = logits[0, 1, 4] = 5.0
    prediction = Prediction(logits, torch.rand(1, 4, 4), torch.zeros(1, 4, 16))
    matcher = Matcher(**WEIGHTS, points=GridPoints(36), box_stuff=False)
    assert pairs(matcher(supervise(prediction), torch.randn(1, 16, 8, 8), targets)) == {(0, 2), (1, 1)}


def test_the_dice_cost_prefers_a_missed_small_object_to_one_drowned(supervise):
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
    matcher = Matcher(class_cost=0, box_cost=0, giou_cost=0, mask_cost=0, dice_cost=1, points=GridPoints(36))
    assert pairs(matcher(supervise(prediction), torch.ones(1, 1, 60, 60), targets)) == {(0, 1)}


def test_objects_of_class_agnostic_predictions_have_the_first_class(collate, random_boxes, supervise):
    targets = collate([0, 1, 2])
    matcher = Matcher(box_cost=0, giou_cost=0)
    of_class, agnostic = random_boxes(batch=1), random_boxes(batch=1, classes=1)
    agnostic.logits = torch.cat([agnostic.logits, torch.randn(1, 10, 4)], -1)
    both = supervise(of_class) + supervise(agnostic, assignment=OneToOne(class_agnostic=True))
    matches = matcher(both, None, targets)
    assert pairs(matches) == pairs(matcher(supervise(of_class), None, targets))
    # All objects cost the same, so the queries that are surest of the first class have them.
    best = agnostic.logits[0, :, 0].topk(3).indices
    assert {query for _, query in pairs(matches, stage=1)} == set(best.tolist())


@pytest.mark.parametrize("focal_cost", [False, True])
def test_the_cost_of_softmax_classes(collate, random_boxes, supervise, focal_cost):
    targets, prediction = collate([0, 1, 2]), random_boxes(batch=1, queries=5, classes=6)
    score = SoftmaxScore(focal_cost=focal_cost)
    matcher = Matcher(score, box_cost=0, giou_cost=0)
    cost = score.cost(prediction.logits[0], targets.labels.expand(5, -1)).T.tolist()
    assert pairs(matcher(supervise(prediction), None, targets)) == set(best_by_trying(cost))


class AsItIs(Assignment):
    """Notes what it is asked, and gives every object the first query."""

    def __init__(self, needs_cost):
        self.needs_cost, self.asked, self.decided = needs_cost, [], []

    def values(self, cost, reference, truth):
        self.asked.append((cost, reference, truth))
        return truth.boxes.sum(-1).expand(2, -1)

    def pairs(self, values, counts):
        self.decided.append(values)
        return [(torch.zeros(n, dtype=torch.int64), torch.arange(n)) for n in counts]


@pytest.mark.parametrize("needs_cost", [False, True])
def test_what_an_assignment_is_asked(collate, random_boxes, supervise, needs_cost):
    targets, assignment = collate([0, 1], [], [2, 3, 4]), AsItIs(needs_cost)
    predictions = supervise(*(random_boxes(batch=3, queries=4) for _ in range(3)), assignment=assignment)
    reference = torch.rand(3, 4, 4)
    for prediction in predictions:
        prediction.reference = reference
    matches = Matcher()(predictions, None, targets)
    first = 0
    for image, count in enumerate(targets.counts):
        objects = slice(first, first + count)
        for cost, place, truth in assignment.asked[3 * image : 3 * image + 3]:
            assert (cost.shape == (4, count)) if needs_cost else (cost is None)
            assert torch.equal(place, reference[image])
            assert torch.equal(truth.labels, targets.labels[objects])
            assert torch.equal(truth.boxes, targets.boxes[objects])
        for values in assignment.decided:
            torch.testing.assert_close(values[image], targets.boxes[objects].sum(-1).expand(2, -1))
        for stage in range(3):
            assert pairs(matches, stage, image) == {(obj, 0) for obj in range(objects.start, objects.stop)}
        first += count
    # What does not depend on the predictions is decided once for all of them.
    assert len(assignment.decided) == (3 if needs_cost else 1)


def test_other_references_are_another_decision(collate, random_boxes, supervise):
    targets, assignment = collate([0, 1]), AsItIs(needs_cost=False)
    predictions = supervise(*(random_boxes(batch=1) for _ in range(2)), assignment=assignment)
    for prediction in predictions:
        prediction.reference = torch.rand(1, 10, 4)
    Matcher()(predictions, None, targets)
    assert len(assignment.decided) == 2


def test_predictions_that_need_a_cost_and_others_do_not_disturb_one_another(collate, random_boxes, supervise):
    targets, predictions = collate([0, 1], [2]), [random_boxes(queries=n) for n in (4, 6, 5)]
    known = supervise(predictions[1], assignment=Known(blocks=3, size=2))
    mixed = Matcher()([*supervise(predictions[0]), *known, *supervise(predictions[2])], None, targets)
    alone = Matcher()(supervise(predictions[0], predictions[2]), None, targets)
    for image in range(2):
        assert pairs(mixed, 0, image) == pairs(alone, 0, image)
        assert pairs(mixed, 2, image) == pairs(alone, 1, image)
    assert pairs(mixed, 1, 0) == {(obj, 2 * block + obj) for block in range(3) for obj in range(2)}
    assert pairs(mixed, 1, 1) == {(2, 0), (2, 2), (2, 4)}
