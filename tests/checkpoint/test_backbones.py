import pytest
import timm
import torch
import torchvision
from torch import nn

from detrex.checkpoint.backbones import (
    convert_backbone,
    detectron2_resnet_name,
    detectron2_swin_name,
    resnet_name,
    swin_name,
)
from detrex.modeling import SwinBackbone, TimmBackbone, VitPyramid
from detrex.runtime.shapes_only import shapes_only

SWIN = "swin_tiny_patch4_window7_224"
SMALL_SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 4}


class Detector(nn.Module):
    """A model with a backbone; the head is not to be touched."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


def randomise(model: nn.Module) -> nn.Module:
    """Random weights, norms and statistics: no two entries of a shape are alike."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1 and "table" not in name:
                value.copy_(noise * value[0].numel() ** -0.5)
            else:
                value.copy_(1 + 0.3 * noise if name.endswith(("weight", "var")) else 0.3 * noise)
            if name.endswith("var"):
                value.abs_()
    return model.eval()


def load(state, backbone):
    """Converts ``state`` for a detector with ``backbone`` and loads it; every parameter must be among it."""
    detector = randomise(Detector(backbone))
    for value in detector.backbone.state_dict().values():
        value.zero_()  # what is not loaded shows
    weights = convert_backbone(state, detector)
    assert weights is not None
    expected = {f"backbone.{name}" for name in backbone.state_dict()}
    assert set(weights.tensors) <= expected
    missing, unexpected = detector.load_state_dict(weights.tensors, strict=False)
    assert unexpected == []
    assert {n for n in missing if n.startswith("backbone.")} == expected - set(weights.tensors)
    return weights, missing


def agree(backbone, images, maps):
    """Whether the backbone computes these maps, given finest first."""
    with torch.no_grad():
        outputs = list(backbone.eval()(images).values())
    assert [m.shape for m in outputs] == [m.shape for m in maps]
    return all((a - b).abs().max() < 1e-4 * b.abs().max() for a, b in zip(outputs, maps, strict=True))


@torch.no_grad()
def torchvision_maps(model, images):
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return [x := layer(x) for layer in (model.layer1, model.layer2, model.layer3, model.layer4)]


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# Names


RESNET_NAMES = {
    "stem.conv1.weight": "conv1.weight",
    "stem.conv1.norm.weight": "bn1.weight",
    "stem.conv1.norm.running_var": "bn1.running_var",
    "res2.0.shortcut.weight": "layer1.0.downsample.0.weight",
    "res2.0.shortcut.norm.bias": "layer1.0.downsample.1.bias",
    "res2.2.conv1.weight": "layer1.2.conv1.weight",
    "res3.0.conv2.norm.running_mean": "layer2.0.bn2.running_mean",
    "res4.22.conv3.norm.num_batches_tracked": "layer3.22.bn3.num_batches_tracked",
    "res5.1.conv3.weight": "layer4.1.conv3.weight",
}
SWIN_NAMES = {
    "patch_embed.proj.weight": "model.patch_embed.proj.weight",
    "patch_embed.norm.bias": "model.patch_embed.norm.bias",
    "layers.0.blocks.1.attn.relative_position_bias_table": (
        "model.layers_0.blocks.1.attn.relative_position_bias_table"
    ),
    "layers.2.blocks.17.mlp.fc1.weight": "model.layers_2.blocks.17.mlp.fc1.weight",
    "layers.0.downsample.reduction.weight": "model.layers_1.downsample.reduction.weight",
    "layers.2.downsample.norm.bias": "model.layers_3.downsample.norm.bias",
    "norm0.weight": "norms.0.weight",
    "norm3.bias": "norms.3.bias",
}


def test_names_of_detectron2():
    assert {n: resnet_name(n) for n in RESNET_NAMES} == RESNET_NAMES
    assert {t: detectron2_resnet_name(t) for t in RESNET_NAMES.values()} == {
        t: d for d, t in RESNET_NAMES.items()
    }


