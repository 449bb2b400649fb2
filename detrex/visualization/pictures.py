"""Converts images of any kind to PIL images."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

Picture = Tensor | np.ndarray | Image.Image


def to_pil(image: Picture) -> Image.Image:
    """An RGB PIL image from a (3, H, W) tensor, an (H, W, 3) array (uint8 or float in 0..255) or a PIL image.

    Raises:
        ValueError: the shape is wrong.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"an image tensor must be of shape (3, H, W), not {tuple(image.shape)}")
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"an image array must be of shape (H, W, 3), not {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image).clip(0, 255).astype(np.uint8))
