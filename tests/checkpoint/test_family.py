"""Checkpoints of the DETR family load under the names of their authors, and of the detrex zoo."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from detrex.checkpoint import load_pretrained, loading, zoo
from detrex.checkpoint.backbones import detectron2_resnet_name
from detrex.checkpoint.family import FamilyNames
from detrex.checkpoint.formats import convert
from detrex.config import LazyConfig, instantiate
from detrex.runtime.shapes_only import shapes_only
from detrex.structures import Categories
from tests.config_files import config_of

ROOT = Path(__file__).resolve().parents[2]
CLASSES = json.loads((ROOT / "configs/common/data/categories/coco_instance.json").read_text())
IDS = [entry["id"] for entry in CLASSES]
TINY = [
    "model.backbone.options={channels: [32, 64, 64, 64], stem_width: 8}",
    "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 4, num_layers: 2}",
    "model.decoder.layers={ffn_dim: 16, num_heads: 4, num_layers: 2}",
    "model.decoder.query_init.num_queries=7",
]

# The authors' names of this toolbox's entries, as regular expressions.
BACKBONE = [(r"backbone\.model\.", "backbone.0.body.")]
LAYERS = [
    (r"encoder\.layers\.(\d+)\.attention\.", r"transformer.encoder.layers.\1.self_attn."),
    (r"encoder\.layers\.(\d+)\.norm\.", r"transformer.encoder.layers.\1.norm1."),
    (r"encoder\.layers\.(\d+)\.feed_forward\.norm\.", r"transformer.encoder.layers.\1.norm2."),
    (r"encoder\.layers\.(\d+)\.feed_forward\.", r"transformer.encoder.layers.\1."),
    (r"decoder\.layers\.(\d+)\.self_attention\.", r"transformer.decoder.layers.\1.self_attn."),
    (r"decoder\.layers\.(\d+)\.feed_forward\.norm\.", r"transformer.decoder.layers.\1.norm3."),
    (r"decoder\.layers\.(\d+)\.feed_forward\.", r"transformer.decoder.layers.\1."),
]
DETR = [
    *BACKBONE,
    *LAYERS,
    (r"encoder\.projection\.", "input_proj."),
    (r"decoder\.layers\.(\d+)\.self_norm\.", r"transformer.decoder.layers.\1.norm1."),
    (r"decoder\.layers\.(\d+)\.cross_attention\.", r"transformer.decoder.layers.\1.multihead_attn."),
    (r"decoder\.layers\.(\d+)\.cross_norm\.", r"transformer.decoder.layers.\1.norm2."),
    (r"decoder\.heads\.norm\.", "transformer.decoder.norm."),
    (r"decoder\.query_init\.position\.", "query_embed."),
    (r"decoder\.heads\.sets\.0\.classes\.", "class_embed."),
    (r"decoder\.heads\.sets\.0\.box\.", "bbox_embed."),
]
DEFORMABLE = [
    *BACKBONE,
    *LAYERS,
    (r"encoder\.projections\.", "input_proj."),
    (r"encoder\.level_embed", "transformer.level_embed"),
    (r"decoder\.layers\.(\d+)\.cross_attention\.", r"transformer.decoder.layers.\1.cross_attn."),
    (r"decoder\.layers\.(\d+)\.cross_norm\.", r"transformer.decoder.layers.\1.norm1."),
    (r"decoder\.layers\.(\d+)\.self_norm\.", r"transformer.decoder.layers.\1.norm2."),
    (r"decoder\.query_init\.point\.", "transformer.reference_points."),
    (r"decoder\.query_init\.projection\.", "transformer.enc_output."),
    (r"decoder\.query_init\.norm\.", "transformer.enc_output_norm."),
    (r"decoder\.query_init\.box_projection\.", "transformer.pos_trans."),
    (r"decoder\.query_init\.box_norm\.", "transformer.pos_trans_norm."),
]
HEADS = [
    (r"decoder\.heads\.sets\.(\d+)\.classes\.", r"class_embed.\1."),
    (r"decoder\.heads\.sets\.(\d+)\.box\.", r"bbox_embed.\1."),
]
DINO = [
    *DEFORMABLE,
    (r"decoder\.heads\.sets\.2\.classes\.", "transformer.enc_out_class_embed."),
    (r"decoder\.heads\.sets\.2\.box\.", "transformer.enc_out_bbox_embed."),
    *HEADS,
    (r"decoder\.heads\.norm\.", "transformer.decoder.norm."),
    (r"decoder\.query_init\.content\.", "transformer.tgt_embed."),
    (r"decoder\.position\.encoder\.", "transformer.decoder.ref_point_head."),
    (r"denoising\.label_embed\.", "label_enc."),
]


INTERACTION = r"decoder\.query_init\.interaction\."
TRACKING = [
    *DEFORMABLE[: len(BACKBONE) + len(LAYERS) + 5],
    *HEADS,
    (r"decoder\.query_init\.reference\.", "position."),
    (r"decoder\.query_init\.reference_offset\.", "position_offset."),
    (r"decoder\.query_init\.content\.", "query_embed."),
    (r"decoder\.query_init\.content_offset\.", "query_embed_offset."),
    (rf"{INTERACTION}attention\.", "track_embed.self_attn."),
    (rf"{INTERACTION}norm\.", "track_embed.norm1."),
    (rf"{INTERACTION}feed_forward\.norm\.", "track_embed.norm2."),
    (rf"{INTERACTION}feed_forward\.", "track_embed."),
    (rf"{INTERACTION}update\.norm\.", "track_embed.norm_feat."),
    (rf"{INTERACTION}update\.linear", "track_embed.linear_feat"),
]


def built(config: str, *overrides: str, seed: int = 0) -> nn.Module:
    """The tiny model of a config with random numbers in all its entries."""
    config = config_of(ROOT / "projects" / config)
    model = instantiate(LazyConfig.apply_overrides(config, [*TINY, *overrides]).model)
    random = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape, generator=random))
    return model


def renamed(state: dict[str, Tensor], table: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Every entry under the name that the first fitting row gives it; there must be one."""
    out = {}
    for name, value in state.items():
        source, target = next(row for row in table if re.match(row[0], name))
        out[re.sub(f"^{source}", target, name)] = value
    return out


