"""The load test of the server, in small."""

import json

import pytest

from detrex.cli.commands.benchmark import parse_arguments, run
from tests.predict.tiny_run import write_run

pytest.importorskip("fastapi_offline")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run")).folder


def measured(model, tmp_path, *words):
    output = tmp_path / "figures.json"
    fixed = ["serving", "--model", str(model), "--device", "cpu", "--size", "40x60", "--output", str(output)]
    run(parse_arguments([*fixed, *words]))
    return json.loads(output.read_text())


def test_a_short_load(model, tmp_path):
    measurements = measured(model, tmp_path, "--clients", "1", "4", "--requests", "8", "--repeats", "1")
    assert measurements["wrong"] == 0 and measurements["answered"] == 32
    assert [row["clients"] for row in measurements["clients"]] == [1, 4]
    for row in measurements["clients"]:
        assert 0 < row["batched"]["p50"] <= row["batched"]["p99"] and row["ratio"] > 0


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_requests(model, tmp_path):
    measurements = measured(model, tmp_path, "--clients", "8", "--requests", "250", "--repeats", "4")
    assert measurements["answered"] == 2000 and measurements["wrong"] == 0
    grown = (measurements["memory"]["last"] - measurements["memory"]["first"]) / 2**20
    assert grown < 50, f"{grown:.0f} MiB"
