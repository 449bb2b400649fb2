"""Chooses the images of each batch by the seed alone, so that a stopped run can continue exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One image drawn for training: the number of the draw, and the image's index in the data set."""

    number: int
    image: int


class ShuffledBatches(Sampler[list[Draw]]):
    """Endless batches for one of several processes; every epoch is a new permutation of the images.

    All draws are numbered consecutively. A batch consists of ``batch_size`` consecutive draws or, with
    ``groups``, of consecutive draws from the same group. The processes take batches in turn.

    Args:
        length: number of images.
        batch_size: for this process.
        seed: of the permutations.
        rank, world_size: number of this process, and number of all processes.
        groups: the group of each image (any small integers), or None. Batches do not mix groups.

    Attributes:
        start: number of batches to skip at the beginning of the next iteration.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        groups: Sequence[int] | None = None,
    ):
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size, self.groups = rank, world_size, groups
        self.start = 0
        self._epoch = -1
        self._permutation: list[int] = []

    def __iter__(self) -> Iterator[list[Draw]]:
        first = self.start * self.world_size + self.rank
        if self.groups is None:
            return self._plain_batches(first)
        return islice(self._grouped_batches(), first, None, self.world_size)

    def _plain_batches(self, batch: int) -> Iterator[list[Draw]]:
        while True:
            first = batch * self.batch_size
            yield [self._draw(number) for number in range(first, first + self.batch_size)]
            batch += self.world_size

    def _grouped_batches(self) -> Iterator[list[Draw]]:
        groups = self.groups or []
        pending: dict[int, list[Draw]] = {}
        for draw in map(self._draw, count()):
            batch = pending.setdefault(groups[draw.image], [])
            batch.append(draw)
            if len(batch) == self.batch_size:
                yield batch.copy()
                batch.clear()

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self.length)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
            self._epoch = epoch
            self._permutation = torch.randperm(self.length, generator=generator).tolist()
        return Draw(number, self._permutation[position])


def mixed_seed(*parts: int) -> int:
    """Mixes non-negative numbers into one seed below 2 ** 63; similar numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