def by_ids(value: Tensor, rows: int) -> Tensor:
    """A class head's or label table's 80 rows at their ids among ``rows``; an 81st becomes the last."""
    spread = torch.full((rows, *value.shape[1:]), 9.0)
    spread[IDS] = value[:80]
    if len(value) == 81:
        spread[-1] = value[80]
    return spread


def detr(model: nn.Module) -> dict[str, Tensor]:
    state = renamed(model.state_dict(), DETR)
    return state | {name: by_ids(state[name], 92) for name in ("class_embed.weight", "class_embed.bias")}


def deformable(model: nn.Module) -> dict[str, Tensor]:
    """Also with the copies that its file has: of shared heads for every layer, and of all in the decoder."""
    state = model.state_dict()
    embeds = [state.pop(f"decoder.query_init.{n}.weight", None) for n in ("position", "content")]
    out = renamed(state, [*DEFORMABLE, *HEADS])
    if embeds[0] is not None:
        out["query_embed.weight"] = torch.cat(embeds, 1)
    for name, value in list(out.items()):
        if name.startswith("class_embed."):
            out[name] = by_ids(value, 91)
        if model.decoder.heads.num_sets == 1 and re.match(r"(class|bbox)_embed\.0\.", name):
            out[name.replace(".0.", ".1.", 1)] = out[name].clone()
        elif re.match(r"(class|bbox)_embed\.", name):
            out[f"transformer.decoder.{name}"] = out[name]
    return out


def dino(model: nn.Module) -> dict[str, Tensor]:
    out = renamed(model.state_dict(), DINO)
    for name, value in list(out.items()):
        if "class_embed" in name:
            out[name] = by_ids(value, 91)
        elif name == "label_enc.weight":
            out[name] = by_ids(value, 92)
    return out | {
        f"transformer.decoder.{n}": v for n, v in out.items() if n.startswith(("class_embed.", "bbox_embed."))
    }


