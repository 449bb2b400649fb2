"""Plain ViTs with a simple pyramid, against timm's blocks and convolutions written out."""

import pytest
import timm
import torch
import torch.nn.functional as F

from detrex.modeling import VitPyramid, pyramid_channels

VITS = {
    "vit_tiny_patch16_224": dict(embed_dim=32, depth=2, num_heads=2),
    "vit_small_patch16_dinov3.lvd1689m": dict(embed_dim=32, depth=2, num_heads=2),
    "eva02_base_patch16_clip_224": dict(embed_dim=32, depth=2, num_heads=2),
}
each_vit = pytest.mark.parametrize("name", VITS)


def tiny(name, strides=(4, 8, 16, 32), **options):
    torch.manual_seed(0)
    backbone = VitPyramid(name, strides, options={**VITS[name], **options}, channels=24).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():  # norms and biases too must not be what they start as
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


def last_map(backbone, name, images):
    """The patches' tokens after the last block of timm's complete model, as a map."""
    whole = timm.create_model(name, dynamic_img_size=True, pretrained=False, **VITS[name]).eval()
    left = whole.load_state_dict(backbone.model.model.state_dict(), strict=False)
    assert left.unexpected_keys == []
    assert all(k.startswith(("norm.", "fc_norm.", "head.")) for k in left.missing_keys)
    tokens = []
    whole.blocks[-1].register_forward_hook(lambda _module, _args, output: tokens.append(output))
    whole(images)
    height, width = (n // 16 for n in images.shape[-2:])
    patches = tokens[0][:, whole.num_prefix_tokens :]
    return patches.transpose(1, 2).unflatten(2, (height, width))


def double(x, weight, bias):
    """A transposed convolution of 2 x 2 with stride 2: each pixel becomes four of its own."""
    four = torch.einsum("bchw,coij->bohiwj", x, weight)
    return four.flatten(4, 5).flatten(2, 3) + bias[:, None, None]


def normalise(x, weight, bias):
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    return x * weight[:, None, None] + bias[:, None, None]


def written_out(x, stride, parameters):
    """The map at a stride from the last map; parameters in the order in which they are used."""
    p = iter(parameters)
    if stride == 4:
        x = F.gelu(normalise(double(x, next(p), next(p)), next(p), next(p)))
    if stride <= 8:
        x = double(x, next(p), next(p))
    if stride == 32:
        x = torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    x = torch.einsum("bchw,oc->bohw", x, next(p)[:, :, 0, 0])
    x = normalise(x, next(p), next(p))
    x = normalise(F.conv2d(x, next(p), padding=1), next(p), next(p))
    assert list(p) == []
    return x


@each_vit
@pytest.mark.parametrize("size", [(64, 96), (32, 160)], ids=str)
@torch.no_grad()
def test_the_pyramid_of_the_last_map(name, size):
    backbone = tiny(name)
    images = torch.randn(2, 3, *size)
    maps = backbone(images)
    last = last_map(backbone, name, images)
    assert list(maps) == [4, 8, 16, 32]
    for scale, (stride, ours) in zip(backbone.scales, maps.items(), strict=True):
        assert ours.shape == (2, 24, size[0] // stride, size[1] // stride)
        torch.testing.assert_close(ours, written_out(last, stride, scale.parameters()), rtol=1e-4, atol=1e-4)


@each_vit
def test_every_parameter_learns(name):
    backbone = tiny(name, drop_path_rate=0.1).train()
    loss = sum((m * torch.randn_like(m)).sum() for m in backbone(torch.randn(2, 3, 64, 64)).values())
    loss.backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_channels_for_a_config():
    backbone = tiny("vit_tiny_patch16_224", strides=[8, 16])
    assert backbone.channels == pyramid_channels([8, 16], 24) == {8: 24, 16: 24}
    assert backbone.strides == (8, 16)
    assert list(backbone(torch.randn(1, 3, 48, 80))) == [8, 16]


def test_images_of_other_sizes_are_explained():
    with pytest.raises(ValueError, match=r"\(48, 64\).*not divisible by 32.*size_divisor"):
        tiny("vit_tiny_patch16_224")(torch.randn(1, 3, 48, 64))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vit_small_patch14_dinov2",
            r"'vit_small_patch14_dinov2' has feature maps at strides \[14\].*16 pixels",
        ),
        ("resnet18", r"'resnet18' cannot take images of any size.*plain ViT"),
        ("swin_tiny_patch4_window7_224", r"at strides \[4, 8, 16, 32\].*plain ViT"),
        ("vit_tini_patch16_224", r"no model named 'vit_tini_patch16_224'.*vit_tiny_patch16_224"),
    ],
)
def test_other_models_are_refused(name, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        VitPyramid(name)


@pytest.mark.parametrize(
    ("strides", "message"), [([4, 64], "16 and 32, not 64"), ([16, 8], r"\[16, 8\].*ascending")]
)
def test_other_strides_are_refused(strides, message):
    with pytest.raises(ValueError, match=message):
        tiny("vit_tiny_patch16_224", strides)


def test_a_config_states_channels_once(build, make_sample):
    model = build(
        "model.backbone={_target_: detrex.modeling.VitPyramid, name: vit_tiny_patch16_224, channels: 40, "
        "strides: [4, 8, 16, 32], options: {embed_dim: 32, depth: 1, num_heads: 2}}",
        "model.encoder.in_channels={_target_: detrex.modeling.pyramid_channels, "
        "strides: '${...backbone.strides}', channels: '${...backbone.channels}'}",
    )
    losses = model.train()([make_sample(), make_sample(height=50, width=90, seed=1)])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
