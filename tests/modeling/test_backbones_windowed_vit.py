"""ViTDet, EVA and EVA-02 against timm's modules of the same kind."""

from functools import partial

import pytest
import torch
from timm.layers import SwiGLU, apply_rot_embed_cat
from timm.layers.pos_embed_sincos import RotaryEmbeddingCat
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_sam import VisionTransformerSAM

from detrex.modeling import Eva, Eva02, VitDet
from detrex.modeling.backbones.windowed_vit import RelativeAttention, RotaryAttention, RotaryTable, SwigluMlp

SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 24, "window": 3, "channels": 8}


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def test_vitdet_is_that_of_segment_anything_in_timm():
    """A map of 4 x 4, whose windows of 3 are padded; the second block sees the whole map."""
    ours = randomised(VitDet(**SMALL, global_blocks=[1], image_size=64, pretrain_size=64, strides=[16]))
    reference = VisionTransformerSAM(
        64, 16, embed_dim=16, depth=2, num_heads=2, mlp_ratio=1.5, window_size=3, global_attn_indexes=(1,),
        neck_chans=0, num_classes=0, use_rel_pos=True,
    ).eval()  # fmt: skip
    state = ours.state_dict()
    for name, value in reference.state_dict().items():
        if name == "pos_embed":
            value.copy_(state["pos_embed"][:, 1:].unflatten(1, (4, 4)))
        elif name in state:
            value.copy_(state[name])
    assert {n for n in state if n not in reference.state_dict()} == {
        n for n in state if n.startswith("scales.")
    }
    images = torch.randn(2, 3, 64, 64)
    found = []
    ours.scales[0].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        ours(images)
        x = reference.patch_embed(images) + reference.pos_embed
        expected = reference.blocks(x)
    torch.testing.assert_close(found[0].permute(0, 2, 3, 1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 16), (4, 4), (3, 5)])
def test_rotary_positions_are_those_of_timm(shape):
    torch.manual_seed(0)
    table, x = (
        RotaryTable(8, shape[0] if shape[0] == shape[1] else 16),
        torch.randn(2, 2, shape[0] * shape[1], 8),
    )
    rope = RotaryEmbeddingCat(8, in_pixels=False, feat_shape=list(shape), ref_feat_shape=[16, 16])
    torch.testing.assert_close(table(x, shape), apply_rot_embed_cat(x, rope.get_embed()))


def test_attention_of_eva_02_is_that_of_timm():
    ours = randomised(RotaryAttention(16, 2))
    reference = EvaAttention(
        16, 2, qkv_bias=True, qkv_fused=False, num_prefix_tokens=0, scale_norm=False
    ).eval()
    names = {"q_proj.bias": "q_bias", "v_proj.bias": "v_bias"}
    for name, value in reference.state_dict().items():
        value.copy_(ours.state_dict()[names.get(name, name)])
    x = torch.randn(2, 4, 4, 16)
    rope = RotaryEmbeddingCat(8, in_pixels=False, feat_shape=[4, 4], ref_feat_shape=[16, 16]).get_embed()
    expected = reference(x.flatten(1, 2), rope=rope).view_as(x)
    torch.testing.assert_close(ours(x, RotaryTable(8, 4)), expected)


def test_the_gated_mlp_is_that_of_timm():
    ours = randomised(SwigluMlp(16, 24))
    reference = SwiGLU(16, 24, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6)).eval()
    for name, value in reference.state_dict().items():
        renamed = {"fc1_g": "w1", "fc1_x": "w2", "norm": "ffn_ln", "fc2": "w3"}
        first, _, rest = name.partition(".")
        value.copy_(ours.state_dict()[f"{renamed[first]}.{rest}"])
    x = torch.randn(3, 16)
    torch.testing.assert_close(ours(x), reference(x))


def test_keys_of_eva_have_no_bias():
    with_bias = randomised(RelativeAttention(8, 2, 4))
    without = RelativeAttention(8, 2, 4, key_bias=False)
    state = with_bias.state_dict()
    q, _, v = state.pop("qkv.bias").chunk(3)
    with_bias.qkv.bias.data[8:16] = 0
    without.load_state_dict({**state, "q_bias": q, "v_bias": v})
    x = torch.randn(2, 4, 4, 8)
    torch.testing.assert_close(with_bias(x), without(x))


@pytest.mark.parametrize("kind", [VitDet, Eva, Eva02])
def test_maps_of_images_of_any_size(kind):
    model = kind(**SMALL, global_blocks=[1], image_size=64, pretrain_size=32, drop_path_rate=0.5)
    assert model.channels == {8: 8, 16: 8, 32: 8, 64: 8}
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 64, 64))
        assert {s: m.shape[2:] for s, m in maps.items()} == {8: (8, 8), 16: (4, 4), 32: (2, 2), 64: (1, 1)}
        maps = model.eval()(torch.randn(1, 3, 70, 100))
        assert {s: m.shape[2:] for s, m in maps.items()} == {8: (8, 12), 16: (4, 6), 32: (2, 3), 64: (1, 2)}
    torch.testing.assert_close(maps[64], maps[32][:, :, ::2, ::2])
    with pytest.raises(ValueError, match=r"needs 32 a side"):
        model(torch.randn(1, 3, 64, 16))
    with pytest.raises(ValueError, match=r"add 32 to backbone\.strides"):
        kind(**SMALL, strides=[16, 64])
