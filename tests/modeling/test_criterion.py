"""Which losses there are, what they are worth, and what must not change them."""

import math

import pytest
import torch

from detrex.modeling import (
    DecoderOutput,
    FocalClassLoss,
    GridPoints,
    HungarianMatcher,
    SetCriterion,
    SoftmaxClassLoss,
)
from detrex.structures import BatchTargets, Prediction, Targets

GRID = "model.criterion.points={_target_: detrex.modeling.GridPoints, num_points: 64}"
LEARNED = "model.decoder.query_init={_target_: detrex.modeling.LearnedBoxes, num_queries: 10, hidden_dim: 64}"
TERMS = ("loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice")
CPU = torch.device("cpu")


def criterion(box_stuff=True, class_loss=None, **weights):
    points = GridPoints(64)
    matcher = HungarianMatcher(points=points, box_stuff=box_stuff)
    return SetCriterion(
        matcher, class_loss or FocalClassLoss(), points=points, box_stuff=box_stuff, **weights
    )


def train_step(model, samples):
    losses = model.train()(samples)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("initial_denoising", [True, False])
@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("denoising", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_names_of_the_losses(build, make_sample, learned, denoising, initial, initial_denoising):
    overrides = [
        f"model.decoder.initial_prediction={str(initial).lower()}",
        f"model.criterion.initial_denoising={str(initial_denoising).lower()}",
        *([LEARNED] if learned else []),
        *([] if denoising else ["model.denoising=null"]),
    ]
    losses = train_step(build(*overrides), [make_sample()])
    layers = ["_0", "_1", ""] if initial else ["_0", ""]  # two decoder layers
    suffixes = list(layers) if learned else [*layers, "_interm"]
    if denoising:
        unsupervised = 1 if initial and not initial_denoising else 0
        suffixes += [f"_dn{layer}" for layer in layers[unsupervised:]]
    assert sorted(losses) == sorted(term + suffix for term in TERMS for suffix in suffixes)
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(
    ("weight", "term"),
    [("box", "loss_bbox"), ("giou", "loss_giou"), ("mask", "loss_mask"), ("dice", "loss_dice")],
)
def test_a_weight_of_zero_leaves_a_loss_out(collate, perfect_output, weight, term):
    targets = collate([0, 1], [2])
    losses = criterion(**{f"{weight}_weight": 0.0})(perfect_output(targets), targets)
    assert sorted(losses) == sorted(set(TERMS) - {term})


def test_losses_are_proportional_to_their_weights(collate, random_prediction):
    targets = collate([0, 1], [2])
    output = DecoderOutput([random_prediction()], [], None, torch.randn(2, 16, 16, 16), None)
    once, twice = criterion(), criterion(class_loss=FocalClassLoss(weight=8.0))
    twice.box_weight, twice.giou_weight, twice.mask_weight, twice.dice_weight = 10.0, 4.0, 10.0, 10.0
    first, second = once(output, targets), twice(output, targets)
    for term in TERMS:
        torch.testing.assert_close(second[term], 2 * first[term])


def rectangles(labels, boxes):
    """Targets of one image of 64 x 64 pixels."""
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Targets(torch.tensor(labels), torch.tensor(boxes).float(), masks, torch.ones(len(boxes)).bool())


def test_right_predictions_cost_next_to_nothing_and_wrong_ones_much(perfect_output):
    # Edges at multiples of 8 pixels lie between the points of the grid.
    rows = [
        rectangles([0, 1, 2], [(0, 0, 16, 24), (8, 16, 40, 64), (56, 0, 64, 8)]),
        rectangles([3, 4], [(0, 0, 64, 64), (24, 8, 32, 56)]),
    ]
    targets = BatchTargets.collate(rows, (64, 64), CPU)
    output = perfect_output(targets)
    right = criterion()(output, targets)
    assert all(value < 1e-3 for value in right.values())
    output.layers[0].logits.neg_()
    output.layers[0].mask_embed.neg_()
    output.layers[0].boxes.copy_(1 - output.layers[0].boxes)
    wrong = criterion()(output, targets)
    assert all(value > 0.5 for value in wrong.values())


def test_losses_by_hand():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[:, :, :4] = True
    truth = Targets(torch.tensor([1]), torch.tensor([[0.0, 0, 4, 8]]), masks, torch.tensor([True]))
    targets = BatchTargets.collate([truth], (8, 8), CPU)
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0]]])
    prediction = Prediction(torch.zeros(1, 1, 2), boxes, torch.zeros(1, 1, 3))
    output = DecoderOutput([prediction], [], None, torch.randn(1, 3, 2, 2), None)
    losses = criterion()(output, targets)
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


