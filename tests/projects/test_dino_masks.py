"""DINO with Mask DINO's mask head: masks and boxes mean the same place, though their frames differ."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detrex.config import LazyConfig, instantiate
from detrex.modeling import DecoderOutput, OneToOne, SupervisedPrediction
from detrex.structures import Prediction, Pyramid, Sample, Targets, boxes_from_masks
from tests.config_files import config_of

CONFIGS = Path(__file__).resolve().parents[2] / "projects/dino/configs"
TINY = [
    "model.num_classes=3",
    "model.backbone.name=test_resnet",
    "model.pixel_head.mask_dim=16",
    "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 4, num_layers: 1}",
    "model.decoder.layers={ffn_dim: 16, num_heads: 4, num_layers: 2}",
    "model.decoder.query_init.num_queries=8",
    "model.denoising.num_queries=4",
    "model.criterion.points.num_points=256",
]
# The second image is smaller, so that it is padded in the batch; no side is a multiple of 32.
SIZES = [(90, 120), (60, 70)]
SHARPNESS = 20.0


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    config = config_of(CONFIGS / "dino_r50_masks_coco_instance_12ep.py")
    return instantiate(LazyConfig.apply_overrides(config, TINY).model)


@pytest.fixture
def samples() -> list[Sample]:
    """Two images with rectangles on multiples of 4 pixels."""
    random = torch.Generator().manual_seed(0)
    rows = []
    for height, width in SIZES:
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, 8 : height // 8 * 4, 4 : width // 8 * 4] = True
        masks[1, 20 : height // 4 * 4, 40 : width // 4 * 4] = True
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=random)
        targets = Targets(
            torch.tensor([0, 2]), boxes_from_masks(masks, inclusive=False), masks, torch.ones(2) > 0
        )
        rows.append(Sample(image=image, targets=targets))
    return rows


def perfect(samples: list[Sample], queries: int = 8, mask_dim: int = 16) -> DecoderOutput:
    """Query j has object j: its box relative to its own image, its mask in cells of the padded batch."""
    batch, (height, width) = len(samples), (96, 128)
    logits = torch.full((batch, queries, 3), -SHARPNESS)
    boxes = torch.full((batch, queries, 4), 0.5)
    cells = torch.full((batch, mask_dim, height // 4, width // 4), -1.0)
    embed = SHARPNESS * torch.eye(queries, mask_dim).expand(batch, -1, -1)
    for b, (sample, size) in enumerate(zip(samples, SIZES, strict=True)):
        targets = sample["targets"]
        for j, (x0, y0, x1, y1) in enumerate(targets.boxes.tolist()):
            logits[b, j, targets.labels[j]] = SHARPNESS
            centre = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
            boxes[b, j] = centre / torch.tensor([size[1], size[0]] * 2)
            cells[b, j, int(y0) // 4 : int(y1) // 4, int(x0) // 4 : int(x1) // 4] = 1.0
    prediction = Prediction(logits, boxes, embed)
    memory = Pyramid.from_maps([cells])
    return DecoderOutput(
        [SupervisedPrediction(prediction, OneToOne())], prediction, prediction.logits, memory, cells
    )


def test_results_of_a_padded_image_lie_where_the_objects_are(model, samples):
    model.eval().predict = lambda *_: perfect(samples)
    for result, sample in zip(model(samples), samples, strict=True):
        found, targets = result["instances"], sample["targets"]
        found = found[found.scores > 0.5]
        order = found.pred_classes.argsort()
        assert found.pred_classes[order].tolist() == [0, 2]
        torch.testing.assert_close(found.pred_boxes[order], targets.boxes, atol=1e-3, rtol=0)
        # Masks are resized from cells of 4 pixels, which takes the corners off.
        masks = found.pred_masks[order]
        assert torch.equal(boxes_from_masks(masks, inclusive=False), targets.boxes)
        assert ((masks != targets.masks).sum((1, 2)) <= 4).all()


def test_what_lies_where_the_objects_are_costs_nothing(model, samples):
    model.train().predict = lambda *_: perfect(samples)
    losses = model(samples)
    assert set(losses) == {"loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice"}
    for name, value in losses.items():
        # Edges of masks are as sharp as a cell of 4 pixels.
        assert value < (0.3 if name in ("loss_mask", "loss_dice") else 1e-3), name
    wrong = perfect(samples)
    wrong.pixel_embed = wrong.pixel_embed.roll(4, dims=-1)
    model.predict = lambda *_: wrong
    assert model(samples)["loss_dice"] > 3 * losses["loss_dice"] + 0.3


def test_a_step_of_training_reaches_every_mask_head(model, samples):
    losses = model.train()(samples)
    suffixes = {"", "_0", "_interm", "_dn", "_dn_0"}
    kinds = ("loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice")
    assert set(losses) == {kind + suffix for kind in kinds for suffix in suffixes}
    sum(losses.values()).backward()
    parts: dict[str, Tensor] = {
        name: p.grad for name, p in model.named_parameters() if "pixel_head" in name or ".mask." in name
    }
    assert {m[1] for name in parts if (m := re.search(r"sets\.(\d)\.mask", name))} == {"0", "1", "2"}
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in parts.values())


def test_a_trained_dino_lacks_only_the_mask_head(model):
    config = config_of(CONFIGS / "models/dino_r50.py")
    overrides = [o for o in TINY if "pixel_head" not in o and "points" not in o]
    boxes_alone = instantiate(LazyConfig.apply_overrides(config, overrides).model)
    missing, unused = model.load_state_dict(boxes_alone.state_dict(), strict=False)
    assert unused == [] and all("pixel_head" in name or ".mask." in name for name in missing)
