import colorsys

import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from detrex.data.transforms import (
    LargeScaleJitter,
    PadToSize,
    PhotometricDistortion,
    RandomScaleCrop,
    RandomShortestSide,
    shortest_side_size,
)


def disc(height, width, y, x, radius):
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def scene(height=120, width=160):
    """An image that is white where its masks are, and boxes around the masks."""
    masks = torch.stack([disc(height, width, 40, 50, 25), disc(height, width, 80, 120, 30)])
    image = (masks.any(0) * 255).to(torch.uint8).expand(3, -1, -1)
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    return {
        "image": tv_tensors.Image(image),
        "masks": tv_tensors.Mask(masks),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
    }


TRANSFORMS = [
    v2.Compose([LargeScaleJitter((96, 128)), PadToSize((96, 128), 0)]),
    v2.Compose([LargeScaleJitter((200, 200), 1.5, 2.0), PadToSize((200, 200), 0)]),
    RandomShortestSide([60, 90, 240], 400),
    RandomShortestSide([90, 100], 150, crop_probability=1.0),
    v2.Compose([RandomScaleCrop([60, 120, 240], 400, (100, 110)), PadToSize((100, 110), 0)]),
]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_image_masks_and_boxes_stay_together(transform):
    for seed in range(20):
        torch.manual_seed(seed)
        out = transform(scene())
        image, masks, boxes = out["image"], out["masks"], out["boxes"]
        assert masks.dtype == torch.bool and image.dtype == torch.uint8
        assert image.shape[-2:] == masks.shape[-2:] == boxes.canvas_size
        differs = (image[0] > 127) != masks.any(0)
        # Edges may fall on either side of a pixel; areas may not differ.
        assert differs.float().mean() < 0.04
        assert abs(float((image[0] > 127).float().mean() - masks.any(0).float().mean())) < 0.01
        for mask, box in zip(masks, boxes, strict=True):
            if mask.sum() > 20:
                tight = masks_to_boxes(mask[None])[0] + torch.tensor([0, 0, 1, 1])
                # A cut disc's box can be larger than what is seen of it, never smaller.
                assert (box[:2] <= tight[:2] + 2.5).all() and (box[2:] >= tight[2:] - 2.5).all()


def test_masks_are_not_shifted_when_made_smaller():
    mask = disc(400, 400, 200, 200, 80)[None]
    transform = RandomShortestSide([40], 40)
    small = transform({"image": tv_tensors.Image(torch.zeros(3, 400, 400)), "masks": tv_tensors.Mask(mask)})
    assert torch.equal(small["masks"][0], small["masks"][0].flip(0).flip(1))


def test_large_scale_jitter_gives_the_size_and_pads_right_and_below():
    sizes = set()
    for seed in range(30):
        torch.manual_seed(seed)
        white = {"image": tv_tensors.Image(torch.full((3, 60, 80), 255, dtype=torch.uint8))}
        image = PadToSize((64, 64), [1, 2, 3])(LargeScaleJitter((64, 64))(white))["image"]
        assert image.shape == (3, 64, 64)
        inside = image[0] == 255
        height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
        assert inside[:height, :width].all() and inside.sum() == height * width
        if height < 64:
            assert image[:, -1, 0].tolist() == [1, 2, 3]
        sizes.add((height, width))
    heights, widths = zip(*sizes, strict=True)
    assert min(widths) < 16 and max(widths) == 64 and max(heights) == 64 and len(sizes) > 10


def test_large_scale_jitter_at_scale_one_fits_the_image_exactly():
    pixels = tv_tensors.Image(torch.randint(256, (3, 30, 60), dtype=torch.uint8))
    image = LargeScaleJitter((64, 60), 1.0, 1.0)({"image": pixels})["image"]
    assert torch.equal(image, pixels)


def test_cropping_first_equals_resizing_first():
    """At a scale of 2, where regions of source pixels are exact, against torchvision's own order."""
    pixels = v2.functional.gaussian_blur(torch.randint(256, (3, 64, 64), dtype=torch.uint8), 5)
    doubled = v2.functional.resize(pixels, [128, 128], antialias=True)
    for seed in range(8):
        torch.manual_seed(seed)
        crop = LargeScaleJitter((64, 64), 2.0, 2.0)({"image": tv_tensors.Image(pixels)})["image"]
        windows = doubled.unfold(1, 64, 1).unfold(2, 64, 1)  # (3, y, x, 64, 64)
        inner = (windows - crop[:, None, None].to(torch.int16)).abs()[..., 2:-2, 2:-2]
        assert inner.amax((0, 3, 4)).min() <= 1


def test_shortest_side():
    assert shortest_side_size(480, 640, 800, 1333) == (800, 1067)
    assert shortest_side_size(640, 480, 800, 1333) == (1067, 800)
    assert shortest_side_size(200, 1000, 800, 1333) == (267, 1333)
    assert shortest_side_size(1, 10_000, 800, 1333) == (1, 1333)


def test_sizes_are_among_those_asked_for():
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        seen.add(min(RandomShortestSide([50, 60], 75)(scene())["image"].shape[-2:]))
    assert seen == {50, 56}  # 60 would make the longer side 80


def test_crops_are_parts_of_the_asked_size():
    """Of an image of 100 x 200 the crop is 50 to 80 pixels each way, at a base size of 100."""
    pixels = tv_tensors.Image(torch.zeros(3, 100, 200, dtype=torch.uint8))
    transform = RandomShortestSide([64], 10_000, 1.0, crop_base_sizes=[100], crop_range=(50, 80))
    for seed in range(20):
        torch.manual_seed(seed)
        height, width = transform({"image": pixels})["image"].shape[-2:]
        assert min(height, width) == 64
        assert 50 / 80 - 0.02 <= height / width <= 80 / 50 + 0.02


