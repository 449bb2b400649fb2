"""Swin as detectors compute it, against a literal implementation and torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.swin_transformer import SwinTransformer

import detrex.modeling.backbones.swin
from detrex.modeling import SwinBackbone, backbone_channels

NAME = "swin_tiny_patch4_window7_224"
WINDOW, HEADS = 4, (1, 2, 4, 8)
TINY = dict(
    img_size=128,
    embed_dim=16,
    depths=[2, 2, 2, 2],
    num_heads=list(HEADS),
    window_size=WINDOW,
    drop_path_rate=0.0,
)


def tiny(strides=(4, 8, 16, 32), **changes):
    torch.manual_seed(0)
    backbone = SwinBackbone(NAME, strides, options={**TINY, **changes}).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():  # norms and biases too must not be what they start as
            parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone


class LiteralSwin:
    """One image at a time, window by window and pair by pair, from nothing but named weights."""

    def __init__(self, backbone: SwinBackbone):
        self.weights = backbone.state_dict()

    def norm(self, x, name):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, correction=0) + 1e-5
        ).sqrt() * weight + bias

    def linear(self, x, name):
        x = x @ self.weights[f"{name}.weight"].T
        return x + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else x

    def position_bias(self, block, heads):
        table = self.weights[f"{block}.attn.relative_position_bias_table"]
        places = [(y, x) for y in range(WINDOW) for x in range(WINDOW)]
        bias = torch.zeros(heads, len(places), len(places))
        for i, (qy, qx) in enumerate(places):
            for j, (ky, kx) in enumerate(places):
                bias[:, i, j] = table[(qy - ky + WINDOW - 1) * (2 * WINDOW - 1) + qx - kx + WINDOW - 1]
        return bias

    def attention(self, tokens, labels, block, heads, bias):
        """Tokens (N, C) of one window; labels (N,) say which region each is of."""
        qkv = self.linear(tokens, f"{block}.attn.qkv")
        width = tokens.shape[1]
        found = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            q, k, v = (qkv[:, i * width : (i + 1) * width][:, part] for i in range(3))
            logits = q @ k.T / (width / heads) ** 0.5 + bias[head]
            logits[labels[:, None] != labels[None, :]] -= 100
            found.append(logits.softmax(-1) @ v)
        return self.linear(torch.cat(found, -1), f"{block}.attn.proj")

    def windows(self, x, block, heads, shift):
        """Attention of a normalised map (H, W, C)."""
        height, width, _ = x.shape
        rows, columns = (-(-n // WINDOW) * WINDOW for n in (height, width))
        canvas = torch.zeros(rows, columns, x.shape[2])
        canvas[:height, :width] = x
        labels = torch.zeros(rows, columns, dtype=torch.long)
        if shift:
            shifted = torch.zeros_like(canvas)
            for y in range(rows):
                for z in range(columns):
                    shifted[y, z] = canvas[(y + shift) % rows, (z + shift) % columns]
            canvas = shifted
            count = 0
            slices = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
            for vertical in slices:
                for horizontal in slices:
                    labels[vertical, horizontal] = count
                    count += 1
        bias = self.position_bias(block, heads)
        result = torch.zeros_like(canvas)
        for y in range(0, rows, WINDOW):
            for z in range(0, columns, WINDOW):
                place = (slice(y, y + WINDOW), slice(z, z + WINDOW))
                tokens, label = canvas[place].reshape(-1, x.shape[2]), labels[place].flatten()
                result[place] = self.attention(tokens, label, block, heads, bias).view(WINDOW, WINDOW, -1)
        back = torch.zeros_like(result)
        for y in range(rows):
            for z in range(columns):
                back[(y + shift) % rows, (z + shift) % columns] = result[y, z]
        return back[:height, :width]

    def block(self, x, name, heads, shift):
        x = x + self.windows(self.norm(x, f"{name}.norm1"), name, heads, shift)
        hidden = F.gelu(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        return x + self.linear(hidden, f"{name}.mlp.fc2")

    def merge(self, x, name):
        even = torch.zeros(x.shape[0] + x.shape[0] % 2, x.shape[1] + x.shape[1] % 2, x.shape[2])
        even[: x.shape[0], : x.shape[1]] = x
        x = torch.cat([even[0::2, 0::2], even[1::2, 0::2], even[0::2, 1::2], even[1::2, 1::2]], -1)
        return self.linear(self.norm(x, f"{name}.norm"), f"{name}.reduction")

    def __call__(self, image):
        """An image (3, H, W) to a list of maps (C, h, w)."""
        height, width = (-(-n // 4) * 4 for n in image.shape[1:])
        canvas = torch.zeros(3, height, width)
        canvas[:, : image.shape[1], : image.shape[2]] = image
        kernel, bias = (self.weights[f"model.patch_embed.proj.{name}"] for name in ("weight", "bias"))
        x = self.norm(
            F.conv2d(canvas[None], kernel, bias, stride=4)[0].permute(1, 2, 0), "model.patch_embed.norm"
        )
        maps = []
        for i, heads in enumerate(HEADS):
            stage = f"model.layers_{i}"
            x = self.merge(x, f"{stage}.downsample") if i else x
            for j, shift in enumerate((0, WINDOW // 2)):
                x = self.block(x, f"{stage}.blocks.{j}", heads, shift)
            maps.append(self.norm(x, f"norms.{i}").permute(2, 0, 1))
        return maps


@pytest.mark.parametrize(
    "size",
    [
        (52, 68),  # maps of 13 x 17 down to 2 x 3, smaller than a window
        (64, 64),  # 16 x 16 down to 2 x 2: whole windows, then one window exactly
        (20, 12),  # 5 x 3 down to 1 x 1
        (37, 30),  # not divisible by a patch's 4 pixels
    ],
    ids=str,
)
@torch.no_grad()
def test_it_computes_what_is_published(size):
    backbone = tiny()
    images = torch.randn(2, 3, *size)
    maps = list(backbone(images).values())
    literal = LiteralSwin(backbone)
    for b, image in enumerate(images):
        for ours, expected in zip(maps, literal(image), strict=True):
            torch.testing.assert_close(ours[b], expected, rtol=1e-4, atol=1e-4)


def torchvision_twin(backbone: SwinBackbone, depths: list[int]) -> SwinTransformer:
    """torchvision's model with the same weights, but for the norms of maps, which it lacks."""
    twin = SwinTransformer(
        [4, 4], 16, depths, list(HEADS[: len(depths)]), [WINDOW] * 2, stochastic_depth_prob=0.0
    )
    weights = {}
    for name, value in backbone.model.state_dict().items():
        if name.startswith("patch_embed."):
            name = name.replace("patch_embed.proj", "features.0.0").replace(
                "patch_embed.norm", "features.0.2"
            )
        else:
            stage, part, rest = name.removeprefix("layers_").split(".", 2)
            name = f"features.{2 * int(stage) + (part == 'blocks')}.{rest}"
        weights[name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = value
    left = twin.load_state_dict(weights, strict=False)
    assert left.unexpected_keys == []
    assert all(k.startswith(("norm.", "head.")) or "position_index" in k for k in left.missing_keys)
    return twin.eval()


@pytest.mark.parametrize("size", [(80, 96), (84, 108)], ids=str)
@torch.no_grad()
def test_it_agrees_with_torchvision(size):
    # On the coarsest map torchvision does not shift when it is padded to one window: here it is larger.
    backbone = tiny((4, 8, 16), depths=[2, 3, 2], num_heads=list(HEADS[:3]))
    images = torch.randn(2, 3, *size)
    features = torchvision_twin(backbone, [2, 3, 2]).features
    x = images
    for i, (norm, ours) in enumerate(zip(backbone.norms, backbone(images).values(), strict=True)):
        x = features[2 * i : 2 * i + 2](x) if i == 0 else features[2 * i + 1](features[2 * i](x))
        torch.testing.assert_close(ours, norm(x).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns():
    backbone = tiny(drop_path_rate=0.1).train()
    loss = sum((m * torch.randn_like(m)).sum() for m in backbone(torch.randn(2, 3, 52, 68)).values())
    loss.backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_only_used_maps_are_made():
    backbone = tiny((8, 16))
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert {s: tuple(m.shape) for s, m in maps.items()} == {8: (1, 32, 8, 12), 16: (1, 64, 4, 6)}
    assert backbone.channels == backbone_channels(NAME, TINY, (8, 16)) == {8: 32, 16: 64}
    assert backbone.strides == (8, 16)
    names = set(backbone.state_dict())
    assert {n for n in names if n.startswith("norms.")} == {
        f"norms.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")
    }
    assert not any("layers_3" in n for n in names)


@torch.no_grad()
def test_maps_without_norms():
    with_norms = tiny()
    plain = SwinBackbone(NAME, output_norm=False, options=TINY).eval()
    weights = {k: v for k, v in with_norms.state_dict().items() if not k.startswith("norms.")}
    plain.load_state_dict(weights)
    images = torch.randn(1, 3, 64, 64)
    for norm, expected, found in zip(
        with_norms.norms, with_norms(images).values(), plain(images).values(), strict=True
    ):
        torch.testing.assert_close(norm(found.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), expected)


def test_a_mask_is_made_once_for_a_stage(monkeypatch):
    made = []
    shift_mask = detrex.modeling.backbones.swin.shift_mask

    def counting(size, *rest):
        made.append(size)
        return shift_mask(size, *rest)

    backbone = tiny(depths=[4, 1, 2, 4])
    monkeypatch.setattr(detrex.modeling.backbones.swin, "shift_mask", counting)
    backbone(torch.randn(1, 3, 52, 68))
    assert made == [(16, 20), (4, 8), (4, 4)]  # one block alone does not shift
    made.clear()
    backbone(torch.randn(1, 3, 20, 12))
    assert made == [(8, 4), (4, 4), (4, 4)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_is_near(dtype):
    backbone = SwinBackbone(NAME, options=TINY).eval()
    images = torch.randn(1, 3, 52, 68)
    expected = backbone(images)
    with torch.autocast("cpu", dtype):
        found = backbone(images)
    for stride, ours in found.items():
        assert (ours.float() - expected[stride]).abs().mean() < 0.02


@torch.no_grad()
def test_it_can_be_traced():
    backbone = tiny(depths=[2, 1, 1, 1])
    images = torch.randn(1, 3, 52, 68)
    expected = backbone(images)
    exported = torch.export.export(backbone, (images,)).module()
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    for traced in (exported, compiled):
        for output, reference in zip(traced(images).values(), expected.values(), strict=True):
            torch.testing.assert_close(output, reference)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("swin_tinny_patch4", {}, r"no model named 'swin_tinny_patch4'.*swin_tiny_patch4"),
        ("resnet18", {}, r"'resnet18' is no Swin.*TimmBackbone"),
        ("swinv2_tiny_window8_256", {}, r"'swinv2_tiny_window8_256' is no Swin"),
        (NAME, {"always_partition": False}, r"'always_partition' is always True"),
    ],
)
def test_what_cannot_be_is_explained(name, options, message):
    with pytest.raises(ValueError, match=message):
        SwinBackbone(name, options=options)


def test_strides_must_ascend():
    with pytest.raises(ValueError, match=r"\[8, 4\].*ascending"):
        SwinBackbone(NAME, strides=[8, 4], options=TINY)
    with pytest.raises(ValueError, match=r"not at \[64\]"):
        SwinBackbone(NAME, strides=[4, 64], options=TINY)


def test_it_trains_in_a_detector(build, make_sample):
    options = "{embed_dim: 16, depths: [1, 2, 1, 1], num_heads: [1, 2, 4, 8], window_size: 4}"
    model = build(
        f"model.backbone={{_target_: detrex.modeling.SwinBackbone, name: {NAME}, strides: [4, 8, 16, 32], "
        f"options: {options}}}"
    )
    losses = model.train()([make_sample(), make_sample(height=50, width=90, seed=1)])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
