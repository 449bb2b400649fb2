"""Mask losses of all matched pairs within a bounded memory.

A map of logits is read at about as many points as it has cells. Without the map, all D channels of the
per-pixel embedding would have to be sampled at the points of every pair, so whole maps are cheaper. But maps
are computed for only as many pairs as fit into memory; if not all fit, they are computed again in the
backward pass.

Shape letters: B images, M matched pairs, D mask embedding size, K points, h and w cells of masks.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from detrex.layers import linear, sample_bool_masks, sample_maps
from detrex.modeling.losses import mask_cross_entropy, mask_dice
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.runtime.chunking import FLOAT_BYTES, items_in_cache, items_in_memory
from detrex.structures import PackedMasks

# Floats that autograd keeps or makes for every pair: per cell, the map and its gradient, whole and in pieces;
# per point, its position, logit, truth and probability.
KEPT_PER_CELL, KEPT_PER_POINT = 3, 6
# Floats that a pair needs briefly per candidate point (position, grid, certainty, order) and per point.
BRIEF_PER_CANDIDATE, BRIEF_PER_POINT = 5, 10
# Share of the memory for floats that are kept; the rest is for those that are needed briefly.
KEPT_SHARE = 0.75


class MaskLosses:
    """Cross-entropy and dice of pairs of queries and true masks.

    Args:
        points: chooses the points where masks are compared.
        memory_limit_mb: memory that these losses may take, besides their inputs and the gradients of inputs.
            At least one pair is computed at a time, even if it needs more.
    """

    def __init__(self, points: RandomPoints | GridPoints, memory_limit_mb: int):
        self.points, self.memory_limit_mb = points, memory_limit_mb

    def __call__(
        self, embed: Tensor, pixel_embed: Tensor, counts: list[int], masks: PackedMasks, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both losses of every pair, (M,) each.

        Args:
            embed: (M, D) mask embeddings, ordered by image.
            pixel_embed: (B, D, h, w).
            counts: number of pairs in every image.
            masks: the true masks.
            index: (M,) index of each pair's true mask.
        """
        block = self._pairs_in_memory(pixel_embed)
        spans = [slice(i, i + block) for i in range(0, max(len(embed), 1), block)]
        if len(spans) == 1:
            return self._block(embed, pixel_embed, counts, masks, index)
        blocks = [
            checkpoint(
                self._block,
                embed[span],
                pixel_embed,
                list(_counts_within(counts, span)),
                masks,
                index[span],
                use_reentrant=False,
            )
            for span in spans
        ]
        cross_entropy, dice = (torch.cat(column) for column in zip(*blocks, strict=True))
        return cross_entropy, dice

    def _pairs_in_memory(self, pixel_embed: Tensor) -> int:
        cells = pixel_embed.shape[-2] * pixel_embed.shape[-1]
        floats = KEPT_PER_CELL * cells + KEPT_PER_POINT * self.points.num_points
        return items_in_memory(FLOAT_BYTES * floats, KEPT_SHARE * self.memory_limit_mb)

    def _pairs_in_piece(self, pixel_embed: Tensor) -> int:
        points, candidates = self.points.num_points, self.points.num_candidates
        floats = BRIEF_PER_CANDIDATE * candidates + BRIEF_PER_POINT * points
        return min(
            items_in_memory(FLOAT_BYTES * floats, (1 - KEPT_SHARE) * self.memory_limit_mb),
            items_in_cache(FLOAT_BYTES * max(points, candidates), pixel_embed.device),
        )

    def _block(
        self, embed: Tensor, pixel_embed: Tensor, counts: list[int], masks: PackedMasks, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Like :meth:`__call__`, for pairs whose maps fit into memory together."""
        rows = zip(embed.split(counts), pixel_embed, strict=True)
        maps = torch.cat([linear(e, pixels.flatten(1).t()) for e, pixels in rows])
        maps = maps.unflatten(1, pixel_embed.shape[2:])[:, None]  # (M, 1, h, w)
        size = self._pairs_in_piece(pixel_embed)
        pieces = [
            self._piece(piece, masks, piece_index)
            for piece, piece_index in zip(maps.split(size), index.split(size), strict=True)
        ]
        cross_entropy, dice = (torch.cat(column) for column in zip(*pieces, strict=True))
        return cross_entropy, dice

    def _piece(self, maps: Tensor, masks: PackedMasks, index: Tensor) -> tuple[Tensor, Tensor]:
        points = self.points.per_mask(maps.detach().squeeze(1))
        truth = sample_bool_masks(masks, index, points)
        logits = sample_maps(maps, points).squeeze(1)
        return mask_cross_entropy(logits, truth), mask_dice(logits, truth)


def _counts_within(counts: list[int], span: slice) -> Iterator[int]:
    """How many of the ``counts`` pairs of each image, one image after another, lie in ``span``."""
    first = 0
    for count in counts:
        yield max(0, min(first + count, span.stop) - max(first, span.start))
        first += count
