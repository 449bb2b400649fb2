"""Times the implementations of deformable attention against each other: ``python ops/benchmark.py --help``.

The shapes are those of a ResNet-50 with four levels on an 800x1333 image. Runs of both implementations
alternate, so that a busy machine slows both; the table has the medians of the processor time of all threads
and of the wall clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from detrex.ops import force_implementation, multi_scale_deformable_attention

STRIDES = (8, 16, 32, 64)
HEADS, POINTS, DIM = 8, 4, 32
NAMES = ("reference", "cpp")


def level_shapes(height: int, width: int) -> tuple[tuple[int, int], ...]:
    return tuple((-(-height // stride), -(-width // stride)) for stride in STRIDES)


def make_inputs(shapes: tuple[tuple[int, int], ...], queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Without ``queries``, every token looks around itself, as in an encoder; else queries lie anywhere."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(h * w for h, w in shapes)
    if queries is None:
        centres = torch.cat([cell_centres(h, w) for h, w in shapes])
    else:
        centres = torch.rand(queries, 2, generator=generator)
    samples = (1, len(centres), HEADS, len(shapes), POINTS)
    cells = torch.tensor([(w, h) for h, w in shapes])[:, None]
    offsets = torch.randn(*samples, 2, generator=generator) * 2 / cells
    locations = centres[None, :, None, None, None] + offsets
    weights = torch.rand(samples, generator=generator).flatten(-2).softmax(-1).view(samples)
    return torch.randn(1, tokens, HEADS, DIM, generator=generator), locations, weights


def cell_centres(height: int, width: int) -> Tensor:
    y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)


def step(shapes: tuple[tuple[int, int], ...], inputs: Sequence[Tensor], backward: bool) -> Callable[[], None]:
    value, locations, weights = (t.detach().requires_grad_(backward) for t in inputs)

    def run() -> None:
        output = multi_scale_deformable_attention(value, shapes, locations, weights)
        if backward:
            torch.autograd.grad(output, (value, locations, weights), torch.ones_like(output))

    return run


def paired_medians(run: Callable[[], None], repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of (all processors, wall clock) for each implementation; the first round only warms up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    for _ in range(repeats + 1):
        for name in NAMES:
            with force_implementation(name):
                start = time.process_time(), time.perf_counter()
                run()
                end = time.process_time(), time.perf_counter()
            times[name].append((1e3 * (end[0] - start[0]), 1e3 * (end[1] - start[1])))
    return {name: tuple(map(statistics.median, zip(*rows[1:], strict=True))) for name, rows in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the image's sides (default: 1)")
    parser.add_argument("--queries", type=int, default=300, help="of the decoder (default: 300)")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each (default: 7)")
    parser.add_argument("--threads", type=int, help="default: torch's")
    options = parser.parse_args()
    if options.scale <= 0 or options.queries < 1 or options.repeats < 1:
        parser.error("--scale, --queries and --repeats must be positive")
    if options.threads:
        torch.set_num_threads(options.threads)

    shapes = level_shapes(round(800 * options.scale), round(1333 * options.scale))
    say(f"levels {shapes}, {torch.get_num_threads()} threads, float32, medians of {options.repeats} in ms")
    say(f"{'':26}{'processor time':>30}{'wall clock':>30}")
    say(f"{'':26}" + 2 * f"{'reference':>11}{'cpp':>10}{'ratio':>9}")
    for name, queries in (("encoder", None), ("decoder", options.queries)):
        inputs = make_inputs(shapes, queries)
        for label, backward in (("forward", False), ("forward+backward", True)):
            medians = paired_medians(step(shapes, inputs, backward), options.repeats)
            columns = [f"{r:11.2f}{k:10.2f}{r / k:8.1f}x" for r, k in zip(*medians.values(), strict=True)]
            say(f"{name + ' ' + label:26}" + "".join(columns))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
