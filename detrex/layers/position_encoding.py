"""Sine encodings of pixel positions and of boxes (Attention Is All You Need, in two and four dimensions)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_encoding(position: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines, interleaved, of positions in radians: (...) to (..., dim)."""
    pair = torch.arange(dim, device=position.device, dtype=torch.float32) // 2
    angle = position[..., None] / temperature ** (2 * pair / dim)
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)


def image_sine_encoding(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Encoding of every cell of a map: (height * width, dim), the y half first.

    Cells are numbered from 1 and scaled so that the last lies at 2 pi, as in DETR (arXiv 2005.12872).
    """
    y, x = (
        torch.arange(1, size + 1, device=device, dtype=torch.float32) / (size + 1e-6) * (2 * math.pi)
        for size in (height, width)
    )
    encoded_y = sine_encoding(y, dim // 2)[:, None].expand(-1, width, -1)
    encoded_x = sine_encoding(x, dim // 2)[None].expand(height, -1, -1)
    return torch.cat([encoded_y, encoded_x], -1).flatten(0, 1)


def box_sine_encoding(boxes: Tensor, dim: int) -> Tensor:
    """Encoding of normalised cxcywh boxes (DAB-DETR, arXiv 2201.12329): (..., 4) to (..., 4 * dim).

    The order of the four parts is y, x, w, h.
    """
    cx, cy, w, h = boxes.unbind(-1)
    return sine_encoding(torch.stack([cy, cx, w, h], -1) * (2 * math.pi), dim).flatten(-2)
