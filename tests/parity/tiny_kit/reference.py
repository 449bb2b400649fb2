"""Weights and arrays of the tiny cases, in the form that ``tests/parity/check.py`` reads; see README.md.

The weights follow from the names and shapes of a checkpoint, by NumPy's legacy generator, which no release
changes. Only two biases are stored.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def state_dict(case: str) -> dict[str, np.ndarray]:
    """The checkpoint of a case, float32, by the names of the published Mask DINO."""
    stored = {
        f"sem_seg_head.{n[len('weights.') :]}": v for n, v in arrays(case).items() if n.startswith("weights.")
    }
    return {**initial_weights(case), **stored}


def initial_weights(case: str) -> dict[str, np.ndarray]:
    """The checkpoint before the biases that are stored with the case take their place."""
    shapes = json.loads((HERE / f"{case}.keys.json").read_text())
    return {name: value(name, tuple(shape)) for name, shape in shapes.items()}


def arrays(case: str) -> dict[str, np.ndarray]:
    """Inputs and expected outputs of a case, under the names of the larger kits."""
    with np.load(HERE / f"{case}.npz") as stored:
        return dict(stored)


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An entry: normal numbers of a size that keeps tokens and queries apart."""
    if name == "criterion.empty_weight":
        return np.array([1.0] * (shape[0] - 1) + [0.1], np.float32)
    # The box head serves all layers, and the decoder's norm is the heads': such entries repeat others.
    for repeated in ("predictor.decoder.bbox_embed.", "predictor.bbox_embed."):
        if repeated in name:
            name = f"predictor._bbox_embed.{name.split(repeated)[1].split('.', 1)[1]}"
    name = name.replace("predictor.decoder.norm.", "predictor.decoder_norm.")
    normal = np.random.RandomState(zlib.crc32(f"tiny {name}".encode())).standard_normal(shape)
    return (_mean(name, shape) + _spread(name, shape) * normal).astype(np.float32)


def _mean(name: str, shape: tuple[int, ...]) -> float:
    if name.endswith(("norm.weight", "running_var")) or (name.endswith(".weight") and len(shape) == 1):
        return 1.5 if name.endswith("running_var") else 1.0
    return 0.0


def _spread(name: str, shape: tuple[int, ...]) -> float:
    if "sampling_offsets.bias" in name:
        return 2.0
    if any(part in name for part in ("query_feat", "query_embed", "label_enc", "level_embed")):
        return 1.0
    if len(shape) == 1:
        return 0.1
    gain = 1.0
    if any(part in name for part in ("class_embed", "mask_embed.layers.2", "in_proj", "attention_weights")):
        gain = 3.0
    if "bbox_embed.layers.2" in name:
        gain = 0.5
    return gain / math.sqrt(np.prod(shape[1:]))
