"""Queries from proposals, with boxes from anchors or masks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_convert, masks_to_boxes

from detrex.modeling import BoxesFromMasks, EncodedProposals, OneToMany, PredictionHeads, ProposalQueries
from detrex.modeling.heads import PROPOSALS
from detrex.structures import PaddedImages, Prediction, Pyramid

DIM = 64


class TransparentHeads:
    """Heads that read a token: channel 0 is its class logit, the rest picks its mask. Boxes are anchors."""

    def proposal_logits(self, tokens):
        return tokens[..., :1]

    def box(self, stage, tokens):
        assert stage == PROPOSALS
        return torch.zeros(*tokens.shape[:-1], 4)

    def classify(self, stage, tokens):
        assert stage == PROPOSALS
        return tokens[..., :1], tokens[..., 1:]


def transparent(kind=ProposalQueries, **options):
    """Query selection that hands on tokens unchanged."""
    queries = kind(hidden_dim=DIM, **options)
    queries.norm = nn.Identity()
    queries.projection = nn.Identity()
    return queries


def start(queries, memory, pixels=None, heads=None):
    """The group of queries and the supervised proposals."""
    found = queries(memory, pixels, heads or TransparentHeads())
    (group,), (supervised,) = found.groups, found.supervised
    assert supervised.loss_suffix == "_interm"
    return group, supervised


def numbered_tokens(shapes, scores):
    """Tokens with these scores in channel 0 and their own number, one-hot, in the rest."""
    count = sum(h * w for h, w in shapes)
    tokens = torch.cat(
        [scores[..., None], F.one_hot(torch.arange(count), DIM - 1).expand(len(scores), -1, -1)], -1
    )
    return Pyramid(tokens, tuple(shapes))


def test_the_best_tokens_of_every_image_are_chosen_in_order():
    scores = torch.stack([torch.randperm(20), torch.randperm(20)]).float()
    memory = numbered_tokens([(4, 4), (2, 2)], scores)
    queries = transparent(num_queries=6, anchor_sizes=(0.2, 0.4))
    group, _ = start(queries, memory)
    chosen = group.content[..., 1:].argmax(-1)
    for image in range(2):
        assert chosen[image].tolist() == scores[image].argsort(descending=True)[:6].tolist()


def test_boxes_of_untrained_heads_are_anchors_around_the_tokens():
    scores = torch.arange(20.0, 0, -1)[None]
    memory = numbered_tokens([(4, 4), (2, 2)], scores)
    queries = transparent(num_queries=20, anchor_sizes=(0.2, 0.4))
    group, proposals = start(queries, memory)
    fine = [(x, y, 0.2, 0.2) for y in (0.125, 0.375, 0.625, 0.875) for x in (0.125, 0.375, 0.625, 0.875)]
    coarse = [(x, y, 0.4, 0.4) for y in (0.25, 0.75) for x in (0.25, 0.75)]
    torch.testing.assert_close(group.reference[0], torch.tensor(fine + coarse))
    torch.testing.assert_close(proposals.prediction.boxes[0], torch.tensor(fine + coarse))


def test_tokens_at_the_very_edge_are_no_proposals():
    # Centres of 60 columns start at 0.5 / 60 < 0.01; those of the single row are in the middle.
    scores = torch.arange(60.0, 0, -1)[None]
    memory = numbered_tokens([(1, 60)], scores)
    queries = transparent(num_queries=60, anchor_sizes=(0.1,))
    group, proposals = start(queries, memory)
    blanked = group.content[0].eq(0).all(-1)
    assert blanked.sum() == 2  # the first and the last
    assert (proposals.prediction.boxes[0][blanked] == 1).all()
    assert set(group.content[0][~blanked][:, 1:].argmax(-1).tolist()) == set(range(1, 59))
    assert group.reference.isfinite().all()


@pytest.mark.parametrize("past_last_pixel", [False, True])
def test_boxes_from_masks(past_last_pixel):
    masks = torch.zeros(4, 6, 8, dtype=torch.bool)
    masks[0, 2:5, 3:7] = True
    masks[1] = True
    masks[2, 4, 1] = True
    masks[3, 1:3, 0:2] = masks[3, 5, 6] = True
    memory = numbered_tokens([(2, 2)], torch.tensor([[4.0, 3, 2, 1]]))
    pixels = torch.zeros(1, DIM - 1, 6, 8)
    pixels[0, :4] = masks.float() - 0.5
    queries = transparent(num_queries=4, anchor_sizes=(0.2,), box_init=BoxesFromMasks(past_last_pixel))
    group, proposals = start(queries, memory, pixels)
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, past_last_pixel, past_last_pixel])
    expected = box_convert(boxes / torch.tensor([8, 6, 8, 6]), "xyxy", "cxcywh")
    torch.testing.assert_close(group.reference[0], expected, atol=2e-5, rtol=0)
    # What is supervised as the proposal is still the anchor.
    assert torch.equal(proposals.prediction.boxes[0, :, 2:], torch.full((4, 2), 0.2))


@pytest.mark.parametrize(("past_last_pixel", "corner"), [(False, 1.0), (True, 0.0)])
def test_boxes_of_empty_masks_are_points_at_a_corner(past_last_pixel, corner):
    memory = numbered_tokens([(2, 2)], torch.ones(1, 4))
    queries = transparent(num_queries=4, anchor_sizes=(0.2,), box_init=BoxesFromMasks(past_last_pixel))
    group, _ = start(queries, memory, torch.full((1, DIM - 1, 6, 8), -1.0))
    expected = torch.tensor([corner, corner, 0, 0]).expand(1, 4, 4)
    torch.testing.assert_close(group.reference, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("box_init", [None, BoxesFromMasks(), BoxesFromMasks(past_last_pixel=True)])
def test_gradients_reach_the_encoder_through_proposals_alone(box_init):
    heads = PredictionHeads(DIM, 5, 16)
    nn.init.normal_(heads.sets[0].box.layers[-1].weight)
    queries = ProposalQueries(4, DIM, (0.2,), box_init)
    memory = Pyramid(torch.randn(1, 9, DIM, requires_grad=True), ((3, 3),))
    group, proposals = start(queries, memory, torch.randn(1, 16, 4, 4), heads)
    assert not group.content.requires_grad and not group.reference.requires_grad
    (proposals.prediction.logits.sum() + proposals.prediction.boxes.sum()).backward()
    assert memory.tokens.grad.any() and queries.projection.weight.grad.any()


def test_all_tokens_where_there_are_fewer_than_queries():
    queries = ProposalQueries(100, DIM, (0.2, 0.4), BoxesFromMasks())
    memory = Pyramid(torch.randn(2, 13, DIM), ((3, 3), (2, 2)))
    group, proposals = start(queries, memory, torch.randn(2, 16, 4, 4), PredictionHeads(DIM, 5, 16))
    assert group.content.shape == (2, 13, DIM)
    assert proposals.prediction.logits.shape == (2, 13, 5)


def test_anchor_sizes_must_fit_the_levels():
    queries = ProposalQueries(4, DIM, (0.2, 0.4, 0.8))
    memory = Pyramid(torch.randn(1, 9, DIM), ((3, 3),))
    with pytest.raises(ValueError, match="3 anchor sizes for 1 levels"):
        start(queries, memory, torch.randn(1, 16, 4, 4), PredictionHeads(DIM, 5, 16))


@pytest.mark.parametrize(("pixels", "mask_dim"), [(None, 16), (torch.randn(1, 16, 4, 4), None)])
def test_boxes_from_masks_need_masks(pixels, mask_dim):
    queries = ProposalQueries(4, DIM, (0.2,), BoxesFromMasks())
    memory = Pyramid(torch.randn(1, 9, DIM), ((3, 3),))
    with pytest.raises(ValueError, match=r"no masks to start from.*query_init.box_init=null"):
        start(queries, memory, pixels, PredictionHeads(DIM, 5, mask_dim))


def test_boxes_may_be_made_from_proposals_in_another_way():
    def small(proposals: Prediction, pixels):
        return torch.cat([proposals.boxes[..., :2], torch.full((1, 4, 2), 1 / pixels.shape[-1])], -1)

    queries = transparent(num_queries=4, anchor_sizes=(0.2,), box_init=small)
    memory = numbered_tokens([(2, 2)], torch.tensor([[4.0, 3, 2, 1]]))
    group, proposals = start(queries, memory, torch.zeros(1, DIM - 1, 8, 8))
    assert torch.equal(group.reference[..., :2], proposals.prediction.boxes[..., :2])
    assert (group.reference[..., 2:] == 1 / 8).all() and (proposals.prediction.boxes[..., 2:] == 0.2).all()


@pytest.mark.parametrize("kind", [ProposalQueries, EncodedProposals])
def test_assignments_of_queries_and_of_proposals(kind):
    memory = numbered_tokens([(2, 2)], torch.randn(1, 4))
    group, proposals = start(transparent(kind, num_queries=2, anchor_sizes=(0.2,)), memory)
    assert group.assignment.queries_per_object == proposals.assignment.queries_per_object == 1
    # Two-stage Deformable DETR tells objects from background; DINO their classes.
    assert not group.assignment.class_agnostic
    assert proposals.assignment.class_agnostic is (kind is EncodedProposals)
    chosen = dict(assignment=OneToMany(2), proposal_assignment=OneToMany(3))
    queries = transparent(kind, num_queries=2, anchor_sizes=(0.2,), **chosen)
    group, proposals = start(queries, memory)
    assert group.assignment.queries_per_object == 2 and proposals.assignment.queries_per_object == 3


def test_queries_with_learned_contents_take_their_boxes_alone_from_proposals():
    memory = numbered_tokens([(4, 4)], torch.randn(2, 16))
    options = dict(num_queries=6, anchor_sizes=(0.2,))
    queries = transparent(**options, learned_content=True)
    group, _ = start(queries, memory)
    plain, _ = start(transparent(**options), memory)
    assert torch.equal(group.reference, plain.reference)
    assert torch.equal(group.content, queries.content.weight.expand(2, -1, -1))
    few, _ = start(queries, numbered_tokens([(2, 2)], torch.randn(2, 4)))
    assert torch.equal(few.content, queries.content.weight[:4].expand(2, -1, -1))


def test_tokens_of_masked_padding_are_no_proposals():
    images = PaddedImages.from_list([torch.zeros(1, 32, 32), torch.zeros(1, 16, 24)])
    # The second image has 2 x 3 cells of 4 x 4, and the highest scores in its padding.
    scores = torch.arange(16.0).expand(2, -1) + 1
    memory = numbered_tokens([(4, 4)], scores)
    memory = Pyramid(memory.tokens, memory.shapes, Pyramid.from_maps(memory.maps(), images).valid)
    queries = transparent(num_queries=6, anchor_sizes=(0.2,))
    group, _ = start(queries, memory)
    assert group.content[0, :, 1:].argmax(-1).tolist() == [15, 14, 13, 12, 11, 10]
    assert group.content[1, :, 1:].argmax(-1).tolist() == [6, 5, 4, 2, 1, 0]
    expected = [(x, y, 0.2, 0.2) for y in (0.75, 0.25) for x in (5 / 6, 0.5, 1 / 6)]
    torch.testing.assert_close(group.reference[1], torch.tensor(expected))


def test_encoded_proposals_are_chosen_by_the_first_logit():
    heads = PredictionHeads(DIM, 2)
    with torch.no_grad():
        for number, head in enumerate(heads.sets[0].classes.weight):
            head.zero_()[number] = 1  # class k reads channel k
    tokens = torch.zeros(1, 9, DIM)
    tokens[0, :, 0], tokens[0, :, 1] = torch.arange(9.0), 10 * torch.arange(9.0).flip(0)
    memory = Pyramid(tokens, ((3, 3),))
    for kind, chosen in ((EncodedProposals, [8, 7, 6]), (ProposalQueries, [0, 1, 2])):
        group, _ = start(transparent(kind, num_queries=3, anchor_sizes=(0.2,)), memory, heads=heads)
        torch.testing.assert_close(group.reference[0, :, :2], memory.cell_centres()[0, chosen])


def test_encoded_proposals_start_from_the_encoding_of_their_boxes():
    queries = transparent(EncodedProposals, num_queries=3, anchor_sizes=(0.2,))
    group, _ = start(queries, numbered_tokens([(3, 3)], torch.randn(2, 9)))
    assert not group.reference.requires_grad
    dim = DIM // 2
    encoded = torch.zeros(2, 3, 2 * DIM)
    for image, rows in enumerate(group.reference.tolist()):
        for query, box in enumerate(rows):
            channels = [
                function(2 * math.pi * side / 10000 ** (2 * i / dim))
                for side in box
                for i in range(dim // 2)
                for function in (math.sin, math.cos)
            ]
            encoded[image, query] = torch.tensor(channels)
    projected = F.linear(encoded, queries.box_projection.weight, queries.box_projection.bias)
    normed = F.layer_norm(projected, (2 * DIM,))
    torch.testing.assert_close(group.position, normed[..., :DIM], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(group.content, normed[..., DIM:], atol=1e-5, rtol=1e-4)


def test_all_tokens_are_supervised_where_proposals_are_encoded():
    queries = transparent(EncodedProposals, num_queries=3, anchor_sizes=(0.2,))
    memory = numbered_tokens([(3, 3)], torch.randn(2, 9))
    group, proposals = start(queries, memory)
    assert group.size == 3 and proposals.size == 9
    torch.testing.assert_close(proposals.reference, proposals.prediction.boxes)  # the anchors
    assert torch.equal(proposals.prediction.logits, memory.tokens[..., :1])
    torch.testing.assert_close(proposals.prediction.boxes[0, :, :2], memory.cell_centres()[0])