CASES = {
    "detr": ("detr/configs/models/detr_r50.py", detr),
    "plain": ("deformable_detr/configs/models/deformable_detr_r50.py", deformable),
    "refine": ("deformable_detr/configs/models/deformable_detr_r50_refine.py", deformable),
    "two_stage": ("deformable_detr/configs/models/deformable_detr_r50_two_stage.py", deformable),
    "dino": ("dino/configs/models/dino_r50.py", dino),
}


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_original_files_load_exactly(case, tmp_path):
    config, original = CASES[case]
    model, other = built(config), built(config, seed=1)
    torch.save({"model": original(model), "epoch": 49}, tmp_path / "checkpoint.pth")
    report = load_pretrained(other, tmp_path / "checkpoint.pth", strict=True)
    assert same(model, other)
    assert report.format == "DETR-family detector" and report.complete
    assert report.notes[0] == "the file has rows for COCO's ids 0 to 90; the model's 80 classes took theirs"
    assert len(report.notes) == 1 + (case == "dino") and all(note in report.table() for note in report.notes)


def test_a_tracker_loads_exactly(tmp_path):
    """By names of which only those that Deformable DETR has too are certain."""
    config = "co_mot/configs/models/co_mot_r50.py"
    model, other = built(config), built(config, seed=1)
    torch.save({"model": renamed(model.state_dict(), TRACKING)}, tmp_path / "checkpoint.pth")
    assert load_pretrained(other, tmp_path / "checkpoint.pth", strict=True).complete and same(model, other)


def test_the_names_are_the_published_ones():
    """What the tables above make of a model are the names that the authors' files are known to have."""
    names = (
        detr(built(CASES["detr"][0])) | deformable(built(CASES["plain"][0])) | dino(built(CASES["dino"][0]))
    )
    assert {
        "backbone.0.body.layer4.2.bn3.running_var",
        "transformer.encoder.layers.1.self_attn.in_proj_weight",
        "transformer.encoder.layers.1.self_attn.sampling_offsets.bias",
        "transformer.encoder.layers.0.linear1.weight",
        "transformer.decoder.layers.1.multihead_attn.out_proj.bias",
        "transformer.decoder.layers.1.cross_attn.output_proj.weight",
        "transformer.decoder.layers.0.norm3.weight",
        "input_proj.weight",
        "input_proj.3.1.bias",
        "bbox_embed.layers.2.bias",
        "transformer.decoder.bbox_embed.1.layers.2.bias",
        "transformer.enc_out_bbox_embed.layers.0.weight",
        "transformer.decoder.ref_point_head.layers.1.weight",
    } <= set(names)


@pytest.mark.parametrize(("case", "heads", "labels"), [("detr", 92, None), ("dino", 91, 91)])
def test_a_model_of_all_ids_keeps_all_rows(case, heads, labels):
    config, original = CASES[case]
    model = built(config, "model.num_classes=91")
    converted = convert(original(built(config)), model)
    assert len(converted.tensors["decoder.heads.sets.0.classes.weight"]) == heads
    assert not any("ids" in note for note in converted.notes)
    if labels:
        assert len(converted.tensors["denoising.label_embed.weight"]) == labels
    assert {name: v.shape for name, v in converted.tensors.items()} == {
        name: v.shape for name, v in model.state_dict().items()
    }


def test_a_model_of_other_classes_starts_its_heads_anew(tmp_path):
    config, original = CASES["detr"]
    torch.save({"model": original(built(config))}, tmp_path / "detr.pth")
    report = load_pretrained(built(config, "model.num_classes=3"), tmp_path / "detr.pth")
    assert set(report.reinitialised) == {f"decoder.heads.sets.0.classes.{k}" for k in ("weight", "bias")}
    assert report.missing == report.unused == []


def test_heads_that_differ_are_not_taken_for_copies():
    model = built(CASES["refine"][0])
    single = built(CASES["plain"][0])
    converted = convert(deformable(model), single).tensors
    assert f"decoder.heads.sets.{len(model.decoder.layers) - 1}.classes.weight" in converted


def test_a_swin_under_the_original_names():
    names = FamilyNames({"transformer.encoder.layers.0.norm1.weight": torch.zeros(1)})
    assert (
        names("backbone.0.layers.1.downsample.norm.weight")
        == "backbone.model.layers_2.downsample.norm.weight"
    )
    assert names("backbone.0.layers.0.blocks.1.attn.relative_position_index") is None


