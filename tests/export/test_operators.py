"""Operators that PyTorch's exporter does not know, or translates for some numbers alone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from detrex.export.operators import translations
from detrex.layers import not_suppressed
from detrex.layers.suppression import not_suppressed_in_one_space

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


@pytest.fixture(scope="module")
def session():
    dynamic = {0: torch.export.Dim("images", max=64), 1: torch.export.Dim("boxes", max=5000)}
    program = torch.export.export(
        Everything(), examples(2, 30, 4), dynamic_shapes=(dynamic,) * 3, strict=False
    )
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=20,
        input_names=["boxes", "scores", "groups"],
        custom_translation_table=translations(),
        optimize=False,
        verbose=False,
    )
    proto = exported.model_proto
    assert {node.domain for node in proto.graph.node} == {""} and not proto.functions
    return onnxruntime.InferenceSession(proto.SerializeToString())


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 200, 80), (5, 700, 3), (30, 50, 91)])
def test_onnx_computes_them_as_pytorch_does(session, size):
    inputs = examples(*size)
    expected = Everything()(*inputs)
    names = ("boxes", "scores", "groups")
    found = session.run(None, {n: v.numpy() for n, v in zip(names, inputs, strict=True)})
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


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
