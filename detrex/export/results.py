"""Results of a batch as tensors, for graphs; otherwise equal to :mod:`detrex.modeling.results`.

A graph cannot return lists, so all images of a batch have the same number of rows, and unused rows are
marked. There are as many rows as the fullest image needs, but at least one.

Shape letters: B images, Q queries, C classes, N rows, h and w cells of masks, H and W output pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert

from detrex.export.resizing import resize
from detrex.layers import take_rows
from detrex.modeling import InstanceInference, PanopticInference, SemanticInference

NONE = -1
"""Class and score of a row without an object or segment."""

_QUERIES_AT_ONCE = 32  # queries whose masks are added to semantic scores together; limits the memory


@dataclass
class BatchMasks:
    """Masks of queries for images of one size, multiplied out only when they are needed.

    Attributes:
        embed: (B, Q, D).
        pixels: (B, D, h, w) per-pixel embedding.
        to_image: matrices of rows and columns from cells to pixels of the padded input.
        to_output: matrices of rows and columns from those to pixels of the output, without padding.
    """

    embed: Tensor
    pixels: Tensor
    to_image: tuple[Tensor, Tensor]
    to_output: tuple[Tensor, Tensor]

    def __getitem__(self, index: Tensor) -> BatchMasks:
        """Masks of the queries ``index`` (B, N)."""
        return BatchMasks(take_rows(self.embed, index), self.pixels, self.to_image, self.to_output)

    def at_input(self) -> Tensor:
        """Logits (B, N, pixels of the padded input)."""
        return resize(self._cells(), *self.to_image)

    def at_output(self) -> Tensor:
        """The logits at the size of the output, (B, N, H, W)."""
        rows, columns = (b @ a for a, b in zip(self.to_image, self.to_output, strict=True))
        return resize(self._cells(), rows, columns)

    def _cells(self) -> Tensor:
        return (self.embed @ self.pixels.flatten(2)).float().unflatten(2, self.pixels.shape[2:])


def instances(
    inference: InstanceInference,
    scores: Tensor,
    boxes: Tensor,
    masks: BatchMasks | None,
    threshold: Tensor,
    to_pixels: Callable[[Tensor], Tensor],
    things: Sequence[int] | None,
) -> dict[str, Tensor]:
    """Objects, see :class:`~detrex.modeling.InstanceInference`.

    Args:
        inference: the settings; ``threshold`` replaces theirs.
        scores: (B, Q, C) class probabilities.
        boxes: (B, Q, 4) normalised cxcywh.
        masks: of the queries, or None for boxes alone.
        threshold: () float32, the lowest score of an object.
        to_pixels: from normalised boxes in xyxy to pixels of the output.
        things: class indices that have instances; None for all.

    Returns:
        ``boxes`` (B, N, 4) absolute xyxy, ``scores`` (B, N) descending, ``classes`` (B, N) int64 and, with
        masks, ``masks`` (B, N, H, W) bool. Scores and classes of rows without an object are :data:`NONE`.
    """
    queries = slice(inference.num_queries)
    top, query, label = inference.best(scores[:, queries], boxes[:, queries])
    keep = (top >= threshold) & (top >= 0)
    if things is not None:
        keep = keep & (label[..., None] == torch.tensor(things, device=label.device)).any(-1)
    top, order = top.masked_fill(~keep, NONE).topk(_rows(keep), 1)
    query, label = query.gather(1, order), label.gather(1, order)
    places = to_pixels(box_convert(take_rows(boxes, query), "cxcywh", "xyxy"))
    if masks is None:
        return {"boxes": places, "scores": top, "classes": label.masked_fill(top < 0, NONE)}
    logits = masks[query].at_output()
    inside = logits > 0
    quality = _areas(logits.sigmoid() * inside) / (_areas(inside) + 1e-6)
    score = torch.where(top < 0, top, top * quality)
    score = score.masked_fill(score < threshold, NONE)
    score, order = score.topk(score.shape[1], 1)
    return {
        "boxes": take_rows(places, order),
        "scores": score,
        "classes": label.gather(1, order).masked_fill(score < 0, NONE),
        "masks": _in_order(inside, order),
    }


def panoptic(
    inference: PanopticInference,
    certainty: Tensor,
    probabilities: Tensor,
    masks: BatchMasks,
    threshold: Tensor,
    things: Sequence[int] | None,
) -> dict[str, Tensor]:
    """One segment per pixel, see :class:`~detrex.modeling.PanopticInference`.

    Args:
        inference: the settings; ``threshold`` replaces theirs.
        certainty: (B, Q) compared with the threshold.
        probabilities: (B, Q, C) from which score and class are taken.
        masks: of the queries.
        threshold: () float32.
        things: class indices of things; segments of one stuff class merge. None: all are things.

    Returns:
        ``panoptic`` (B, H, W) int32, 0 for no segment, else the number of the segment from 1 on; and, with
        segment ``k`` in row ``k - 1``, ``segment_classes`` (B, N) int64 and ``segment_scores`` (B, N), which
        are :data:`NONE` in rows without a segment.
    """
    kept = certainty > threshold
    # Queries that are kept, in order, then the others.
    number = torch.arange(kept.shape[1], 0, -1, device=kept.device, dtype=torch.float32)
    query = (kept * number).topk(_rows(kept), 1).indices  # (B, N)
    valid = kept.gather(1, query)
    scores, labels = take_rows(probabilities, query).max(-1)
    probability = _sigmoid(masks[query].at_output())  # (B, N, H, W)
    covered = (probability >= 0.5) & valid[..., None, None]
    weighted = probability * scores.masked_fill(~valid, NONE)[..., None, None]
    owner = weighted.argmax(1, keepdim=True)  # (B, 1, H, W)
    mine = owner == torch.arange(query.shape[1], device=owner.device)[:, None, None]
    visible = _areas(mine & covered)
    stays = (visible > 0) & (_areas(mine) >= inference.overlap_threshold * _areas(covered))
    is_thing = torch.ones_like(stays)
    if things is not None:
        is_thing = (labels[..., None] == torch.tensor(things, device=labels.device)).any(-1)
    segment, first = _number(labels, stays, is_thing)
    inside = covered.gather(1, owner).squeeze(1)
    found = segment.gather(1, owner.flatten(1)).view_as(inside) * inside
    return {
        "panoptic": found.to(torch.int32),
        "segment_classes": _by_segment(labels, segment, first),
        "segment_scores": _by_segment(_best_of_segment(scores, segment, stays), segment, first),
    }


def semantic(
    inference: SemanticInference, probabilities: Tensor, masks: BatchMasks, most_queries: int | None
) -> Tensor:
    """The class of every pixel (B, H, W) int64, see :class:`~detrex.modeling.SemanticInference`.

    Args:
        inference: its settings.
        probabilities: (B, Q, C).
        masks: of the queries.
        most_queries: largest Q, if Q depends on the picture. Queries without effect fill up the rest, because
            a graph has a fixed number of pieces.
    """
    embed, queries = masks.embed, probabilities.shape[1]
    if type(queries) is not int:
        assert most_queries is not None  # needed if the number of queries depends on the picture
        missing = most_queries - queries
        probabilities, embed = (F.pad(rows, (0, 0, 0, missing)) for rows in (probabilities, embed))
        queries = most_queries
    total: Tensor | None = None
    for first in range(0, queries, _QUERIES_AT_ONCE):
        rows = slice(first, min(first + _QUERIES_AT_ONCE, queries))
        share = probabilities[:, rows].transpose(1, 2)  # (B, C, n)
        part = BatchMasks(embed[:, rows], masks.pixels, masks.to_image, masks.to_output)
        logits = part.at_output() if inference.resize_masks else part.at_input()
        scores = (share @ _sigmoid(logits).flatten(2)).unflatten(2, logits.shape[2:])
        total = scores if total is None else total + scores  # so that a runtime keeps one piece at a time
    assert total is not None
    return (total if inference.resize_masks else resize(total, *masks.to_output)).argmax(1)


def _sigmoid(logits: Tensor) -> Tensor:
    """Not by the operator of this name: onnxruntime's is 0 below -18, so that no mask would be the nearest to
    pixels far outside of all."""
    return 1 / (1 + (-logits).exp())


def _areas(masks: Tensor) -> Tensor:
    """Areas (B, N) of ``masks`` (B, N, H, W), in float32, because runtimes add integers slowly."""
    return masks.to(torch.float32).sum((2, 3))


def _in_order(masks: Tensor, order: Tensor) -> Tensor:
    """Masks (B, N, H, W) in the given order (B, N) of each image; each mask is copied as a whole."""
    images, rows = order.shape
    place = order + rows * torch.arange(images, device=order.device)[:, None]
    return masks.flatten(0, 1).index_select(0, place.flatten()).unflatten(0, (images, rows))


def _rows(kept: Tensor) -> int:
    """N: the largest number of ``kept`` (B, Q) in an image, at least 1."""
    count = kept.sum(1).amax(0).clamp(min=1).item()
    torch._check(count >= 1)
    torch._check(count <= kept.shape[1])
    assert isinstance(count, int | torch.SymInt)
    return count


def _number(labels: Tensor, stays: Tensor, is_thing: Tensor) -> tuple[Tensor, Tensor]:
    """The segment of every row (B, N), 0 for none, and whether the row is its first (B, N)."""
    one_stuff = (labels[:, :, None] == labels[:, None]) & ~(is_thing[:, :, None] | is_thing[:, None])
    itself = torch.eye(labels.shape[1], dtype=torch.bool, device=labels.device)
    together = (one_stuff | itself) & stays[:, None]  # (B, N, N): the other row stays and is of this segment
    leader = together.to(torch.float32).argmax(2)  # the first of them
    first = stays & (leader == torch.arange(labels.shape[1], device=labels.device))
    return first.cumsum(1).gather(1, leader) * stays, first


def _best_of_segment(scores: Tensor, segment: Tensor, stays: Tensor) -> Tensor:
    """The highest score among the rows of the same segment, (B, N)."""
    together = (segment[:, :, None] == segment[:, None]) & stays[:, None]
    return torch.where(together, scores[:, None], NONE).amax(2)


def _by_segment(values: Tensor, segment: Tensor, first: Tensor) -> Tensor:
    """Values (B, N) with that of segment k, from its first row, in row k - 1, or else :data:`NONE`."""
    rows = values.shape[1]
    place = torch.where(first, segment - 1, rows)  # other values go to an additional row, which is cut off
    slots = torch.full_like(values[:, :1], NONE).expand(-1, rows + 1)
    return slots.scatter(1, place, values)[:, :rows]
