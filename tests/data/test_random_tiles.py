"""Random tiles of large pictures: masks, boxes and pixels stay together."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from detrex.data import RandomTile, TileMapper
from detrex.data.coco.segmentation import Segmentation
from detrex.structures import Targets


def record(size=(300, 400), with_masks=True):
    """A white square of 20 pixels on black, with its annotation."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, 200:220, 330:350] = 255
    masks = None
    targets = Targets(
        torch.tensor([1]), torch.tensor([[330.0, 200, 350, 220]]), masks, torch.ones(1, dtype=torch.bool)
    )
    content = {"image": tv_tensors.Image(image), "image_id": 1, "file_name": "a", "targets": targets}
    content.update(height=size[0], width=size[1])
    if with_masks:
        outline = np.array([330, 200, 350, 200, 350, 220, 330, 220], float)
        content["segmentations"] = [Segmentation(polygons=[outline.tobytes()])]
    return content


@pytest.mark.parametrize("with_masks", [True, False])
def test_tiles_have_the_object_where_the_pixels_are(with_masks):
    torch.manual_seed(0)
    mapper = TileMapper(64, 1.0, 1.0, object_probability=1.0, color_jitter=None)
    whole = 0
    for _ in range(30):
        sample = mapper(record(with_masks=with_masks))
        assert sample["image"].shape == (3, 64, 64)
        white = sample["image"][0] > 128
        targets = sample["targets"]
        assert white.any() and len(targets) == 1
        x0, y0, x1, y1 = targets.boxes[0].tolist()
        rows, columns = white.nonzero().T
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [x0, y0, x1, y1] == pytest.approx([float(v) for v in found], abs=1)
        if with_masks:
            assert (targets.masks[0] ^ white).float().mean() < 0.01
        whole += int(white.sum()) == 400
    assert whole > 5


def test_scale_and_empty_tiles():
    torch.manual_seed(0)
    cut = RandomTile(64, 2.0, 2.0, object_probability=0.0)
    sizes, filled = set(), 0
    for _ in range(20):
        out = cut({"image": record()["image"], "boxes": tv_tensors.BoundingBoxes(
            record()["targets"].boxes, format="XYXY", canvas_size=(300, 400))})  # fmt: skip
        sizes.add(tuple(out["image"].shape))
        filled += bool(out["image"].any())
    assert sizes == {(3, 64, 64)} and filled < 5


def test_a_picture_smaller_than_a_tile_is_padded():
    sample = TileMapper(512, 1.0, 1.0)(record())
    assert sample["image"].shape == (3, 512, 512) and (sample["image"][:, 300:] == 128).all()
    assert sample["targets"].boxes[0, 2:].sub(sample["targets"].boxes[0, :2]).tolist() == [20, 20]


@pytest.mark.parametrize("settings", [(0,), (64, 0.0, 1.0), (64, 2.0, 1.0), (64, 1.0, 1.0, 1.5)])
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match="needed is"):
        RandomTile(*settings)