ZOO_DETR = [
    (r"encoder\.projection\.", "input_proj."),
    (r"encoder\.layers\.(\d+)\.attention\.", r"transformer.encoder.layers.\1.attentions.0.attn."),
    (r"encoder\.layers\.(\d+)\.norm\.", r"transformer.encoder.layers.\1.norms.0."),
    (r"encoder\.layers\.(\d+)\.feed_forward\.norm\.", r"transformer.encoder.layers.\1.norms.1."),
    (r"decoder\.layers\.(\d+)\.self_attention\.", r"transformer.decoder.layers.\1.attentions.0.attn."),
    (r"decoder\.layers\.(\d+)\.self_norm\.", r"transformer.decoder.layers.\1.norms.0."),
    (r"decoder\.layers\.(\d+)\.cross_attention\.", r"transformer.decoder.layers.\1.attentions.1.attn."),
    (r"decoder\.layers\.(\d+)\.cross_norm\.", r"transformer.decoder.layers.\1.norms.1."),
    (r"decoder\.layers\.(\d+)\.feed_forward\.norm\.", r"transformer.decoder.layers.\1.norms.2."),
    (r"(\w+)\.layers\.(\d+)\.feed_forward\.linear1\.", r"transformer.\1.layers.\2.ffns.0.layers.0.0."),
    (r"(\w+)\.layers\.(\d+)\.feed_forward\.linear2\.", r"transformer.\1.layers.\2.ffns.0.layers.1."),
    (r"decoder\.heads\.norm\.", "transformer.decoder.post_norm_layer."),
    *DETR[-3:],
]


def zoo_detr(model: nn.Module) -> dict[str, Tensor]:
    state = {name: v for name, v in model.state_dict().items() if not name.startswith("backbone.")}
    stem = "backbone.model."
    backbone = {
        f"backbone.{detectron2_resnet_name(name.removeprefix(stem))}": value
        for name, value in model.state_dict().items()
        if name.startswith(stem)
    }
    return backbone | renamed(state, ZOO_DETR)


def test_a_name_of_the_zoo_is_loaded_with_its_classes(tmp_path, monkeypatch):
    """A model of three classes, of which the file knows two, keeps their rows and that of no object."""
    (tmp_path / "projects/mine/configs").mkdir(parents=True)
    row = dict(title="t", config="c.py", classes="coco_instance", published={}, parameters=1)
    row["url"] = "https://localhost/detr_zoo.pth"
    (tmp_path / "projects/mine/zoo.yaml").write_text(json.dumps({"mine": row}))
    monkeypatch.setattr(zoo, "projects_directory", lambda: tmp_path / "projects")
    monkeypatch.setattr(loading, "fetch", lambda url, _: tmp_path / url.rsplit("/")[-1])
    config = CASES["detr"][0]
    model, other = built(config), built(config, seed=1)
    torch.save({"model": zoo_detr(model)}, tmp_path / "detr_zoo.pth")
    assert load_pretrained(other, "mine", strict=True).complete and same(model, other)

    few = built(config, "model.num_classes=3", seed=1)
    before = few.decoder.heads.sets[0].classes.weight.clone()
    report = load_pretrained(few, "mine", categories=Categories.from_names(["bicycle", "unicorn", "person"]))
    weight, full_weight = few.decoder.heads.sets[0].classes.weight, model.decoder.heads.sets[0].classes.weight
    assert torch.equal(weight, torch.stack([full_weight[1], before[1], full_weight[0], full_weight[80]]))
    assert set(report.kept_rows["decoder.heads.sets.0.classes.bias"]) == {"bicycle", "person"}
    assert "partly loaded: decoder.heads.sets.0.classes.weight" in report.table()


