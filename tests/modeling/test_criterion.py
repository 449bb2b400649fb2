"""Which losses there are, what they are worth, and what must not change them."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, box_iou, generalized_box_iou, sigmoid_focal_loss

from detrex.modeling import (
    GridPoints,
    Known,
    Matcher,
    OneToMany,
    OneToOne,
    SetCriterion,
    SigmoidScore,
    SoftmaxScore,
)
from detrex.structures import BatchTargets, PackedMasks, Prediction, Targets

GRID = "model.criterion.points={_target_: detrex.modeling.GridPoints, num_points: 64}"
LEARNED = "model.decoder.query_init={_target_: detrex.modeling.LearnedBoxes, num_queries: 10, hidden_dim: 64}"
TERMS = ("loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice")
CPU = torch.device("cpu")
MB = 2**20
CLASSES = 5


def criterion(box_stuff=True, class_score=None, points=64, memory_limit_mb=2048, **weights):
    """With Mask DINO's weights."""
    shared = dict(
        class_score=class_score,
        points=GridPoints(points),
        box_stuff=box_stuff,
        memory_limit_mb=memory_limit_mb,
    )
    matcher = Matcher(class_cost=4.0, mask_cost=5.0, dice_cost=5.0, **shared)
    return SetCriterion(
        matcher, **shared, **{"class_weight": 4.0, "mask_weight": 5.0, "dice_weight": 5.0, **weights}
    )


def train_step(model, samples):
    losses = model.train()(samples)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("denoising", [None, "initial too", "layers alone"])
@pytest.mark.parametrize("learned", [True, False])
def test_names_of_the_losses(build, make_sample, learned, denoising, initial):
    overrides = [
        f"model.decoder.initial_prediction={str(initial).lower()}",
        *([LEARNED] if learned else []),
        "model.denoising=null"
        if denoising is None
        else f"model.denoising.supervise_initial={str(denoising == 'initial too').lower()}",
    ]
    losses = train_step(build(*overrides), [make_sample()])
    layers = ["_0", "_1", ""] if initial else ["_0", ""]  # two decoder layers
    suffixes = list(layers) if learned else [*layers, "_interm"]
    if denoising is not None:
        unsupervised = 1 if initial and denoising == "layers alone" else 0
        suffixes += [f"_dn{layer}" for layer in layers[unsupervised:]]
    assert sorted(losses) == sorted(term + suffix for term in TERMS for suffix in suffixes)
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(
    ("weight", "term"),
    list(zip(("class", "box", "giou", "mask", "dice"), TERMS, strict=True)),
)
def test_a_weight_of_zero_leaves_a_loss_out(collate, perfect_prediction, supervise, weight, term):
    targets = collate([0, 1], [2])
    prediction, pixels = perfect_prediction(targets)
    losses = criterion(**{f"{weight}_weight": 0.0})(supervise(prediction), pixels, targets)
    assert sorted(losses) == sorted(set(TERMS) - {term})


def test_losses_are_proportional_to_their_weights(collate, random_prediction, supervise):
    targets, pixels = collate([0, 1], [2]), torch.randn(2, 16, 16, 16)
    predictions = supervise(random_prediction())
    doubled = dict(class_weight=8.0, box_weight=10.0, giou_weight=4.0, mask_weight=10.0, dice_weight=10.0)
    once, twice = (criterion(**weights)(predictions, pixels, targets) for weights in ({}, doubled))
    for term in TERMS:
        torch.testing.assert_close(twice[term], 2 * once[term])


def rectangles(labels, boxes):
    """Targets of one image of 64 x 64 pixels."""
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Targets(torch.tensor(labels), torch.tensor(boxes).float(), masks, torch.ones(len(boxes)).bool())


def test_right_predictions_cost_next_to_nothing_and_wrong_ones_much(perfect_prediction, supervise):
    # Edges at multiples of 8 pixels lie between the points of the grid.
    rows = [
        rectangles([0, 1, 2], [(0, 0, 16, 24), (8, 16, 40, 64), (56, 0, 64, 8)]),
        rectangles([3, 4], [(0, 0, 64, 64), (24, 8, 32, 56)]),
    ]
    targets = BatchTargets.collate(rows, (64, 64), CPU)
    prediction, pixels = perfect_prediction(targets)
    right = criterion()(supervise(prediction), pixels, targets)
    assert all(value < 1e-3 for value in right.values())
    prediction.logits.neg_()
    prediction.mask_embed.neg_()
    prediction.boxes.copy_(1 - prediction.boxes)
    wrong = criterion()(supervise(prediction), pixels, targets)
    assert all(value > 0.5 for value in wrong.values())