def test_scaled_crops_have_the_size_and_a_scale_that_is_asked_for():
    """Stripes of 8 pixels tell the scale at which a crop was cut."""
    stripes = (torch.arange(160) // 8 % 2 * 255).to(torch.uint8).expand(3, 120, -1)
    widths = set()
    for seed in range(30):
        torch.manual_seed(seed)
        image = RandomScaleCrop([60, 240], 10_000, (50, 70))({"image": tv_tensors.Image(stripes)})["image"]
        assert image.shape == (3, 50, 70)  # either size fills it
        changes = ((image[0, 0] > 127).int().diff() != 0).nonzero().flatten()
        widths.add(round(float(changes.diff().float().mean())))
    assert widths == {4, 16}


def test_a_scaled_crop_of_a_small_image_is_padded_right_and_below():
    white = {"image": tv_tensors.Image(torch.full((3, 20, 40), 255, dtype=torch.uint8))}
    image = RandomScaleCrop([30], 50, (32, 64))(white)["image"]  # at most 50 wide: 25 x 50
    image = PadToSize((32, 64), 7)({"image": image})["image"]
    assert (image[:, :25, :50] == 255).all() and (image[:, 25:] == 7).all() and (image[:, :, 50:] == 7).all()


def test_crops_of_nearly_one_class_are_drawn_again():
    """The left three quarters are one class: many crops lie within them, and few do if that is avoided."""
    left = (torch.arange(80) < 60).expand(20, -1)
    classes = tv_tensors.Mask(torch.stack([left, ~left]))
    pixels = tv_tensors.Image(torch.zeros(3, 20, 80, dtype=torch.uint8))

    def share_of_single_class_crops(limit):
        torch.manual_seed(0)
        transform = RandomScaleCrop([20], 80, (20, 20), max_class_share=limit)
        areas = [transform({"image": pixels, "masks": classes})["masks"].sum((1, 2)) for _ in range(100)]
        return sum(float(a.max()) > 0.9 * 400 for a in areas) / 100

    assert share_of_single_class_crops(1.0) > 0.5
    assert share_of_single_class_crops(0.9) < 0.1


@pytest.mark.parametrize("amount", [0.5, 0.8, 1.5, 100.0])
def test_saturation_is_that_of_hue_saturation_and_value(amount, monkeypatch):
    pixels = torch.randint(256, (3, 20, 20), dtype=torch.uint8)
    pixels[:, 0] = pixels[:1, 0]  # greys
    pixels[:, 1] = 0
    monkeypatch.setattr(PhotometricDistortion, "make_params", lambda *_: {"saturation": amount})
    found = PhotometricDistortion()({"image": tv_tensors.Image(pixels)})["image"]
    expected = []
    for color in (pixels / 255).flatten(1).T.tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*color)
        expected.append(colorsys.hsv_to_rgb(hue, min(1.0, saturation * amount), value))
    torch.testing.assert_close(found.flatten(1).T / 255, torch.tensor(expected), atol=0.51 / 255, rtol=0)


def test_colours_change_as_in_ssd():
    """Each of the four with a probability of one half, between its ends; nothing but colours changes."""
    grey, red = torch.full((3, 4, 4), 100, dtype=torch.uint8), torch.zeros(3, 4, 4, dtype=torch.uint8)
    red[0] = 200
    torch.manual_seed(0)
    drawn = [PhotometricDistortion().make_params([]) for _ in range(2000)]
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -36, 36),
    ):
        values = [params[name] for params in drawn if name in params]
        assert 0.45 < len(values) / 2000 < 0.55
        span = high - low
        assert low <= min(values) < low + 0.02 * span and high - 0.02 * span < max(values) <= high
    last = [list(params)[-1] == "contrast" for params in drawn if len(params) == 4]
    assert 0.3 < sum(last) / len(last) < 0.7

    masks = tv_tensors.Mask(torch.ones(1, 4, 4, dtype=torch.bool))
    seen, distortion = set(), PhotometricDistortion(hue=0, saturation=(1, 1))
    for _ in range(40):
        out = distortion({"image": tv_tensors.Image(grey), "masks": masks})
        assert torch.equal(out["masks"], masks) and len(out["image"].unique()) == 1
        seen.add(int(out["image"][0, 0, 0]))
    assert 100 in seen and min(seen) < 70 and max(seen) > 120
    distortion = PhotometricDistortion(0, (1, 1), (1, 1), hue=120)
    turned = {
        tuple(distortion({"image": tv_tensors.Image(red)})["image"][:, 0, 0].tolist()) for _ in range(20)
    }
    assert len(turned) > 3 and all(max(color) == 200 and min(color) == 0 for color in turned)


def test_wrong_settings():
    with pytest.raises(ValueError, match="max_class_share"):
        RandomScaleCrop([64], 100, (64, 64), max_class_share=0)

    with pytest.raises(ValueError, match="min_scale"):
        LargeScaleJitter((10, 10), 0.0, 1.0)
    with pytest.raises(ValueError, match="min_scale"):
        LargeScaleJitter((10, 10), 2.0, 1.0)
    with pytest.raises(ValueError, match="sizes"):
        RandomShortestSide([], 100)
