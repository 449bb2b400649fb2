"""What only the CPU kernel promises."""

import torch

from detrex.ops import force_implementation
from detrex.ops import multi_scale_deformable_attention as attention


def test_the_number_of_threads_does_not_change_a_bit(make_inputs, library, use_library):
    use_library(library)
    shapes = ((20, 30), (10, 15))
    inputs = make_inputs(shapes, queries=1100, heads=3, dim=9, dtype=torch.float32)
    inputs = [t.requires_grad_() for t in inputs]
    before, results = torch.get_num_threads(), []

    def output_and_gradients():
        output = attention(inputs[0], shapes, *inputs[1:])
        return output, *torch.autograd.grad(output.square().sum(), inputs)

    try:
        for threads in (1, 2, 5, 64):
            torch.set_num_threads(threads)
            with force_implementation("kernel"):
                results.append(output_and_gradients())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
