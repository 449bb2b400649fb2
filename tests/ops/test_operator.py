"""The kernels as PyTorch operators: their rules, tracing, checks of their inputs."""

import pytest
import torch
import torch.nn.functional as F

from detrex.ops import force_implementation
from detrex.ops import multi_scale_deformable_attention as attention
from detrex.ops import multi_scale_deformable_attention_reference as reference
from detrex.ops.library import KernelError
from detrex.ops.operator import msda, msda_backward

SHAPES = ((3, 4), (2, 2))
FLAT = [3, 4, 2, 2]

pytestmark = pytest.mark.usefixtures("kernel")


class Attention(torch.nn.Module):
    """With the sizes of the levels taken from tensors, as a model has them."""

    def forward(self, maps, locations, weights):
        value = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1).unflatten(-1, (2, -1))
        return attention(value, tuple((m.shape[-2], m.shape[-1]) for m in maps), locations, weights)


@pytest.fixture
def maps_and_points(device):
    def make(sizes, queries=5):
        generator = torch.Generator().manual_seed(0)
        maps = [torch.randn(2, 6, h, w, generator=generator).to(device) for h, w in sizes]
        locations = torch.rand(2, queries, 2, len(sizes), 3, 2, generator=generator)
        weights = torch.rand(2, queries, 2, len(sizes), 3, generator=generator)
        return maps, locations.to(device), weights.to(device)

    return make


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_it_keeps_the_rules_of_pytorch_operators(make_inputs, dtype):
    value, locations, weights = make_inputs(SHAPES, dtype=torch.promote_types(dtype, torch.float32))
    value = value.to(dtype)
    leaves = [t.clone().requires_grad_() for t in (value, locations, weights)]
    grad = value.new_ones(2, 3, 4)
    torch.library.opcheck(msda, (value, FLAT, locations, weights))
    torch.library.opcheck(msda, (leaves[0], FLAT, *leaves[1:]))
    torch.library.opcheck(msda_backward, (value, FLAT, locations, weights, grad))


@pytest.mark.parametrize("strict", [False, True])
def test_it_exports_as_one_operator(strict, maps_and_points):
    inputs = maps_and_points(SHAPES)
    program = torch.export.export(Attention(), inputs, strict=strict)
    calls = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert calls.count(torch.ops.detrex.msda.default) == 1
    torch.testing.assert_close(program.module()(*inputs), Attention()(*inputs))


def test_an_exported_program_takes_other_sizes(maps_and_points):
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2, max=64)
    queries = torch.export.Dim("queries", min=2, max=64)
    level = {2: height, 3: width}
    program = torch.export.export(
        Attention(),
        maps_and_points(((6, 8), (6, 8))),
        dynamic_shapes={"maps": [level, level], "locations": {1: queries}, "weights": {1: queries}},
        strict=False,
    )
    other = maps_and_points(((5, 7), (5, 7)), queries=9)
    torch.testing.assert_close(program.module()(*other), Attention()(*other))


def test_a_forced_implementation_holds_for_compiled_functions(make_inputs, use_library):
    value, locations, weights = make_inputs(SHAPES)
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    ours = compiled(value, SHAPES, locations, weights)
    with force_implementation("reference"):
        assert torch.equal(
            compiled(value, SHAPES, locations, weights), reference(value, SHAPES, locations, weights)
        )
    assert torch.equal(compiled(value, SHAPES, locations, weights), ours)
    use_library(KernelError("gone"))
    with force_implementation("auto"):
        assert torch.equal(
            compiled(value, SHAPES, locations, weights), reference(value, SHAPES, locations, weights)
        )


def grid_sample_has_second_derivatives():
    """Not in the oldest versions of PyTorch that this project runs with."""
    maps, grid = torch.ones(1, 1, 2, 2, requires_grad=True), torch.zeros(1, 1, 1, 2, requires_grad=True)
    output = F.grid_sample(maps, grid, align_corners=False)
    (grad,) = torch.autograd.grad(output.sum(), grid, create_graph=True)
    try:
        torch.autograd.grad(grad.sum(), maps)
    except RuntimeError as error:
        assert "grid_sampler_2d_backward is not implemented" in str(error)
        return False
    return True


def test_second_derivatives_are_refused_by_the_kernel_and_known_to_the_reference(make_inputs):
    value, locations, weights = (t.requires_grad_() for t in make_inputs(SHAPES))

    def second():
        output = attention(value, SHAPES, locations, weights)
        (grad,) = torch.autograd.grad(output.square().sum(), locations, create_graph=True)
        return torch.autograd.grad(grad.sum(), value)[0]

    with pytest.raises(RuntimeError, match=r"no second derivatives.*force_implementation"):
        second()
    with force_implementation("reference"):
        if grid_sample_has_second_derivatives():
            assert second().any()
        else:
            with pytest.raises(RuntimeError, match="grid_sampler_2d_backward is not implemented"):
                second()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v, x, w: (v[0], FLAT, x, w), "value must be"),
        (lambda v, x, w: (v, FLAT, x[..., 0], w), r"locations \(B, Q"),
        (lambda v, x, w: (v, [4, 4, 2, 2], x, w), "20 cells; the value has 16"),
        (lambda v, x, w: (v, [-3, -4, 2, 2], x, w), "16 cells"),
        (lambda v, x, w: (v, [4, 4], x, w), "1 levels, locations must be"),
        (lambda v, x, w: (v, FLAT, x[:1], w), "locations must be"),
        (lambda v, x, w: (v, FLAT, x[:, :, :1], w), "locations must be"),
        (lambda v, x, w: (v, FLAT, x[..., :1], w), "locations must be"),
        (lambda v, x, w: (v, FLAT, x, w[..., :1]), "weights must be"),
        (lambda v, x, w: (v, FLAT, x, w.float()), "float32 or all float64"),
        (lambda v, x, w: (v.half(), FLAT, x.half(), w.half()), "float16 with float32, not torch.float16"),
        (lambda v, x, w: (v.half(), FLAT, x, w), "float16 with float32, not torch.float16, torch.float64"),
        (lambda v, x, w: (v.cfloat(), FLAT, x.cfloat(), w.cfloat()), "complex64"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_memory_is_read(make_inputs, change, words):
    value, locations, weights = make_inputs(SHAPES)
    arguments = change(value, locations, weights)
    with pytest.raises(ValueError, match=words):
        msda(*arguments)
    with pytest.raises(ValueError, match=words):
        msda_backward(*arguments, torch.ones(2, 3, 4).double())


@pytest.mark.parametrize(
    "grad", [torch.ones(2, 3, 4), torch.ones(2, 3, 5).double(), torch.ones(2, 12).double()]
)
def test_a_gradient_of_another_shape_or_dtype_is_refused(make_inputs, grad, device):
    value, locations, weights = make_inputs(SHAPES)
    with pytest.raises(ValueError, match="the output's gradient must be"):
        msda_backward(value, FLAT, locations, weights, grad.to(device))
