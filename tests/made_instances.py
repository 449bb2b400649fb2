"""Results made to order, for tests of evaluation and drawing."""

import torch

from detrex.structures import Instances


def square_instances(*objects, size=(64, 64)):
    """Objects are (class index, score, x, y, side)."""
    masks = torch.zeros(len(objects), *size, dtype=torch.bool)
    for mask, (_, _, x, y, side) in zip(masks, objects, strict=True):
        mask[y : y + side, x : x + side] = True
    return Instances(
        image_size=size,
        pred_boxes=torch.tensor([[x, y, x + s, y + s] for _, _, x, y, s in objects]).reshape(-1, 4).float(),
        scores=torch.tensor([o[1] for o in objects], dtype=torch.float32),
        pred_classes=torch.tensor([o[0] for o in objects], dtype=torch.int64),
        pred_masks=masks,
    )