def test_losses_by_hand(supervise):
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[:, :, :4] = True
    truth = Targets(torch.tensor([1]), torch.tensor([[0.0, 0, 4, 8]]), masks, torch.tensor([True]))
    targets = BatchTargets.collate([truth], (8, 8), CPU)
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0]]])
    prediction = Prediction(torch.zeros(1, 1, 2), boxes, torch.zeros(1, 1, 3))
    losses = criterion()(supervise(prediction), torch.randn(1, 3, 2, 2), targets)
    focal = (0.25 + 0.75) * 0.5**2 * math.log(2)
    expected = {
        "loss_ce": 4 * focal,
        "loss_bbox": 5 * (0.25 + 0.5),
        "loss_giou": 2 * (1 - 0.5),
        "loss_mask": 5 * math.log(2),
        "loss_dice": 5 * (1 - (2 * 16 + 1) / (32 + 32 + 1)),  # probabilities of 1/2; 32 of 64 points inside
    }
    for term, value in expected.items():
        assert losses[term].item() == pytest.approx(value, rel=1e-4)


def test_the_order_of_queries_and_of_objects_does_not_matter(make_targets, random_prediction, supervise):
    rows = [make_targets([0, 1, 2, 3], seed=0), make_targets([4, 4, 1], seed=1)]
    prediction, pixels = random_prediction(), torch.randn(2, 16, 16, 16)
    expected = criterion()(supervise(prediction), pixels, BatchTargets.collate(rows, (64, 64), CPU))
    order = torch.randperm(10)
    shuffled = Prediction(*(value[:, order] for value in vars(prediction).values()))
    other_rows = [row[torch.randperm(len(row))] for row in rows]
    other = criterion()(supervise(shuffled), pixels, BatchTargets.collate(other_rows, (64, 64), CPU))
    for term in TERMS:
        torch.testing.assert_close(other[term], expected[term])


@pytest.mark.parametrize("class_score", [SigmoidScore(), SoftmaxScore()])
def test_a_batch_twice_as_large_has_the_same_losses(make_targets, random_prediction, supervise, class_score):
    rows = [make_targets([0, 1, 2, 3], seed=0), make_targets([4], seed=1)]
    p = random_prediction(classes=class_score.num_logits(CLASSES))
    pixels = torch.randn(2, 16, 16, 16)
    double = Prediction(*(value.repeat(2, 1, 1) for value in vars(p).values()))
    module = criterion(class_score=class_score)
    once = module(supervise(p), pixels, BatchTargets.collate(rows, (64, 64), CPU))
    targets = BatchTargets.collate(rows * 2, (64, 64), CPU)
    twice = module(supervise(double), pixels.repeat(2, 1, 1, 1), targets)
    for term in TERMS:
        torch.testing.assert_close(twice[term], once[term])


def test_denoising_losses_are_means_over_groups(build, make_sample):
    """Without noise all groups are alike, so their number changes nothing."""
    quiet = ["model.denoising.label_noise=0.0", "model.denoising.box_noise=0.0", GRID]
    samples = [make_sample([0, 1, 2])]
    few = train_step(build(*quiet, "model.denoising.num_queries=3"), samples)
    many = train_step(build(*quiet, "model.denoising.num_queries=12"), samples)
    for name in few:
        torch.testing.assert_close(few[name], many[name], atol=1e-4, rtol=1e-4)


def test_boxes_of_stuff_cost_nothing_if_so_chosen(collate, random_prediction, supervise):
    targets = collate([0, 1, 3], [4], stuff=(3, 4))
    predictions, pixels = supervise(random_prediction()), torch.randn(2, 16, 16, 16)
    boxes = torch.where(targets.is_thing[:, None], targets.boxes, torch.rand(4, 4) * 0.2 + 0.1)
    changed = BatchTargets(**{**vars(targets), "boxes": boxes})
    free, strict = (
        [criterion(box_stuff=stuff)(predictions, pixels, t) for t in (targets, changed)]
        for stuff in (False, True)
    )
    for term in TERMS:
        torch.testing.assert_close(free[1][term], free[0][term])
    assert strict[1]["loss_bbox"] != strict[0]["loss_bbox"]
    assert 0 < free[0]["loss_bbox"] < strict[0]["loss_bbox"]


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("labels", [[[], []], [[], [0, 3]], [[0, 1, 2, 3, 4] * 3, [1]]])
def test_every_parameter_has_a_gradient(build, make_sample, labels, learned, softmax):
    """Without objects, with few and with more than queries: distributed training waits for all gradients."""
    score = "model.class_score={_target_: detrex.modeling.SoftmaxScore}"
    model = build(*([LEARNED] if learned else []), *([score] if softmax else []))
    losses = train_step(model, [make_sample(row, seed=i) for i, row in enumerate(labels)])
    assert all(loss.isfinite() for loss in losses.values())
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_boxes_without_masks_train_boxes_and_classes(build, make_sample):
    sample = make_sample()
    sample["targets"].masks = None
    model = build("model.decoder.query_init.box_init=null")
    losses = train_step(model, [sample, make_sample(seed=1)])
    assert {name.split("_")[1] for name in losses} == {"ce", "bbox", "giou"}
    assert all(loss.isfinite() for loss in losses.values())


