"""What is supervised: predictions, and which of their queries answer for which objects.

Shape letters: B images, M matched pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detrex.modeling.denoising import DenoisingQueries
from detrex.structures import Prediction


@dataclass
class Part:
    """One supervised prediction, and how its queries find their objects.

    Attributes:
        suffix: of the names of its losses, in published terms: "" is the last layer, "_0" the first
            prediction, "_interm" the proposals, "_dn..." denoising queries.
        prediction: of Q queries.
        groups: equal ranges of the queries, each matched one to one by itself (Group DETR, arXiv 2207.13085).
        copies: how many queries of a group answer for each object (H-DETR's one-to-many branch, arXiv
            2207.13080).
        binary: objects are only told from background: all have class 0 (two-stage Deformable DETR).
        denoising: the arrangement of denoising queries, whose objects are known; None if they are matched.
    """

    suffix: str
    prediction: Prediction
    groups: int = 1
    copies: int = 1
    binary: bool = False
    denoising: DenoisingQueries | None = None

    def __post_init__(self):
        if self.size % self.groups:
            raise ValueError(
                f"{self.size} queries (losses with suffix '{self.suffix}') are no {self.groups} equal groups"
            )

    @property
    def size(self) -> int:
        """Q."""
        return self.prediction.logits.shape[1]

    @property
    def queries_per_object(self) -> int:
        """By which, times the number of objects, its losses are divided."""
        return self.denoising.groups if self.denoising is not None else self.groups * self.copies


@dataclass
class Matches:
    """Pairs of queries and objects, over all parts and images.

    Attributes:
        part: (M,) int64, which supervised prediction.
        image: (M,) int64, index in the batch.
        query: (M,) int64, query index within the part.
        object: (M,) int64, index into the batch's concatenated objects.
    """

    part: Tensor
    image: Tensor
    query: Tensor
    object: Tensor

    @classmethod
    def concatenate(cls, *matches: Matches) -> Matches:
        if not matches:
            return cls(*torch.zeros(4, 0, dtype=torch.int64))
        return cls(
            *(torch.cat(columns) for columns in zip(*(vars(m).values() for m in matches), strict=True))
        )

    @classmethod
    def known(cls, part: int, queries: DenoisingQueries, counts: list[int]) -> Matches:
        """Of denoising queries: object j of an image is query j of every group; images have ``counts``."""
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        within = torch.cat([torch.arange(n) for n in counts])
        group = torch.arange(queries.groups).repeat_interleave(len(image))
        return cls(
            part=torch.full_like(group, part),
            image=image.repeat(queries.groups),
            query=group * queries.size + within.repeat(queries.groups),
            object=torch.arange(len(image)).repeat(queries.groups),
        )

    def ordered_by_object(self) -> Matches:
        """The same pairs object by object, and so image by image."""
        order = self.object.argsort(stable=True)
        return Matches(*(column[order] for column in vars(self).values()))

    def to(self, device: torch.device) -> Matches:
        return Matches(*(t.to(device, non_blocking=True) for t in vars(self).values()))


@dataclass
class Supervision:
    """All supervised predictions side by side, so that every loss is one pass.

    Attributes:
        parts: what is supervised.
        joined: the parts' predictions in float32, concatenated over queries.
        matches: which query of which part answers for which object, ordered by image.
        joined_query: (M,) index of every matched query among the joined ones.
        pairs_per_image: how many matches every image has, Python ints.
    """

    parts: list[Part]
    joined: Prediction
    matches: Matches
    joined_query: Tensor
    pairs_per_image: list[int]

    @classmethod
    def of(cls, parts: list[Part], matches: Matches, batch: int) -> Supervision:
        """Joins ``parts`` of a ``batch`` of images; ``matches`` are on the CPU."""
        joined = Prediction.concatenate([p.prediction for p in parts])
        embed = None if joined.mask_embed is None else joined.mask_embed.float()
        joined = Prediction(joined.logits.float(), joined.boxes.float(), embed)
        matches = matches.ordered_by_object()
        starts = torch.tensor([0, *(p.size for p in parts[:-1])]).cumsum(0)
        query = starts[matches.part] + matches.query
        device = joined.logits.device
        pairs = torch.bincount(matches.image, minlength=batch).tolist()
        return cls(parts, joined, matches.to(device), query.to(device, non_blocking=True), pairs)

    def per_part(self, values: list[float]) -> Tensor:
        """One number for each part, (P,) float32 on the device of the predictions."""
        return torch.tensor(values, dtype=torch.float32).to(self.joined.logits.device, non_blocking=True)

    def sum_by_part(self, values: Tensor) -> Tensor:
        """Per-pair values (M,) summed within parts: (P,)."""
        return values.new_zeros(len(self.parts)).index_add(0, self.matches.part, values)
