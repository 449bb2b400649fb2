"""Published Mask DINO checkpoints: names there and back, and the order of levels."""

import json
from pathlib import Path

import pytest
import torch

from detrex.checkpoint import CheckpointError, load_pretrained
from detrex.checkpoint.formats import convert
from detrex.checkpoint.published import coarsest_first, from_published, is_published, to_published
from detrex.checkpoint.settings import fitting_rows, settings_of_config, settings_of_file
from detrex.config import instantiate
from detrex.runtime.shapes_only import shapes_only
from detrex.structures import Sample
from tests.config_files import config_of

ROOT = Path(__file__).resolve().parent.parent.parent

# Settings of a published kind each: order of levels in the published pixel decoder, and the config's part.
LEARNED = (
    "model.decoder.query_init={_target_: detrex.modeling.LearnedBoxes, num_queries: 10, hidden_dim: 64}",
    "model.class_score={_target_: detrex.modeling.SoftmaxScore}",
)
THREE = ("model.encoder.strides=[8,16,32]", "model.decoder.layers.num_levels=3")
FIVE = (
    "model.encoder.strides=[4,8,16,32,64]",
    "model.decoder.layers.num_levels=5",
    "model.decoder.query_init.anchor_sizes=[0.8,0.4,0.2,0.1,0.05]",
)
SIX = (
    "model.encoder.strides=[4,8,16,32,64,128]",
    "model.decoder.layers.num_levels=6",
    "model.decoder.query_init.anchor_sizes=[0.05,0.1,0.2,0.4,0.8,1.6]",
)
VARIANTS = {"four levels": (), "learned": (*THREE, *LEARNED), "five levels": FIVE, "coarsest first": SIX}


CASES = {
    "instance_r50": "maskdino_r50_coco_instance_50ep",
    "panoptic_r50": "maskdino_r50_coco_panoptic_50ep",
    "semantic_ade20k_r50": "maskdino_r50_ade20k_semantic_160k",
}


@pytest.mark.parametrize("case", CASES)
def test_every_published_name_is_known_and_comes_back(case, parity):
    """Entries are numbered, so that one in a wrong place is found."""
    shapes = json.loads((parity / f"{case}.keys.json").read_text())
    published = {
        name: torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
        for name, shape in shapes.items()
    }
    with shapes_only():
        model = instantiate(config_of(ROOT / f"projects/maskdino/configs/{CASES[case]}.py").model)
    converted = from_published(published)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in converted.items()} == expected
    back = to_published(converted, model)
    assert back.keys() == published.keys()
    differing = [name for name in back if not torch.equal(back[name], published[name])]
    assert differing == ["criterion.empty_weight"]  # which is made from the configuration


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_a_model_goes_to_published_and_back_exactly(overrides, build):
    model = build(*overrides)
    state = model.state_dict()
    published = to_published(state, model)
    assert is_published(published)
    converted = convert(published, model)
    assert converted.format == "published Mask DINO" and converted.notes == []
    assert converted.tensors.keys() == state.keys()
    assert all(torch.equal(converted.tensors[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("overrides", "expected"), [((), False), (FIVE, False), (SIX, True), ((*THREE, *LEARNED), True)]
)
def test_the_order_of_levels_follows_from_the_anchors(overrides, expected, build):
    model = build(*overrides)
    published = to_published(model.state_dict(), model)
    assert coarsest_first(published) == expected
    # Levels made from the backbone's coarsest map come last among the projections, in both orders.
    prefix = "sem_seg_head.pixel_decoder.input_proj."
    sizes = [
        v.shape[-1] for k, v in sorted(published.items()) if k.startswith(prefix) and k.endswith(".0.weight")
    ]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("saved", "loaded"), [("false", "true"), ("true", "false")])
def test_trained_and_frozen_batch_norms_take_each_others_files(saved, loaded, build, tmp_path):
    """The published model of Cityscapes was trained with batch norms that count their steps."""
    model = build(f"model.backbone.frozen_norm={saved}").eval()
    for name, buffer in model.backbone.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    published = to_published(model.state_dict(), model)
    counters = [name for name in published if name.endswith("num_batches_tracked")]
    assert all(".norm." in name for name in counters) and bool(counters) == (saved == "false")
    torch.save({"model": published}, tmp_path / "model.pth")
    other = build(f"model.backbone.frozen_norm={loaded}").eval()
    assert load_pretrained(other, tmp_path / "model.pth", strict=True).complete
    sample = Sample(image=torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8))
    with torch.inference_mode():
        expected, found = (m([sample])[0]["instances"] for m in (model, other))
    torch.testing.assert_close(found.scores, expected.scores)


def test_anchors_in_the_other_order_are_noted(build):
    model = build()
    published = to_published(model.state_dict(), model)
    other = build("model.decoder.query_init.anchor_sizes=[0.05,0.1,0.2,0.4]")
    (note,) = convert(published, other).notes
    assert "anchor_sizes=[0.4, 0.2, 0.1, 0.05]" in note


def test_a_published_file_with_another_number_of_heads_is_refused(build):
    model = build()
    published = to_published(model.state_dict(), model)
    with pytest.raises(ValueError, match="do not divide into 7 heads"):
        from_published(published, num_heads=7)


def test_reversing_levels_changes_nothing_that_a_model_computes(build):
    """The same weights through a published file of either order of levels are the same model."""
    model = build(*SIX)
    sample = Sample(image=torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8))
    with torch.inference_mode():
        expected = model([sample])[0]["instances"]
        state = convert(to_published(model.state_dict(), model), model).tensors
        other = build(*SIX, seed=1)
        other.load_state_dict(state)
        found = other([sample])[0]["instances"]
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes)
    torch.testing.assert_close(found.scores, expected.scores)


@pytest.mark.parametrize("case", CASES)
def test_a_published_file_tells_its_settings(case, parity):
    """By which the loader finds the row of the zoo that a file fits, where the given config does not."""
    shapes = json.loads((parity / f"{case}.keys.json").read_text())
    settings = settings_of_file({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    config = config_of(ROOT / f"projects/maskdino/configs/{CASES[case]}.py")
    assert settings == settings_of_config(config.model)
    assert case.split("_")[0] in "".join(fitting_rows(settings))


def test_three_and_four_levels_are_told_apart(build, tmp_path):
    """Of the published row of width 1024, the config has three levels, and the name of its file says four."""
    four = build("model.encoder.ffn_dim=1024", "model.num_classes=80")
    torch.save({"model": to_published(four.state_dict(), four)}, tmp_path / "four.pth")
    three = build(*THREE, "model.decoder.query_init.anchor_sizes=[0.2,0.1,0.05]")
    row = r"4 levels \(3 of them .* maskdino_r50_coco_instance_hid1024_3sd1\."
    with pytest.raises(CheckpointError, match=row):
        load_pretrained(three, tmp_path / "four.pth", strict=True)
