"""Makes the arrays of the tiny cases from the literal model, or compares that model with a larger kit.

    python tests/parity/tiny_kit/make.py
    python tests/parity/tiny_kit/make.py --compare ../shared/parity

The second command runs the literal model on the cases of a kit whose arrays the published code computed, and
prints how far it is from every one of them. It takes some minutes and 7 GB of memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from literal import HEAD, Objects, Settings, Weights, losses, normalised, predict, results
from reference import initial_weights
from torch import Tensor

HERE = Path(__file__).resolve().parent
STEP = 8  # of feature maps, every eighth channel is stored; of class scores, every eighth row and column

# What the larger kit's cases of the same names are made with.
LARGE = {
    "instance_r50": Settings(boxes_from_masks=True),
    "panoptic_r50": Settings(tasks=("instance", "panoptic"), things=list(range(80)), overlap_threshold=0.1),
    "semantic_ade20k_r50": Settings(tasks=("semantic",)),
}
TINY = {
    "instance": Settings(boxes_from_masks=True, num_queries=12, denoising_queries=8, max_detections=15),
    "panoptic": Settings(
        num_queries=12,
        denoising_queries=8,
        max_detections=15,
        tasks=("instance", "panoptic"),
        things=[0, 1, 2],
        overlap_threshold=0.1,
    ),
    "semantic": Settings(denoising_queries=8, tasks=("semantic",)),
}
# Their sizes: classes; channels of the backbone's 3x3 convolutions, of tokens, feed-forward networks and mask
# embeddings; layers of encoder and decoder; learned queries.
CLASSES, CHANNELS, HIDDEN, FEED_FORWARD, MASK, LAYERS, LEARNED = 5, (8, 16, 24, 32), 64, 96, 32, 2, 12


def computed(
    weights: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], settings: Settings
) -> dict[str, np.ndarray]:
    """All arrays of a case, from its weights and inputs."""
    w = {name: torch.from_numpy(np.array(value)).double() for name, value in weights.items()}
    return {**evaluated(w, given, settings), **trained(w, given, settings)}


def evaluated(w: Weights, given: Mapping[str, np.ndarray], settings: Settings) -> dict[str, np.ndarray]:
    """Features, predictions and results for the case's image."""
    pixels = torch.from_numpy(given["image"]).permute(2, 0, 1)
    images = normalised([pixels])
    with torch.no_grad():
        predictions = predict(w, images, settings)
        sizes = (tuple(images.shape[2:]), tuple(pixels.shape[1:]), tuple(given["output_size"].tolist()))
        found = results(predictions, *sizes, settings)
    out: dict[str, Tensor] = {f"eval.{n}": m[:, ::STEP] for n, m in predictions.features.items()}
    if predictions.proposals is not None:
        out["eval.encoder.pred_logits"], out["eval.encoder.pred_boxes"] = predictions.proposals[:2]
    for i, (_, boxes, _) in enumerate(predictions.layers[:-1]):
        out[f"eval.aux.{i}.pred_boxes"] = boxes
    names = ("pred_logits", "pred_boxes", "pred_masks")
    out |= {f"eval.{n}": p for n, p in zip(names, predictions.layers[-1], strict=True)}
    if "sem_seg" in found:
        scores = found.pop("sem_seg")
        found |= {"sem_seg.logits": scores[:, ::STEP, ::STEP], "sem_seg.argmax": scores.argmax(0)}
    out |= {f"eval.{n}": v for n, v in found.items()}
    return {name: _stored(name, value) for name, value in out.items()}


def trained(w: Weights, given: Mapping[str, np.ndarray], settings: Settings) -> dict[str, np.ndarray]:
    """Losses of the case's batch, and norms of their gradients."""
    fixed = ("norm", "running", "empty_weight")
    leaves = {
        name: value.requires_grad_(not (name.startswith("backbone.") and any(f in name for f in fixed)))
        for name, value in w.items()
        if "bbox_embed." not in name.replace("_bbox_embed.", "") and not name.endswith("empty_weight")
    }
    batch = [torch.from_numpy(given[f"train.{b}.image"]).permute(2, 0, 1) for b in range(2)]
    found = losses(leaves, normalised(batch), list(_truth(given)), settings)
    total = torch.stack(list(found.values())).sum()
    total.backward()
    norms = {
        name.replace("_bbox_embed", "decoder.bbox_embed.0"): float(value.grad.norm())
        for name, value in leaves.items()
        if value.grad is not None and f"{HEAD}.decoder.norm" not in name
    }
    return {
        "train.loss.names": np.array(list(found)),
        "train.loss.values": np.array([float(v.detach()) for v in found.values()], np.float32),
        "train.loss.total": np.array(float(total.detach()), np.float32),
        "train.grad.names": np.array(list(norms)),
        "train.grad.norms": np.array(list(norms.values()), np.float32),
    }


