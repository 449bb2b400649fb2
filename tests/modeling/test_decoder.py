"""The decoder loop: who sees whom, how boxes move, what learns from which box, and padding."""

import pytest
import torch
from torch import nn

from detrex.layers import QueryPosition, pyramid_sine_encoding
from detrex.modeling import (
    AnchorPosition,
    BoxPosition,
    ConditionalDecoderLayers,
    ConditionalPosition,
    Decoder,
    DeformableDecoderLayers,
    EncodedProposals,
    FixedPosition,
    Known,
    LearnedBoxes,
    LearnedPositions,
    OneToMany,
    PlainDecoderLayers,
    PredictionHeads,
    ProposalQueries,
    QueryGroup,
)
from detrex.modeling.queries import InitialQueries
from detrex.structures import PaddedImages, Pyramid

DIM, CLASSES, QUERIES, LAYERS = 32, 3, 4, 3
SIZES = dict(hidden_dim=DIM, ffn_dim=16, num_heads=4, num_layers=LAYERS)
FINE_AND_COARSE, COARSE = ((8, 12), (4, 6)), ((4, 6),)


def scattered(module):
    """The module in double precision with every parameter random."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def denoising_group(blocks=2, size=3, batch=2, **options):
    return QueryGroup(
        torch.randn(batch, blocks * size, DIM).double(),
        torch.rand(batch, blocks * size, 4).double(),
        assignment=Known(blocks, size),
        name="denoising",
        sees=("matching",),
        blocks=blocks,
        loss_suffix="_dn{stage}",
        **options,
    )


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


def deformable(levels=2):
    return DeformableDecoderLayers(levels, num_points=2, **SIZES)


DECODERS = {
    "detr": lambda: Decoder(
        LearnedPositions(QUERIES, DIM), FixedPosition(), heads(), PlainDecoderLayers(**SIZES)
    ),
    "conditional": lambda: Decoder(
        points(), ConditionalPosition(DIM), heads(), ConditionalDecoderLayers(**SIZES)
    ),
    "anchors": lambda: Decoder(
        LearnedBoxes(QUERIES, DIM),
        AnchorPosition(DIM),
        heads(),
        ConditionalDecoderLayers(prelu=True, **SIZES),
        refine_boxes=True,
    ),
    "deformable": lambda: Decoder(
        points(), FixedPosition(), heads(num_sets=LAYERS), deformable(), refine_boxes=True
    ),
    "two stages": lambda: Decoder(
        EncodedProposals(QUERIES, DIM, (0.05, 0.1)),
        FixedPosition(),
        heads(num_sets=LAYERS, own_proposals=True),
        deformable(),
        refine_boxes=True,
    ),
}
LEVELS = {kind: FINE_AND_COARSE if kind in ("deformable", "two stages") else COARSE for kind in DECODERS}
STAGES = ("_0", "_1", "")


def stages(output, kind="{}", names=STAGES):
    """The predictions of all layers, those of the queries whose losses are named ``kind``."""
    found = {part.loss_suffix: part.prediction for part in output.supervised}
    return [found[kind.format(name)] for name in names]


def proposals(output):
    """The supervised proposals, or None."""
    found = [part.prediction for part in output.supervised if part.loss_suffix == "_interm"]
    return found[0] if found else None


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
        for ours, by_itself in zip(stages(found), stages(alone), strict=True):
            torch.testing.assert_close(values(ours)[index], values(by_itself)[0])
        if kind == "two stages":
            unpadded = ~together.padding[index]
            torch.testing.assert_close(values(proposals(found))[index, unpadded], values(proposals(alone))[0])


@torch.no_grad()
def test_blocks_of_training_see_nothing_of_one_another_and_the_first_remains():
    query_init = LearnedPositions(QUERIES, DIM, num_groups=3)
    decoder = scattered(Decoder(query_init, FixedPosition(), heads(), PlainDecoderLayers(**SIZES)))
    tokens = memory()
    before = decoder.train()(tokens)
    assert [part.loss_suffix for part in before.supervised] == list(STAGES)
    assert all(part.assignment.blocks == 3 and part.size == 3 * QUERIES for part in before.supervised)

    alone = decoder.eval()(tokens)
    assert [part.assignment.blocks for part in alone.supervised] == [1] * LAYERS
    assert alone.final.logits.shape == (2, QUERIES, CLASSES)
    for ours, first in zip(stages(alone), stages(before), strict=True):
        torch.testing.assert_close(values(ours), values(first)[:, :QUERIES])

    query_init.position.weight[2 * QUERIES] += 1  # the first query of the last block
    after = decoder.train()(tokens)
    difference = (values(after.final) - values(before.final)).abs().amax(-1)
    torch.testing.assert_close(difference[:, : 2 * QUERIES], torch.zeros(2, 2 * QUERIES).double())
    assert (difference[:, 2 * QUERIES :] > 1e-6).all()  # its own block does see it


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
    layers = [Unmoved() for _ in range(LAYERS)]
    query_init = query_init or LearnedBoxes(QUERIES, DIM)
    return scattered(Decoder(query_init, Seen(), heads(num_sets=LAYERS), layers, **options))


def logit(x):
    return x.log() - (1 - x).log()


@pytest.mark.parametrize("look_twice", [False, True])
def test_boxes_of_a_refining_decoder_by_hand(look_twice):
    decoder = loop(refine_boxes=True, look_forward_twice=look_twice)
    output = decoder(memory())
    sets, content = decoder.heads.sets, decoder.query_init.content.weight
    reference = decoder.query_init.reference.weight.sigmoid()
    for i, prediction in enumerate(stages(output)):
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
    for i, prediction in enumerate(stages(output)):
        torch.testing.assert_close(decoder.position.references[i][0], reference.sigmoid())
        expected = (decoder.heads.sets[i].box(content) + reference).sigmoid()
        torch.testing.assert_close(prediction.boxes[0], expected)


def test_points_get_a_size_from_the_heads_alone():
    decoder = loop(points())
    output = decoder(memory())
    content = decoder.heads.norm(torch.zeros(QUERIES, DIM).double())
    change = decoder.heads.sets[0].box(content)
    point = decoder.query_init.point(decoder.query_init.position.weight)
    expected = torch.cat([change[:, :2] + point, change[:, 2:]], 1).sigmoid()
    torch.testing.assert_close(stages(output)[0].boxes[0], expected)


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
    for layer, prediction in enumerate(stages(output)):
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
    for prediction in stages(output):
        assert not learns(values(prediction), query_init.projection.weight)
    assert learns(proposals(output).boxes, query_init.projection.weight)
    assert learns(proposals(output).logits, query_init.projection.weight)


@pytest.mark.parametrize("supervise_initial", [False, True])
def test_an_initial_prediction_is_the_reference_with_classes_of_the_content(supervise_initial):
    decoder = loop(initial_prediction=True, refine_boxes=True)
    denoising = denoising_group(supervise_initial=supervise_initial)
    output = decoder(memory(), None, [denoising])
    suffixes = ["_0", "_1", "_2", ""]
    expected = [f"_dn{s}" for s in suffixes if supervise_initial or s != "_0"] + suffixes
    assert [part.loss_suffix for part in output.supervised] == expected
    start = decoder.query_init
    found = {part.loss_suffix: part.prediction for part in output.supervised}
    first = [(found["_0"], start.content.weight, start.reference.weight.sigmoid().expand(2, -1, -1))]
    if supervise_initial:
        first.append((found["_dn_0"], denoising.content, denoising.reference))
    for prediction, content, reference in first:
        torch.testing.assert_close(prediction.boxes, reference)
        logits = decoder.heads.sets[0].classes(content).expand_as(prediction.logits)
        torch.testing.assert_close(prediction.logits, logits)


def test_queries_without_a_place_have_no_initial_prediction():
    decoder = scattered(DECODERS["detr"]())
    decoder.initial_prediction = True
    with pytest.raises(ValueError, match="without a place.*initial_prediction=false"):
        decoder(memory(levels=COARSE))


@torch.no_grad()
def test_denoising_queries_come_back_by_themselves():
    decoder = loop(refine_boxes=True)
    denoising = denoising_group()
    output = decoder(memory(), None, [denoising])
    found = [part for part in output.supervised if "dn" in part.loss_suffix]
    assert [part.loss_suffix for part in found] == ["_dn_0", "_dn_1", "_dn"]
    assert all(part.prediction.boxes.shape == (2, 6, 4) for part in found)
    assert all(part.assignment is denoising.assignment for part in found)
    for ours, alone in zip(stages(output), stages(decoder(memory())), strict=True):
        torch.testing.assert_close(values(ours), values(alone))
    torch.testing.assert_close(values(output.final), values(stages(output)[-1]))
    normed = decoder.heads.norm(denoising.content)
    expected = (decoder.heads.sets[0].box(normed) + logit(denoising.reference)).sigmoid()
    torch.testing.assert_close(found[0].prediction.boxes, expected)


def test_groups_without_queries_are_not_supervised():
    output = loop(refine_boxes=True)(memory(), None, [denoising_group(blocks=0)])
    assert [part.loss_suffix for part in output.supervised] == list(STAGES)


class Mixed(nn.Module):
    """A source of two matching groups, of which only the second sees the first, and of one for training."""

    def forward(self, memory, pixel_embed, heads, targets):  # noqa: ARG002
        self.targets = targets
        rows = {name: torch.randn(2, size, DIM).double() for name, size in self.sizes.items()}
        groups = [
            QueryGroup(content, torch.rand(2, content.shape[1], 4).double()) for content in rows.values()
        ]
        first, second, extra = groups
        second.sees, extra.name, extra.loss_suffix = ("matching",), "extra", "_extra{stage}"
        extra.assignment = OneToMany(2)
        return InitialQueries(groups)

    sizes = {"first": 2, "second": 3, "extra": 5}


def test_groups_of_a_source():
    """Matching groups make the results together; each is supervised by itself, from where it started."""
    source = Mixed()
    decoder = loop(source, refine_boxes=True)
    targets = object()
    output = decoder(memory(), None, [], targets)
    assert source.targets is targets
    suffixes = [part.loss_suffix for part in output.supervised]
    assert suffixes == [*STAGES, *STAGES, *(f"_extra{s}" for s in STAGES)]
    assert [part.size for part in output.supervised] == [2] * 3 + [3] * 3 + [5] * 3
    assert [part.assignment.queries_per_object for part in output.supervised] == [1] * 6 + [2] * 3
    assert output.final.logits.shape == (2, 5, CLASSES)
    last = [values(part.prediction) for part in output.supervised if part.loss_suffix == ""]
    torch.testing.assert_close(values(output.final), torch.cat(last, 1))
    start = decoder.position.references[0].split([2, 3, 5], 1)
    for i, part in enumerate(output.supervised):
        assert torch.equal(part.reference, start[i // 3]) and not part.reference.requires_grad


class InStages(OneToMany):
    """One to one in the last stage."""

    def at_stage(self, stage, num_stages):
        return OneToMany(1) if stage == num_stages - 1 else self


@pytest.mark.parametrize("initial_prediction", [False, True])
def test_assignments_may_depend_on_the_stage(initial_prediction):
    decoder = loop(LearnedBoxes(QUERIES, DIM, assignment=InStages(3)), initial_prediction=initial_prediction)
    output = decoder(memory())
    assert [part.assignment.copies for part in output.supervised] == [3] * (
        LAYERS - 1 + initial_prediction
    ) + [1]


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("detr", "no place and a learned position"),
        ("conditional", "points and a learned position"),
        ("two stages", "boxes and a learned position"),
    ],
)
def test_denoising_of_queries_without_boxes_of_their_own_is_refused(kind, start):
    decoder = scattered(DECODERS[kind]())
    described = rf"'denoising' starts from boxes; 'matching' starts from {start}\."
    with pytest.raises(ValueError, match=rf"{described}.*model.denoising to null.*LearnedBoxes"):
        decoder(memory(levels=LEVELS[kind]), None, [denoising_group()])


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
        sum(values(part.prediction).square().sum() for part in output.supervised).backward()
        gradients = {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}
        found[decoder.checkpointing] = {"tokens": tokens.tokens.grad, **gradients}
    assert len(calls) == 1 + 2
    assert set(found[True]) == set(found[False])
    for name, kept in found[False].items():
        torch.testing.assert_close(found[True][name], kept)


@pytest.mark.parametrize("num_sets", [2, 4])
def test_sets_of_heads_must_fit_the_layers(num_sets):
    with pytest.raises(ValueError, match=rf"{num_sets} sets of heads for 3 decoder layers.*num_sets"):
        Decoder(
            LearnedPositions(QUERIES, DIM),
            FixedPosition(),
            heads(num_sets=num_sets),
            PlainDecoderLayers(**SIZES),
        )


def test_boxes_must_be_positions_of_a_memory_with_as_many_levels():
    decoder = Decoder(LearnedBoxes(QUERIES, DIM), BoxPosition(DIM), heads(), deformable()).double()
    with pytest.raises(
        ValueError, match=r"gives 1 levels, this attention takes 2.*model.decoder.layers.num_levels"
    ):
        decoder(memory(levels=COARSE))
