"""Masks as runs of pixels (COCO's compressed RLE), which take memory in proportion to their outlines.

Shape letters: N masks, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from detrex.runtime.chunking import available_bytes

# Masks that need fewer bytes are decoded without checking how much memory is free.
_MEMORY_UNCHECKED = 2**30


class RunLengthMasks:
    """The masks of one image, compressed.

    Args:
        size: (height, width) in pixels.
        rles: ``size`` and ``counts`` (bytes) of each mask, as pycocotools has them.
    """

    def __init__(self, size: tuple[int, int], rles: Sequence[Mapping[str, Any]]):
        self.size, self.rles = size, list(rles)

    @classmethod
    def encode(cls, masks: Tensor) -> RunLengthMasks:
        """Encodes masks (N, H, W) bool on any device."""
        return cls((masks.shape[1], masks.shape[2]), _encode(masks))

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, index: Tensor | slice) -> RunLengthMasks:
        """Selects masks by a slice, or by a tensor of indices or of (N,) bool."""
        if isinstance(index, slice):
            return RunLengthMasks(self.size, self.rles[index])
        places = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return RunLengthMasks(self.size, [self.rles[i] for i in places.tolist()])

    def one(self, index: int) -> Tensor:
        """Mask ``index``, (H, W) bool on the CPU."""
        return torch.from_numpy(coco_mask.decode(self.rles[index])).view(torch.bool)

    def dense(self, device: torch.device | str = "cpu") -> Tensor:
        """All masks (N, H, W) bool.

        Raises:
            ValueError: the masks do not fit into memory.
        """
        height, width = self.size
        device = torch.device(device)
        needed = len(self) * height * width
        if needed > _MEMORY_UNCHECKED:
            free = available_bytes(device)
            if free is not None and needed > free:
                raise ValueError(
                    f"{len(self)} masks of {height} x {width} pixels (height x width) need "
                    f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free. Take one at a time (for "
                    "detection in result: detection.mask), or the compressed ones (result.to_coco())"
                )
        masks = torch.empty(len(self), height, width, dtype=torch.bool, device=device)
        for i in range(len(self)):
            masks[i] = self.one(i)
        return masks

    def areas(self) -> np.ndarray:
        """Pixels of each mask (N,) int64."""
        # One at a time: pycocotools cannot take more than 255 together.
        return np.array([int(coco_mask.area(rle)) for rle in self.rles], np.int64)

    def to_coco(self) -> list[dict[str, Any]]:
        """The masks ready for JSON: ``size`` and ``counts`` (text) of each."""
        return [{"size": list(self.size), "counts": rle["counts"].decode("ascii")} for rle in self.rles]


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Converts (N, H, W) bool masks on any device to COCO's compressed RLE, ready for JSON."""
    return RunLengthMasks.encode(masks).to_coco()


def rle_of_runs(bounds: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """A mask from its runs.

    Args:
        bounds: begin and end of every run of the mask's pixels, one after another, ascending; pixels are
            counted down the columns, from left to right. Runs may touch.
        size: (height, width) in pixels.

    Returns:
        ``size`` and ``counts`` (bytes), as pycocotools has them.
    """
    touching = np.flatnonzero(bounds[1:] == bounds[:-1])
    bounds = np.delete(bounds, np.concatenate([touching, touching + 1]))
    counts = np.diff(bounds, prepend=0, append=size[0] * size[1])
    if len(counts) > 1 and not counts[-1]:  # a run that ends with the last pixel
        counts = counts[:-1]
    return coco_mask.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)


def _encode(masks: Tensor) -> list[dict[str, Any]]:
    # pycocotools wants column-major (H, W, N): (N, W, H) is transposed to it for free, once on the host.
    # PyTorch takes twice as long to transpose bool.
    columns = masks.view(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()
    return coco_mask.encode(columns.transpose(2, 1, 0)) if len(columns) else []
