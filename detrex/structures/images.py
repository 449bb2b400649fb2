"""Images of different sizes in one tensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true


@dataclass
class PaddedImages:
    """A batch of images, padded right and below with zeros.

    Attributes:
        tensor: (B, C, H, W) float.
        sizes: (height, width) of every image before padding, in pixels; a single entry may stand for all.
    """

    tensor: Tensor
    sizes: list[tuple[int, int]]

    @classmethod
    def from_list(cls, images: list[Tensor], divisor: int = 1) -> PaddedImages:
        """Pads (C, h, w) images to the largest height and width, rounded up to multiples of ``divisor``."""
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
        batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
        for padded, image in zip(batch, images, strict=True):
            padded[:, : image.shape[1], : image.shape[2]] = image
        return cls(batch, sizes)

    def of_image(self, index: int) -> PaddedImages:
        """One image of the batch, as a batch of one, with its padding."""
        return PaddedImages(self.tensor[index, None], [self.sizes[index]])

    @property
    def has_padding(self) -> bool:
        """Whether an image is smaller than the batch, or may be when a model is exported for all sizes."""
        return not all(
            statically_known_true(side == padded)
            for size in self.sizes
            for side, padded in zip(size, self.padded_size, strict=True)
        )

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) of the batch."""
        height, width = self.tensor.shape[-2:]
        return height, width
