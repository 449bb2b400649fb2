"""Operators that PyTorch's exporter does not know, or translates for some numbers alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from detrex.export.operators import translations
from detrex.export.results import BatchMasks, panoptic, semantic
from detrex.layers import not_suppressed
from detrex.layers.suppression import not_suppressed_in_one_space
from detrex.modeling import PanopticInference, SemanticInference

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Everything(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, ...]:
        kept = not_suppressed(boxes, scores, groups, 0.5)
        up = scores.sort(dim=1, stable=True)
        down = groups.sort(dim=1, stable=True, descending=True)
        less = boxes.shape[0] - 4
        return kept, *up, *down, torch.full((1,), less // 3), torch.full((1,), less // -2)


def examples(images: int, boxes: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes that overlap often, with scores of which some are equal and some negative."""
    random = torch.Generator().manual_seed(boxes)
    centres, sizes = torch.rand(2, images, boxes, 2, generator=random)
    scores = (torch.randn(images, boxes, generator=random) * 50).round() / 10
    places = torch.cat([centres - sizes / 5, centres + sizes / 5], 2)
    return places, scores, torch.randint(0, groups, (images, boxes), generator=random)


def session_of(module: nn.Module, example: tuple[Tensor, ...], names: list[str], dynamic: Any = None) -> Any:
    program = torch.export.export(module, example, dynamic_shapes=dynamic, strict=False)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=20,
        input_names=names,
        custom_translation_table=translations(),
        optimize=False,
        verbose=False,
    )
    proto = exported.model_proto
    assert {node.domain for node in proto.graph.node} == {""} and not proto.functions
    return onnxruntime.InferenceSession(proto.SerializeToString())


@pytest.fixture(scope="module")
def session():
    dynamic = {0: torch.export.Dim("images", max=64), 1: torch.export.Dim("boxes", max=5000)}
    return session_of(Everything(), examples(2, 30, 4), ["boxes", "scores", "groups"], (dynamic,) * 3)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 200, 80), (5, 700, 3), (30, 50, 91)])
def test_onnx_computes_them_as_pytorch_does(session, size):
    inputs = examples(*size)
    expected = Everything()(*inputs)
    names = ("boxes", "scores", "groups")
    found = session.run(None, {n: v.numpy() for n, v in zip(names, inputs, strict=True)})
    for output, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(output, reference.numpy())


@pytest.mark.parametrize("suppress", [not_suppressed, not_suppressed_in_one_space])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 300, 7), (2, 900, 2)])
def test_suppression_is_that_of_torchvision_within_images_and_groups(suppress, size):
    boxes, scores, groups = examples(*size)
    kept = suppress(boxes, scores, groups, 0.5)
    for image in range(size[0]):
        for group in range(size[2]):
            (members,) = torch.where(groups[image] == group)
            best = nms(boxes[image, members], scores[image, members], 0.5)
            assert members[kept[image, members]].tolist() == sorted(members[best].tolist())
    assert size[1] == 1 or 0 < kept.float().mean() < 1


class Maps(nn.Module):
    """Maps of two queries, whose logits at each pixel are given."""

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        same = torch.eye(logits.shape[2])
        masks = BatchMasks(torch.eye(2)[None], logits, (same, same), (same, same))
        certainty = torch.tensor([[0.5, 0.6]])
        classes = torch.diag_embed(certainty)
        limits = PanopticInference(score_threshold=0.2, overlap_threshold=0.8)
        found = panoptic(limits, certainty, classes, masks, torch.tensor(0.2), None)
        return found["panoptic"], semantic(SemanticInference(), classes, masks, 2)


def test_pixels_far_outside_of_all_masks_belong_to_the_nearest_in_onnx_too():
    logits = torch.full((1, 2, 8, 8), 30.0)
    logits[0, 0, 4:] = -40  # no mask is there, but the second one is nearer
    logits[0, 1, :2], logits[0, 1, 4:] = -30, -30
    segments, classes = Maps()(logits)
    # Of the first one half is seen, so it is no segment; with the pixels below, it would be.
    assert segments[0].amax(1).tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert classes[0].amax(1).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    found = session_of(Maps(), (logits,), ["logits"]).run(None, {"logits": logits.numpy()})
    np.testing.assert_array_equal(found[0], segments.numpy())
    np.testing.assert_array_equal(found[1], classes.numpy())
