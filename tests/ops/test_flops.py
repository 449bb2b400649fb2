"""Operations of deformable attention as ``torch.utils.flop_counter`` counts them."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detrex.ops import force_implementation
from detrex.ops import multi_scale_deformable_attention as attention
from detrex.ops.library import KernelError

SHAPES = ((3, 4), (2, 2))


def operations(function):
    """Floating-point operations of ``function()``, by operator."""
    with FlopCounterMode(display=False) as counter:
        function()
    return {str(operator): count for operator, count in counter.get_flop_counts().get("Global", {}).items()}


def on_meta(inputs):
    return [torch.empty_like(t, device="meta", requires_grad=t.requires_grad) for t in inputs]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # One channel at one point: four corners and the weight, each a multiplication and an addition.
        (dict(shapes=((2, 2),), batch=1, queries=1, heads=1, points=1, dim=1), 10),
        # 2 images * 3 queries * 2 heads * 2 levels * 2 points = 48 samples of 5 channels.
        (dict(shapes=SHAPES, batch=2, queries=3, heads=2, points=2, dim=5), 48 * 5 * 10),
        # How large the levels are makes no difference.
        (dict(shapes=((30, 40), (2, 2)), batch=2, queries=3, heads=2, points=2, dim=5), 48 * 5 * 10),
        (dict(shapes=SHAPES, batch=2, queries=0), 0),
    ],
)
def test_operations_of_the_forward_pass(make_inputs, sizes, expected):
    inputs = on_meta(make_inputs(**sizes))
    assert operations(lambda: attention(inputs[0], sizes["shapes"], *inputs[1:])) == {"detrex.msda": expected}


def test_operations_of_the_backward_pass(make_inputs):
    """Value, weight, x and y of a sample: each gradient is five multiply-adds for each channel."""
    value, locations, weights = on_meta([t.requires_grad_() for t in make_inputs(SHAPES, dim=5)])
    output = attention(value, SHAPES, locations, weights)
    counted = operations(lambda: torch.autograd.grad(output.sum(), (value, locations, weights)))
    assert counted == {"detrex.msda_backward": 48 * 5 * 4 * 10}


def test_the_kernel_counts_the_same(make_inputs, kernel):  # noqa: ARG001
    inputs = [t.requires_grad_() for t in make_inputs(SHAPES)]

    def step(value, locations, weights):
        attention(value, SHAPES, locations, weights).sum().backward()

    counted = operations(lambda: step(*inputs))
    assert set(counted) == {"detrex.msda", "detrex.msda_backward"}
    assert counted == operations(lambda: step(*on_meta(inputs)))


@pytest.mark.parametrize("name", ["auto", "reference", "kernel"])
def test_shapes_and_operations_do_not_depend_on_what_is_installed(make_inputs, use_library, name):
    use_library(KernelError("gone"))
    value, locations, weights = on_meta(make_inputs(SHAPES, dtype=torch.bfloat16))
    results = []
    with force_implementation(name):
        counted = operations(lambda: results.append(attention(value, SHAPES, locations, weights)))
    assert counted == {"detrex.msda": 48 * 2 * 10}
    assert results[0].shape == (2, 3, 4) and results[0].dtype == torch.bfloat16 and results[0].is_meta
