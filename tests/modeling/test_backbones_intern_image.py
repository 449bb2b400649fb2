"""InternImage (arXiv 2211.05778): its convolution against torchvision's, and its maps."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from detrex.modeling import InternImage, intern_image_channels
from detrex.modeling.backbones.intern_image import DeformableConvolution


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_it_is_a_deformable_convolution_with_weights_of_the_place(scale):
    """torchvision's has ones for weights and the softmax as its mask; it numbers points by rows, y first."""
    torch.manual_seed(0)
    layer = DeformableConvolution(8, 2, scale)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 4, 5, 8)
    with torch.no_grad():
        seen = layer.dw_norm(layer.dw_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        seen = torch.nn.functional.gelu(seen)
        offsets = layer.offset(seen).unflatten(-1, (2, 3, 3, 2))  # group, column, row, (x, y)
        mask = layer.mask(seen).unflatten(-1, (2, 9)).softmax(-1).unflatten(-1, (3, 3))
        step = torch.arange(3) - 1
        kernel = torch.stack(torch.meshgrid(step, step, indexing="ij"), -1)  # (column, row, (x, y))
        offsets = (kernel + offsets) * scale - kernel
        offsets = offsets.transpose(4, 5).flip(-1).flatten(3).permute(0, 3, 1, 2)
        mask = mask.transpose(4, 5).flatten(3).permute(0, 3, 1, 2)
        value = layer.input_proj(x).permute(0, 3, 1, 2)
        found = deform_conv2d(value, offsets, torch.ones(8, 1, 3, 3), padding=1, mask=mask)
        expected = layer.output_proj(found.permute(0, 2, 3, 1))
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("post_norm", [False, True])
def test_maps_of_images_of_any_size(post_norm):
    model = InternImage(8, [1, 2, 1, 1], 2, post_norm=post_norm, strides=[8, 16])
    assert model.channels == {8: 16, 16: 32} == intern_image_channels(8, [8, 16])
    maps = model(torch.randn(1, 3, 70, 96))
    assert {s: tuple(m.shape[1:]) for s, m in maps.items()} == {8: (16, 9, 12), 16: (32, 5, 6)}
    sum(m.sum() for m in maps.values()).backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert unused <= {n for n, _ in model.named_parameters() if n.startswith("levels.2.downsample")}


def test_there_are_no_other_strides():
    with pytest.raises(ValueError, match=r"strides \[4, 8, 16, 32\], not at \[64\]"):
        InternImage(strides=[32, 64])
