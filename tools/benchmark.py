"""Measures speed and memory; see docs/benchmarks.md and `benchmark.py COMMAND --help`.

commands:
  op          deformable attention: its implementations against the reference
  model       inference and training steps of a config's model, by part, and peak memory
  data        images per second of a config's training loader
  evaluation  seconds per 1000 images of a config's evaluators
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from detrex.benchmark import (
    GIBIBYTE,
    Case,
    Setup,
    describe_machine,
    measure_evaluation,
    measure_loading,
    measure_models,
    measure_op,
    usable_implementations,
)
from detrex.cli.arguments import (
    add_config_file,
    add_overrides,
    add_trust_code,
    command_parser,
    image_size,
    positive,
    read_config,
)
from detrex.cli.errors import readable_errors
from detrex.config import ConfigError
from detrex.runtime.device import resolve_device

EXAMPLES = """\
examples:
  benchmark.py op
  benchmark.py op --device cuda --dtype bf16 --batch 2
  benchmark.py model --config-file CONFIG.py --size 480x640 train.device=cpu
  benchmark.py model --config-file CONFIG.py --mode training --batch 2 --objects 20 train.amp=bf16
  benchmark.py model --config-file CONFIG.py --compare "" "model.decoder.layers.num_layers=6 train.amp=bf16"
  benchmark.py model --compare OLD.py NEW.py --mode inference --output compared.json
  benchmark.py data --config-file CONFIG.py --workers 8 dataloader.root=/path/to/coco
  benchmark.py evaluation --config-file CONFIG.py dataloader.root=/path/to/coco
"""

SIZES = [(800, 1333), (1024, 1024)]
DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}
WIDTH = 120  # of tables that go to a file
MILLISECONDS = 1e3


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = command_parser(__doc__, EXAMPLES)
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the command")
    chosen = parser.parse_args(arguments)
    add_options, _ = _COMMANDS[chosen.command]
    of_command = command_parser(f"benchmark.py {chosen.command}")
    of_command.prog = f"{parser.prog} {chosen.command}"
    of_command.add_argument("--repeats", type=positive, default=5, metavar="N", help="runs that count")
    of_command.add_argument("--output", type=Path, metavar="FILE", help="write all figures there, as JSON")
    of_command.add_argument("--threads", type=positive, metavar="N", help="of PyTorch on the CPU")
    add_options(of_command)
    parsed = of_command.parse_intermixed_args(chosen.options)
    return argparse.Namespace(command=chosen.command, **vars(parsed))


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    _, measure = _COMMANDS[arguments.command]
    with readable_errors(arguments.debug):
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        figures = measure(arguments)
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps({"command": arguments.command, **figures}, indent=2))


def _add_op(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of all inputs (default: fp32)")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=image_size,
        default=SIZES,
        metavar="HxW",
        help="default: 800x1333 1024x1024",
    )
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images (default: 1)")
    parser.add_argument("--queries", type=positive, default=300, metavar="N", help="of the decoder")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")


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


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", metavar="FILE", help="a config: .py, or a saved .yaml")
    add_trust_code(parser)
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="each a config file, or overrides of --config-file's in one quoted argument ('' for none), or "
        "both",
    )
    parser.add_argument("--mode", choices=("inference", "training", "both"), default="both")
    parser.add_argument("--size", type=image_size, default=SIZES[0], metavar="HxW", help="default: 800x1333")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images (default: 1)")
    parser.add_argument(
        "--objects", type=positive, default=8, metavar="N", help="of each image, in training (default: 8)"
    )
    parser.add_argument(
        "--warmup", type=positive, default=1, metavar="N", help="runs before those that count"
    )
    add_overrides(parser)


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
    """By name: ``A`` and ``B`` to compare, or one model."""
    names = ("A", "B") if arguments.compare else ("model",)
    setups = {}
    for name, text in zip(names, arguments.compare or ("",), strict=True):
        words = shlex.split(text)
        files = [word for word in words if "=" not in word and word.endswith((".py", ".yaml"))]
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
        cells = [
            _milliseconds(m["seconds"] if part == "all" else m["parts"].get(part)) for m in models.values()
        ]
        table.add_row(part, *(cell for some in cells for cell in some))
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


def _add_data(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument("--images", type=positive, default=200, metavar="N", help="of one run (default: 200)")
    parser.add_argument("--workers", type=int, metavar="N", help="dataloader.train.num_workers")
    add_overrides(parser)


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


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument("--images", type=positive, default=50, metavar="N", help="test images (default: 50)")
    parser.add_argument(
        "--detections", type=positive, default=100, metavar="N", help="in each (default: 100)"
    )
    add_overrides(parser)


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


_COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[..., dict[str, Any]]]] = {
    "op": (_add_op, _op),
    "model": (_add_model, _model),
    "data": (_add_data, _data),
    "evaluation": (_add_evaluation, _evaluation),
}


def _console(machine: Mapping[str, Any]) -> Console:
    """Says first what machine the figures are of."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(", ".join(f"{name}: {value}" for name, value in machine.items()), soft_wrap=True)
    return console


def _milliseconds(spread: Mapping[str, float] | None) -> Iterator[str]:
    """Median, smallest and largest."""
    return ("" if spread is None else f"{MILLISECONDS * spread[k]:.2f}" for k in ("median", "low", "high"))


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title or None, title_justify="left")
    for column in columns:
        text = column in ("case", "implementation", "part", "evaluator", "phase")
        made.add_column(column, justify="left" if text else "right", no_wrap=True)
    return made


if __name__ == "__main__":
    run(parse_arguments())