def test_a_tiny_model_learns_an_image_by_heart(build, make_sample):
    model = build(GRID, "model.denoising.box_noise=0.2").train()
    samples = [make_sample([0, 3], seed=2)]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    names = [*TERMS, "loss_mask_interm", "loss_ce_dn"]
    first = None
    for _ in range(40):
        losses = model(samples)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        first = first or {name: losses[name].item() for name in names}
    assert all(losses[name].item() < 0.6 * first[name] for name in names)


def boxes_only(targets):
    return replace(targets, masks=None)


def costs_by_hand(prediction, image, targets, objects, softmax):
    """(N, Q) costs with weights 1 or 2 (focal) of the class, 5 and 2."""
    p = prediction.logits[image].softmax(-1) if softmax else prediction.logits[image].sigmoid()
    if softmax:
        classes = -p
    else:
        classes = 2 * (-0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log())
    box, truth = prediction.boxes[image], targets.boxes[objects]
    corners = [box_convert(b, "cxcywh", "xyxy") for b in (truth, box)]
    distance = (truth[:, None] - box[None]).abs().sum(-1)
    return classes.T[targets.labels[objects]] + 5 * distance - 2 * generalized_box_iou(*corners)


def matched_by_hand(prediction, targets, softmax=False):
    """(image, query, object) of the cheapest way to give every object a query of its own."""
    rows, first = [], 0
    for image, count in enumerate(targets.counts):
        objects = list(range(first, first + count))
        cost = costs_by_hand(prediction, image, targets, objects, softmax)
        ways = permutations(range(prediction.logits.shape[1]), count)
        best = min(ways, key=lambda way, c=cost: sum(c[i, q].item() for i, q in enumerate(way)))
        rows += [(image, q, o) for o, q in zip(objects, best, strict=True)]
        first += count
    return rows


def box_losses_by_hand(prediction, targets, rows):
    image, query, obj = (list(column) for column in zip(*rows, strict=True))
    box, truth = prediction.boxes[image, query], targets.boxes[obj]
    giou = generalized_box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in (box, truth))).diag()
    return 5 * (box - truth).abs().sum() / len(targets), 2 * (1 - giou).sum() / len(targets)


def test_detr(collate, random_boxes, supervise):
    """Softmax classes with background, in the loss and in the cost."""
    targets = boxes_only(collate([0, 1, 2], [4]))
    prediction = random_boxes(queries=6, classes=CLASSES + 1)
    score = SoftmaxScore()
    losses = SetCriterion(Matcher(score, class_cost=1.0), score)(supervise(prediction), None, targets)
    rows = matched_by_hand(prediction, targets, softmax=True)
    labels = torch.full((2, 6), CLASSES)
    for image, query, obj in rows:
        labels[image, query] = targets.labels[obj]
    weight = torch.tensor([1.0] * CLASSES + [0.1])
    expected = F.cross_entropy(prediction.logits.flatten(0, 1), labels.flatten(), weight)
    box, giou = box_losses_by_hand(prediction, targets, rows)
    assert sorted(losses) == ["loss_bbox", "loss_ce", "loss_giou"]
    torch.testing.assert_close(losses["loss_ce"], expected)
    torch.testing.assert_close(losses["loss_bbox"], box)
    torch.testing.assert_close(losses["loss_giou"], giou, atol=1e-4, rtol=1e-4)


