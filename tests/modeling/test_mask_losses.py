"""Mask losses in pieces are those of the whole, and keep within their memory."""

import pytest
import torch
import torch.nn.functional as F

from detrex.modeling import GridPoints, RandomPoints
from detrex.modeling.mask_losses import MaskLosses
from detrex.runtime import chunking
from detrex.structures import PackedMasks

MB = 2**20
COUNTS = [5, 0, 11, 7]


def made_pairs(counts=COUNTS, size=(64, 96), objects=9, dim=8):
    """Arguments of the losses: pairs of random masks, ordered by image."""
    random = torch.Generator().manual_seed(0)
    height, width = size
    coarse = torch.rand(objects, 1, 5, 6, generator=random)
    masks = F.interpolate(coarse, size, mode="bilinear")[:, 0] > 0.5
    embed = torch.randn(sum(counts), dim, generator=random).requires_grad_()
    pixels = torch.randn(len(counts), dim, height // 4, width // 4, generator=random).requires_grad_()
    index = torch.randint(0, objects, (sum(counts),), generator=random).sort().values
    return embed, pixels, counts, PackedMasks.pack([masks], size), index


def with_gradients(losses, embed, pixels, *rest):
    values = losses(embed, pixels, *rest)
    weights = torch.linspace(0.5, 2, len(embed))
    (values[0] @ weights + 3 * values[1] @ weights).backward()
    return *values, embed.grad, pixels.grad


def test_pieces_give_the_losses_and_gradients_of_the_whole(monkeypatch):
    whole = with_gradients(MaskLosses(GridPoints(1024), 2048), *made_pairs())
    monkeypatch.setattr(chunking, "CPU_BYTES", 4 * 3 * 1024)
    in_pieces = with_gradients(MaskLosses(GridPoints(1024), 2048), *made_pairs())
    # No memory at all means pair by pair, each computed again in the backward pass.
    pair_by_pair = with_gradients(MaskLosses(GridPoints(1024), 0), *made_pairs())
    for ours in (in_pieces, pair_by_pair):
        for value, expected in zip(ours, whole, strict=True):
            torch.testing.assert_close(value, expected)


def test_losses_of_each_pair_by_whole_masks():
    embed, pixels, counts, masks, index = made_pairs()
    cross_entropy, dice = MaskLosses(GridPoints(24 * 24), 2048)(embed, pixels, counts, masks, index)
    centre = (torch.arange(24) + 0.5) / 24 * 2 - 1
    grid = torch.stack(torch.meshgrid(centre, centre, indexing="ij")[::-1], -1)[None]
    images = [i for i, count in enumerate(counts) for _ in range(count)]
    for pair, image in enumerate(images):
        logits = torch.einsum("d,dhw->hw", embed[pair], pixels[image])
        truth = masks.unpack()[index[pair]].float()
        x, t = (F.grid_sample(m[None, None], grid, align_corners=False).flatten() for m in (logits, truth))
        p = x.sigmoid()
        torch.testing.assert_close(cross_entropy[pair], F.binary_cross_entropy(p, t), atol=1e-4, rtol=1e-4)
        expected = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        torch.testing.assert_close(dice[pair], expected, atol=1e-4, rtol=1e-4)


def test_the_backward_pass_looks_at_the_points_of_the_forward_pass():
    class Noted(RandomPoints):
        def per_mask(self, logits):
            self.drawn.append(super().per_mask(logits))
            return self.drawn[-1]

    noted = Noted(64)
    noted.drawn = []
    values = MaskLosses(noted, 0)(*made_pairs())
    forward, noted.drawn = noted.drawn, []
    torch.stack(values).sum().backward()
    assert len(forward) == sum(COUNTS)
    assert {p.sum().item() for p in noted.drawn} == {p.sum().item() for p in forward}


@pytest.mark.parametrize("kind", [RandomPoints, GridPoints])
def test_250_objects_keep_within_the_memory(peak_memory, kind):
    def peak(limit):
        pairs = made_pairs([250], (256, 256), objects=250)
        losses = MaskLosses(kind(1024), limit)
        with peak_memory() as memory:
            torch.stack(losses(*pairs)).sum().backward()
        return memory.peak

    assert peak(4) < 4 * MB
    assert 4 * MB < peak(16) < 16 * MB  # what there is, is used
    assert peak(2048) > 16 * MB


def test_without_pairs_there_are_no_losses_but_gradients():
    cross_entropy, dice, *gradients = with_gradients(MaskLosses(RandomPoints(16), 1), *made_pairs([0, 0]))
    assert cross_entropy.shape == dice.shape == (0,)
    assert all(g is not None and not g.any() for g in gradients)
