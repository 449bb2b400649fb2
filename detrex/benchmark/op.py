"""Compares implementations of deformable attention with the reference and with the memory's bandwidth.

Shape letters: B images, S tokens of all levels, Q queries, M heads, D channels per head, L levels, P points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detrex.benchmark.timing import Clock, Duration, Spread, ratios, take_turns
from detrex.ops import force_implementation, multi_scale_deformable_attention
from detrex.ops.dispatch import IMPLEMENTATIONS
from detrex.ops.reference import dtype_of_sums

STRIDES = (8, 16, 32, 64)
HEADS, POINTS, DIM = 8, 4, 32
REFERENCE = "reference"
SCRATCH_BYTES = 2**28  # more than any cache holds
COPIES = 10

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A use of deformable attention in a ResNet-50 model with four levels.

    Attributes:
        name: ``encoder``, where every token looks around itself, or ``decoder``, where queries lie anywhere.
        image: (height, width) of the image in pixels.
        queries: of the decoder; None in the encoder.
    """

    name: str
    image: Size
    queries: int | None

    @property
    def shapes(self) -> tuple[Size, ...]:
        """(height, width) of the levels, finest first."""
        height, width = self.image
        return tuple((-(-height // stride), -(-width // stride)) for stride in STRIDES)

    def inputs(self, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Value (B, S, M, D), locations (B, Q, M, L, P, 2) and weights (B, Q, M, L, P), always the same.

        Only the value is in half precision, as in a model under mixed precision.
        """
        generator = torch.Generator().manual_seed(0)
        tokens = sum(h * w for h, w in self.shapes)
        if self.queries is None:
            centres = torch.cat([_cell_centres(h, w) for h, w in self.shapes])
        else:
            centres = torch.rand(self.queries, 2, generator=generator)
        samples = (batch, len(centres), HEADS, len(self.shapes), POINTS)
        cells = torch.tensor([(w, h) for h, w in self.shapes])[:, None]
        offsets = torch.randn(*samples, 2, generator=generator) * 2 / cells
        locations = centres[None, :, None, None, None] + offsets
        weights = torch.rand(samples, generator=generator).flatten(-2).softmax(-1).view(samples)
        value = torch.randn(batch, tokens, HEADS, DIM, generator=generator)
        sums = dtype_of_sums(dtype)
        return (
            value.to(device, dtype).requires_grad_(),
            locations.to(device, sums).requires_grad_(),
            weights.to(device, sums).requires_grad_(),
        )


def _cell_centres(height: int, width: int) -> Tensor:
    y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)


def usable_implementations(dtype: torch.dtype, device: torch.device) -> tuple[list[str], dict[str, str]]:
    """Implementations that take such tensors, the reference first, and the reasons why others do not."""
    case, usable, reasons = Case("decoder", (64, 64), 1), [REFERENCE], {}
    for name in IMPLEMENTATIONS:
        if name in ("auto", REFERENCE):
            continue
        try:
            with force_implementation(name):
                multi_scale_deformable_attention(*_arguments(case, case.inputs(1, dtype, device)))
            usable.append(name)
        except RuntimeError as error:
            reasons[name] = str(error)
    return usable, reasons


def measure_op(
    cases: Sequence[Case],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    repeats: int = 7,
    warmup: int = 1,
) -> Iterator[dict[str, Any]]:
    """Times all implementations, in turns, in every case, forward and with backward.

    Caches are filled with other data before every run, as by the layers of a model.

    Yields:
        For JSON, one entry for each case and direction: seconds, the ratio to the reference (above 1 is
        faster), and how many times the shortest possible time it takes to move the inputs and outputs through
        memory (``roofline``), by implementation.
    """
    names, _ = usable_implementations(dtype, device)
    clock = Clock(device)
    scratch = torch.zeros(2, SCRATCH_BYTES // 2, dtype=torch.uint8, device=device)
    bandwidth = copy_bandwidth(clock, scratch)
    for case in cases:
        inputs = case.inputs(batch, dtype, device)
        for backward in (False, True):
            runs = {name: _run(clock, name, case, inputs, backward, scratch) for name in names}
            times = take_turns(runs, repeats, warmup)
            least = bytes_moved(inputs, backward) / bandwidth
            yield {
                "case": case.name,
                "image": case.image,
                "batch": batch,
                "direction": "forward+backward" if backward else "forward",
                "copy_bandwidth": bandwidth,
                "implementations": {name: _summary(times[name], times[REFERENCE], least) for name in names},
            }


def copy_bandwidth(clock: Clock, scratch: Tensor) -> float:
    """Bytes per second, read and written, when one half of ``scratch`` is copied to the other."""
    runs = {"copy": lambda: clock.time(lambda: scratch[0].copy_(scratch[1]))}
    times = take_turns(runs, COPIES, warmup=1)["copy"]
    return scratch.nbytes / Spread.from_values([t.seconds for t in times]).median


def bytes_moved(inputs: Sequence[Tensor], backward: bool) -> int:
    """The least number of bytes to move: inputs and output once and, with backward, their gradients."""
    read = sum(t.nbytes for t in inputs)
    value, locations, _ = inputs
    output = value.shape[0] * locations.shape[1] * value.shape[2] * value.shape[3] * value.element_size()
    # Backward reads the inputs again and the output's gradient, and writes the gradients of the inputs.
    return read + output + backward * (2 * read + output)


def _run(
    clock: Clock, name: str, case: Case, inputs: Sequence[Tensor], backward: bool, scratch: Tensor
) -> Callable[[], Duration]:
    with torch.no_grad():
        grad = torch.ones_like(multi_scale_deformable_attention(*_arguments(case, inputs)))

    def step() -> None:
        with torch.set_grad_enabled(backward):
            output = multi_scale_deformable_attention(*_arguments(case, inputs))
        if backward:
            torch.autograd.grad(output, inputs, grad)

    def run() -> Duration:
        with force_implementation(name):
            return clock.time(step, prepare=lambda: scratch[0].copy_(scratch[1]))

    return run


def _arguments(case: Case, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
    value, locations, weights = inputs
    return value, case.shapes, locations, weights


def _summary(times: list[Duration], reference: list[Duration], least: float) -> dict[str, Any]:
    seconds = [t.seconds for t in times]
    of_processor = [t.processor_seconds for t in times]
    return {
        "seconds": Spread.from_values(seconds).to_dict(),
        "processor_seconds": Spread.from_values(of_processor).to_dict(),
        "ratio": ratios([t.seconds for t in reference], seconds).to_dict(),
        "processor_ratio": ratios([t.processor_seconds for t in reference], of_processor).to_dict(),
        "roofline": Spread.from_values(seconds).median / least,
    }
