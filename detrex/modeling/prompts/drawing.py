"""Prompts for training, drawn from true masks.

Shape letters: N masks of an image, P prompts, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detrex.structures import Targets
from detrex.structures.prompts import BOX, POINT

# Noise of a click, as a fraction of the noise of a box.
POINT_NOISE = 0.01
HALF_SIDE = 3
"""Half of the side, in pixels, of the square that stands for a click in training."""


@dataclass
class DrawnPrompts:
    """The prompts of one image, and the masks that answer them.

    Attributes:
        boxes: (P, 4) normalised cxcywh, relative to the image.
        kind: (P,) int64, ``POINT`` or ``BOX``.
        prompt, mask: (M,) int64 each: mask number ``mask`` answers prompt number ``prompt``.
    """

    boxes: Tensor
    kind: Tensor
    prompt: Tensor
    mask: Tensor


class RandomPrompts:
    """Clicks at random pixels of masks, and boxes around masks.

    Masks are taken in random order, repeatedly until there are enough prompts. Every mask that contains the
    pixel of a click answers it; a box is answered by its own mask.

    Args:
        num_prompts: P.
        max_masks: at most so many masks, chosen at random, answer a click.
        box_share: share of prompts that are boxes. The published training has none.
        noise: centres move by up to ``noise / 2`` of a box's size, sizes by up to ``noise``; for clicks, by a
            hundredth of that.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, num_prompts: int = 60, max_masks: int = 6, box_share: float = 0.0, noise: float = 0.4):
        if num_prompts < 1 or max_masks < 1 or not 0 <= box_share <= 1:
            raise ValueError(
                f"num_prompts={num_prompts} and max_masks={max_masks} must be 1 at least, and "
                f"box_share={box_share} from 0 to 1"
            )
        self.num_prompts, self.max_masks = num_prompts, max_masks
        self.box_share, self.noise = box_share, noise

    def __call__(self, targets: Targets) -> DrawnPrompts | None:
        """Prompts for the masks of an image, or None if it has no mask with a pixel.

        Raises:
            ValueError: the data has no masks.
        """
        if targets.masks is None:
            raise ValueError("prompts are drawn from masks, and these data have boxes only")
        masks = targets.masks
        visible = masks.flatten(1).any(1).nonzero().squeeze(1)
        if not len(visible):
            return None
        rounds = -(-self.num_prompts // len(visible))
        chosen = visible[self._order(len(visible))].repeat(rounds)[: self.num_prompts].tolist()
        boxes, kinds, pairs = [], [], []
        for number, mask in enumerate(chosen):
            is_box = number < round(self.box_share * self.num_prompts)
            box, answers = self._box(targets, mask) if is_box else self._click(masks, mask)
            boxes.append(box)
            kinds.append(BOX if is_box else POINT)
            pairs += [(number, answer) for answer in answers]
        height, width = masks.shape[1:]
        found = torch.stack(boxes) / torch.tensor([width, height, width, height])
        kind = torch.tensor(kinds)
        prompt, answer = torch.tensor(pairs).T
        return DrawnPrompts(self._noised(found, kind), kind, prompt, answer)

    def _click(self, masks: Tensor, mask: int) -> tuple[Tensor, list[int]]:
        pixels = masks[mask].nonzero()  # row by row
        y, x = pixels[self._pixel(len(pixels))].tolist()
        answers = masks[:, y, x].nonzero().squeeze(1)
        if len(answers) > self.max_masks:
            answers = answers[torch.randperm(len(answers))[: self.max_masks]].sort().values
        side = 2.0 * HALF_SIDE
        return torch.tensor([float(x), float(y), side, side]), answers.tolist()

    def _box(self, targets: Targets, mask: int) -> tuple[Tensor, list[int]]:
        return box_convert(targets.boxes[mask].float(), "xyxy", "cxcywh"), [mask]

    def _noised(self, boxes: Tensor, kind: Tensor) -> Tensor:
        reach = torch.cat([boxes[:, 2:] / 2, boxes[:, 2:]], 1) * self.noise
        reach = torch.where(kind[:, None] == POINT, POINT_NOISE * reach, reach)
        return (boxes + (2 * torch.rand_like(boxes) - 1) * reach).clamp(0, 1)

    def _order(self, count: int) -> Tensor:
        return torch.randperm(count)

    def _pixel(self, count: int) -> int:
        return int(torch.randint(count, ()))


class MedianPrompts(RandomPrompts):
    """Repeatable clicks: on the middle pixel of each mask, in the given order, without noise.

    Args:
        num_prompts, max_masks: see :class:`RandomPrompts`.
    """

    def __init__(self, num_prompts: int = 60, max_masks: int = 6):
        super().__init__(num_prompts, max_masks, noise=0.0)

    def _order(self, count: int) -> Tensor:
        return torch.arange(count)

    def _pixel(self, count: int) -> int:
        return (count - 1) // 2
