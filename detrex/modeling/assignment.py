"""Which queries answer for which objects, each kind an object of its own.

The matcher computes costs, and moves them to the CPU in one transfer for all predictions and images; an
assignment decides there. A new kind of assignment overrides :meth:`Assignment.values` and
:meth:`Assignment.pairs`.

Shape letters: B images, Q queries, N objects of an image, M matched pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detrex.structures import Prediction


@dataclass
class Truth:
    """The objects of one image, with which its queries are compared.

    Attributes:
        labels: (N,) int64.
        boxes: (N, 4) normalised cxcywh.
        is_thing: (N,) bool.
        pixel_embed: (D, K) per-pixel embedding at the points where masks are compared, or None.
        inside: (N, K) true masks at these points, in [0, 1], or None.
    """

    labels: Tensor
    boxes: Tensor
    is_thing: Tensor
    pixel_embed: Tensor | None = None
    inside: Tensor | None = None


class Assignment:
    """How the queries of a prediction find the objects that they answer for.

    Attributes:
        needs_cost: whether :meth:`values` takes the matching cost.
        class_agnostic: objects are only told from background: all of them have class 0.
        blocks: equal ranges of the queries, within each of which an object is assigned by itself.
    """

    needs_cost = True
    class_agnostic = False
    blocks = 1

    @property
    def queries_per_object(self) -> float:
        """Losses are divided by the number of objects times this."""
        return self.blocks

    def at_stage(self, stage: int, num_stages: int) -> Assignment:  # noqa: ARG002
        """The assignment of the prediction ``stage``, of ``num_stages``; by default the same for all."""
        return self

    def class_loss_factors(self, has_object: Tensor, num_classes: int) -> Tensor | None:  # noqa: ARG002
        """What the class losses of the queries are multiplied with, (B, Q), or None for nothing.

        Args:
            has_object: (B, Q) bool, whether a query answers for an object.
            num_classes: class logits of a query.
        """
        return None

    def values(self, cost: Tensor | None, reference: Tensor | None, truth: Truth) -> Tensor | None:  # noqa: ARG002
        """What the queries of an image are assigned by, on the model's device.

        Args:
            cost: (Q, N) matching cost, if ``needs_cost``.
            reference: (Q, 2 or 4) where the queries started, normalised; None for queries without a place.
            truth: the objects of the image.

        Returns:
            (Q, N), which :meth:`pairs` gets on the CPU, or None if it needs nothing. Here the cost.
        """
        return cost

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Decides for all images of a batch.

        Args:
            values: of each image as from :meth:`values`, on the CPU.
            counts: objects of each image.

        Returns:
            For each image the queries (M,) and the objects (M,) that go together, int64, on the CPU.
        """
        raise NotImplementedError


class OneToOne(Assignment):
    """Every object gets the query that costs least, all objects of an image together (Hungarian matching).

    DETR, arXiv 2005.12872. With more objects than queries, the best-fitting objects get one.

    Args:
        blocks: equal ranges of queries, each matched by itself (Group DETR, arXiv 2207.13085).
        class_agnostic: see :class:`Assignment`.
    """

    copies = 1

    def __init__(self, blocks: int = 1, class_agnostic: bool = False):
        self.blocks, self.class_agnostic = blocks, class_agnostic

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`Assignment.pairs`.

        Raises:
            ValueError: the queries cannot be divided into the blocks.
        """
        return [self._image(cost, self.copies) for cost, _ in zip(values, counts, strict=True)]

    def _image(self, cost: Tensor | None, copies: int) -> tuple[Tensor, Tensor]:
        assert cost is not None  # the matcher gives one where ``needs_cost``
        queries, objects = cost.shape
        if queries % self.blocks:
            raise ValueError(f"{queries} queries cannot be divided into {self.blocks} equal blocks")
        size, pairs = queries // self.blocks, []
        # A diverged run must reach the trainer's check of its losses, not fail inside the assignment.
        finite = cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6)
        for block, rows in enumerate(finite.split(size)):
            matched, query = linear_sum_assignment(rows.T.repeat(copies, 1).numpy())
            pairs.append(np.stack([query + block * size, matched % max(objects, 1)]))  # (2, M of the block)
        query, matched = torch.from_numpy(np.concatenate(pairs, 1))  # (M,) each
        return query, matched


class OneToMany(OneToOne):
    """Every object gets several queries: it is matched as if it were there several times.

    H-DETR, arXiv 2207.13080.

    Args:
        copies: queries of each object.
        class_agnostic: see :class:`Assignment`.
    """

    def __init__(self, copies: int, class_agnostic: bool = False):
        super().__init__(class_agnostic=class_agnostic)
        self.copies = copies

    @property
    def queries_per_object(self) -> float:
        """Each object goes to ``copies`` queries."""
        return self.copies


class SetsToOne(OneToOne):
    """Every object gets a set of queries, by the cost of the set's worst one; all of them answer for it.

    CO-MOT, arXiv 2305.12724.

    Args:
        set_size: queries of a set, which follow one another.
        left_out: objects that get none in the last layer, as other queries answer for them.
    """

    def __init__(self, set_size: int, left_out: Sequence[int] = ()):
        super().__init__()
        self.set_size, self.left_out = set_size, frozenset(left_out)

    @property
    def queries_per_object(self) -> float:
        """Each object goes to ``set_size`` queries."""
        return self.set_size

    def at_stage(self, stage: int, num_stages: int) -> Assignment:
        """The assignment of a layer: all objects before the last one."""
        return self if stage == num_stages - 1 else SetsToOne(self.set_size)

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`Assignment.pairs`; pairs of one set follow one another."""
        found = []
        for cost, count in zip(values, counts, strict=True):
            assert cost is not None
            free = torch.tensor([j for j in range(count) if j not in self.left_out], dtype=torch.int64)
            sets, matched = self._image(cost.unflatten(0, (-1, self.set_size)).amax(1)[:, free], 1)
            found.append(queries_of_sets(sets, free[matched], self.set_size))
        return found