def test_names_of_published_swins():
    assert {n: swin_name(n) for n in SWIN_NAMES} == SWIN_NAMES
    assert {detectron2_swin_name(t): t for t in SWIN_NAMES.values()} == SWIN_NAMES


def test_names_without_counterpart():
    assert swin_name("layers.1.blocks.1.attn_mask") is None
    assert swin_name("layers.1.blocks.1.attn.relative_position_index") is None
    for name in (
        "head.weight",
        "norm.weight",
        "fc.bias",
        "linear.weight",
        "stem.fc.weight",
        "res2",
        "conv1_w",
    ):
        assert (swin_name(name), resnet_name(name)) == (name, name)
        assert (detectron2_swin_name(name), detectron2_resnet_name(name)) == (name, name)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_names_of_a_resnet_there_and_back(name):
    with shapes_only():
        names = list(timm.create_model(name, features_only=True).state_dict())
    converted = [detectron2_resnet_name(n) for n in names]
    assert not set(converted) & set(names)
    assert len(set(converted)) == len(names)
    assert [resnet_name(n) for n in converted] == names


def test_names_of_a_swin_there_and_back():
    with shapes_only():
        names = list(SwinBackbone(SWIN).state_dict())
    converted = [detectron2_swin_name(n) for n in names]
    assert not set(converted) & set(names)
    assert len(set(converted)) == len(names)
    assert [swin_name(n) for n in converted] == names


# Weights: feature maps before and after the conversion


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("frozen_norm", [True, False])
def test_a_resnet_of_torchvision(name, frozen_norm, images):
    model = randomise(getattr(torchvision.models, name)())
    backbone = TimmBackbone(name, frozen_norm=frozen_norm)
    weights, missing = load(model.state_dict(), backbone)
    assert missing == ["head.weight", "head.bias"]
    assert weights.unused == ["fc.weight", "fc.bias"]
    assert "torchvision" in weights.format
    assert agree(backbone, images, torchvision_maps(model, images))


@pytest.mark.parametrize(
    ("name", "options", "unused"),
    [
        ("resnet26d", {}, {"fc.weight", "fc.bias"}),
        ("convnext_atto", {}, {"head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"}),
        (
            SWIN,
            {**SMALL_SWIN, "img_size": 64},
            {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"},
        ),
        ("regnetx_002", {}, {"head.fc.weight", "head.fc.bias"}),
        ("densenet121", {"block_config": (1, 1, 1, 1)}, {"classifier.weight", "classifier.bias"}),
    ],
)
def test_a_classifier_of_timm(name, options, unused, images):
    model = randomise(timm.create_model(name, **options))
    backbone = TimmBackbone(name, options=options, frozen_norm=False)
    weights, missing = load(model.state_dict(), backbone)
    assert missing == ["head.weight", "head.bias"]
    assert set(weights.unused) == unused
    backbone.eval()
    with torch.no_grad():
        maps = [m for m in model.forward_intermediates(images, intermediates_only=True) if m.shape[-1] <= 16]
    assert agree(backbone, images, maps)


def test_a_vit_of_timm(images):
    options = {"img_size": 64, "depth": 3}
    model = randomise(timm.create_model("vit_tiny_patch16_224", **options))
    backbone = TimmBackbone("vit_tiny_patch16_224", strides=(16,), options=options)
    weights, missing = load(model.state_dict(), backbone)
    assert missing == ["head.weight", "head.bias"]
    assert set(weights.unused) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    with torch.no_grad():
        maps = model.forward_intermediates(images, indices=1, intermediates_only=True)
    assert agree(backbone, images, maps)


def test_a_vit_under_a_pyramid():
    options = {"img_size": 64, "depth": 2}
    model = randomise(timm.create_model("vit_tiny_patch16_224", **options))
    backbone = VitPyramid("vit_tiny_patch16_224", options=options, channels=8)
    _, missing = load(model.state_dict(), backbone)
    assert missing
    assert all(n.startswith(("backbone.scales.", "head.")) for n in missing)
    assert torch.equal(
        backbone.state_dict()["model.model.blocks.1.attn.qkv.bias"], model.blocks[1].attn.qkv.bias
    )


def by_module(model):
    """(stage from 0, block, torchvision's name, entries) of each convolution and norm of a ResNet."""
    yield None, None, "conv1", model.conv1.state_dict()
    yield None, None, "bn1", model.bn1.state_dict()
    for stage, layer in enumerate((model.layer1, model.layer2, model.layer3, model.layer4)):
        for number, block in enumerate(layer):
            for name, module in block.named_modules():
                if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                    yield stage, number, name, module.state_dict()


def as_detectron2(model):
    names = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
    names |= {f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)}
    state = {"stem.fc.weight": model.fc.weight.detach(), "stem.fc.bias": model.fc.bias.detach()}
    for stage, block, name, entries in by_module(model):
        where = "stem" if stage is None else f"res{stage + 2}.{block}"
        state |= {f"{where}.{names.get(name, name)}.{key}": value for key, value in entries.items()}
    return {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}


