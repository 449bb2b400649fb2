"""Sine encodings of pixel positions and of boxes (Attention Is All You Need, in two and four dimensions).

Shape letters: B images, L levels, S tokens of all levels, H and W cells of a level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detrex.structures import Pyramid


def sine_encoding(position: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Interleaved sines and cosines of positions in radians: (...) to (..., dim)."""
    pair = torch.arange(dim, device=position.device, dtype=torch.float32) // 2
    angle = position[..., None] / temperature ** (2 * pair / dim)
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)


def pyramid_sine_encoding(
    pyramid: Pyramid, dim: int, temperature: float = 10000.0, offset: float = 0.0
) -> list[Tensor]:
    """Encoding of every cell of every level, the y half first.

    Cells are numbered from 1 and scaled so that the last one without padding lies at 2 pi, as in DETR (arXiv
    2005.12872).

    Args:
        pyramid: only its levels and their padding matter, not its tokens.
        dim: channels.
        temperature: of the wavelengths.
        offset: added to the numbers: 0 in DETR, -0.5 in Deformable DETR (arXiv 2010.04159).

    Returns:
        For every level (H * W, dim), or (B, H * W, dim) where padding is masked.
    """
    device = pyramid.tokens.device
    extents: Sequence[Tensor | None] = [None] * len(pyramid.shapes)
    if pyramid.valid_sizes is not None:
        extents = pyramid.valid_sizes.unbind(1)
    encodings = []
    for (height, width), extent in zip(pyramid.shapes, extents, strict=True):
        x_extent: int | Tensor = width if extent is None else extent[:, None, 0]  # (B, 1)
        y_extent: int | Tensor = height if extent is None else extent[:, None, 1]
        y = sine_encoding(_radians(height, y_extent, offset, device), dim // 2, temperature)
        x = sine_encoding(_radians(width, x_extent, offset, device), dim // 2, temperature)
        y = y[..., :, None, :].expand(*y.shape[:-1], width, -1)
        x = x[..., None, :, :].expand(*x.shape[:-2], height, -1, -1)
        encodings.append(torch.cat([y, x], -1).flatten(-3, -2))
    return encodings


def _radians(size: int, extent: int | Tensor, offset: float, device: torch.device) -> Tensor:
    number = torch.arange(1, size + 1, device=device, dtype=torch.float32)
    # Cells beyond the extent are padding, whose number does not matter.
    return (number + offset) / (extent + 1e-6) * (2 * math.pi)


def box_sine_encoding(boxes: Tensor, dim: int) -> Tensor:
    """Encoding of normalised points (x, y) or cxcywh boxes: (..., 2 or 4) to (..., 2 or 4 times dim).

    The order of the parts is y, x, w, h (Conditional DETR, arXiv 2108.06152; DAB-DETR, arXiv 2201.12329).
    """
    numbers = boxes.unbind(-1)
    ordered = torch.stack([numbers[1], numbers[0], *numbers[2:]], -1)
    return sine_encoding(ordered * (2 * math.pi), dim).flatten(-2)