def focal_by_hand(prediction, targets, rows):
    truth = torch.zeros_like(prediction.logits)
    for image, query, obj in rows:
        truth[image, query, targets.labels[obj]] = 1
    return sigmoid_focal_loss(prediction.logits, truth, 0.25, 2.0).sum()


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_two_stage_proposals(collate, random_boxes, supervise, class_agnostic):
    """Deformable DETR tells proposals from background alone, DINO their classes too."""
    targets = boxes_only(collate([0, 1, 2], [4]))
    layer, proposals = random_boxes(queries=6), random_boxes(queries=7)
    assignment = OneToOne(class_agnostic=class_agnostic)
    both = [*supervise(layer), *supervise(proposals, assignment=assignment, suffix="_interm")]
    losses = SetCriterion()(both, None, targets)
    for suffix, prediction in (("", layer), ("_interm", proposals)):
        labels = torch.zeros_like(targets.labels) if suffix and class_agnostic else targets.labels
        relabelled = replace(targets, labels=labels)
        rows = matched_by_hand(prediction, relabelled)
        expected = focal_by_hand(prediction, relabelled, rows) / 4
        torch.testing.assert_close(losses["loss_ce" + suffix], expected)
        torch.testing.assert_close(
            losses["loss_bbox" + suffix], box_losses_by_hand(prediction, relabelled, rows)[0]
        )


def test_contrastive_denoising(collate, random_boxes, supervise):
    """DINO: the first half of a group is objects, the second background; divided by objects times groups."""
    targets = boxes_only(collate([0, 1], [4]))
    groups, size = 3, 4
    noised = random_boxes(queries=groups * size)
    both = [
        *supervise(random_boxes(queries=6)),
        *supervise(noised, assignment=Known(groups, size), suffix="_dn"),
    ]
    losses = SetCriterion()(both, None, targets)
    pairs = [(0, 0, 0), (0, 1, 1), (1, 0, 2)]
    rows = [(image, group * size + j, obj) for group in range(groups) for image, j, obj in pairs]
    torch.testing.assert_close(losses["loss_ce_dn"], focal_by_hand(noised, targets, rows) / 3 / groups)
    box, giou = box_losses_by_hand(noised, targets, rows)
    torch.testing.assert_close(losses["loss_bbox_dn"], box / groups)
    torch.testing.assert_close(losses["loss_giou_dn"], giou / groups, atol=1e-4, rtol=1e-4)


def test_groups_of_queries_are_matched_by_themselves(collate, random_boxes, supervise):
    """Group DETR: the losses are those of models with the queries of one group, averaged."""
    targets = boxes_only(collate([0, 1, 2], [4], []))
    groups = [random_boxes(queries=4, batch=3) for _ in range(3)]
    joined = supervise(Prediction.concatenate(groups), assignment=OneToOne(blocks=3))
    together = SetCriterion()(joined, None, targets)
    alone = [SetCriterion()(supervise(group), None, targets) for group in groups]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(losses[name] for losses in alone) / 3)


def repeated(targets, times):
    """Targets with every object of every image ``times`` over."""
    order = torch.cat([index.repeat(times) for index in torch.arange(len(targets)).split(targets.counts)])
    fields = {k: getattr(targets, k)[order] for k in ("labels", "boxes", "is_thing", "image")}
    return BatchTargets(**fields, masks=None, counts=[n * times for n in targets.counts])


def test_one_to_many(collate, random_boxes, supervise):
    """H-DETR: besides queries matched one to one, others that are matched one to two."""
    targets = boxes_only(collate([0, 1, 2], [4], []))
    one, many = random_boxes(batch=3, queries=6), random_boxes(queries=9, batch=3)
    both = [*supervise(one), *supervise(many, assignment=OneToMany(2), suffix="_many")]
    together = SetCriterion()(both, None, targets)
    alone = SetCriterion()(supervise(one), None, targets)
    repeatedly = SetCriterion()(supervise(many), None, repeated(targets, 2))
    for name in ("loss_ce", "loss_bbox", "loss_giou"):
        torch.testing.assert_close(together[name], alone[name])
        torch.testing.assert_close(together[f"{name}_many"], repeatedly[name])


def test_losses_of_one_name_are_added(collate, random_boxes, supervise):
    targets = boxes_only(collate([0, 1, 2], [4]))
    groups = supervise(random_boxes()) + supervise(random_boxes(queries=4), assignment=OneToMany(2))
    together = SetCriterion()(groups, None, targets)
    alone = [SetCriterion()([group], None, targets) for group in groups]
    for name, value in together.items():
        torch.testing.assert_close(value, alone[0][name] + alone[1][name])


class QualityScore(SigmoidScore):
    """Notes what it is told of pairs, and weighs each by its IoU."""

    uses_quality = True

    def pair_weights(self, logits, quality, same_object):
        self.pairs = logits, quality, same_object
        return quality

    def loss(self, logits, targets):
        self.targets = targets
        return super().loss(logits, targets)


