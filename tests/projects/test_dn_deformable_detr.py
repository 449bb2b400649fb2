"""DN-Deformable-DETR (arXiv 2203.01305): the last channel tells queries apart, and what noise draws."""

import torch

from detrex.modeling import IndicatedDenoising, PredictionHeads
from detrex.structures import BatchTargets, Pyramid
from projects.dn_deformable_detr.queries import IndicatedUniformBoxes

DIM = 8


def targets(count: int) -> BatchTargets:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3]]).expand(count, -1)
    image = torch.zeros(count, dtype=torch.int64)
    return BatchTargets(torch.arange(count) % 3, boxes, None, torch.ones(count) > 0, image, [count])


def test_matching_queries_have_0_in_their_last_channel_and_learn_the_others():
    queries = IndicatedUniformBoxes(5, DIM)
    assert queries.content.weight.shape == (5, DIM - 1)
    torch.nn.init.normal_(queries.content.weight)
    (group,) = queries(Pyramid.from_maps([torch.zeros(2, DIM, 4, 6)]), None, PredictionHeads(DIM, 3)).groups
    torch.testing.assert_close(group.content[1, :, :-1], queries.content.weight)
    assert not group.content[..., -1].any()


def test_denoising_queries_have_1_in_their_last_channel_but_not_where_there_is_no_object():
    denoising = IndicatedDenoising(3, DIM, num_groups=2, label_noise=0.0, box_noise=0.0)
    two, one = targets(2), targets(1)
    both = BatchTargets(
        *(torch.cat([getattr(t, name) for t in (two, one)]) for name in ("labels", "boxes")),
        None,
        torch.ones(3) > 0,
        torch.tensor([0, 0, 1]),
        [2, 1],
    )
    group = denoising(both)
    assert group.content[..., -1].tolist() == [[1, 1, 1, 1], [1, 0, 1, 0]]
    torch.testing.assert_close(group.content[0, 1, :-1], denoising.label_embed.weight[1])


def test_noise_draws_the_label_of_no_object_too():
    torch.manual_seed(0)
    with_it, without = (IndicatedDenoising(3, DIM, 1, 2.0, no_object_label=extra) for extra in (True, False))
    assert (len(with_it.label_embed.weight), len(without.label_embed.weight)) == (4, 3)
    content = with_it(targets(300)).content[0, :, :-1]
    shares = [(content == row).all(-1).float().mean().item() for row in with_it.label_embed.weight]
    assert all(0.15 < share < 0.35 for share in shares)
