"""The operator's cases, what they move through memory, and who takes part."""

import pytest
import torch

from detrex.benchmark.op import (
    Case,
    bytes_moved,
    copy_bandwidth,
    measure_op,
    usable_implementations,
)
from detrex.ops import dispatch, force_implementation, multi_scale_deformable_attention
from detrex.ops.dispatch import IMPLEMENTATIONS

CPU = torch.device("cpu")


def test_the_levels_of_usual_sizes():
    assert Case("encoder", (800, 1333), None).shapes == ((100, 167), (50, 84), (25, 42), (13, 21))
    assert Case("encoder", (1024, 1024), None).shapes == ((128, 128), (64, 64), (32, 32), (16, 16))


def test_inputs_of_encoder_and_decoder():
    value, locations, weights = Case("encoder", (64, 128), None).inputs(2, torch.float64, CPU)
    tokens = 8 * 16 + 4 * 8 + 2 * 4 + 1 * 2
    assert value.shape == (2, tokens, 8, 32) and value.dtype == torch.float64
    assert locations.shape == (2, tokens, 8, 4, 4, 2)
    torch.testing.assert_close(weights.flatten(-2).sum(-1), torch.ones(2, tokens, 8, dtype=torch.float64))
    # Points lie around the token: first those of the upper left cell, last those of the lower right one.
    means = locations[:, [0, tokens - 1]].mean((0, 2, 4))  # (2, L, 2)
    torch.testing.assert_close(means[0, 0], torch.tensor([0.5 / 16, 0.5 / 8]).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(means[1, 0], torch.tensor([0.75, 0.5]).double(), atol=0.1, rtol=0)
    assert Case("decoder", (64, 128), 7).inputs(2, torch.float64, CPU)[1].shape[:2] == (2, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_by_hand(dtype):
    inputs = Case("decoder", (64, 64), 5).inputs(3, dtype, CPU)
    value, output = (dtype.itemsize * n for n in (3 * (64 + 16 + 4 + 1) * 256, 3 * 5 * 256))
    points = 4 * 3 * 5 * 8 * 4 * 4  # float32 in any case
    forward = value + 3 * points + output
    assert bytes_moved(inputs, backward=False) == forward
    # Backward reads what forward read and one gradient, and writes three of them.
    assert bytes_moved(inputs, backward=True) == forward + 2 * (value + 3 * points) + output


def test_bandwidth_counts_reading_and_writing(clock):
    class Scratch:
        nbytes = 100

        def __getitem__(self, _):
            return self

        def copy_(self, _):
            clock.now += 0.5

    assert copy_bandwidth(clock, Scratch()) == 200.0


def test_each_implementation_runs_or_says_why_not():
    case = Case("decoder", (64, 64), 5)
    for dtype in (torch.float32, torch.float16):
        usable, reasons = usable_implementations(dtype, CPU)
        assert usable[0] == "reference"
        assert {*usable, *reasons} == set(IMPLEMENTATIONS) - {"auto"}
        for name, reason in reasons.items():
            value, locations, weights = case.inputs(1, dtype, CPU)
            with force_implementation(name), pytest.raises(RuntimeError) as refused:
                multi_scale_deformable_attention(value, case.shapes, locations, weights)
            assert str(refused.value) == reason


def test_figures_of_all_directions(monkeypatch):
    forced = []
    real = dispatch.multi_scale_deformable_attention

    def noted(*arguments):
        forced.append((dispatch.wanted_implementation(), torch.is_grad_enabled()))
        return real(*arguments)

    monkeypatch.setattr("detrex.benchmark.op.multi_scale_deformable_attention", noted)
    monkeypatch.setattr("detrex.benchmark.op.SCRATCH_BYTES", 2**10)
    rows = list(measure_op([Case("decoder", (64, 64), 5)], CPU, repeats=3))
    assert [(row["case"], row["direction"]) for row in rows] == [
        ("decoder", "forward"),
        ("decoder", "forward+backward"),
    ]
    usable, _ = usable_implementations(torch.float32, CPU)
    inputs = Case("decoder", (64, 64), 5).inputs(1, torch.float32, CPU)
    for row, backward in zip(rows, (False, True), strict=True):
        assert list(row["implementations"]) == usable
        reference = row["implementations"]["reference"]
        assert reference["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
        least = reference["seconds"]["median"] / reference["roofline"]
        assert least * row["copy_bandwidth"] == pytest.approx(bytes_moved(inputs, backward))
    for name in usable:
        assert forced.count((name, False)) >= 4 and forced.count((name, True)) >= 4


@pytest.mark.gpu
def test_on_a_gpu():
    rows = list(measure_op([Case("encoder", (256, 256), None)], torch.device("cuda"), repeats=2))
    assert all(row["implementations"]["reference"]["roofline"] > 0 for row in rows)
