"""A Mask DINO that starts from a DINO detector proposes what DINO proposes."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detrex.checkpoint import load_pretrained
from detrex.checkpoint.dino import is_dino
from detrex.checkpoint.formats import convert
from detrex.config import LazyConfig, instantiate
from detrex.data import category_file, read_categories
from detrex.layers import QueryPosition
from detrex.structures import Sample
from tests.config_files import config_of

CONFIG = "projects/maskdino/configs/models/maskdino_r50.py"
ANCHORS = "model.decoder.query_init.anchor_sizes=[0.05,0.1,0.2,0.4]"


@pytest.fixture(scope="module")
def dino(parity) -> dict[str, torch.Tensor]:
    """A DINO checkpoint of the detrex zoo: R50, four levels, 80 classes."""
    spec = importlib.util.spec_from_file_location("parity_reference", parity / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    state = reference.family_state_dict("dino_r50_4scale")
    return {name: torch.as_tensor(value) for name, value in state.items()}


@pytest.fixture(scope="module")
def started(dino, tmp_path_factory) -> tuple[nn.Module, object]:
    """A Mask DINO started from that checkpoint's file, and the report."""
    path = tmp_path_factory.mktemp("dino") / "dino.pth"
    torch.save({"model": dino}, path)
    model = instantiate(LazyConfig.apply_overrides(config_of(CONFIG), [ANCHORS]).model).eval()
    return model, load_pretrained(model, path)


def mlp(dino, name, x):
    for i in range(3):
        x = F.linear(x, dino[f"{name}.layers.{i}.weight"], dino[f"{name}.layers.{i}.bias"])
        x = x if i == 2 else x.relu()
    return x


def proposals_of_dino(dino, memory, shapes):
    """DINO's 300 proposals for the tokens of its encoder: class logits and normalised cxcywh boxes."""
    anchors = []
    for level, (height, width) in enumerate(shapes):
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
        )
        size = torch.full_like(x, 0.05 * 2**level)
        anchors.append(torch.stack([x, y, size, size], -1).flatten(0, 1))
    anchors = torch.cat(anchors)
    valid = ((anchors > 0.01) & (anchors < 0.99)).all(-1)
    tokens = memory * valid[:, None]
    tokens = F.linear(tokens, dino["transformer.enc_output.weight"], dino["transformer.enc_output.bias"])
    tokens = F.layer_norm(
        tokens, (256,), dino["transformer.enc_output_norm.weight"], dino["transformer.enc_output_norm.bias"]
    )
    logits = F.linear(tokens, dino["class_embed.6.weight"], dino["class_embed.6.bias"])
    boxes = (mlp(dino, "bbox_embed.6", tokens) + torch.logit(anchors)).sigmoid()
    best = logits.amax(-1).masked_fill(~valid, -torch.inf).topk(300).indices
    return logits[best], boxes[best]


def test_boxes_and_classes_start_as_dino_proposes_them(dino, started):
    model, _ = started
    image = torch.randint(
        0, 256, (3, 256, 320), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    with torch.inference_mode():
        images = model.preprocess([Sample(image=image)])
        features = model.backbone(images.tensor)
        memory = model.encoder(features)
        supervised = model.decoder(memory, model.pixel_head(features, memory)).supervised
        (proposals,) = (s.prediction for s in supervised if s.loss_suffix == "_interm")
        logits, boxes = proposals_of_dino(dino, memory.tokens[0], memory.shapes)
    torch.testing.assert_close(proposals.boxes[0], boxes)
    # Mask DINO normalises once more before it classifies, so logits are near, not equal.
    found, expected = proposals.logits[0] - proposals.logits[0].mean(), logits - logits.mean()
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.95
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.8


def test_the_report_says_what_the_two_share(dino, started):
    model, report = started
    assert report.format == "DINO detector" and report.notes == []
    parts = {name.split(".")[0] + "." + name.split(".")[1] for name in report.missing}
    assert parts == {"pixel_head.lateral", "pixel_head.fusion", "pixel_head.pixel_embed"} | {
        "decoder.heads",
        "decoder.layers",
    }
    assert {name for name in report.missing if name.startswith("decoder.heads")} == {
        f"decoder.heads.sets.0.mask.layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")
    }
    assert {name.split(".")[2] for name in report.missing if name.startswith("decoder.layers")} == {
        "6",
        "7",
        "8",
    }
    expected = {n for n in dino if n.startswith(("class_embed.", "bbox_embed.")) and n.split(".")[1] != "6"}
    assert set(report.unused) == expected | {"transformer.tgt_embed.weight"}
    state = model.state_dict()
    assert torch.equal(state["denoising.label_embed.weight"], dino["label_enc.weight"])
    assert torch.equal(state["encoder.projections.3.0.weight"], dino["neck.extra_convs.0.conv.weight"])
    shared = "decoder.layers.5.self_attention.in_proj_weight"
    assert torch.equal(state[shared], dino["transformer.decoder.layers.5.attentions.0.attn.in_proj_weight"])


