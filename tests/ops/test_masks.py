"""Masks resized and compressed by the kernel: the pixels of PyTorch's code, and pycocotools' runs."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from detrex.modeling.mask_regions import MaskResize
from detrex.ops import force_implementation
from detrex.ops.library import KernelError
from detrex.ops.masks import ResizedAxis, compress_resized

CPU = torch.device("cpu")
SIZES = {
    "as the input": ((16, 24), (64, 96), (64, 96), (64, 96)),
    "twice as large": ((16, 24), (64, 96), (56, 88), (112, 176)),
    "half as large": ((16, 24), (64, 96), (64, 96), (32, 48)),
    "odd": ((16, 24), (64, 96), (61, 90), (95, 143)),
    "small": ((16, 24), (64, 96), (61, 90), (7, 5)),
}
EXACT = ("as the input", "twice as large", "half as large")  # all weights are short binary fractions


def logits(exact):
    """Noise, a disc, two masks that reach the last pixel, an empty one and one that is all inside."""
    masks = torch.randn(6, 16, 24, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    masks[1] = 6 - ((y - 7) ** 2 + (x - 11) ** 2).float().sqrt()
    masks[2] = (x - 20).float() + 0.5
    masks[3, -1, -1] = 9
    masks[4] = -masks[4].abs() - 0.1
    masks[5] = masks[5].abs() + 0.1
    return (masks * 64).round() / 64 if exact else masks


@pytest.fixture(params=["kernel", "baseline"])
def use_kernel(request, library, use_library):
    use_library(dataclasses.replace(library, baseline=request.param == "baseline"))


def both(resize, masks):
    """What PyTorch's code and the kernel give: compressed masks, and their quality."""
    with force_implementation("reference"):
        expected = resize.encode(masks)
    return expected, resize.encode(masks)


@pytest.mark.usefixtures("use_kernel")
@pytest.mark.parametrize("name", EXACT)
def test_all_bits_are_those_of_pytorch_and_pycocotools(name):
    masks = logits(exact=True)
    (expected, quality), (found, found_quality) = both(MaskResize(*SIZES[name], CPU), masks)
    assert found == expected
    torch.testing.assert_close(found_quality, quality)
    _, padded, image, output = SIZES[name]
    dense = F.interpolate(masks[None], padded, mode="bilinear")[..., : image[0], : image[1]]
    dense = F.interpolate(dense, output, mode="bilinear")[0] > 0
    columns = np.asfortranarray(dense.permute(1, 2, 0).numpy().astype(np.uint8))
    assert found == coco_mask.encode(columns)


@pytest.mark.usefixtures("use_kernel")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", SIZES)
def test_only_pixels_whose_logit_is_rounded_to_zero_differ(name, interpolation):
    masks = logits(exact=False)
    resize = MaskResize(*SIZES[name], CPU, interpolation)
    (expected, quality), (found, found_quality) = both(resize, masks)
    torch.testing.assert_close(found_quality, quality, rtol=1e-4, atol=1e-4)
    resized = torch.cat([rows for _, rows in resize.strips(masks)], 1)  # (N, H, W)
    for one, other, values in zip(expected, found, resized, strict=True):
        differ = torch.from_numpy(coco_mask.decode(one) != coco_mask.decode(other))
        assert values[differ].abs().max() < 1e-5 if differ.any() else True


@pytest.mark.usefixtures("use_kernel")
def test_it_takes_no_masks_and_numbers_that_are_none():
    resize = MaskResize(*SIZES["odd"], CPU)
    assert resize.encode(torch.zeros(0, 16, 24))[0] == []
    masks = torch.full((2, 16, 24), -1.0)
    masks[0, 3:6, 4:9], masks[1, 3, 4] = torch.inf, torch.nan
    rles, _ = resize.encode(masks)
    assert coco_mask.area(rles[0]) > 0 and coco_mask.area(rles[1]) == 0


def test_without_a_kernel_pytorch_computes(use_library):
    use_library(KernelError("there is none"))
    (expected, _), (found, _) = both(MaskResize(*SIZES["odd"], CPU), logits(exact=False))
    assert found == expected


def test_what_the_kernel_would_read_beyond_is_refused(library):
    good = ResizedAxis(
        np.array([0, 1], np.int32), np.ones((2, 2), np.float32), np.array([[0, 1]] * 3, np.int32)
    )
    compress_resized(library, torch.zeros(1, 3, 3), good, good, False)
    for changes, words in (
        ({"first": np.array([0, 2], np.int32)}, "among 0 to 2"),
        ({"first": np.array([1, 0], np.int32)}, "or fall"),
        ({"first": np.array([0, 1])}, "int32"),
        ({"pixels_of": np.array([[0, 3]] * 3, np.int32)}, "among 0 to 1"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(good, **changes)
    for masks in (torch.zeros(1, 3, 4), torch.zeros(1, 3, 3, dtype=torch.float64), torch.zeros(3, 3)):
        with pytest.raises(ValueError, match="masks must be"):
            compress_resized(library, masks, good, good, False)
