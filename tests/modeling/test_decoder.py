"""The decoder loop: who sees whom, how boxes move, what learns from which box, and padding."""

import pytest
import torch
from torch import nn

from detrex.layers import QueryPosition, pyramid_sine_encoding
from detrex.modeling import (
    AnchorPosition,
    BoxPosition,
    ConditionalDecoder,
    ConditionalPosition,
    Decoder,
    DeformableDecoder,
    EncodedProposals,
    FixedPosition,
    LearnedBoxes,
    LearnedPositions,
    PlainDecoder,
    PredictionHeads,
    ProposalQueries,
)
from detrex.modeling.decoder import blocked_queries
from detrex.modeling.denoising import DenoisingQueries
from detrex.modeling.query_init import InitialQueries
from detrex.structures import PaddedImages, Prediction, Pyramid

DIM, CLASSES, QUERIES, LAYERS = 32, 3, 4, 3
SIZES = dict(hidden_dim=DIM, ffn_dim=16, num_heads=4, num_layers=LAYERS)
FINE_AND_COARSE, COARSE = ((8, 12), (4, 6)), ((4, 6),)
DEFORMABLE = dict(SIZES, num_levels=2, num_points=2, refine_boxes=True)


def scattered(module):
    """The module in double precision with every parameter random."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def denoising_queries(groups=2, size=3, batch=2):
    return DenoisingQueries(
        torch.randn(batch, groups * size, DIM).double(),
        torch.randn(batch, groups * size, 4).double(),
        groups,
        size,
    )


def role(index, denoising, size):
    """Which group a query is of."""
    known = 0 if denoising is None else denoising.groups * denoising.size
    if index < known:
        return "known", index // denoising.size
    return "matching", (index - known) // size


@pytest.mark.parametrize("denoising", [None, denoising_queries(1, 5), denoising_queries(2, 3)])
@pytest.mark.parametrize("groups", [1, 3])
def test_who_sees_whom(denoising, groups):
    start = InitialQueries(torch.zeros(1, QUERIES * groups, DIM), group_sizes=[QUERIES] * groups)
    blocked = blocked_queries(start, denoising)
    if denoising is None and groups == 1:
        assert blocked is None
        return
    count = QUERIES * groups + (0 if denoising is None else denoising.groups * denoising.size)
    assert blocked.shape == (count, count)
    for row in range(count):
        for column in range(count):
            viewer, seen = role(row, denoising, QUERIES), role(column, denoising, QUERIES)
            sees = viewer == seen or (viewer[0] == "known" and seen == ("matching", 0))
            assert blocked[row, column].item() is not sees


def test_queries_without_groups_are_one_group():
    denoising = denoising_queries()
    start = InitialQueries(torch.zeros(1, QUERIES, DIM))
    one_group = InitialQueries(start.content, group_sizes=[QUERIES])
    assert torch.equal(blocked_queries(start, denoising), blocked_queries(one_group, denoising))


def memory(masked=False, levels=FINE_AND_COARSE):
    """Tokens of two images, noise in padding too; the second fills 3 of 4 rows and half of the columns."""
    images = PaddedImages.from_list([torch.zeros(1, 64, 96), torch.zeros(1, 48, 48)]) if masked else None
    maps = [torch.randn(2, DIM, *shape).double() for shape in levels]
    return located(Pyramid.from_maps(maps, images))


def located(pyramid):
    return pyramid.with_position(torch.cat(pyramid_sine_encoding(pyramid, DIM), -2))


def heads(**options):
    return PredictionHeads(DIM, CLASSES, **options)


def points():
    return LearnedPositions(QUERIES, DIM, point=nn.Linear(DIM, 2))


DECODERS = {
    "detr": lambda: PlainDecoder(
        query_init=LearnedPositions(QUERIES, DIM), position=FixedPosition(), heads=heads(), **SIZES
    ),
    "conditional": lambda: ConditionalDecoder(
        query_init=points(), position=ConditionalPosition(DIM), heads=heads(), **SIZES
    ),
    "anchors": lambda: ConditionalDecoder(
        query_init=LearnedBoxes(QUERIES, DIM),
        position=AnchorPosition(DIM),
        heads=heads(),
        refine_boxes=True,
        prelu=True,
        **SIZES,
    ),
    "deformable": lambda: DeformableDecoder(
        query_init=points(), position=FixedPosition(), heads=heads(num_sets=LAYERS), **DEFORMABLE
    ),
    "two stages": lambda: DeformableDecoder(
        query_init=EncodedProposals(QUERIES, DIM, (0.05, 0.1)),
        position=FixedPosition(),
        heads=heads(num_sets=LAYERS, own_proposals=True),
        **DEFORMABLE,
    ),
}
LEVELS = {kind: FINE_AND_COARSE if kind in ("deformable", "two stages") else COARSE for kind in DECODERS}


def values(prediction):
    return torch.cat([prediction.logits, prediction.boxes], -1)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_padded_batch_is_its_images_one_by_one(kind):
    decoder = scattered(DECODERS[kind]()).eval()
    if kind == "two stages":
        # Tokens that are no proposals compete by their biases, as in published models. Here they must lose.
        for parameter in (decoder.query_init.projection.bias, decoder.query_init.norm.bias):
            nn.init.zeros_(parameter)
    together = memory(masked=True, levels=LEVELS[kind])
    found = decoder(together)
    for index, (height, width) in enumerate([(64, 96), (48, 48)]):
        images = PaddedImages(torch.zeros(1, 1, height, width), [(height, width)])
        share = height / 64, width / 96
        cut = [
            level[index : index + 1, :, : int(share[0] * level.shape[2]), : int(share[1] * level.shape[3])]
            for level in together.maps()
        ]
        alone = decoder(located(Pyramid.from_maps(cut, images)))
        for ours, by_itself in zip(found.layers, alone.layers, strict=True):
            torch.testing.assert_close(values(ours)[index], values(by_itself)[0])
        if found.proposals is not None:
            own = ~together.padding[index]
            torch.testing.assert_close(values(found.proposals)[index, own], values(alone.proposals)[0])


@torch.no_grad()
def test_groups_of_training_see_nothing_of_one_another_and_the_first_remains():
    query_init = LearnedPositions(QUERIES, DIM, num_groups=3)
    decoder = scattered(PlainDecoder(query_init=query_init, position=FixedPosition(), heads=heads(), **SIZES))
    tokens = memory()
    before = decoder.train()(tokens)
    assert len(before.groups) == 2 and all(len(group) == LAYERS for group in before.groups)
    assert before.final.logits.shape == (2, QUERIES, CLASSES)

    alone = decoder.eval()(tokens)
    assert alone.groups == []
    for ours, first in zip(alone.layers, before.layers, strict=True):
        torch.testing.assert_close(values(ours), values(first))

    query_init.position.weight[2 * QUERIES] += 1  # the first query of the last group
    after = decoder.train()(tokens)
    torch.testing.assert_close(values(after.final), values(before.final))
    torch.testing.assert_close(values(after.groups[0][-1]), values(before.groups[0][-1]))
    difference = (values(after.groups[1][-1]) - values(before.groups[1][-1])).abs().amax(-1)
    assert (difference > 1e-6).all()  # its own group does see it


class Unmoved(nn.Module):
    """A layer that leaves contents as they are."""

    def forward(self, content, position, memory, blocked):  # noqa: ARG002
        return content


class Seen(nn.Module):
    """Keeps the references that layers are given."""

    def __init__(self):
        super().__init__()
        self.references = []

    def forward(self, queries):
        self.references.append(queries.reference)
        return QueryPosition(queries.content, queries.reference)


def loop(query_init=None, **options):
    """A decoder whose queries change by its heads alone, with a set for every layer."""
    decoder = scattered(
        Decoder(
            query_init=query_init or LearnedBoxes(QUERIES, DIM),
            position=Seen(),
            heads=heads(num_sets=LAYERS),
            layers=[Unmoved() for _ in range(LAYERS)],
            **options,
        )
    )
    decoder.query_init.double()
    return decoder


def logit(x):
    return x.log() - (1 - x).log()


@pytest.mark.parametrize("look_twice", [False, True])
def test_boxes_of_a_refining_decoder_by_hand(look_twice):
    decoder = loop(refine_boxes=True, look_forward_twice=look_twice)
    output = decoder(memory())
    sets, content = decoder.heads.sets, decoder.query_init.content.weight
    reference = decoder.query_init.reference.weight.sigmoid()
    for i, prediction in enumerate(output.layers):
        torch.testing.assert_close(decoder.position.references[i][1], reference)
        expected = (sets[i].box(decoder.heads.norm(content)) + logit(reference)).sigmoid()
        torch.testing.assert_close(prediction.boxes[1], expected)
        # The update takes contents as they are, without the norm.
        reference = (sets[i].box(content) + logit(reference)).sigmoid()


def test_without_refinement_all_layers_start_from_the_first_reference():
    decoder = loop()
    output = decoder(memory())
    content = decoder.heads.norm(decoder.query_init.content.weight)
    reference = decoder.query_init.reference.weight
    for i, prediction in enumerate(output.layers):
        torch.testing.assert_close(decoder.position.references[i][0], reference.sigmoid())
        torch.testing.assert_close(
            prediction.boxes[0], (decoder.heads.sets[i].box(content) + reference).sigmoid()
        )


def test_points_get_a_size_from_the_heads_alone():
    decoder = loop(points())
    output = decoder(memory())
    content = decoder.heads.norm(torch.zeros(QUERIES, DIM).double())
    change = decoder.heads.sets[0].box(content)
    point = decoder.query_init.point(decoder.query_init.position.weight)
    expected = torch.cat([change[:, :2] + point, change[:, 2:]], 1).sigmoid()
    torch.testing.assert_close(output.layers[0].boxes[0], expected)


def learns(value, parameter):
    (gradient,) = torch.autograd.grad(value.sum(), parameter, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient.any())


@pytest.mark.parametrize(
    ("options", "heads_before", "layers_of_boxes"),
    [
        # What the heads of the layer before learn from a box, and from which layers' boxes the first ones do.
        (dict(), False, [True, True, True]),
        (dict(refine_boxes=True), False, [True, False, False]),
        (dict(refine_boxes=True, look_forward_twice=True), True, [True, True, False]),
    ],
    ids=["fixed", "refined", "looking forward twice"],
)
def test_what_learns_from_the_box_of_which_layer(options, heads_before, layers_of_boxes):
    decoder = loop(**options)
    output = decoder(memory())
    for layer, prediction in enumerate(output.layers):
        for stage, head in enumerate(decoder.heads.sets):
            expected = stage == layer or (heads_before and stage == layer - 1)
            assert learns(prediction.boxes, head.box.layers[0].weight) is expected
        learned = learns(prediction.boxes, decoder.query_init.reference.weight)
        assert learned is layers_of_boxes[layer]


def test_layers_attend_around_boxes_without_gradient_but_for_learned_ones():
    decoder = loop(refine_boxes=True, look_forward_twice=True)
    decoder(memory())
    assert [r.requires_grad for r in decoder.position.references] == [True, False, False]


@pytest.mark.parametrize("learned_content", [False, True])
def test_nothing_learns_through_proposals_but_their_own_losses(learned_content):
    query_init = ProposalQueries(QUERIES, DIM, (0.05, 0.1), learned_content=learned_content)
    decoder = loop(query_init, refine_boxes=True, look_forward_twice=True)
    output = decoder(memory())
    for prediction in output.layers:
        assert not learns(values(prediction), query_init.projection.weight)
    assert learns(output.proposals.boxes, query_init.projection.weight)
    assert learns(output.proposals.logits, query_init.projection.weight)


def test_an_initial_prediction_is_the_reference_with_classes_of_the_content():
    decoder = loop(initial_prediction=True, refine_boxes=True)
    denoising = denoising_queries()
    output = decoder(memory(), denoising=denoising)
    assert output.initial and len(output.layers) == len(output.denoising) == LAYERS + 1
    start = decoder.query_init
    torch.testing.assert_close(output.layers[0].boxes[0], start.reference.weight.sigmoid())
    torch.testing.assert_close(output.denoising[0].boxes, denoising.reference.sigmoid())
    for prediction, content in [
        (output.layers[0], start.content.weight),
        (output.denoising[0], denoising.content),
    ]:
        expected = decoder.heads.sets[0].classes(content).expand_as(prediction.logits)
        torch.testing.assert_close(prediction.logits, expected)


@torch.no_grad()
def test_denoising_queries_come_back_by_themselves():
    decoder = loop(refine_boxes=True)
    denoising = denoising_queries()
    output = decoder(memory(), denoising=denoising)
    assert output.denoising_queries is denoising
    assert all(isinstance(p, Prediction) and p.boxes.shape == (2, 6, 4) for p in output.denoising)
    for ours, alone in zip(output.layers, decoder(memory()).layers, strict=True):
        torch.testing.assert_close(values(ours), values(alone))
    normed = decoder.heads.norm(denoising.content)
    expected = (decoder.heads.sets[0].box(normed) + denoising.reference).sigmoid()
    torch.testing.assert_close(output.denoising[0].boxes, expected)


@pytest.mark.parametrize("kind", ["detr", "conditional", "two stages"])
def test_denoising_of_queries_without_boxes_of_their_own_is_refused(kind):
    decoder = scattered(DECODERS[kind]())
    with pytest.raises(ValueError, match=r"denoising.*model.denoising to null.*LearnedBoxes"):
        decoder(memory(levels=LEVELS[kind]), denoising=denoising_queries())


@pytest.mark.parametrize("kind", ["detr", "conditional", "deformable"])
def test_boxes_are_in_single_precision_whatever_the_autocast(kind):
    decoder = DECODERS[kind]()
    tokens = memory(levels=LEVELS[kind])
    tokens = tokens.with_tokens(tokens.tokens.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        boxes = decoder(tokens).final.boxes
    assert boxes.dtype == torch.float32
    if kind != "detr":  # new heads do not move points
        centres = decoder.query_init.point(decoder.query_init.position.weight).sigmoid()
        torch.testing.assert_close(boxes[0, :, :2], centres, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", DECODERS)
def test_layers_that_are_computed_again_give_the_same_gradients(kind):
    decoder = scattered(DECODERS[kind]()).train()
    for module in decoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    tokens, found, calls = memory(masked=True, levels=LEVELS[kind]), {}, []
    tokens.tokens.requires_grad_()
    decoder.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for decoder.checkpointing in (False, True):
        torch.manual_seed(1)
        decoder.zero_grad()
        tokens.tokens.grad = None
        output = decoder(tokens)
        parts = [*output.layers, *([output.proposals] if output.proposals is not None else [])]
        sum(values(p).square().sum() for p in parts).backward()
        gradients = {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}
        found[decoder.checkpointing] = {"tokens": tokens.tokens.grad, **gradients}
    assert len(calls) == 1 + 2
    assert set(found[True]) == set(found[False])
    for name, kept in found[False].items():
        torch.testing.assert_close(found[True][name], kept)


@pytest.mark.parametrize("num_sets", [2, 4])
def test_sets_of_heads_must_fit_the_layers(num_sets):
    with pytest.raises(ValueError, match=rf"{num_sets} sets of heads for 3 decoder layers.*num_sets"):
        PlainDecoder(
            query_init=LearnedPositions(QUERIES, DIM),
            position=FixedPosition(),
            heads=heads(num_sets=num_sets),
            **SIZES,
        )


def test_boxes_must_be_positions_of_a_memory_with_as_many_levels():
    decoder = DeformableDecoder(
        query_init=LearnedBoxes(QUERIES, DIM), position=BoxPosition(DIM), heads=heads(), **DEFORMABLE
    ).double()
    with pytest.raises(ValueError, match="gives 1 levels, the decoder takes 2"):
        decoder(memory(levels=COARSE))
