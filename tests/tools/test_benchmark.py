"""tools/benchmark.py: its commands print tables and write JSON."""

import json

import pytest
import torch

from detrex.cli.benchmarks import model_setups
from detrex.cli.commands.benchmark import parse_arguments, run
from detrex.ops.dispatch import IMPLEMENTATIONS
from tests.benchmark.conftest import CONFIG, tiny


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def benchmark(tmp_path, capsys):
    """``benchmark(*arguments)`` is what is printed, and what is written."""

    def start(*arguments):
        path = tmp_path / "new" / "figures.json"
        run(parse_arguments([*arguments, "--repeats", "2", "--output", str(path)]))
        return capsys.readouterr().out, json.loads(path.read_text())

    return start


def test_op(benchmark, monkeypatch):
    monkeypatch.setattr("detrex.benchmark.op.SCRATCH_BYTES", 2**10)
    shown, written = benchmark(
        "op", "--device", "cpu", "--sizes", "64x64", "64x96", "--queries", "5", "--dtype", "fp16"
    )
    assert [(c["case"], c["image"], c["direction"]) for c in written["cases"]] == [
        (case, size, direction)
        for size in ([64, 64], [64, 96])
        for case in ("encoder", "decoder")
        for direction in ("forward", "forward+backward")
    ]
    assert shown.count("reference") >= 8 and "64x96, fp16, batch 1" in shown
    used = written["cases"][0]["implementations"].keys()
    assert {*used, *written["left_out"]} == set(IMPLEMENTATIONS) - {"auto"}
    assert all(
        f"{name} cannot be measured: {reason}" in shown for name, reason in written["left_out"].items()
    )
    assert f"torch: {written['machine']['torch']}" in shown


def test_model(benchmark, overrides):
    """Training and inference, each in a process of its own."""
    shown, written = benchmark(
        "model", "--config-file", CONFIG, "--size", "48x64", "--objects", "3", "--threads", "1", *overrides
    )
    assert written["inference"]["models"]["model"]["mode"] == "inference"
    training = written["training"]["models"]["model"]
    assert (training["objects"], training["size"], training["batch"]) == (3, [48, 64], 1)
    assert training["machine"]["threads"] == 1
    inference_alone, training_alone = ("post-processing",), ("losses", "matching", "backward", "optimizer")
    for part in ("backbone", "encoder", "pixel head", "decoder", *inference_alone, *training_alone):
        assert part in shown
    assert "training, 1 image(s) of 48x64, 3 objects each" in shown and shown.count("images/s") == 2


def test_compare(benchmark, overrides):
    shown, written = benchmark(
        *(
            "model",
            "--config-file",
            CONFIG,
            "--size",
            "48x64",
            "--mode",
            "inference",
            "--batch",
            "2",
            *overrides,
        ),
        *("--compare", "", "model.decoder.layers.num_layers=2"),
    )
    models, ratio = written["inference"]["models"], written["inference"]["ratios"]["B"]
    assert models["A"]["overrides"] == list(overrides)
    assert models["B"]["overrides"] == [*overrides, "model.decoder.layers.num_layers=2"]
    for model in models.values():
        assert len(model["runs"]) == 2
        assert model["images_per_second"] == pytest.approx(2 / model["seconds"]["median"])
    pairs = [a / b for a, b in zip(models["A"]["runs"], models["B"]["runs"], strict=True)]
    assert (ratio["low"], ratio["high"]) == pytest.approx((min(pairs), max(pairs)))
    assert f"B is {ratio['median']:.3f} (from" in shown and "A median" in shown


def test_configs_to_compare():
    parsed = parse_arguments(["model", "--compare", "a.py", "b.py x=1 y.file=c.py", "z=2"])
    setups = model_setups(parsed)
    assert {n: (s.config_file, s.overrides) for n, s in setups.items()} == {
        "A": ("a.py", ("z=2",)),
        "B": ("b.py", ("z=2", "x=1", "y.file=c.py")),
    }


def test_data(benchmark, overrides):
    shown, written = benchmark("data", "--config-file", CONFIG, "--images", "4", "--workers", "1", *overrides)
    assert written["workers"] == 1 and written["batch_size"] == 2
    assert f"{written['images_per_second']['median']:.1f} images/s" in shown


def test_evaluation(benchmark, overrides):
    shown, written = benchmark("evaluation", "--config-file", CONFIG, "--images", "2", *overrides)
    assert set(written["seconds_per_1000_images"]) == {"coco", "panoptic", "semantic"}
    for words in ("coco", "panoptic", "semantic", "evaluate", "process", "2 images with 100 detections"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model", "--mode", "inference"], "give one config file"),
        (["model", "--compare", "a.py b.py", "c.py"], "A: give one config file"),
        (["data", "--config-file", "no/such.py"], "no/such.py"),
        (["op", "--device", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_told_in_words(arguments, words, caplog):
    with pytest.raises(SystemExit) as stopped:
        run(parse_arguments(arguments))
    assert stopped.value.code == 1 and words in caplog.text


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["op", "--sizes", "64"], ["op", "--repeats", "0"], ["data"]]
)
def test_what_cannot_be_parsed(arguments):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(arguments)
    assert stopped.value.code == 2


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    for name in ("op", "model", "data", "evaluation"):
        assert f"\n  {name} " in shown


def test_scaling(benchmark, overrides, tmp_path):
    shown, written = benchmark(
        "scaling", "--config-file", CONFIG, "--axes", "queries=5,10", "--size", "48x64",
        "--html", str(tmp_path / "page.html"), *overrides,
    )  # fmt: skip
    (axis,) = written["axes"]
    assert [point["value"] for point in axis["points"]] == [5, 10] and not axis["stopped"]
    assert all(point["seconds"] > 0 for point in axis["points"])
    assert len(axis["exponents"]["processor_seconds"]) == 1
    assert "exponent of time" in shown and (tmp_path / "page.html").is_file()


@pytest.mark.parametrize("axis", ["objekts", "objects=10,1", "objects=1,x"])
def test_axes_that_are_none(axis, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["scaling", "--config-file", CONFIG, "--axes", axis])
    assert "--axes" in capsys.readouterr().err


def test_syncs(benchmark, overrides):
    shown, written = benchmark("syncs", "--config-file", CONFIG, "--size", "48x64", *overrides)
    assert [mode["mode"] for mode in written["modes"]] == ["inference", "training"]
    assert f"training: at most {written['modes'][1]['count']} times" in shown


def test_the_report_of_a_gpu_needs_one_unless_told_otherwise(tmp_path, caplog):
    arguments = parse_arguments(["gpu-report", "--page", str(tmp_path / "page.md")])
    assert arguments.device == "cuda" and arguments.config_file
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            run(arguments)
        assert "device 'cuda' cannot be used" in caplog.text
        assert not (tmp_path / "page.md").exists()