@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.bottom_up.", "module.backbone.", "model."])
@pytest.mark.parametrize("frozen_norm", [True, False])
def test_a_resnet_of_detectron2(prefix, frozen_norm, images):
    model = randomise(torchvision.models.resnet50())
    state = {prefix + name: value for name, value in as_detectron2(model).items()}
    assert f"{prefix}res2.0.conv1.norm.running_mean" in state
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(81, 1024)
    state["backbone.fpn_lateral2.weight"] = torch.zeros(256, 256, 1, 1)
    backbone = TimmBackbone("resnet50", frozen_norm=frozen_norm)
    weights, missing = load(state, backbone)
    assert missing == ["head.weight", "head.bias"]
    assert sorted(weights.unused) == sorted(
        [
            f"{prefix}stem.fc.weight",
            f"{prefix}stem.fc.bias",
            "roi_heads.box_predictor.cls_score.weight",
            "backbone.fpn_lateral2.weight",
        ]
    )
    assert "detectron2" in weights.format
    assert ["BGR" in note for note in weights.notes] == [True] * ("bottom_up" in prefix)
    assert agree(backbone, images, torchvision_maps(model, images))


def test_a_resnet_of_early_detectron2(images):
    """Its frozen norms had a weight and a bias only."""
    model = without_statistics(randomise(torchvision.models.resnet18()))
    state = {n: v for n, v in as_detectron2(model).items() if "running" not in n}
    backbone = TimmBackbone("resnet18")
    _, missing = load(state, backbone)
    assert missing == ["head.weight", "head.bias"]
    assert agree(backbone, images, torchvision_maps(model, images))