def test_scores_that_ask_how_well_boxes_fit(collate, random_boxes, supervise):
    targets = boxes_only(collate([0, 1, 2], [4]))
    predictions = [random_boxes(queries=8), random_boxes(queries=6)]
    score = QualityScore()
    assignments = OneToOne(blocks=2), OneToMany(2, class_agnostic=True)
    both = [
        *supervise(predictions[0], assignment=assignments[0]),
        *supervise(predictions[1], assignment=assignments[1], suffix="_many"),
    ]
    losses = SetCriterion(Matcher(), score)(both, None, targets)
    logits, quality, same_object = score.pairs
    matches = Matcher()(both, None, targets).ordered_by_object()
    assert len(matches.query) == len(quality) == 2 * 4 + 2 * 4
    told, distances, owners = {}, {"": 0.0, "_many": 0.0}, []
    for i, (stage, image, query, obj) in enumerate(zip(*vars(matches).values(), strict=True)):
        box, truth = (
            box_convert(b, "cxcywh", "xyxy")
            for b in (predictions[stage].boxes[image, query], targets.boxes[obj])
        )
        iou = box_iou(box[None], truth[None])[0, 0]
        torch.testing.assert_close(quality[i], iou, atol=1e-5, rtol=1e-5)
        label = 0 if stage == 1 else targets.labels[obj]
        assert logits[i] == predictions[stage].logits[image, query, label]
        # Queries of one prediction and block that answer for one object are told as such.
        owners.append((int(stage), int(obj), int(query) // 4 if stage == 0 else 0))
        told[int(image), int(query) + 8 * int(stage)] = iou, label
        distances["_many" if stage else ""] += (
            iou * (predictions[stage].boxes[image, query] - targets.boxes[obj]).abs().sum()
        )
    same = [[a == b for b in owners] for a in owners]
    assert torch.equal(same_object[:, None] == same_object, torch.tensor(same))
    for image in range(2):
        for query in range(14):
            iou, label = told.get((image, query), (torch.tensor(0.0), CLASSES))
            for values in (score.targets.quality, score.targets.weight):
                torch.testing.assert_close(values[image, query], iou, atol=1e-5, rtol=1e-5)
            assert score.targets.labels[image, query] == label
    for suffix, value in distances.items():
        torch.testing.assert_close(losses[f"loss_bbox{suffix}"], 5 * value / (4 * 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_under_autocast_are_those_in_float32(collate, random_prediction, supervise, dtype):
    """Predictions come in half precision; what is computed from them does not stay in it."""
    targets = collate([0, 1, 2], [4])
    half = Prediction(*(t.to(dtype) for t in vars(random_prediction()).values()))
    whole = Prediction(*(t.float() for t in vars(half).values()))
    pixels = torch.randn(2, 16, 16, 16).to(dtype)
    module = criterion(points=1024)
    expected = module(supervise(whole), pixels.float(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        losses = module(supervise(half), pixels, targets)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name])


def crowd(limit, supervise, peak_memory, objects=500, queries=100):
    """Losses of three layers for very many objects, with gradients, and the peak of their memory."""
    random = torch.Generator().manual_seed(0)
    masks = torch.rand(objects, 64, 64, generator=random) > 0.5
    boxes = 0.2 + 0.3 * torch.rand(objects, 4, generator=random)
    targets = BatchTargets(
        torch.randint(0, CLASSES, (objects,), generator=random),
        boxes,
        PackedMasks.pack([masks], (64, 64)),
        torch.ones(objects, dtype=torch.bool),
        torch.zeros(objects, dtype=torch.int64),
        [objects],
    )
    leaves, layers = [], []
    for _ in range(3):
        boxes = 0.2 + 0.3 * torch.rand(1, queries, 4, generator=random)
        logits, embed = (torch.randn(1, queries, n, generator=random) for n in (CLASSES, 8))
        leaves += [t.requires_grad_() for t in (logits, boxes, embed)]
        layers.append(Prediction(*leaves[-3:]))
    pixels = torch.randn(1, 8, 16, 16, generator=random).requires_grad_()
    module = criterion(points=1024, memory_limit_mb=limit)
    with peak_memory() as memory:
        losses = module(supervise(*layers), pixels, targets)
        sum(losses.values()).backward()
    return losses, [t.grad for t in (*leaves, pixels)], memory.peak


def test_a_crowded_image_trains_in_a_bounded_memory(supervise, peak_memory):
    losses, gradients, free = crowd(2048, supervise, peak_memory)
    bounded, same_gradients, peak = crowd(2, supervise, peak_memory)
    for name, value in losses.items():
        torch.testing.assert_close(bounded[name], value)
    for ours, expected in zip(same_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, expected)
    # Besides what the limit is for: truth at the points, and the costs themselves, twice for their transfer.
    given = 4 * (500 * 1024 + 2 * 300 * 500)
    assert peak < 2 * MB + 1.2 * given < free
