"""Matching and losses as the members of the DETR family have them: without masks, in groups, one to many."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from peak_memory import PeakMemory
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from detrex.modeling import (
    DecoderOutput,
    FocalClassLoss,
    GridPoints,
    HungarianMatcher,
    SetCriterion,
    SoftmaxClassLoss,
)
from detrex.modeling.denoising import DenoisingQueries
from detrex.modeling.supervision import Part
from detrex.structures import BatchTargets, PackedMasks, Prediction

MB = 2**20
QUERIES, CLASSES = 6, 5


def boxes_only(targets):
    return replace(targets, masks=None)


def random_boxes(queries=QUERIES, classes=CLASSES, batch=2):
    boxes = torch.cat([torch.rand(batch, queries, 2), 0.05 + 0.5 * torch.rand(batch, queries, 2)], -1)
    return Prediction(torch.randn(batch, queries, classes), boxes)


def output_of(*layers, proposals=None, denoising=(), queries=None):
    return DecoderOutput(list(layers), list(denoising), proposals, None, queries, initial=False)


def focal(cls=SetCriterion, **more):
    return cls(HungarianMatcher(class_cost=2.0), FocalClassLoss(1.0), **more)


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


def test_detr(collate):
    """Softmax classes with background, in the loss and in the cost."""
    targets = boxes_only(collate([0, 1, 2], [4]))
    prediction = random_boxes(classes=CLASSES + 1)
    matcher = HungarianMatcher(class_cost=1.0, softmax_classes=True)
    losses = SetCriterion(matcher, SoftmaxClassLoss(1.0))(output_of(prediction), targets)
    rows = matched_by_hand(prediction, targets, softmax=True)
    labels = torch.full((2, QUERIES), CLASSES)
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


@pytest.mark.parametrize("binary", [True, False])
def test_two_stage_proposals(collate, binary):
    """Deformable DETR tells proposals from background alone, DINO their classes too."""
    targets = boxes_only(collate([0, 1, 2], [4]))
    layer, proposals = random_boxes(), random_boxes(queries=7)
    losses = focal()(replace(output_of(layer, proposals=proposals), binary_proposals=binary), targets)
    for suffix, prediction in (("", layer), ("_interm", proposals)):
        labels = torch.zeros_like(targets.labels) if suffix and binary else targets.labels
        own = replace(targets, labels=labels)
        rows = matched_by_hand(prediction, own)
        expected = focal_by_hand(prediction, own, rows) / 4
        torch.testing.assert_close(losses["loss_ce" + suffix], expected)
        torch.testing.assert_close(losses["loss_bbox" + suffix], box_losses_by_hand(prediction, own, rows)[0])


def test_contrastive_denoising(collate):
    """DINO: the first half of a group is objects, the second background; divided by objects times groups."""
    targets = boxes_only(collate([0, 1], [4]))
    groups, size = 3, 4
    part = random_boxes(queries=groups * size)
    queries = DenoisingQueries(torch.zeros(2, 12, 1), torch.zeros(2, 12, 4), groups, size)
    losses = focal()(output_of(random_boxes(), denoising=[part], queries=queries), targets)
    pairs = [(0, 0, 0), (0, 1, 1), (1, 0, 2)]
    rows = [(image, group * size + j, obj) for group in range(groups) for image, j, obj in pairs]
    torch.testing.assert_close(losses["loss_ce_dn"], focal_by_hand(part, targets, rows) / 3 / groups)
    box, giou = box_losses_by_hand(part, targets, rows)
    torch.testing.assert_close(losses["loss_bbox_dn"], box / groups)
    torch.testing.assert_close(losses["loss_giou_dn"], giou / groups, atol=1e-4, rtol=1e-4)


def test_groups_of_queries_are_matched_by_themselves(collate):
    """Group DETR: the losses are those of models with the queries of one group, averaged."""
    targets = boxes_only(collate([0, 1, 2], [4], []))
    groups = [random_boxes(queries=4, batch=3) for _ in range(3)]
    output = replace(output_of(groups[0]), groups=[[group] for group in groups[1:]])
    together = focal()(output, targets)
    alone = [focal()(output_of(group), targets) for group in groups]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(losses[name] for losses in alone) / 3)


def test_groups_must_be_equal():
    with pytest.raises(ValueError, match="10 queries .*_0.* 3 equal groups"):
        Part("_0", random_boxes(queries=10), groups=3)


class OneToMany(SetCriterion):
    """H-DETR: of every layer the first queries are matched one to one, the others one to two."""

    def parts(self, output):
        parts = super().parts(output)
        split = [(p, *p.prediction.split([QUERIES, p.size - QUERIES])) for p in parts]
        one = [replace(p, prediction=first) for p, first, _ in split]
        many = [replace(p, suffix=f"_many{p.suffix}", prediction=rest, copies=2) for p, _, rest in split]
        return one + many


def repeated(targets, times):
    """Targets with every object of every image ``times`` over."""
    order = torch.cat([index.repeat(times) for index in torch.arange(len(targets)).split(targets.counts)])
    fields = {k: getattr(targets, k)[order] for k in ("labels", "boxes", "is_thing", "image")}
    return BatchTargets(**fields, masks=None, counts=[n * times for n in targets.counts])


def test_one_to_many(collate):
    targets = boxes_only(collate([0, 1, 2], [4], []))
    one, many = random_boxes(batch=3), random_boxes(queries=9, batch=3)
    together = focal(OneToMany)(output_of(Prediction.concatenate([one, many])), targets)
    alone = focal()(output_of(one), targets)
    repeatedly = focal()(output_of(many), repeated(targets, 2))
    for name in ("loss_ce", "loss_bbox", "loss_giou"):
        torch.testing.assert_close(together[name], alone[name])
        torch.testing.assert_close(together[f"{name}_many"], repeatedly[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_under_autocast_are_those_in_float32(collate, random_prediction, dtype):
    """Predictions come in half precision; what is computed from them does not stay in it."""
    targets = collate([0, 1, 2], [4])
    prediction = random_prediction()
    half = [
        Prediction(*(t.to(dtype) for t in vars(prediction).values())),
        torch.randn(2, 16, 16, 16).to(dtype),
    ]
    whole = [Prediction(*(t.float() for t in vars(half[0]).values())), half[1].float()]
    points = GridPoints(1024)
    criterion = SetCriterion(HungarianMatcher(points=points), FocalClassLoss(), points=points)
    expected = criterion(DecoderOutput([whole[0]], [], None, whole[1], None), targets)
    with torch.autocast("cpu", torch.bfloat16):
        losses = criterion(DecoderOutput([half[0]], [], None, half[1], None), targets)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name])


def crowd(limit, objects=500, queries=100):
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
    points = GridPoints(1024)
    matcher = HungarianMatcher(points=points, memory_limit_mb=limit)
    criterion = SetCriterion(matcher, FocalClassLoss(), points=points, memory_limit_mb=limit)
    with PeakMemory() as memory:
        losses = criterion(DecoderOutput(layers, [], None, pixels, None), targets)
        sum(losses.values()).backward()
    return losses, [t.grad for t in (*leaves, pixels)], memory.peak


def test_a_crowded_image_trains_in_a_bounded_memory():
    losses, gradients, free = crowd(2048)
    bounded, same_gradients, peak = crowd(2)
    for name, value in losses.items():
        torch.testing.assert_close(bounded[name], value)
    for ours, expected in zip(same_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, expected)
    # Besides what the limit is for: truth at the points, and the costs themselves, twice for their transfer.
    given = 4 * (500 * 1024 + 2 * 300 * 500)
    assert peak < 2 * MB + 1.2 * given < free
