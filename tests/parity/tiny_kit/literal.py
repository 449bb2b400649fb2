"""Mask DINO written down literally, as a check from outside: it shares no code with ``detrex``.

The published model (arXiv 2206.02777) in float64, by the names of its checkpoint: a function for each piece,
a loop for each layer, head, level and object. Nothing is fast, and nothing is there that the published models
do not use. Gradients are autograd's. What the paper leaves open follows the published code: first and last
pixel make a box, the last norm is applied twice, inverse sigmoids clamp at 1e-5.

Shape letters: B images, S tokens of all levels, Q queries, D channels, C classes, N objects, H and W cells or
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-5  # of inverse sigmoids
HEADS, POINTS = 8, 4
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
GRID = 112  # points of mask costs and losses: the centres of so many rows and columns
CLASS, MASK, DICE, BOX, GIOU = 4.0, 5.0, 5.0, 5.0, 2.0  # weights of costs and of losses

Weights = dict[str, Tensor]


@dataclass
class Settings:
    """What the published models differ in, and the weights do not tell.

    Attributes:
        boxes_from_masks: the first boxes lie around the masks of the proposals ("mask2box").
        num_queries: that proposals become; without effect where queries are learned.
        denoising_queries: at most so many, if one group fits.
        max_detections: of instances.
        tasks: ``instance``, ``panoptic`` and ``semantic``.
        things: classes that have instances; None for all.
        overlap_threshold: the share of its mask that a panoptic segment must keep.
    """

    boxes_from_masks: bool = False
    num_queries: int = 300
    denoising_queries: int = 100
    max_detections: int = 100
    tasks: tuple[str, ...] = ("instance",)
    things: list[int] | None = None
    overlap_threshold: float = 0.8


@dataclass
class Predictions:
    """Everything that is predicted for a batch.

    Attributes:
        layers: class logits (B, Q, C), boxes (B, Q, 4) as normalised cxcywh and mask logits
            (B, Q, H / 4, W / 4), before the first layer and after each. Denoising queries come first.
        proposals: the same of the selected proposals; None where queries are learned.
        features: by name: those of the backbone, the memory's levels in the published order, and the
            per-pixel embedding.
    """

    layers: list[tuple[Tensor, Tensor, Tensor]]
    proposals: tuple[Tensor, Tensor, Tensor] | None
    features: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Denoising:
    """Queries (B, groups * size) that start at the objects themselves, without noise.

    Attributes:
        content: (B, groups * size, D).
        reference: (B, groups * size, 4), logits.
        groups: copies of all objects.
        size: queries of a group: the largest number of objects in an image.
    """

    content: Tensor
    reference: Tensor
    groups: int
    size: int


# Pieces


def briefly(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Calls a function without keeping its intermediate values, which fill the memory at full size."""
    result = checkpoint(function, *arguments, use_reentrant=False)
    assert isinstance(result, Tensor)
    return result


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    count = sum(n.startswith(f"{name}.layers.") and n.endswith(".weight") for n in w)
    for i in range(count):
        x = linear(w, f"{name}.layers.{i}", x)
        x = x.clamp(min=0) if i < count - 1 else x
    return x


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normal * w[f"{name}.weight"] + w[f"{name}.bias"]


