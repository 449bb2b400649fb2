"""Backbones from timm."""

import pytest
import timm
import torch
from torch import nn

from detrex.modeling import TimmBackbone, backbone_channels
from detrex.runtime.shapes_only import shapes_only

# A small Swin for 64 pixels, where its finest map is as high as it has channels.
SMALL_SWIN = dict(
    embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], img_size=[64, 64], strict_img_size=False
)


def test_maps_by_stride():
    backbone = TimmBackbone("test_resnet", strides=(4, 16), frozen_norm=False)
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert {stride: tuple(m.shape) for stride, m in maps.items()} == {
        4: (2, backbone.channels[4], 16, 24),
        16: (2, backbone.channels[16], 4, 6),
    }


def test_channels_without_building_the_model():
    built = timm.create_model("test_resnet", features_only=True, pretrained=False).feature_info
    every = dict(zip(built.reduction(), built.channels(), strict=True))
    assert backbone_channels("test_resnet") == every
    assert backbone_channels("test_resnet", strides=(4, 16)) == {4: every[4], 16: every[16]}


def test_a_models_maps_are_read_once(monkeypatch):
    read = []
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *args, **kwargs: read.append(args) or create(*args, **kwargs)
    )
    options = {"stem_width": 16}
    first, second = (backbone_channels("test_resnet", options) for _ in range(2))
    assert first == second and len(read) == 1
    backbone_channels("test_resnet", {"stem_width": 16, "act_layer": nn.ReLU})  # not to be told from another
    backbone_channels("test_resnet", {"stem_width": 16, "act_layer": nn.ReLU})
    assert len(read) == 3


def test_only_shapes_are_made():
    real = nn.Linear(2, 3)
    with shapes_only():
        model = timm.create_model("test_resnet")
        real.weight.data.fill_(1.0)
        nn.init.zeros_(real.bias)
    assert all(p.is_meta for p in model.parameters())
    assert [p.shape for p in model.parameters()] == [
        p.shape for p in timm.create_model("test_resnet").parameters()
    ]
    assert real.weight.eq(1).all() and real.bias.eq(0).all()  # what is no shape alone is filled
    assert nn.Linear(2, 3).weight.std() > 0


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (128, 64)])
def test_swin_maps_have_channels_first(size):
    name = "swin_tiny_patch4_window7_224"
    backbone = TimmBackbone(name, options=SMALL_SWIN).eval()
    images = torch.randn(1, 3, *size)
    maps = backbone(images)
    plain = timm.create_model(name, features_only=True, pretrained=False, **SMALL_SWIN).eval()
    plain.load_state_dict(backbone.model.state_dict())
    for output, reference, channels in zip(maps.values(), plain(images), (16, 32, 64, 128), strict=True):
        assert output.shape[1] == channels
        torch.testing.assert_close(output[0, 3], reference[0, :, :, 3])


def test_frozen_norms_do_not_train():
    backbone = TimmBackbone("test_resnet").train()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    training = backbone(images)[32]
    assert torch.equal(training, backbone.eval()(images)[32])
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_free_norms_follow_the_batch():
    backbone = TimmBackbone("test_resnet", frozen_norm=False).train()
    images = torch.randn(2, 3, 64, 64)
    assert not torch.equal(backbone(images)[32], backbone.eval()(images)[32])


def test_an_unknown_name_is_answered_with_similar_ones():
    with pytest.raises(ValueError, match=r"no model named 'resnet5'.*resnet50"):
        TimmBackbone("resnet5")


def test_a_missing_stride_is_named():
    with pytest.raises(ValueError, match=r"test_vit.*strides \[16.*not at \[4, 8, 32\]"):
        TimmBackbone("test_vit")


def test_of_maps_of_equal_stride_the_last_counts():
    options = dict(embed_dim=32, depth=3, num_heads=2, dynamic_img_size=True)
    backbone = TimmBackbone("vit_tiny_patch16_224", strides=[16], options=options).eval()
    assert backbone.channels == {16: 32}
    assert len(backbone.model.model.blocks) == 3


def test_strides_must_ascend():
    with pytest.raises(ValueError, match=r"\[16, 4\].*ascending"):
        TimmBackbone("test_resnet", strides=[16, 4])


def test_convnext_with_stochastic_depth():
    backbone = TimmBackbone("test_convnext", options={"drop_path_rate": 0.5})
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
    images = torch.randn(4, 3, 64, 96)
    with torch.no_grad():
        assert not torch.equal(backbone.train()(images)[32], backbone(images)[32])
        maps = backbone.eval()(images)
    torch.testing.assert_close(maps[32], backbone(images)[32])
    sizes = {s: (4, backbone.channels[s], 64 // s, 96 // s) for s in (4, 8, 16, 32)}
    assert {s: tuple(m.shape) for s, m in maps.items()} == sizes
    sum((m * torch.randn_like(m)).sum() for m in backbone(images).values()).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []
