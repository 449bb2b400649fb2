"""Boolean masks as bits, arranged for reading them at points.

Shape letters: N masks, H and W pixels, C bytes a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detrex.runtime.chunking import items_in_cache

# Pixels from one byte to the next. A byte holds eight: it ends with the pixel that the next one begins with,
# so that two neighbours of a row always lie in one byte, and bilinear values need two bytes instead of four.
BYTE_STEP = 7


@dataclass
class PackedMasks:
    """Masks of one size, each pixel in a seventh of a byte.

    Attributes:
        rows: (N, H + 3, C) uint8. The first pixel of a byte is its highest bit. Around a mask is a border of
            zeros: one row above, two below, one pixel on the left, and at least two on the right.
        size: (H, W).
    """

    rows: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def pack(cls, masks: Sequence[Tensor], size: tuple[int, int]) -> PackedMasks:
        """Packs the masks (n, h, w) bool of several images, each into the upper left corner of ``size``."""
        height, width = size
        columns = -(-(width + 2) // BYTE_STEP)
        counts = [len(m) for m in masks]
        rows = torch.zeros(sum(counts), height + 3, columns, dtype=torch.uint8, device=masks[0].device)
        together = items_in_cache(height * width, rows.device)  # one byte a pixel
        for image, image_masks in zip(rows.split(counts), masks, strict=True):
            inner = image[:, 1 : image_masks.shape[1] + 1]
            for into, pixels in zip(inner.split(together), image_masks.split(together), strict=True):
                padded = F.pad(pixels.byte(), (1, BYTE_STEP * columns - image_masks.shape[2]))
                for bit in range(8):
                    into |= padded[..., bit : bit + BYTE_STEP * columns : BYTE_STEP] << (7 - bit)
        return cls(rows, size)

    def unpack(self) -> Tensor:
        """The masks as booleans, (N, H, W)."""
        height, width = self.size
        shift = torch.arange(7, 7 - BYTE_STEP, -1, dtype=torch.uint8, device=self.rows.device)
        pixels = (self.rows[:, 1 : height + 1, :, None] >> shift) & 1
        return pixels.flatten(2)[..., 1 : width + 1].bool()

    def to(self, device: torch.device, non_blocking: bool = False) -> PackedMasks:
        return PackedMasks(self.rows.to(device, non_blocking=non_blocking), self.size)