def group_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """Of maps (B, D, H, W), in 32 groups of channels."""
    groups = x.unflatten(1, (32, -1))
    centred = groups - groups.mean((2, 3, 4), keepdim=True)
    normal = centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
    return normal.flatten(1, 2) * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def frozen_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
    shift = w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def convolve(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """With zeros around the map, so that a stride of 1 keeps its size."""
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w.get(f"{name}.bias"), stride, weight.shape[-1] // 2)


def resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (..., H, W), bilinearly: cell centres keep their place, and the border reaches outwards."""

    def matrix(new: int, old: int) -> Tensor:
        rows = torch.zeros(new, old, dtype=maps.dtype)
        for i in range(new):
            place = max((i + 0.5) * old / new - 0.5, 0.0)
            low = min(int(place), old - 1)
            rows[i, low] += 1 - (place - low)
            rows[i, min(low + 1, old - 1)] += place - low
        return rows

    return matrix(height, maps.shape[-2]) @ maps @ matrix(width, maps.shape[-1]).T


def sample(value: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A map (D, H, W) at normalised places (any shape), bilinearly, 0 outside: (D, any shape)."""
    height, width = value.shape[1:]
    x, y = x * width - 0.5, y * height - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    total = torch.zeros(len(value), *x.shape, dtype=value.dtype)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = (left + dx).long(), (top + dy).long()
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            share = (1 - (x - left - dx).abs()) * (1 - (y - top - dy).abs())
            cells = value[:, row.clamp(0, height - 1), column.clamp(0, width - 1)]
            total = total + cells * torch.where(inside, share, torch.zeros_like(share))
    return total


def inverse_sigmoid(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return (x.clamp(min=EPSILON) / (1 - x).clamp(min=EPSILON)).log()


def sines(x: Tensor, channels: int) -> Tensor:
    """Sine and cosine in turns, of angles (...) at wavelengths up to 10000: (..., channels)."""
    out = []
    for i in range(channels):
        angle = x / 10000 ** (2 * (i // 2) / channels)
        out.append(angle.cos() if i % 2 else angle.sin())
    return torch.stack(out, -1)


def corners(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) from cxcywh to xyxy."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


# Backbone and pixel decoder


def normalised(images: list[Tensor]) -> Tensor:
    """Images (3, H, W) in 0..255 as a batch, with zeros to the right and below up to a multiple of 32."""
    height, width = (32 * math.ceil(max(i.shape[d] for i in images) / 32) for d in (1, 2))
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (PIXEL_MEAN, PIXEL_STD))
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.float64)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = (image.double() - mean) / std
    return batch


def resnet(w: Weights, images: Tensor) -> dict[str, Tensor]:
    """Features of strides 4, 8, 16 and 32; strides are those of the 3x3 convolutions (arXiv 1512.03385)."""
    x = frozen_norm(w, "backbone.stem.conv1.norm", convolve(w, "backbone.stem.conv1", images, 2)).clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1)
    features = {}
    for stage in ("res2", "res3", "res4", "res5"):
        block = 0
        while f"backbone.{stage}.{block}.conv1.weight" in w:
            name = f"backbone.{stage}.{block}"
            stride = 2 if block == 0 and stage != "res2" else 1
            y = frozen_norm(w, f"{name}.conv1.norm", convolve(w, f"{name}.conv1", x)).clamp(min=0)
            y = frozen_norm(w, f"{name}.conv2.norm", convolve(w, f"{name}.conv2", y, stride)).clamp(min=0)
            y = frozen_norm(w, f"{name}.conv3.norm", convolve(w, f"{name}.conv3", y))
            if f"{name}.shortcut.weight" in w:
                x = frozen_norm(w, f"{name}.shortcut.norm", convolve(w, f"{name}.shortcut", x, stride))
            x = (x + y).clamp(min=0)
            block += 1
        features[stage] = x
    return features


PIXEL = "sem_seg_head.pixel_decoder"


def level_positions(height: int, width: int, channels: int) -> Tensor:
    """Encoding of every cell, row by row: (H * W, channels), first of y, then of x."""
    y = (torch.arange(height, dtype=torch.float64) + 1) / (height + 1e-6) * 2 * math.pi
    x = (torch.arange(width, dtype=torch.float64) + 1) / (width + 1e-6) * 2 * math.pi
    of_y = sines(y, channels // 2)[:, None].expand(-1, width, -1)
    of_x = sines(x, channels // 2)[None].expand(height, -1, -1)
    return torch.cat([of_y, of_x], -1).flatten(0, 1)


def cell_centres(shapes: list[tuple[int, int]]) -> Tensor:
    """Normalised (x, y) of the cells of all levels: (S, 2)."""
    return torch.tensor(
        [
            ((c + 0.5) / width, (r + 0.5) / height)
            for height, width in shapes
            for r in range(height)
            for c in range(width)
        ],
        dtype=torch.float64,
    )


def deformable_attention(
    w: Weights, name: str, query: Tensor, reference: Tensor, memory: Tensor, shapes: list[tuple[int, int]]
) -> Tensor:
    """Multi-scale deformable attention (arXiv 2010.04159).

    Args:
        w, name: of the layer.
        query: (B, Q, D).
        reference: (B, Q, 2) points, whose offsets are in cells, or (B, Q, 4) boxes, in whose halves they are.
        memory: (B, S, D).
        shapes: (H, W) of each level.
    """
    batch, count, channels = query.shape
    value = linear(w, f"{name}.value_proj", memory)
    offsets = linear(w, f"{name}.sampling_offsets", query).view(batch, count, HEADS, len(shapes), POINTS, 2)
    weights = linear(w, f"{name}.attention_weights", query).view(batch, count, HEADS, len(shapes) * POINTS)
    weights = weights.softmax(-1).view(batch, count, HEADS, len(shapes), POINTS)
    size = channels // HEADS
    images = []
    for b in range(batch):
        heads = []
        for h in range(HEADS):
            total, first = torch.zeros(size, count, dtype=query.dtype), 0
            for level, (height, width) in enumerate(shapes):
                cells = value[b, first : first + height * width, h * size : (h + 1) * size]
                maps = cells.T.reshape(size, height, width)
                moved = offsets[b, :, h, level]  # (Q, points, 2)
                if reference.shape[-1] == 2:
                    moved = moved / torch.tensor([width, height], dtype=query.dtype)
                else:
                    moved = moved / POINTS * reference[b, :, None, 2:] / 2
                place = reference[b, :, None, :2] + moved
                sampled = sample(maps, place[..., 0], place[..., 1])  # (size, Q, points)
                total = total + (sampled * weights[b, :, h, level]).sum(-1)
                first += height * width
            heads.append(total)
        images.append(torch.cat(heads).T)
    return linear(w, f"{name}.output_proj", torch.stack(images))


def pixel_decoder(w: Weights, features: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """Encoded levels in the published order, and the per-pixel embedding of stride 4."""
    maps, level = [], 0
    by_channels = {m.shape[1]: m for m in features.values()}
    x = features["res5"]
    while f"{PIXEL}.input_proj.{level}.0.weight" in w:
        weight = w[f"{PIXEL}.input_proj.{level}.0.weight"]
        if weight.shape[-1] == 1:
            projected = convolve(w, f"{PIXEL}.input_proj.{level}.0", by_channels[weight.shape[1]])
        else:
            x = projected = convolve(w, f"{PIXEL}.input_proj.{level}.0", x, 2)
        maps.append(group_norm(w, f"{PIXEL}.input_proj.{level}.1", projected))
        level += 1
    shapes = [(m.shape[2], m.shape[3]) for m in maps]
    tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
    level_embed = w[f"{PIXEL}.transformer.level_embed"]
    positions = torch.cat(
        [level_positions(*shape, tokens.shape[2]) + level_embed[i] for i, shape in enumerate(shapes)]
    )
    reference = cell_centres(shapes).expand(len(tokens), -1, -1)
    layer = 0
    while f"{PIXEL}.transformer.encoder.layers.{layer}.norm1.weight" in w:
        name = f"{PIXEL}.transformer.encoder.layers.{layer}"
        attended = briefly(
            deformable_attention, w, f"{name}.self_attn", tokens + positions, reference, tokens, shapes
        )
        tokens = layer_norm(w, f"{name}.norm1", tokens + attended)
        hidden = linear(w, f"{name}.linear1", tokens).clamp(min=0)
        tokens = layer_norm(w, f"{name}.norm2", tokens + linear(w, f"{name}.linear2", hidden))
        layer += 1
    pieces = tokens.split([height * width for height, width in shapes], 1)
    memory = [p.transpose(1, 2).unflatten(2, shape) for p, shape in zip(pieces, shapes, strict=True)]
    finest = max(memory, key=lambda m: m.shape[2])
    lateral = group_norm(w, f"{PIXEL}.adapter_1.norm", convolve(w, f"{PIXEL}.adapter_1", features["res2"]))
    fused = convolve(w, f"{PIXEL}.layer_1", lateral + resize(finest, *lateral.shape[2:]))
    fused = group_norm(w, f"{PIXEL}.layer_1.norm", fused).clamp(min=0)
    return memory, convolve(w, f"{PIXEL}.mask_features", fused)


# Decoder

HEAD = "sem_seg_head.predictor"


def classes_and_masks(w: Weights, content: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class logits and mask logits of queries, which the last norm is applied to here (again)."""
    content = layer_norm(w, f"{HEAD}.decoder_norm", content)
    masks = torch.einsum("bqd,bdhw->bqhw", mlp(w, f"{HEAD}.mask_embed", content), pixels)
    return linear(w, f"{HEAD}.class_embed", content), masks


def select_proposals(
    w: Weights, tokens: Tensor, shapes: list[tuple[int, int]], count: int
) -> tuple[Tensor, Tensor]:
    """The normalised tokens with the best class (B, Q, D), and the logits of their boxes (B, Q, 4)."""
    sizes = [0.05 * 2**level for level, (height, width) in enumerate(shapes) for _ in range(height * width)]
    side = torch.tensor(sizes, dtype=torch.float64)[:, None].expand(-1, 2)
    anchors = torch.cat([cell_centres(shapes), side], 1)  # (S, 4)
    valid = ((anchors > 0.01) & (anchors < 0.99)).all(1)
    logits = torch.where(valid[:, None], (anchors / (1 - anchors)).log(), torch.inf)
    tokens = linear(w, f"{HEAD}.enc_output", tokens * valid[:, None])
    tokens = layer_norm(w, f"{HEAD}.enc_output_norm", tokens)
    boxes = mlp(w, f"{HEAD}._bbox_embed", tokens) + logits
    best = linear(w, f"{HEAD}.class_embed", tokens).amax(-1).sort(1, descending=True).indices[:, :count]
    rows = torch.arange(len(tokens))[:, None]
    return tokens[rows, best], boxes[rows, best]


def mask_boxes(masks: Tensor) -> Tensor:
    """Logits of boxes from the first to the last pixel of masks (B, Q, H, W) > 0."""
    height, width = masks.shape[2:]
    boxes = torch.zeros(*masks.shape[:2], 4, dtype=masks.dtype)
    for b in range(masks.shape[0]):
        for q in range(masks.shape[1]):
            rows, columns = (masks[b, q] > 0).nonzero(as_tuple=True)
            if len(rows) == 0:
                boxes[b, q] = torch.tensor([1.0, 1, 0, 0])
                continue
            x0, x1 = columns.min() / width, columns.max() / width
            y0, y1 = rows.min() / height, rows.max() / height
            boxes[b, q] = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
    return inverse_sigmoid(boxes)


def self_attention(w: Weights, name: str, query: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    """Multi-head attention (B, Q, D) -> (B, Q, D); ``hidden`` (Q, Q): who does not see whom."""
    channels = query.shape[-1]
    weight, bias = w[f"{name}.in_proj_weight"], w[f"{name}.in_proj_bias"]
    q, k, v = (
        (x @ weight[i * channels : (i + 1) * channels].T + bias[i * channels : (i + 1) * channels])
        for i, x in enumerate((query, query, value))
    )
    size = channels // HEADS
    heads = []
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)
        heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v[..., part])
    return linear(w, f"{name}.out_proj", torch.cat(heads, -1))


def hidden_pairs(denoising: Denoising | None, count: int) -> Tensor:
    """Of all queries, denoising ones first, pairs (asking, asked) that are hidden."""
    known = denoising.groups * denoising.size if denoising else 0
    hidden = torch.zeros(known + count, known + count, dtype=torch.bool)
    hidden[known:, :known] = True
    for asking in range(known):
        for asked in range(known):
            hidden[asking, asked] = asking // denoising.size != asked // denoising.size
    return hidden


def decode(
    w: Weights, memory: list[Tensor], pixels: Tensor, settings: Settings, denoising: Denoising | None = None
) -> Predictions:
    """All predictions from the pixel decoder's levels, which the decoder takes in the reverse order."""
    levels = memory[::-1]
    shapes = [(m.shape[2], m.shape[3]) for m in levels]
    tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in levels], 1)
    proposals = None
    if f"{HEAD}.enc_output.weight" in w:
        selected, boxes = select_proposals(w, tokens, shapes, settings.num_queries)
        logits, masks = classes_and_masks(w, selected, pixels)
        proposals = logits, boxes.sigmoid(), masks
        content, reference = selected.detach(), boxes.detach()
        if settings.boxes_from_masks:
            reference = mask_boxes(masks.detach())
    else:
        content = w[f"{HEAD}.query_feat.weight"].expand(len(tokens), -1, -1)
        reference = w[f"{HEAD}.query_embed.weight"].expand(len(tokens), -1, -1)
    hidden = hidden_pairs(denoising, content.shape[1])
    if denoising:
        content = torch.cat([denoising.content, content], 1)
        reference = torch.cat([denoising.reference, reference], 1)
    logits, masks = classes_and_masks(w, content, pixels)
    entering = reference.sigmoid()  # the reference that boxes are predicted from, with gradient
    predictions = [(logits, entering, masks)]
    attending = entering  # the reference that layers attend around
    layer = 0
    while f"{HEAD}.decoder.layers.{layer}.norm1.weight" in w:
        name = f"{HEAD}.decoder.layers.{layer}"
        half = content.shape[-1] // 2
        encoded = [sines(attending[..., c] * 2 * math.pi, half) for c in (1, 0, 2, 3)]  # y, x, w, h
        position = mlp(w, f"{HEAD}.decoder.ref_point_head", torch.cat(encoded, -1))
        attended = self_attention(w, f"{name}.self_attn", content + position, content, hidden)
        content = layer_norm(w, f"{name}.norm2", content + attended)
        attended = briefly(
            deformable_attention, w, f"{name}.cross_attn", content + position, attending, tokens, shapes
        )
        content = layer_norm(w, f"{name}.norm1", content + attended)
        hidden_layer = linear(w, f"{name}.linear1", content).clamp(min=0)
        content = layer_norm(w, f"{name}.norm3", content + linear(w, f"{name}.linear2", hidden_layer))
        once = layer_norm(w, f"{HEAD}.decoder_norm", content)
        boxes = (mlp(w, f"{HEAD}._bbox_embed", once) + inverse_sigmoid(entering)).sigmoid()
        logits, masks = classes_and_masks(w, once, pixels)
        predictions.append((logits, boxes, masks))
        # The next reference is moved by the box head on the layer's output, without the norm.
        entering = (mlp(w, f"{HEAD}._bbox_embed", content) + inverse_sigmoid(attending)).sigmoid()
        attending = entering.detach()
        layer += 1
    return Predictions(predictions, proposals)


def predict(
    w: Weights, images: Tensor, settings: Settings, denoising: Denoising | None = None
) -> Predictions:
    """All predictions for normalised and padded images (B, 3, H, W)."""
    features = resnet(w, images)
    memory, pixels = pixel_decoder(w, features)
    predictions = decode(w, memory, pixels, settings, denoising)
    predictions.features = {
        **{f"backbone.{name}": m for name, m in features.items()},
        "mask_features": pixels,
        **{f"memory.{i}": m for i, m in enumerate(memory)},
    }
    return predictions


# Results


def output_masks(
    masks: Tensor, padded: tuple[int, int], image: tuple[int, int], output: tuple[int, int]
) -> Tensor:
    """Maps (N, h, w) at the size of the padded image, cropped to the image, then at the output's size."""
    return resize(resize(masks, *padded)[:, : image[0], : image[1]], *output)


def instances(
    logits: Tensor, boxes: Tensor, masks: Tensor, scale: tuple[float, float], settings: Settings
) -> dict[str, Tensor]:
    """The best pairs of query and class of an image.

    Args:
        logits, boxes, masks: (Q, C), (Q, 4) and (Q, H, W), masks at the output's size.
        scale: height and width of the padded image, in output pixels.
        settings: of the model.
    """
    rows = []
    scores = logits.sigmoid()
    order = scores.flatten().sort(descending=True).indices[: settings.max_detections]
    for index in order.tolist():
        query, label = divmod(index, scores.shape[1])
        if settings.things is not None and label not in settings.things:
            continue
        mask = masks[query] > 0
        quality = (masks[query].sigmoid() * mask).sum() / (mask.sum() + 1e-6)
        height, width = scale
        box = corners(boxes[query]) * torch.tensor([width, height, width, height], dtype=boxes.dtype)
        rows.append((scores[query, label] * quality, label, box, mask))
    values, classes, places, inside = zip(*rows, strict=True)
    return {
        "scores": torch.stack(values),
        "classes": torch.tensor(classes),
        "boxes": torch.stack(places),
        "masks": torch.stack(inside),
    }


def panoptic(logits: Tensor, masks: Tensor, settings: Settings) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Segment ids (H, W), and (id, class, is thing) of each, from logits (Q, C) and masks (Q, H, W)."""
    kept = logits.sigmoid().amax(1) > 0.25
    scores, labels = (logits.sigmoid() / 0.06).softmax(-1)[kept].max(-1)
    probabilities = masks[kept].sigmoid()
    owner = (scores[:, None, None] * probabilities).argmax(0)
    ids = torch.zeros(masks.shape[1:], dtype=torch.int64)
    found: list[tuple[int, int, int]] = []
    for k, label in enumerate(labels.tolist()):
        covered = probabilities[k] >= 0.5
        seen = (owner == k) & covered
        if seen.sum() == 0 or (owner == k).sum() / covered.sum() < settings.overlap_threshold:
            continue
        is_thing = settings.things is None or label in settings.things
        same = [i for i, other, thing in found if other == label and not thing and not is_thing]
        if not same:
            found.append((len(found) + 1, label, int(is_thing)))
        ids[seen] = same[0] if same else len(found)
    return ids, found


def results(
    predictions: Predictions,
    padded: tuple[int, int],
    image: tuple[int, int],
    output: tuple[int, int],
    settings: Settings,
) -> dict[str, Tensor]:
    """Final results for one image, by the kit's names; sizes are (height, width)."""
    logits, boxes, masks = (p[0] for p in predictions.layers[-1])
    found: dict[str, Tensor] = {}
    full = output_masks(masks, padded, image, output)
    if "instance" in settings.tasks:
        height, width = (p / i * o for p, i, o in zip(padded, image, output, strict=True))
        of_instances = instances(logits, boxes, full, (height, width), settings)
        found |= {f"instances.{name}": value for name, value in of_instances.items()}
    if "panoptic" in settings.tasks:
        ids, info = panoptic(logits, full, settings)
        found |= {"panoptic.segments": ids, "panoptic.info": torch.tensor(info)}
        shares = (logits.sigmoid() / 0.06).softmax(-1)
        found["sem_seg"] = torch.einsum("qc,qhw->chw", shares, full.sigmoid())
    if settings.tasks == ("semantic",):
        shares = logits.softmax(-1)[:, :-1]
        summed = torch.einsum("qc,qhw->chw", shares, resize(masks, *padded).sigmoid())
        found["sem_seg"] = resize(summed[:, : image[0], : image[1]], *output)
    return found


# Training


@dataclass
class Objects:
    """Ground truth of an image.

    Attributes:
        labels: (N,).
        boxes: (N, 4) normalised cxcywh.
        masks: (N, H, W), 0 or 1, of the padded size.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor


def denoising_queries(w: Weights, truth: list[Objects], count: int) -> Denoising | None:
    """Objects themselves as queries, in as many groups as ``count`` allows."""
    size = max(len(t.labels) for t in truth)
    groups = count // size if size else 0
    if groups == 0:
        return None
    embed = w[f"{HEAD}.label_enc.weight"]
    content = torch.zeros(len(truth), groups * size, embed.shape[1], dtype=embed.dtype)
    reference = torch.zeros(len(truth), groups * size, 4, dtype=embed.dtype)
    for b, objects in enumerate(truth):
        for group in range(groups):
            places = slice(group * size, group * size + len(objects.labels))
            content[b, places] = embed[objects.labels]
            reference[b, places] = inverse_sigmoid(objects.boxes)
    return Denoising(content, reference, groups, size)


def at_grid(maps: Tensor) -> Tensor:
    """Maps (N, H, W) at the centres of the grid, row by row: (N, points)."""
    centre = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return sample(maps, x.flatten(), y.flatten())


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630) of two boxes in cxcywh, with the published 1e-6 below the line."""
    a, b = corners(a), corners(b)
    area_a, area_b = (box[2:] - box[:2] for box in (a, b))
    area_a, area_b = area_a[0] * area_a[1], area_b[0] * area_b[1]
    common = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    overlap = common[0] * common[1]
    union = area_a + area_b - overlap
    around = torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])
    hull = around[0] * around[1]
    return overlap / (union + 1e-6) - (hull - union) / (hull + 1e-6)


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary, by element: -log p where the truth is 1 and -log (1 - p) where it is 0."""
    return -(truth * F.logsigmoid(logits) + (1 - truth) * F.logsigmoid(-logits))


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    p = logits.sigmoid()
    return 1 - (2 * (p * truth).sum(-1) + 1) / (p.sum(-1) + truth.sum(-1) + 1)


@torch.no_grad()
def matched(logits: Tensor, boxes: Tensor, masks: Tensor, objects: Objects) -> list[tuple[int, int]]:
    """Pairs (query, object) of least total cost in an image: logits (Q, C), boxes (Q, 4), masks (Q, h, w)."""
    p = logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    points, truth = at_grid(masks), at_grid(objects.masks)
    cost = torch.zeros(len(logits), len(objects.labels), dtype=torch.float64)
    for q in range(len(logits)):
        for n, label in enumerate(objects.labels.tolist()):
            cost[q, n] = (
                CLASS * (positive - negative)[q, label]
                + BOX * (boxes[q] - objects.boxes[n]).abs().sum()
                - GIOU * giou(boxes[q], objects.boxes[n])
                + MASK * cross_entropy(points[q], truth[n]).mean()
                + DICE * dice(points[q], truth[n])
            )
    return list(zip(*(side.tolist() for side in linear_sum_assignment(cost)), strict=True))


def class_loss(w: Weights, logits: Tensor, labels: Tensor, count: float) -> Tensor:
    """Of logits (B, Q, C) and labels (B, Q), where -1 is no object; softmax where a class stands for that."""
    if len(w[f"{HEAD}.class_embed.bias"]) > len(w[f"{HEAD}.label_enc.weight"]):
        background = logits.shape[-1] - 1
        labels = torch.where(labels < 0, background, labels)
        weights = torch.where(labels == background, 0.1, 1.0).double()
        each = -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        return (weights * each).sum() / weights.sum()
    truth = (labels[..., None] == torch.arange(logits.shape[-1])).double()
    p = logits.sigmoid()
    right = p * truth + (1 - p) * (1 - truth)
    balance = 0.25 * truth + 0.75 * (1 - truth)
    return (balance * (1 - right) ** 2 * cross_entropy(logits, truth)).sum() / count


def losses_of(
    w: Weights,
    prediction: tuple[Tensor, Tensor, Tensor],
    pairs: list[list[tuple[int, int]]],
    truth: list[Objects],
    count: float,
) -> dict[str, Tensor]:
    """Weighted losses of one prediction, where ``pairs`` (query, object) of each image belong together."""
    logits, boxes, masks = prediction
    labels = torch.full(logits.shape[:2], -1)
    of_masks = of_dice = of_boxes = of_giou = torch.zeros((), dtype=torch.float64)
    for b, objects in enumerate(truth):
        at_points = at_grid(objects.masks)
        for q, n in pairs[b]:
            labels[b, q] = objects.labels[n]
            points = briefly(at_grid, masks[b, q][None])[0]
            of_masks = of_masks + cross_entropy(points, at_points[n]).mean()
            of_dice = of_dice + dice(points, at_points[n])
            of_boxes = of_boxes + (boxes[b, q] - objects.boxes[n]).abs().sum()
            of_giou = of_giou + 1 - giou(boxes[b, q], objects.boxes[n])
    return {
        "loss_ce": CLASS * class_loss(w, logits, labels, count),
        "loss_mask": MASK * of_masks / count,
        "loss_dice": DICE * of_dice / count,
        "loss_bbox": BOX * of_boxes / count,
        "loss_giou": GIOU * of_giou / count,
    }


def losses(w: Weights, images: Tensor, truth: list[Objects], settings: Settings) -> dict[str, Tensor]:
    """Every weighted loss of a batch, by its published name."""
    denoising = denoising_queries(w, truth, settings.denoising_queries)
    predictions = predict(w, images, settings, denoising)
    known = denoising.groups * denoising.size if denoising else 0
    count = float(max(sum(len(t.labels) for t in truth), 1))
    last = len(predictions.layers) - 1
    stages = {("" if i == last else f"_{i}"): layer for i, layer in enumerate(predictions.layers)}
    parts = {suffix: tuple(p[:, known:] for p in layer) for suffix, layer in stages.items()}
    if predictions.proposals is not None:
        parts["_interm"] = predictions.proposals
    total: dict[str, Tensor] = {}
    for suffix, part in parts.items():
        pairs = [matched(*(p[b] for p in part), truth[b]) for b in range(len(truth))]
        total |= {n + suffix: v for n, v in losses_of(w, part, pairs, truth, count).items()}
    if denoising:
        size = denoising.size
        pairs = [
            [(g * size + n, n) for g in range(denoising.groups) for n in range(len(t.labels))] for t in truth
        ]
        for suffix, layer in stages.items():
            if suffix == "_0" and predictions.proposals is None:
                continue  # with learned queries, denoising is supervised from the first layer on
            part = tuple(p[:, :known] for p in layer)
            of_part = losses_of(w, part, pairs, truth, count * denoising.groups)
            total |= {f"{n}_dn{suffix}": v for n, v in of_part.items()}
    return total
