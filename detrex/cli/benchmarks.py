"""Measures speed and memory, and prints tables of the results; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from detrex.benchmark import (
    AXES,
    GIBIBYTE,
    Case,
    Setup,
    count_syncs,
    describe_machine,
    device_report,
    measure_evaluation,
    measure_loading,
    measure_models,
    measure_op,
    measure_scaling,
    usable_implementations,
)
from detrex.cli.arguments import is_override, read_config
from detrex.config import ConfigError
from detrex.report.scaling_page import save_scaling_page, save_scaling_picture
from detrex.runtime.device import resolve_device

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}
WIDTH = 120  # width of tables in a file
MILLISECONDS = 1e3


def measure(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    result = _MEASUREMENTS[arguments.command](arguments)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({"command": arguments.command, **result}, indent=2))


def _op(arguments: argparse.Namespace) -> dict[str, Any]:
    device, dtype = resolve_device(arguments.device), DTYPES[arguments.dtype]
    machine = describe_machine(device)
    _, reasons = usable_implementations(dtype, device)
    cases = [
        Case(name, size, queries)
        for size in arguments.sizes
        for name, queries in (("encoder", None), ("decoder", arguments.queries))
    ]
    rows = list(measure_op(cases, device, dtype, arguments.batch, arguments.repeats))
    console = _console(machine)
    for size in arguments.sizes:
        console.print(_op_table(arguments, size, [row for row in rows if row["image"] == size]))
    console.print("faster: than the reference, medians of pairs. CPU: processor time of all threads.")
    console.print("roofline: times as long as it takes to move inputs and outputs through memory once.")
    for name, reason in reasons.items():
        console.print(f"{name} cannot be measured: {reason}", soft_wrap=True)
    console.print(f"bandwidth of copying: {rows[0]['copy_bandwidth'] / 1e9:.1f} GB/s, read and written")
    return {"machine": machine, "dtype": arguments.dtype, "cases": rows, "left_out": reasons}


def _op_table(arguments: argparse.Namespace, size: tuple[int, int], rows: list[dict[str, Any]]) -> Table:
    title = "{}x{}, {}, batch {}, ms".format(*size, arguments.dtype, arguments.batch)
    columns = ("median", "min", "max", "faster", "CPU", "CPU faster", "roofline")
    table = _table(title, "case", "implementation", *columns)
    for row in rows:
        for name, times in row["implementations"].items():
            table.add_row(
                f"{row['case']} {row['direction']}",
                name,
                *_milliseconds(times["seconds"]),
                f"{times['ratio']['median']:.2f}",
                f"{MILLISECONDS * times['processor_seconds']['median']:.2f}",
                f"{times['processor_ratio']['median']:.2f}",
                f"{times['roofline']:.2f}",
            )
    return table


def _model(arguments: argparse.Namespace) -> dict[str, Any]:
    modes = ("inference", "training") if arguments.mode == "both" else (arguments.mode,)
    results = {}
    for mode in modes:
        setups = {
            name: replace(setup, training=mode == "training")
            for name, setup in model_setups(arguments).items()
        }
        results[mode] = measure_models(setups, arguments.repeats, arguments.warmup)
        _print_models(results[mode], arguments)
    return results


def model_setups(arguments: argparse.Namespace) -> dict[str, Setup]:
    """The models to measure by name: ``A`` and ``B`` to compare, or one."""
    names = ("A", "B") if arguments.compare else ("model",)
    setups = {}
    for name, text in zip(names, arguments.compare or ("",), strict=True):
        words = shlex.split(text)
        files = [word for word in words if not is_override(word)]
        if len(files) > 1 or not (files or arguments.config_file):
            raise ConfigError(f"{name}: give one config file, here or with --config-file")
        setups[name] = Setup(
            config_file=files[0] if files else arguments.config_file,
            overrides=(*arguments.overrides, *(word for word in words if word not in files)),
            size=arguments.size,
            batch=arguments.batch,
            objects=arguments.objects,
            threads=arguments.threads,
            trust_code=arguments.trust_code,
        )
    return setups


def _print_models(result: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    models = result["models"]
    first = next(iter(models.values()))
    console = _console(first["machine"])
    for name, model in models.items():
        words = [model["config_file"], *model["overrides"]]
        console.print(f"{name}: {' '.join(words)}", soft_wrap=True)
    objects = f", {first['objects']} objects each" if first["objects"] else ""
    size = "{}x{}".format(*first["size"])
    title = f"{first['mode']}, {first['batch']} image(s) of {size}{objects}, {arguments.repeats} runs, ms"
    prefixes = [f"{name} " if len(models) > 1 else "" for name in models]
    console.print(title, soft_wrap=True)
    table = _table("", "part", *(f"{p}{c}" for p in prefixes for c in ("median", "min", "max")))
    for part in ("all", *dict.fromkeys(p for model in models.values() for p in model["parts"])):
        columns = [
            _milliseconds(m["seconds"] if part == "all" else m["parts"].get(part)) for m in models.values()
        ]
        table.add_row(part, *(cell for column in columns for cell in column))
    console.print(table)
    for name, model in models.items():
        console.print(
            f"{name}: {model['images_per_second']:.3g} images/s, processor time of all threads "
            f"{model['processor_seconds']['median']:.3g} s, memory "
            f"{model['memory_before'] / GIBIBYTE:.2f} GiB before and "
            f"{model['peak_memory'] / GIBIBYTE:.2f} GiB at most"
        )
    for name, ratio in result["ratios"].items():
        spread = "{median:.3f} (from {low:.3f} to {high:.3f})".format(**ratio)
        console.print(f"{name} is {spread} times as fast as {next(iter(models))}, by pairs of runs")


def _data(arguments: argparse.Namespace) -> dict[str, Any]:
    config = read_config(arguments)
    if arguments.workers is not None and config.get("dataloader", {}).get("train") is not None:
        config.dataloader.train.num_workers = arguments.workers
    result = measure_loading(config, arguments.images, arguments.repeats)
    machine = describe_machine(torch.device("cpu"))
    spread = "{median:.1f} images/s (from {low:.1f} to {high:.1f})".format(**result["images_per_second"])
    _console(machine).print(
        f"{spread} with {result['workers']} workers, {result['batch_size']} images a batch"
    )
    return {"machine": machine, **result}


def _evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    config = read_config(arguments)
    result = measure_evaluation(config, arguments.images, arguments.detections, arguments.repeats)
    machine = describe_machine(torch.device("cpu"))
    table = _table("seconds for 1000 images", "evaluator", "phase", "median", "min", "max")
    for name, phases in result["seconds_per_1000_images"].items():
        for phase, spread in phases.items():
            table.add_row(name, phase, *(f"{value:.2f}" for value in spread.values()))
    console = _console(machine)
    console.print(table)
    console.print(f"{result['images']} images with {result['detections']} detections each")
    return {"machine": machine, **result}


def _scaling(arguments: argparse.Namespace) -> dict[str, Any]:
    base = _setup(arguments, size=arguments.size)
    device = resolve_device(base.config().train.device)
    chosen = dict(arguments.axes or ((name, ()) for name in AXES))
    values = {name: given or AXES[name].values for name, given in chosen.items()}
    machine = describe_machine(device)
    console = _console(machine)
    axes = []
    for axis in measure_scaling(base, values, arguments.repeats):
        axes.append(axis)
        console.print(_scaling_table(axis))
        for key, name in (("processor_seconds", "processor time"), ("memory", "memory")):
            start = axis["bends"][key]
            if len(axis["points"]) > 1:
                grows = "does not grow" if start is None else f"grows from {start:.0f} on"
                console.print(f"{name} {grows}")
        if axis["stopped"]:
            console.print(f"stopped at {axis['stopped']}", soft_wrap=True)
    if arguments.html:
        title = " ".join(("Scaling of", arguments.config_file, *arguments.overrides))
        save_scaling_page(arguments.html, title, machine, axes)
        console.print(f"wrote {arguments.html}")
    if arguments.svg:
        save_scaling_picture(arguments.svg, axes)
        console.print(f"wrote {arguments.svg}")
    return {"machine": machine, "axes": axes}


def _gpu_report(arguments: argparse.Namespace) -> dict[str, Any]:
    device = resolve_device(arguments.device)
    base = _setup(arguments, (f"train.device={device}",), batch=arguments.batch)
    base.config()  # shows errors at once
    pieces = []
    report = device_report(base, device, arguments.sizes, arguments.repeats, arguments.minutes)
    for piece in report:
        print(piece, flush=True)
        pieces.append(piece)
        if arguments.page:  # after each part, because a borrowed machine may go at any time
            arguments.page.parent.mkdir(parents=True, exist_ok=True)
            arguments.page.write_text("\n".join(pieces), encoding="utf-8")
    return {"machine": describe_machine(device), "sections": pieces}


def _syncs(arguments: argparse.Namespace) -> dict[str, Any]:
    base = _setup(arguments, size=arguments.size, batch=arguments.batch)
    machine = describe_machine(resolve_device(base.config().train.device))
    console, counts = _console(machine), []
    for training in (False, True):
        counts.append(count_syncs(replace(base, training=training)))
        found = counts[-1]
        console.print(f"{found['mode']}: {'at most ' * found['is_bound']}{found['count']} times")
        table = _table("", "line", "operation", "times")
        for place in found["places"]:
            table.add_row(place["place"], place["operation"], str(place["count"]))
        console.print(table)
    return {"machine": machine, "modes": counts}


def _setup(arguments: argparse.Namespace, overrides: tuple[str, ...] = (), **others: Any) -> Setup:
    return Setup(
        arguments.config_file,
        (*arguments.overrides, *overrides),
        objects=arguments.objects,
        threads=arguments.threads,
        trust_code=arguments.trust_code,
        **others,
    )


def _scaling_table(axis: Mapping[str, Any]) -> Table:
    columns = ("seconds", "processor s", "GiB", "exponent of time", "of memory")
    table = _table(f"{axis['meaning']}, {axis['mode']}", axis["axis"], *columns)
    grown = [axis["exponents"][key] for key in ("processor_seconds", "memory")]
    for k, point in enumerate(axis["points"]):
        times = (f"{point[key]:.3g}" for key in ("seconds", "processor_seconds"))
        powers = ("" if k == 0 else f"{exponents[k - 1]:.2f}" for exponents in grown)
        table.add_row(str(point["value"]), *times, f"{point['memory'] / GIBIBYTE:.3f}", *powers)
    return table


def _serving(arguments: argparse.Namespace) -> dict[str, Any]:
    from detrex.benchmark.serving import measure_serving
    from detrex.predict import load

    predictor = load(arguments.model, arguments.weights, device=arguments.device)
    result = measure_serving(
        predictor, arguments.clients, arguments.requests, arguments.size, arguments.repeats
    )
    machine = describe_machine(predictor.device)
    columns = [f"{name}\n{c}" for name in ("batched", "single") for c in ("requests/s", "p50 ms", "p99 ms")]
    title = "requests with a picture of {}x{}".format(*arguments.size)
    table = _table(title, "clients", *columns, "faster")
    for row in result["clients"]:
        cells = [
            f"{factor * row[name][key]:.1f}"
            for name in ("batched", "single")
            for key, factor in (("requests_per_second", 1), ("p50", MILLISECONDS), ("p99", MILLISECONDS))
        ]
        table.add_row(str(row["clients"]), *cells, f"{row['ratio']:.2f}")
    console = _console(machine)
    console.print(table)
    console.print("faster: requests per second, batched to single, median of pairs of runs")
    first, last = (result["memory"][key] / GIBIBYTE for key in ("first", "last"))
    console.print(
        f"{result['answered']} answers, {result['wrong']} wrong; memory {first:.3f} GiB after the first run "
        f"and {last:.3f} GiB after the last"
    )
    return {"machine": machine, **result}


_MEASUREMENTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "op": _op,
    "model": _model,
    "data": _data,
    "evaluation": _evaluation,
    "scaling": _scaling,
    "gpu-report": _gpu_report,
    "syncs": _syncs,
    "serving": _serving,
}


def _console(machine: Mapping[str, Any]) -> Console:
    """Prints first which machine the numbers are from."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(", ".join(f"{name}: {value}" for name, value in machine.items()), soft_wrap=True)
    return console


def _milliseconds(spread: Mapping[str, float] | None) -> Iterator[str]:
    """Median, smallest and largest time in milliseconds."""
    return ("" if spread is None else f"{MILLISECONDS * spread[k]:.2f}" for k in ("median", "low", "high"))


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title or None, title_justify="left")
    for column in columns:
        text = column in ("case", "line", "operation", "implementation", "part", "evaluator", "phase")
        made.add_column(column, justify="left" if text else "right", no_wrap=True)
    return made
