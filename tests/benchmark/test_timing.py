"""Turns, durations, medians and ratios of pairs."""

import time

import pytest
import torch

from detrex.benchmark.timing import Clock, Spread, ratios, take_turns


def test_spread():
    assert Spread.from_values([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0)
    assert Spread.from_values([4.0, 1.0]).to_dict() == {"median": 2.5, "low": 1.0, "high": 4.0}


def test_every_second_round_is_turned_round_and_warm_up_does_not_count():
    calls = []

    def note(name):
        calls.append(name)
        return len(calls)

    results = take_turns({"a": lambda: note("a"), "b": lambda: note("b")}, repeats=2, warmup=1)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert results == {"a": [4, 5], "b": [3, 6]}


def test_ratios_are_of_pairs():
    """The median of each alone would give another ratio: 3 / 4."""
    assert ratios([1.0, 3.0, 8.0], [4.0, 1.0, 4.0]) == Spread(2.0, 0.25, 3.0)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_what_a_run_takes(clock):
    def passing(seconds):
        def run():
            clock.now += seconds

        return run

    assert clock.time(passing(2.0), prepare=passing(5.0)).seconds == 2.0


def test_the_wall_clock_and_the_processor():
    clock = Clock(torch.device("cpu"))
    assert clock.time(lambda: time.sleep(0.02)).seconds >= 0.02

    def busy():
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    duration = clock.time(busy)
    assert duration.processor_seconds >= 0.02


@pytest.mark.gpu
def test_a_gpu_is_waited_for():
    """Products that take it much longer than to be queued."""
    clock, matrix = Clock(torch.device("cuda")), torch.ones(4096, 4096, device="cuda")

    def products(count):
        def run():
            for _ in range(count):
                torch.mm(matrix, matrix)

        return run

    clock.time(products(1))
    assert clock.time(products(40)).seconds > 4 * clock.time(products(4)).seconds
