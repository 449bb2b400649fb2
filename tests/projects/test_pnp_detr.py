"""PnP-DETR (arXiv 2109.07036): which tokens are kept, and what becomes of the others."""

import pytest
import torch
import torch.nn.functional as F

from detrex.structures import PaddedImages, Pyramid
from projects.pnp_detr.sampling import SampledEncoder, TokenSampler

DIM, POOLED = 8, 3
# The second image has 2 x 3 of the 4 x 5 cells.
SHAPE, VALID = (4, 5), (((4, 5),), ((2, 3),))


def pyramid() -> Pyramid:
    torch.manual_seed(0)
    return Pyramid(torch.randn(2, 20, DIM), (SHAPE,), VALID, torch.randn(2, 20, DIM))


def test_kept_and_pooled_tokens_by_hand():
    torch.manual_seed(1)
    sampler, before = TokenSampler(DIM, POOLED, kept=0.5), pyramid()
    after = sampler(before)
    assert after.tokens.shape == (2, POOLED + 10, DIM) and after.scores.shape == (2, 10)
    assert after.padding.sum(1).tolist() == [0, 7]  # the second image keeps 3
    for image, (height, width) in enumerate([(4, 5), (2, 3)]):
        inside = [r * 5 + c for r in range(height) for c in range(width)]
        tokens = before.tokens[image, inside]
        hidden = F.relu(F.linear(tokens, sampler.score[0].weight[..., 0, 0], sampler.score[0].bias))
        scores = F.linear(hidden, sampler.score[2].weight[..., 0, 0], sampler.score[2].bias).sigmoid()[:, 0]
        count, order = len(inside) // 2, scores.argsort(descending=True)
        normed, kept, rest = (
            F.layer_norm(tokens, (DIM,)),
            order[: len(inside) // 2],
            order[len(inside) // 2 :],
        )
        found = after.tokens[image]
        torch.testing.assert_close(found[POOLED : POOLED + count], normed[kept] * scores[kept, None])
        weights = sampler.pool_weight(normed[rest]).softmax(0).T
        torch.testing.assert_close(found[:POOLED], weights @ sampler.pool_value(normed[rest]))
        places = before.position[image, inside]
        expected = torch.cat([weights @ places[rest], places[kept]])
        torch.testing.assert_close(after.position[image, : POOLED + count], expected)
        torch.testing.assert_close(after.scores[image, :count], scores[kept])


def test_the_loss_is_the_mean_score_of_the_kept_tokens():
    encoder = SampledEncoder({32: 4}, DIM, 16, 2, 1, loss_weight=0.5)
    images = PaddedImages(torch.zeros(1, 3, 64, 96), [(64, 96)])
    memory = encoder({32: torch.randn(1, 4, 2, 3)}, images)
    losses = encoder.token_loss(memory, images, None)
    assert list(losses) == ["sample_reg_loss"]
    assert losses["sample_reg_loss"].item() == pytest.approx(0.5 * memory.scores.mean().item())


def test_one_token_alone_becomes_the_pool():
    encoder = SampledEncoder({32: 4}, DIM, 16, 2, 1)
    images = PaddedImages(torch.zeros(1, 3, 20, 20), [(20, 20)])
    memory = encoder({32: torch.randn(1, 4, 1, 1)}, images)
    assert memory.tokens.isfinite().all() and memory.tokens.shape == (1, 30, DIM)
    assert encoder.token_loss(memory, images, None)["sample_reg_loss"] == 0


def test_some_tokens_must_be_left_for_the_pool():
    with pytest.raises(ValueError, match="below 1"):
        SampledEncoder({32: 4}, DIM, kept=1.0)