class SetsToGiven(Assignment):
    """Sets of queries whose objects are given; other sets have none. For one image.

    Args:
        set_size: queries of a set, which follow one another.
        given: numbers of a set and of its object.
    """

    needs_cost = False

    def __init__(self, set_size: int, given: Sequence[tuple[int, int]] = ()):
        self.set_size = set_size
        self.given = torch.tensor(given, dtype=torch.int64).view(-1, 2)

    @property
    def queries_per_object(self) -> float:
        """Each object goes to ``set_size`` queries."""
        return self.set_size

    def pairs(
        self,
        values: Sequence[Tensor | None],  # noqa: ARG002
        counts: Sequence[int],  # noqa: ARG002
    ) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`Assignment.pairs`; without values."""
        return [queries_of_sets(self.given[:, 0], self.given[:, 1], self.set_size)]


def queries_of_sets(sets: Tensor, objects: Tensor, set_size: int) -> tuple[Tensor, Tensor]:
    """The queries (M * set_size,) of sets (M,), each with the object of its set."""
    queries = sets[:, None] * set_size + torch.arange(set_size)  # (M, set_size)
    return queries.flatten(), objects.repeat_interleave(set_size)


class Known(Assignment):
    """The objects of denoising queries, known in advance: object j of an image is query j of every block.

    Args:
        blocks: repetitions of the objects.
        size: queries of a block.
    """

    needs_cost = False

    def __init__(self, blocks: int, size: int):
        self.blocks, self.size = blocks, size

    def pairs(
        self,
        values: Sequence[Tensor | None],  # noqa: ARG002
        counts: Sequence[int],
    ) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`Assignment.pairs`; without values."""
        found = []
        for count in counts:
            place = torch.arange(self.blocks)[:, None] * self.size + torch.arange(count)  # (blocks, N)
            found.append((place.flatten(), torch.arange(count).repeat(self.blocks)))
        return found


@dataclass
class SupervisedPrediction:
    """A prediction that losses are taken of.

    Attributes:
        prediction: of Q queries.
        assignment: which objects its queries answer for.
        loss_suffix: of the names of its losses, in published terms: "" is the last layer, "_0" the first
            prediction, "_interm" the proposals, "_dn..." denoising queries. Losses of one name are added.
        reference: (B, Q, 2 or 4) where the queries started, normalised, without gradient; or None.
    """

    prediction: Prediction
    assignment: Assignment
    loss_suffix: str = ""
    reference: Tensor | None = None

    @property
    def size(self) -> int:
        """The number of queries, Q."""
        return self.prediction.logits.shape[1]


@dataclass
class Matches:
    """Pairs of queries and objects, over all supervised predictions and images.

    Attributes:
        stage: (M,) int64, index of the supervised prediction.
        image: (M,) int64, index in the batch.
        query: (M,) int64, index of the query within the prediction.
        object: (M,) int64, index among the batch's concatenated objects.
    """

    stage: Tensor
    image: Tensor
    query: Tensor
    object: Tensor

    @classmethod
    def concatenate(cls, matches: Sequence[Matches]) -> Matches:
        """All pairs one after another."""
        if not matches:
            return cls(*torch.zeros(4, 0, dtype=torch.int64))
        return cls(
            *(torch.cat(columns) for columns in zip(*(vars(m).values() for m in matches), strict=True))
        )

    def ordered_by_object(self) -> Matches:
        """The same pairs object by object, and so image by image; queries of an object ascend."""
        order = self.query.argsort(stable=True)  # (M,)
        order = order[self.object[order].argsort(stable=True)]
        return Matches(*(column[order] for column in vars(self).values()))

    def to(self, device: torch.device) -> Matches:
        """The same pairs on ``device``."""
        return Matches(*(t.to(device, non_blocking=True) for t in vars(self).values()))