def _truth(given: Mapping[str, np.ndarray]) -> Iterator[Objects]:
    """Of both training images, which are as large as their batch."""
    for b in range(2):
        height, width = given[f"train.{b}.image"].shape[:2]
        x0, y0, x1, y1 = torch.from_numpy(given[f"train.{b}.boxes"]).double().unbind(1)
        boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 1)
        masks = np.unpackbits(given[f"train.{b}.masks"], axis=-1)[..., :width]
        yield Objects(
            torch.from_numpy(given[f"train.{b}.labels"]).long(),
            boxes / torch.tensor([width, height, width, height]),
            torch.from_numpy(masks).double(),
        )


def _stored(name: str, value: Tensor) -> np.ndarray:
    array = value.numpy()
    if name.endswith("instances.masks"):
        return np.packbits(array, axis=-1)
    if name.endswith(("segments", "argmax")):
        return array.astype(np.uint8)
    if array.dtype == np.int64:
        return array
    return array.astype(np.float16 if name.endswith("pred_masks") else np.float32)


class Shapes(dict[str, list[int]]):
    """Names and shapes of a checkpoint's entries, added by layer."""

    def layer(self, name: str, *shape: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = list(shape)
        if bias:
            self[f"{name}.bias"] = [shape[0]]

    def convolution_and_norm(self, name: str, out: int, size: int, kernel: int) -> None:
        self.layer(name, out, size, kernel, kernel, bias=False)
        for entry in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.norm.{entry}"] = [out]

    def deformable_attention(self, name: str, levels: int) -> None:
        points = 8 * levels * 4
        self.layer(f"{name}.sampling_offsets", 2 * points, HIDDEN)
        self.layer(f"{name}.attention_weights", points, HIDDEN)
        self.layer(f"{name}.value_proj", HIDDEN, HIDDEN)
        self.layer(f"{name}.output_proj", HIDDEN, HIDDEN)

    def feed_forward(self, name: str) -> None:
        self.layer(f"{name}.linear1", FEED_FORWARD, HIDDEN)
        self.layer(f"{name}.linear2", HIDDEN, FEED_FORWARD)

    def mlp(self, name: str, *sizes: int) -> None:
        for i, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            self.layer(f"{name}.layers.{i}", after, before)


def tiny_shapes(semantic: bool) -> Shapes:
    """Entries of a published checkpoint, with few and narrow layers."""
    shapes = Shapes()
    levels = [(4 * c, 1) for c in CHANNELS[1:]]
    levels = levels[::-1] if semantic else [*levels, (4 * CHANNELS[-1], 3)]
    _add_backbone(shapes)
    _add_pixel_decoder(shapes, levels)
    if semantic:
        shapes.layer(f"{HEAD}.query_feat", LEARNED, HIDDEN, bias=False)
        shapes.layer(f"{HEAD}.query_embed", LEARNED, 4, bias=False)
    else:
        shapes.layer(f"{HEAD}.enc_output", HIDDEN, HIDDEN)
        shapes.layer(f"{HEAD}.enc_output_norm", HIDDEN)
    shapes.layer(f"{HEAD}.class_embed", CLASSES + semantic, HIDDEN)
    _add_decoder(shapes, len(levels))
    shapes["criterion.empty_weight"] = [CLASSES + 1]
    return shapes


def _add_backbone(shapes: Shapes) -> None:
    shapes.convolution_and_norm("backbone.stem.conv1", 64, 3, 7)
    size = 64
    for stage, channels in enumerate(CHANNELS):
        for block in range(2 if stage == 1 else 1):
            name = f"backbone.res{stage + 2}.{block}"
            if block == 0:
                shapes.convolution_and_norm(f"{name}.shortcut", 4 * channels, size, 1)
            shapes.convolution_and_norm(f"{name}.conv1", channels, size, 1)
            shapes.convolution_and_norm(f"{name}.conv2", channels, channels, 3)
            shapes.convolution_and_norm(f"{name}.conv3", 4 * channels, channels, 1)
            size = 4 * channels


def _add_pixel_decoder(shapes: Shapes, levels: list[tuple[int, int]]) -> None:
    """``levels`` are the channels and the kernel of each projection."""
    pixel = "sem_seg_head.pixel_decoder"
    for i, (channels, kernel) in enumerate(levels):
        shapes.layer(f"{pixel}.input_proj.{i}.0", HIDDEN, channels, kernel, kernel)
        shapes.layer(f"{pixel}.input_proj.{i}.1", HIDDEN)
    shapes[f"{pixel}.transformer.level_embed"] = [len(levels), HIDDEN]
    for i in range(LAYERS):
        name = f"{pixel}.transformer.encoder.layers.{i}"
        shapes.deformable_attention(f"{name}.self_attn", len(levels))
        shapes.layer(f"{name}.norm1", HIDDEN)
        shapes.feed_forward(name)
        shapes.layer(f"{name}.norm2", HIDDEN)
    shapes.layer(f"{pixel}.mask_features", MASK, HIDDEN, 1, 1)
    for name, shape in (("adapter_1", (HIDDEN, 4 * CHANNELS[0], 1, 1)), ("layer_1", (HIDDEN, HIDDEN, 3, 3))):
        shapes.layer(f"{pixel}.{name}", *shape, bias=False)
        shapes.layer(f"{pixel}.{name}.norm", HIDDEN)


def _add_decoder(shapes: Shapes, levels: int) -> None:
    shapes.layer(f"{HEAD}.label_enc", CLASSES, HIDDEN, bias=False)
    shapes.mlp(f"{HEAD}.mask_embed", HIDDEN, HIDDEN, HIDDEN, MASK)
    shapes.layer(f"{HEAD}.decoder_norm", HIDDEN)
    for i in range(LAYERS):
        name = f"{HEAD}.decoder.layers.{i}"
        shapes.deformable_attention(f"{name}.cross_attn", levels)
        shapes.layer(f"{name}.norm1", HIDDEN)
        shapes[f"{name}.self_attn.in_proj_weight"] = [3 * HIDDEN, HIDDEN]
        shapes[f"{name}.self_attn.in_proj_bias"] = [3 * HIDDEN]
        shapes.layer(f"{name}.self_attn.out_proj", HIDDEN, HIDDEN)
        shapes.layer(f"{name}.norm2", HIDDEN)
        shapes.feed_forward(name)
        shapes.layer(f"{name}.norm3", HIDDEN)
    shapes.layer(f"{HEAD}.decoder.norm", HIDDEN)
    shapes.mlp(f"{HEAD}.decoder.ref_point_head", 2 * HIDDEN, HIDDEN, HIDDEN)
    copies = [f"{place}bbox_embed.{i}" for place in ("decoder.", "") for i in range(LAYERS)]
    for name in ("_bbox_embed", *copies):
        shapes.mlp(f"{HEAD}.{name}", HIDDEN, HIDDEN, HIDDEN, 4)


def tiny_inputs(seed: int) -> dict[str, np.ndarray]:
    """An image that has to be padded, a batch of two that need not, and ellipses as objects."""
    random = np.random.RandomState(seed)
    given = {"image": _picture(random, 52, 90), "output_size": np.array([75, 130])}
    for b, count in enumerate((3, 1)):
        height, width = 64, 96
        y, x = np.mgrid[:height, :width]
        masks, boxes = [], []
        for _ in range(count):
            cy, cx = random.uniform(0.3, 0.7, 2) * (height, width)
            ry, rx = random.uniform(0.1, 0.28, 2) * (height, width)
            mask = ((y + 0.5 - cy) / ry) ** 2 + ((x + 0.5 - cx) / rx) ** 2 <= 1
            masks.append(mask)
            boxes.append([x[mask].min(), y[mask].min(), x[mask].max() + 1, y[mask].max() + 1])
        given[f"train.{b}.image"] = _picture(random, height, width)
        given[f"train.{b}.masks"] = np.packbits(np.array(masks), axis=-1)
        given[f"train.{b}.labels"] = random.randint(0, CLASSES, count)
        given[f"train.{b}.boxes"] = np.array(boxes, np.float32)
    return given


def _picture(random: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """Squares of 8 pixels in random colours."""
    squares = random.randint(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return squares.repeat(8, 0).repeat(8, 1)[:height, :width].copy()


def make() -> None:
    """Writes names, shapes and arrays of the tiny cases beside this file."""
    for seed, (case, settings) in enumerate(TINY.items()):
        shapes = tiny_shapes(semantic=settings.tasks == ("semantic",))
        (HERE / f"{case}.keys.json").write_text(json.dumps(shapes, indent=0) + "\n", encoding="utf-8")
        given = tiny_inputs(seed)
        weights = initial_weights(case)
        biases = balanced_biases(weights, given, settings)
        arrays = {
            **given,
            **computed({**weights, **biases}, given, settings),
            **{name.replace("sem_seg_head.", "weights."): value for name, value in biases.items()},
        }
        np.savez_compressed(HERE / f"{case}.npz", **arrays)
        sys.stdout.write(
            f"{case}: {len(arrays)} arrays, {(HERE / f'{case}.npz').stat().st_size // 1024} KiB\n"
        )


def balanced_biases(
    weights: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], settings: Settings
) -> dict[str, np.ndarray]:
    """Biases with which queries differ in their best class, and masks in size.

    Masks cover about half of the image. Where boxes are made from them, they cover much, little or nothing.
    """
    names = (f"{HEAD}.class_embed.bias", "sem_seg_head.pixel_decoder.mask_features.bias")
    w = {name: torch.from_numpy(np.array(value)).double() for name, value in weights.items()}
    images = normalised([torch.from_numpy(given["image"]).permute(2, 0, 1)])
    with torch.no_grad():
        for _ in range(8):  # other biases select other proposals
            predictions = predict(w, images, settings)
            w[names[0]] = w[names[0]] - predictions.layers[-1][0].mean((0, 1)) - 0.5
            w[names[1]] = w[names[1]] - predictions.features["mask_features"].mean((0, 2, 3))
            if settings.boxes_from_masks:
                masks = predict(w, images, settings).proposals[2][0].flatten(1)  # (Q, pixels)
                pixels = predictions.features["mask_features"][0].flatten(1)
                pixels = pixels - pixels.mean(1, keepdim=True)
                embeddings = torch.linalg.lstsq(pixels.T, masks.T).solution.T  # (Q, mask size)
                lower = masks.std(1) * torch.linspace(1, 4, len(masks), dtype=torch.float64)
                w[names[1]] = w[names[1]] - torch.linalg.lstsq(embeddings, lower).solution
    return {name: w[name].float().numpy() for name in names}


def compare(kit: Path) -> None:
    """Prints how far the literal model is from the arrays of another kit, in spreads of these."""
    spec = importlib.util.spec_from_file_location("larger_kit", kit / "reference.py")
    reference: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for case, settings in LARGE.items():
        published = reference.arrays(case)
        ours = computed(reference.state_dict(case), published, settings)
        for name, value in ours.items():
            if value.dtype.kind == "U":
                continue
            reordered, expected = _in_order(name, ours, published)
            sys.stdout.write(f"{case:<20} {name:<28} {_difference(name, reordered, expected):8.1e}\n")


def _difference(name: str, ours: np.ndarray, published: np.ndarray) -> float:
    """Of masks and maps, the share of elements that differ; of losses and gradients, the largest relative
    error; of other arrays, the largest error in standard deviations."""
    if ours.dtype.kind in "iu":
        return float((ours != published).mean())
    error = np.abs(ours.astype(float) - published.astype(float)).max()
    return float(error if name.startswith("train.") else error / np.std(published.astype(float)))


def _in_order(name: str, ours: Mapping, published: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """An array and its counterpart, sorted where their order is free."""
    if name == "train.loss.total":
        return ours[name] / published[name], published[name] / published[name]
    if name.startswith("train."):
        key = f"{name.rpartition('.')[0]}.names"
        place = {n: i for i, n in enumerate(ours[key].tolist())}
        found, expected = set(place), set(published[key].tolist())
        if found != expected:
            raise SystemExit(f"{key} differ: {sorted(found ^ expected)}")
        order = [place[n] for n in published[key].tolist()]
        relative = np.maximum(np.abs(published[name]), 1e-5 * np.abs(published[name]).max())
        return ours[name][order] / relative, published[name] / relative
    if name.startswith("eval.instances."):
        both = [s["eval.instances.scores"].argsort(kind="stable") for s in (ours, published)]
        return ours[name][both[0]], published[name][both[1]]
    return ours[name], published[name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--compare", type=Path, metavar="DIR", help="a kit with reference.py; makes nothing")
    options = parser.parse_args()
    make() if options.compare is None else compare(options.compare)