def test_decoder_layers_that_dino_has_not_start_as_identities(started):
    model, _ = started
    content = F.layer_norm(torch.randn(1, 5, 256), (256,))
    boxes = 0.25 + 0.5 * torch.rand(1, 5, 4)
    images = model.preprocess([Sample(image=torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))])
    with torch.inference_mode():
        memory = model.encoder(model.backbone(images.tensor))
        position = QueryPosition(torch.randn(1, 5, 256), boxes[:, :, None])
        out = model.decoder.layers[7](content, position, memory, None)
    torch.testing.assert_close(out, content, atol=1e-4, rtol=1e-4)


def test_anchors_that_dino_was_not_trained_with_are_noted(dino, tmp_path):
    torch.save({"model": dino}, tmp_path / "dino.pth")
    model = instantiate(config_of(CONFIG).model)
    assert "anchor_sizes=[0.05, 0.1, 0.2, 0.4]" in load_pretrained(model, tmp_path / "dino.pth").notes[0]


def test_the_file_of_the_authors_gives_the_same(build):
    """A tiny DINO under its authors' names: proposals' heads of 91 ids become the heads of all layers."""
    random = torch.Generator().manual_seed(0)
    head = {"weight": torch.rand(91, 64, generator=random), "bias": torch.rand(91, generator=random)}
    box = torch.rand(4, 64, generator=random)
    authors = {
        "transformer.encoder.layers.0.norm1.weight": torch.rand(64, generator=random),
        "transformer.decoder.layers.1.cross_attn.sampling_offsets.bias": torch.rand(128, generator=random),
        "transformer.enc_output.weight": torch.rand(64, 64, generator=random),
        "transformer.tgt_embed.weight": torch.rand(10, 64, generator=random),
        "label_enc.weight": torch.rand(92, 64, generator=random),
        "bbox_embed.0.layers.2.weight": box + 1,
        "transformer.decoder.bbox_embed.0.layers.2.weight": box + 1,
        "transformer.enc_out_bbox_embed.layers.2.weight": box,
        **{f"class_embed.{i}.{kind}": value + 1 for i in range(2) for kind, value in head.items()},
        **{f"transformer.enc_out_class_embed.{kind}": value for kind, value in head.items()},
    }
    model = build("model.num_classes=80", ANCHORS)
    assert is_dino(authors) and not is_dino({"transformer.enc_output.weight": box})
    converted = convert(authors, model)
    assert converted.format == "DINO detector" and len(converted.notes) == 2
    ids = read_categories(category_file("coco_instance")).ids
    taken = converted.tensors
    assert torch.equal(taken["decoder.heads.sets.0.classes.weight"], head["weight"][list(ids)])
    assert torch.equal(taken["decoder.heads.sets.0.classes.bias"], head["bias"][list(ids)])
    assert torch.equal(taken["decoder.heads.sets.0.box.layers.2.weight"], box)
    assert torch.equal(taken["denoising.label_embed.weight"], authors["label_enc.weight"][list(ids)])
    assert set(converted.unused) == {
        "transformer.tgt_embed.weight",
        "bbox_embed.0.layers.2.weight",
        *(f"class_embed.{i}.{kind}" for i in range(2) for kind in head),
    }
    # Layers 0 and 1 are DINO's; the third one starts as identity.
    zeros = {name for name, value in taken.items() if name.startswith("decoder.layers.") and not value.any()}
    assert {name.split(".")[2] for name in zeros} == {"2"} and len(zeros) == 6