ZOO_CASES = {
    "detr_r50": "detr/configs/models/detr_r50.py",
    "conditional_detr_r50": "conditional_detr/configs/models/conditional_detr_r50.py",
    "dab_detr_r50": "dab_detr/configs/models/dab_detr_r50.py",
    "dn_detr_r50": "dn_detr/configs/models/dn_detr_r50.py",
    "group_detr_r50": "group_detr/configs/models/group_detr_r50.py",
    "deformable_detr_r50": "deformable_detr/configs/models/deformable_detr_r50.py",
    "deformable_detr_r50_refine": "deformable_detr/configs/models/deformable_detr_r50_refine.py",
    "deformable_detr_r50_two_stage": "deformable_detr/configs/models/deformable_detr_r50_two_stage.py",
    "dino_r50_4scale": "dino/configs/models/dino_r50.py",
    "dn_deformable_detr_r50": "dn_deformable_detr/configs/models/dn_deformable_detr_r50.py",
    "sqr_dab_detr_r50": "sqr_detr/configs/models/sqr_dab_detr_r50.py",
    "anchor_detr_r50": "anchor_detr/configs/models/anchor_detr_r50.py",
    "focus_detr_r50_4scale": "focus_detr/configs/models/focus_detr_r50.py",
    "shapes_only/focus_detr_swin_tiny_224_4scale": "focus_detr/configs/models/focus_detr_swin_tiny.py",
    "pnp_detr_r50": "pnp_detr/configs/models/pnp_detr_r50.py",
    "shapes_only/dino_swin_tiny_224_4scale": "dino/configs/models/dino_swin_tiny.py",
    "shapes_only/dino_convnext_tiny_384_4scale": "dino/configs/models/dino_convnext_tiny.py",
    "shapes_only/dino_focalnet_tiny_lrf_fl3_4scale": "dino/configs/models/dino_focalnet_large.py",
    "shapes_only/dino_internimage_tiny_4scale": "dino/configs/models/dino_intern_image_tiny.py",
    "shapes_only/dino_vitdet_b_4scale": "dino/configs/models/dino_vitdet_base.py",
    "shapes_only/dino_eva_02_vitdet_b_4attn_1024": "dino_eva/configs/models/dino_eva_02_base.py",
}
# Where the kit's model has another number of queries than the published one.
NUM_QUERIES = {"dino_r50_4scale": 300, "anchor_detr_r50": 100, "focus_detr_r50_4scale": 100}


@pytest.mark.parametrize("case", ZOO_CASES)
def test_entries_of_the_detrex_zoo_fit_their_configs(case, parity):
    shapes = json.loads((parity / f"{case}.keys.json").read_text())["shapes"]
    entries = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    config = config_of(ROOT / "projects" / ZOO_CASES[case])
    if case in NUM_QUERIES:
        config.model.decoder.query_init.num_queries = NUM_QUERIES[case]
    if "focalnet" in case:  # the kit's is a small one
        config.model.backbone.name = "focalnet_tiny_lrf"
    with shapes_only():
        model = instantiate(config.model)
    converted = convert(entries, model)
    assert converted.format == "DETR-family detector" and converted.notes == []
    assert {name: tuple(v.shape) for name, v in converted.tensors.items()} == {
        name: tuple(v.shape) for name, v in model.state_dict().items()
    }


def test_a_large_focalnet_of_the_zoo_fits():
    """Its norms come after modulation and MLP, and every channel has a factor."""
    config = LazyConfig.load(ROOT / "projects/dino/configs/models/dino_focalnet_large.py")
    with shapes_only():
        model = instantiate(config.model)
    published = {}
    for name, value in model.state_dict().items():
        if not name.startswith("backbone."):
            continue
        published_name = name.replace("backbone.model.stem.", "backbone.patch_embed.")
        published_name = re.sub(
            r"model\.layers_(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", published_name
        )
        published_name = re.sub(r"model\.layers_", "layers.", published_name)
        published_name = re.sub(r"norm(\d)_post\.", r"norm\1.", published_name)
        published_name = re.sub(r"ls(\d)\.gamma", r"gamma_\1", published_name)
        published_name = re.sub(
            r"backbone\.norms\.(\d)", lambda m: f"backbone.norm{int(m[1]) + 1}", published_name
        )
        linear = re.search(r"(modulation\.[f]|modulation\.proj|mlp\.fc\d)\.weight", published_name)
        published[published_name] = value[..., 0, 0] if linear else value
    marker = {"transformer.encoder.layers.0.norms.0.weight": torch.zeros(1)}
    found = convert({**published, **marker}, model).tensors
    expected = {n: v.shape for n, v in model.state_dict().items() if n.startswith("backbone.")}
    assert {n: v.shape for n, v in found.items() if n.startswith("backbone.")} == expected


def test_pretrained_weights_of_a_plain_vit_fit_that_of_vitdet():
    """Of timm's classifier, such as MAE's: all but the pyramid, relative positions and the classifier."""
    config = LazyConfig.load(ROOT / "projects/dino/configs/models/dino_vitdet_base.py")
    with shapes_only():
        model = instantiate(config.model)
        state = timm.create_model("vit_base_patch16_224").state_dict()
    found = convert(state, model)
    missing = {n for n in model.state_dict() if n.startswith("backbone.") and n not in found.tensors}
    assert all(".rel_pos_" in n or ".scales." in n for n in missing)
    assert set(found.unused) == {"cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias"}
