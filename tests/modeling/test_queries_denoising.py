"""Denoising queries: arrangement, noise, and what others learn of them."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_convert

from detrex.modeling import ContrastiveDenoising, Denoising


def places(groups, size, counts):
    """(image, row, object) of every real query."""
    first = 0
    for image, count in enumerate(counts):
        for group in range(groups):
            for j in range(count):
                yield image, group * size + j, first + j
        first += count


def arrangement(queries):
    """Blocks, and queries of each."""
    assert queries.blocks == queries.assignment.blocks == queries.assignment.queries_per_object
    assert queries.size == queries.blocks * queries.assignment.size
    return queries.blocks, queries.assignment.size


def test_as_many_groups_as_fit(collate):
    queries = Denoising(5, 8, num_queries=13)(collate([0, 1], [2, 3, 4], []))
    assert arrangement(queries) == (4, 3)
    assert queries.content.shape == (3, 12, 8)
    assert queries.reference.shape == (3, 12, 4)


def test_without_noise_they_are_the_ground_truth(collate):
    targets = collate([0, 1], [2, 3, 4], [])
    module = Denoising(5, 8, num_queries=12, label_noise=0, box_noise=0)
    queries = module(targets)
    real = torch.zeros(3, 12, dtype=torch.bool)
    for image, row, obj in places(4, 3, targets.counts):
        real[image, row] = True
        torch.testing.assert_close(queries.reference[image, row], targets.boxes[obj])
        assert torch.equal(queries.content[image, row], module.label_embed.weight[targets.labels[obj]])
    assert not queries.content[~real].any() and (queries.reference[~real] == 0.5).all()


def noised(collate, **noise):
    targets = collate([0, 1, 2], [3])
    module = Denoising(5, 8, num_queries=3000, **noise)
    queries = module(targets)
    rows = list(places(*arrangement(queries), targets.counts))
    image, row, obj = (torch.tensor(column) for column in zip(*rows, strict=True))
    distance = torch.cdist(queries.content[image, row], module.label_embed.weight)
    return targets, obj, queries.reference[image, row], distance.argmin(1)


def test_boxes_move_within_their_bounds_and_fill_them(collate):
    targets, obj, boxes, labels = noised(collate, label_noise=0, box_noise=0.4)
    truth = targets.boxes[obj]
    shift = (boxes - truth).abs() / torch.cat([truth[:, 2:], truth[:, 2:]], 1)
    inside = (boxes > 1e-4) & (boxes < 1 - 1e-4)  # not cut at the image's edge
    limit = torch.tensor([0.2, 0.2, 0.4, 0.4])
    assert (shift[:, :2] <= 0.2 + 1e-4).all() and (shift[:, 2:] <= 0.4 + 1e-4).all()
    for coordinate in range(4):
        values = shift[inside[:, coordinate], coordinate]
        assert values.max() > 0.97 * limit[coordinate]
        assert values.mean().item() == pytest.approx(limit[coordinate].item() / 2, rel=0.1)
    assert torch.equal(labels, targets.labels[obj])


def test_boxes_stay_in_the_image(collate):
    _, _, boxes, _ = noised(collate, box_noise=5.0)
    assert boxes.min() >= 0 and boxes.max() <= 1


def test_labels_are_replaced_at_half_the_noise(collate):
    targets, obj, boxes, labels = noised(collate, label_noise=0.5, box_noise=0)
    # A quarter is drawn anew, and a fifth of those draws is the old label.
    changed = (labels != targets.labels[obj]).float().mean().item()
    assert changed == pytest.approx(0.25 * 4 / 5, abs=0.03)
    assert set(labels.tolist()) == set(range(5))
    torch.testing.assert_close(boxes, targets.boxes[obj])


@pytest.mark.parametrize("labels", [[[], []], [[0, 1, 2, 3, 4], []]])
def test_none_without_objects_or_with_more_than_fit(collate, labels):
    module = Denoising(5, 8, num_queries=4)
    queries = module(collate(*labels))
    assert queries.content.shape == (2, 0, 8) and queries.reference.shape == (2, 0, 4)
    # Distributed training waits for a gradient of every parameter.
    queries.content.sum().backward()
    assert module.label_embed.weight.grad is not None and not module.label_embed.weight.grad.any()


@pytest.mark.parametrize("labels", [[[0, 1, 2, 3, 4], []], [[0], [1, 2]]])
def test_groups_that_there_are_at_least(collate, labels):
    queries = Denoising(5, 8, num_queries=4, min_groups=3)(collate(*labels))
    assert arrangement(queries) == (3, max(len(row) for row in labels))


def test_contrastive_groups_have_every_object_twice(collate):
    targets = collate([0, 1], [2, 3, 4], [])
    module = ContrastiveDenoising(5, 8, num_queries=13, label_noise=0, box_noise=1e-4)
    queries = module(targets)
    assert arrangement(queries) == (4, 6)
    assert queries.content.shape == (3, 24, 8) and queries.reference.shape == (3, 24, 4)
    real = torch.zeros(3, 24, dtype=torch.bool)
    for image, row, obj in [*places(8, 3, targets.counts)]:  # two halves of each of four groups
        real[image, row] = True
        boxes = queries.reference[image, row]
        torch.testing.assert_close(boxes, targets.boxes[obj], atol=1e-3, rtol=0)
        assert torch.equal(queries.content[image, row], module.label_embed.weight[targets.labels[obj]])
    assert not queries.content[~real].any() and (queries.reference[~real] == 0.5).all()


def test_contrastive_denoising_takes_more_objects_than_fit(collate):
    queries = ContrastiveDenoising(5, 8, num_queries=2)(collate([0, 1, 2, 3, 4], []))
    assert arrangement(queries) == (1, 10)
    assert ContrastiveDenoising(5, 8, num_queries=2)(collate([], [])).size == 0


@pytest.mark.parametrize("box_noise", [0.2, 0.45])  # so little that no corner passes the opposite one
def test_corners_of_negatives_move_once_to_twice_as_far(collate, box_noise):
    targets = collate([0], [1])
    # Far enough from the edges that no corner is cut.
    targets.boxes = torch.tensor([[0.4, 0.5, 0.2, 0.3], [0.6, 0.5, 0.1, 0.2]])
    queries = ContrastiveDenoising(5, 8, num_queries=3000, box_noise=box_noise)(targets)
    assert arrangement(queries) == (3000, 2)
    corners = box_convert(queries.reference, "cxcywh", "xyxy").unflatten(1, (3000, 2))
    truth = box_convert(targets.boxes, "cxcywh", "xyxy")[:, None, None]
    # In units of box_noise / 2 of the box's size: below 1 for positives, and up to 2 for negatives.
    moved = (corners - truth) / (box_noise / 2 * targets.boxes[:, None, None, 2:].repeat(1, 1, 1, 2))
    for half, (least, most) in enumerate([(0, 1), (1, 2)]):
        distance = moved[:, :, half].abs()
        assert distance.min() >= least - 1e-4 and distance.max() <= most + 1e-4
        assert distance.min() < least + 0.01 and distance.max() > most - 0.01
        means = distance.mean(1)  # of every image and coordinate
        torch.testing.assert_close(means, torch.full_like(means, (least + most) / 2), atol=0.03, rtol=0)
        torch.testing.assert_close(moved[:, :, half].sign().mean(1), torch.zeros(2, 4), atol=0.08, rtol=0)


def test_corners_of_contrastive_boxes_stay_in_the_image(collate):
    queries = ContrastiveDenoising(5, 8, num_queries=300, box_noise=2.0)(collate([0, 1, 2], [3]))
    rows = torch.tensor([row for image, row, _ in places(2 * queries.blocks, 3, [3, 1]) if image == 0])
    corners = box_convert(queries.reference[0, rows], "cxcywh", "xyxy")
    assert corners.min() >= -1e-4 and corners.max() <= 1 + 1e-4
    assert corners.min() < 1e-3 and corners.max() > 1 - 1e-3


def encode(model, sample):
    features = model.backbone(model.preprocess([sample]).tensor)
    memory = model.encoder(features)
    return memory, model.pixel_head(features, memory)


def decode(model, memory, pixels, queries):
    """What is predicted for matching queries and for denoising queries, all stages one after another."""
    stages = {"_dn": [], "": []}
    for part in model.decoder(memory, pixels, [queries]).supervised:
        p = part.prediction
        if part.loss_suffix != "_interm":
            kind = "_dn" if part.loss_suffix.startswith("_dn") else ""
            stages[kind].append(torch.cat([p.logits, p.boxes, p.mask_embed], -1))
    return torch.cat(stages[""]), torch.cat(stages["_dn"])


@torch.no_grad()
def test_matching_queries_and_other_groups_learn_nothing_of_a_group(tiny_model, collate, make_sample):
    model = tiny_model.eval()
    memory, pixels = encode(model, make_sample())
    queries = model.denoising(collate([0, 1, 3]))
    assert arrangement(queries) == (4, 3)
    matching, denoising = decode(model, memory, pixels, queries)
    changed = replace(queries, content=queries.content.clone(), reference=queries.reference.clone())
    changed.content[:, 3] += 1  # one query of the second group
    changed.reference[:, 3] *= 0.5
    matching_after, denoising_after = decode(model, memory, pixels, changed)
    torch.testing.assert_close(matching_after, matching)
    others = [0, 1, 2, *range(6, 12)]
    torch.testing.assert_close(denoising_after[:, others], denoising[:, others])
    last = slice(-1, None)
    difference = (denoising_after[last, 4:6] - denoising[last, 4:6]).abs().amax(-1)
    assert (difference > 1e-4).all()  # its own group does see it


@torch.no_grad()
def test_denoising_leaves_the_matching_queries_as_they_are_without(tiny_model, collate, make_sample):
    model = tiny_model.eval()
    memory, pixels = encode(model, make_sample())
    with_denoising = model.decoder(memory, pixels, [model.denoising(collate([0, 1, 3]))])
    without = model.decoder(memory, pixels)
    suffixes = {part.loss_suffix for part in without.supervised}
    assert suffixes == {"_0", "_1", "", "_interm"}
    more = {part.loss_suffix for part in with_denoising.supervised} - suffixes
    assert more == {"_dn_0", "_dn_1", "_dn"}
    torch.testing.assert_close(with_denoising.final.logits, without.final.logits)
    torch.testing.assert_close(with_denoising.final.boxes, without.final.boxes)