def without_statistics(model):
    """With norms that only scale and add."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
    return model


def as_caffe2(model):
    """Names of Detectron; its norms are a scale and a bias."""
    branches = {"downsample.0": "branch1_w", "downsample.1": "branch1_bn", "conv1": "branch2a_w"}
    branches |= {"conv2": "branch2b_w", "conv3": "branch2c_w"}
    branches |= {"bn1": "branch2a_bn", "bn2": "branch2b_bn", "bn3": "branch2c_bn"}
    state = {"fc1000_w": model.fc.weight.detach(), "fc1000_b": model.fc.bias.detach()}
    for stage, block, name, entries in by_module(model):
        if stage is None:
            full = {"conv1": "conv1_w", "bn1": "res_conv1_bn"}[name]
        else:
            full = f"res{stage + 2}_{block}_{branches[name]}"
        if full.endswith("_w"):
            state[full] = entries["weight"]
        else:
            state[f"{full}_s"], state[f"{full}_b"] = entries["weight"], entries["bias"]
    return state


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("frozen_norm", [True, False])
def test_a_resnet_of_caffe2(name, frozen_norm, images):
    model = without_statistics(randomise(getattr(torchvision.models, name)()))
    state = as_caffe2(model)
    assert {"conv1_w", "res_conv1_bn_s", "res3_0_branch1_bn_b", "res5_1_branch2b_w"} <= set(state)
    state["conv1_w_momentum"] = state["conv1_w"]
    backbone = TimmBackbone(name, frozen_norm=frozen_norm)
    weights, missing = load(state, backbone)
    assert missing == ["head.weight", "head.bias"]
    assert sorted(weights.unused) == ["conv1_w_momentum", "fc1000_b", "fc1000_w"]
    assert "BGR" in weights.format
    assert "STRIDE_IN_1X1" in weights.notes[0]
    expected = {f"backbone.model.{n}": v for n, v in model.state_dict().items()}
    assert all(torch.equal(v, expected[n]) for n, v in weights.tensors.items())
    assert agree(backbone, images, torchvision_maps(model, images))


def as_published_swin(model, window):
    """timm's entries as in Swin's own files: reductions count with the stage before, masks are stored."""
    state = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        state[".".join(parts).replace("head.fc.", "head.")] = value
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(window**2, window**2).long()
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, window**2, window**2)
    return state


@pytest.fixture
def swin():
    return randomise(timm.create_model(SWIN, **SMALL_SWIN, img_size=256))


@pytest.fixture
def larger_images():
    """Of which each map is larger than a window; then timm computes what published Swins do."""
    return torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def swin_maps(model, images):
    return model.forward_intermediates(images, intermediates_only=True)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_swin_of_its_authors(swin, larger_images, prefix):
    state = {prefix + n: v for n, v in as_published_swin(swin, 4).items()}
    assert f"{prefix}layers.0.downsample.reduction.weight" in state
    backbone = TimmBackbone(SWIN, options={**SMALL_SWIN, "img_size": 256})
    weights, missing = load(state, backbone)
    assert missing == ["head.weight", "head.bias"]
    assert set(weights.unused) == {
        prefix + n for n in ("norm.weight", "norm.bias", "head.weight", "head.bias")
    }
    assert "Swin" in weights.format
    assert weights.notes == []
    assert agree(backbone, larger_images, swin_maps(swin, larger_images))


def test_a_swin_of_its_authors_for_the_first_stages(swin, larger_images):
    """As many of its names are timm's, of other modules, as are Swin's own."""
    backbone = TimmBackbone(SWIN, strides=(4, 8), options={**SMALL_SWIN, "img_size": 256})
    load(as_published_swin(swin, 4), backbone)
    assert agree(backbone, larger_images, swin_maps(swin, larger_images)[:2])


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 32), (4, 8)])
def test_a_swin_of_a_detector(swin, larger_images, strides):
    """Each norm of an output is found again where only some of the maps are used."""
    norms = nn.ModuleList(nn.LayerNorm(24 * 2**i) for i in range(4))
    randomise(norms)
    state = {
        f"backbone.{n}": v
        for n, v in as_published_swin(swin, 4).items()
        if not n.startswith(("norm", "head"))
    }
    state |= {f"backbone.norm{n[0]}.{n[2:]}": v for n, v in norms.state_dict().items()}
    backbone = SwinBackbone(SWIN, strides, options={**SMALL_SWIN, "img_size": 256})
    weights, missing = load(state, backbone)
    assert missing == ["head.weight", "head.bias"]
    maps = swin_maps(swin, larger_images)
    used = [i for i in range(4) if 4 * 2**i in strides]
    with torch.no_grad():
        expected = [norms[i](maps[i].permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for i in used]
    assert agree(backbone, larger_images, expected)
    unused = {n.split(".")[1] for n in weights.unused}
    assert unused == {f"norm{i}" for i in range(4) if i not in used} | (
        {"layers"} if max(strides) == 8 else set()
    )


def test_only_the_norms_of_outputs_are_missing_in_a_classifier(swin):
    backbone = SwinBackbone(SWIN, options={**SMALL_SWIN, "img_size": 256})
    for state in (swin.state_dict(), as_published_swin(swin, 4)):
        _, missing = load(state, backbone)
        assert {n.rpartition(".")[0] for n in missing} == {"head", *(f"backbone.norms.{i}" for i in range(4))}


def test_a_swin_of_torchvision(larger_images):
    small = {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": [4, 4]}
    model = randomise(torchvision.models.SwinTransformer(patch_size=[4, 4], **small))
    backbone = TimmBackbone(SWIN, options={**SMALL_SWIN, "img_size": 256})
    weights, missing = load(model.state_dict(), backbone)
    assert missing == ["head.weight", "head.bias"]
    assert set(weights.unused) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    maps, x = [], larger_images
    with torch.no_grad():
        for i, module in enumerate(model.features):
            x = module(x)
            if i % 2:
                maps.append(x.permute(0, 3, 1, 2))
    assert agree(backbone, larger_images, maps)


def bicubic(old: int, new: int) -> torch.Tensor:
    """(new, old) weights of cubic convolution with a = -0.75, samples lying in the middle of their cells."""
    weights = torch.zeros(new, old)
    for i in range(new):
        position = (i + 0.5) * old / new - 0.5
        first = int(position // 1) - 1
        for j in range(first, first + 4):
            d = abs(position - j)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[i, min(max(j, 0), old - 1)] += near if d <= 1 else far
    return weights


def test_tables_of_another_window_are_interpolated(swin):
    state = as_published_swin(swin, 4)
    wider = TimmBackbone(SWIN, options={**SMALL_SWIN, "window_size": 8, "img_size": 256})
    weights, _ = load(state, wider)
    assert weights.notes == ["tables of relative positions were interpolated from windows of 4x4 to 8x8"]
    resize = bicubic(7, 15)
    for stage in range(4):
        name = "blocks.1.attn.relative_position_bias_table"
        old = state[f"layers.{stage}.{name}"].view(7, 7, 2**stage)
        new = weights.tensors[f"backbone.model.layers_{stage}.{name}"]
        expected = torch.einsum("yi,xj,ijh->yxh", resize, resize, old).flatten(0, 1)
        torch.testing.assert_close(new, expected)


# What does not fit


def test_another_depth_is_recognised_and_its_shapes_are_kept():
    with shapes_only():
        detector = Detector(TimmBackbone("resnet50"))
        state = torchvision.models.resnet18().state_dict()
    weights = convert_backbone(state, detector)
    assert weights.tensors["backbone.model.layer1.0.conv1.weight"].shape == (64, 64, 3, 3)


@pytest.mark.parametrize(
    "state",
    [
        {},
        nn.TransformerEncoderLayer(8, 2).state_dict(),
        {f"blocks.{i}.attn.qkv.weight": torch.zeros(1) for i in range(100)},
    ],
    ids=["empty", "transformer", "vit"],
)
def test_other_weights_are_not_recognised(state):
    with shapes_only():
        detector = Detector(TimmBackbone("resnet18"))
    assert convert_backbone(state, detector) is None


@pytest.mark.parametrize(("share", "recognised"), [(0.45, False), (0.55, True)])
def test_half_of_the_names_must_be_known(share, recognised):
    with shapes_only():
        detector = Detector(TimmBackbone("resnet18"))
        state = timm.create_model("resnet18", features_only=True).state_dict()
    common = [n for n in state if not n.endswith("tracked")]
    state = {n: state[n] for n in common[: int(share * len(common))]}
    state |= {f"decoder.{i}.weight": torch.zeros(1) for i in range(400)}
    assert (convert_backbone(state, detector) is not None) == recognised


def test_a_model_without_backbone():
    assert convert_backbone({"weight": torch.zeros(2, 2)}, nn.Linear(2, 2)) is None
