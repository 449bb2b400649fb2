"""Assignments, which decide which queries answer for which objects.

The matcher computes costs and moves them to the CPU in one transfer for all predictions and images; there an
assignment decides. A new kind of assignment overrides :meth:`Assignment.values` and :meth:`Assignment.pairs`.

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
    """The objects of one image, to which its queries are compared.

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
        class_agnostic: objects are only distinguished from background: all of them have class 0.
        blocks: number of equal ranges of the queries; every object is assigned in each range separately.
    """

    needs_cost = True
    class_agnostic = False
    blocks = 1

    @property
    def queries_per_object(self) -> float:
        """Queries that answer for an object: losses are divided by the number of objects times this."""
        return self.blocks

    def at_stage(self, stage: int, num_stages: int) -> Assignment:  # noqa: ARG002
        """The assignment of prediction ``stage`` out of ``num_stages``; by default the same for all."""
        return self

    def class_loss_factors(self, has_object: Tensor, num_classes: int) -> Tensor | None:  # noqa: ARG002
        """Factors (B, Q) of the queries' class losses, or None for no change.

        Args:
            has_object: (B, Q) bool, whether a query answers for an object.
            num_classes: number of class logits of a query.
        """
        return None

    def values(self, cost: Tensor | None, reference: Tensor | None, truth: Truth) -> Tensor | None:  # noqa: ARG002
        """The values by which the queries of an image are assigned, on the model's device.

        Args:
            cost: (Q, N) matching cost, if ``needs_cost``.
            reference: (Q, 2 or 4) normalised positions from which the queries started; None for queries that
                have none.
            truth: the objects of the image.

        Returns:
            (Q, N), which :meth:`pairs` gets on the CPU, or None if it needs nothing. By default, the cost.
        """
        return cost

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Decides for all images of a batch.

        Args:
            values: for each image, the result of :meth:`values` on the CPU.
            counts: number of objects in each image.

        Returns:
            For each image, the queries (M,) and objects (M,) of the matched pairs, int64 on the CPU.
        """
        raise NotImplementedError


class OneToOne(Assignment):
    """Every object gets one query, so that the total cost of an image is lowest (Hungarian matching).

    DETR, arXiv 2005.12872. If there are more objects than queries, only the best-fitting objects get one.

    Args:
        blocks: number of equal ranges of queries, each matched separately (Group DETR, arXiv 2207.13085).
        class_agnostic: see :class:`Assignment`.
    """

    copies = 1

    def __init__(self, blocks: int = 1, class_agnostic: bool = False):
        self.blocks, self.class_agnostic = blocks, class_agnostic

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`Assignment.pairs`.

        Raises:
            ValueError: the number of queries is no multiple of ``blocks``.
        """
        return [self._image(cost, self.copies) for cost, _ in zip(values, counts, strict=True)]

    def _image(self, cost: Tensor | None, copies: int) -> tuple[Tensor, Tensor]:
        assert cost is not None  # the matcher gives one where ``needs_cost``
        queries, objects = cost.shape
        if queries % self.blocks:
            raise ValueError(f"{queries} queries cannot be divided into {self.blocks} equal blocks")
        size, pairs = queries // self.blocks, []
        # A diverged run must reach the trainer's check of the losses instead of failing in the assignment.
        finite = cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6)  # (Q, N)
        for block, rows in enumerate(finite.split(size)):
            matched, query = linear_sum_assignment(rows.T.repeat(copies, 1).numpy())  # (M of the block,) each
            pairs.append(np.stack([query + block * size, matched % max(objects, 1)]))  # (2, M of the block)
        query, matched = torch.from_numpy(np.concatenate(pairs, 1))  # (M,) each
        return query, matched


class OneToMany(OneToOne):
    """Every object gets several queries: it is matched as if the image had several copies of it.

    H-DETR, arXiv 2207.13080.

    Args:
        copies: number of queries for each object.
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
    """Every object gets a set of queries, which all answer for it; a set costs as much as its worst query.

    CO-MOT, arXiv 2305.12724.

    Args:
        set_size: number of queries in a set; they follow one another.
        left_out: objects that get no set in the last layer, because other queries answer for them.
    """

    def __init__(self, set_size: int, left_out: Sequence[int] = ()):
        super().__init__()
        self.set_size, self.left_out = set_size, frozenset(left_out)

    @property
    def queries_per_object(self) -> float:
        """Each object goes to ``set_size`` queries."""
        return self.set_size

    def at_stage(self, stage: int, num_stages: int) -> Assignment:
        """The assignment of a layer: layers before the last one match all objects."""
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
    """Sets of queries whose objects are given; other sets have no object. It takes one image only.

    Args:
        set_size: number of queries in a set; they follow one another.
        given: pairs of the number of a set and of its object.
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
    """The queries (M * set_size,) of sets (M,), and for each the object of its set."""
    queries = sets[:, None] * set_size + torch.arange(set_size)  # (M, set_size)
    return queries.flatten(), objects.repeat_interleave(set_size)


class Known(Assignment):
    """For denoising queries, whose objects are known: query j of every block answers for object j.

    Args:
        blocks: number of repetitions of the objects.
        size: number of queries in a block.
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
    """A prediction from which losses are computed.

    Attributes:
        prediction: of Q queries.
        assignment: decides which objects its queries answer for.
        loss_suffix: ending of the names of its losses, as published: "" is the last layer, "_0" the first
            prediction, "_interm" the proposals, "_dn..." denoising queries. Losses of one name are added.
        reference: (B, Q, 2 or 4) normalised positions from which the queries started, without gradient; or
            None.
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
        """The same pairs ordered by object, thus by image; queries of one object are in ascending order."""
        order = self.query.argsort(stable=True)  # (M,)
        order = order[self.object[order].argsort(stable=True)]  # (M,)
        return Matches(*(column[order] for column in vars(self).values()))

    def to(self, device: torch.device) -> Matches:
        """The same pairs on ``device``."""
        return Matches(*(t.to(device, non_blocking=True) for t in vars(self).values()))