def shuffled_queries(output, order):
    p = output.layers[0]
    return DecoderOutput(
        [Prediction(p.logits[:, order], p.boxes[:, order], p.mask_embed[:, order])],
        [],
        None,
        output.pixel_embed,
        None,
    )


def test_the_order_of_queries_and_of_objects_does_not_matter(make_targets, random_prediction):
    rows = [make_targets([0, 1, 2, 3], seed=0), make_targets([4, 4, 1], seed=1)]
    output = DecoderOutput([random_prediction()], [], None, torch.randn(2, 16, 16, 16), None)
    expected = criterion()(output, BatchTargets.collate(rows, (64, 64), CPU))
    other_rows = [row[torch.randperm(len(row))] for row in rows]
    other = criterion()(
        shuffled_queries(output, torch.randperm(10)), BatchTargets.collate(other_rows, (64, 64), CPU)
    )
    for term in TERMS:
        torch.testing.assert_close(other[term], expected[term])


@pytest.mark.parametrize("class_loss", [FocalClassLoss(), SoftmaxClassLoss()])
def test_a_batch_twice_as_large_has_the_same_losses(make_targets, random_prediction, class_loss):
    rows = [make_targets([0, 1, 2, 3], seed=0), make_targets([4], seed=1)]
    p, pixels = random_prediction(classes=5 + class_loss.no_object_class), torch.randn(2, 16, 16, 16)
    double = Prediction(p.logits.repeat(2, 1, 1), p.boxes.repeat(2, 1, 1), p.mask_embed.repeat(2, 1, 1))
    module = criterion(class_loss=class_loss)
    once = module(DecoderOutput([p], [], None, pixels, None), BatchTargets.collate(rows, (64, 64), CPU))
    twice = module(
        DecoderOutput([double], [], None, pixels.repeat(2, 1, 1, 1), None),
        BatchTargets.collate(rows * 2, (64, 64), CPU),
    )
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


def test_boxes_of_stuff_cost_nothing_if_so_chosen(collate, random_prediction):
    targets = collate([0, 1, 3], [4], stuff=(3, 4))
    output = DecoderOutput([random_prediction()], [], None, torch.randn(2, 16, 16, 16), None)
    boxes = torch.where(targets.is_thing[:, None], targets.boxes, torch.rand(4, 4) * 0.2 + 0.1)
    changed = BatchTargets(**{**vars(targets), "boxes": boxes})
    free, strict = criterion(box_stuff=False), criterion(box_stuff=True)
    for term in TERMS:
        torch.testing.assert_close(free(output, changed)[term], free(output, targets)[term])
    assert strict(output, changed)["loss_bbox"] != strict(output, targets)["loss_bbox"]
    assert 0 < free(output, targets)["loss_bbox"] < strict(output, targets)["loss_bbox"]


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("labels", [[[], []], [[], [0, 3]], [[0, 1, 2, 3, 4] * 3, [1]]])
def test_every_parameter_has_a_gradient(build, make_sample, labels, learned, softmax):
    """Without objects, with few and with more than queries: distributed training waits for all gradients."""
    overrides = [LEARNED] if learned else []
    if softmax:
        overrides += [
            "model.decoder.heads.no_object_class=true",
            "model.criterion.class_loss={_target_: detrex.modeling.SoftmaxClassLoss, weight: 2.0}",
        ]
    model = build(*overrides)
    losses = train_step(model, [make_sample(row, seed=i) for i, row in enumerate(labels)])
    assert all(loss.isfinite() for loss in losses.values())
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_boxes_without_masks_train_boxes_and_classes(build, make_sample):
    sample = make_sample()
    sample["targets"].masks = None
    model = build("model.decoder.query_init.box_init=no")
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
