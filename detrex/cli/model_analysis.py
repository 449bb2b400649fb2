"""Counts the parameters, FLOPs and activations of a config's model, by module; see --help."""

from __future__ import annotations

import argparse
import json
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from detrex.analysis import (
    MASK_PRODUCT,
    Cost,
    ImageCost,
    Parameters,
    Row,
    Size,
    build_on_meta,
    count_parameters,
    evaluation_sizes,
    measure,
    table,
)
from detrex.cli.arguments import read_config

DEFAULT_INPUT = (800, 1333)
WIDTH = 110  # width of tables in a file

NOTES = {
    "path": "one image, inference, to the predictions of all decoder layers, and the product that makes the "
    f"masks of all queries in post-processing, {MASK_PRODUCT}",
    "gmacs": "billions of multiply-adds of convolutions, matrix products and deformable attention's "
    "operator; papers call them GFLOPs",
    "gmacs_without_operator": "the same without deformable attention's operator (but with its linear "
    "layers), which the tools behind published numbers do not know: compare these with papers",
    "gflops": "billions of floating-point operations, two for each multiply-add, the operator included",
    "activations": "elements that come out of convolutions and matrix products, those of linear layers and "
    "attention among them",
    "not_counted": "normalisation, activation functions, softmax, resizing, position encodings, choosing and "
    "resizing results; other tools count some of these",
}


def analyze(arguments: argparse.Namespace) -> None:
    """Counts parameters and operations and prints the tables."""
    config = read_config(arguments)
    model = build_on_meta(config)
    parameters = count_parameters(model)
    costs = [measure(model, sizes) for sizes in _inputs(arguments, config)]
    rows = [table(parameters, cost, arguments.depth) for cost in costs]
    if arguments.format == "json":
        print(json.dumps(_as_json(arguments, costs, rows), indent=2))
    else:
        _print(arguments, costs, rows)


def _inputs(arguments: argparse.Namespace, config: DictConfig) -> list[list[Size]]:
    inputs = [[size] for size in arguments.input]
    if arguments.data:
        inputs.append(evaluation_sizes(config, arguments.data))
    return inputs or [[DEFAULT_INPUT]]


def _as_json(arguments: argparse.Namespace, costs: list[ImageCost], rows: list[list[Row]]) -> dict[str, Any]:
    return {
        "config_file": arguments.config_file,
        "overrides": arguments.overrides,
        **_parameters(rows[0][0].parameters),
        "inputs": [
            {
                "sizes": cost.sizes,
                "padded_sizes": cost.padded,
                **_costs(cost.total),
                "modules": [
                    {"name": r.name, "depth": r.depth, **_parameters(r.parameters), **_costs(r.cost)}
                    for r in modules
                ],
            }
            for cost, modules in zip(costs, rows, strict=True)
        ],
        "notes": NOTES,
    }


def _parameters(parameters: Parameters) -> dict[str, int]:
    return {"parameters": parameters.total, "trainable_parameters": parameters.trainable}


def _costs(cost: Cost) -> dict[str, float]:
    return {
        "gmacs": cost.macs / 1e9,
        "gmacs_without_operator": cost.macs_without_operator / 1e9,
        "gflops": cost.flops / 1e9,
        "activations": cost.activations,
    }


def _print(arguments: argparse.Namespace, costs: list[ImageCost], rows: list[list[Row]]) -> None:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    total = rows[0][0].parameters
    console.print(
        f"{arguments.config_file}: {total.total:,} parameters ({total.total / 1e6:.2f} M), "
        f"{total.trainable:,} of them trainable\n",
        soft_wrap=True,
    )
    console.print(_summary(costs))
    for cost, modules in zip(costs, rows, strict=True):
        console.print(_by_module(cost, modules))
    for name, note in NOTES.items():
        console.print(f"{_TITLES[name]}: {note}.")


_TITLES = {
    "path": "What is counted",
    "gmacs": "GMACs",
    "gmacs_without_operator": "without op",
    "gflops": "GFLOPs",
    "activations": "activations",
    "not_counted": "Not counted",
}
_COSTS = ("GMACs", "without op", "GFLOPs", "activations")


def _summary(costs: list[ImageCost]) -> Table:
    summary = _table("For one image", "input", "padded to", *_COSTS)
    for cost in costs:
        summary.add_row(_label(cost), _padded(cost), *_cells(cost.total))
    return summary


def _by_module(cost: ImageCost, rows: list[Row]) -> Table:
    modules = _table(f"{_label(cost)}, padded to {_padded(cost)}", "module", "parameters", *_COSTS)
    for row in rows:
        name = row.name.rpartition(".")[2] if row.depth else "model"
        modules.add_row("  " * row.depth + name, f"{row.parameters.total:,}", *_cells(row.cost))
    return modules


def _label(cost: ImageCost) -> str:
    if len(cost.sizes) == 1:
        return "{}x{}".format(*cost.sizes[0])
    return f"mean of {len(cost.sizes)} test images"


def _padded(cost: ImageCost) -> str:
    if len(cost.padded) == 1:
        return "{}x{}".format(*cost.padded[0])
    mean = sum(height * width for height, width in cost.padded) / len(cost.padded)
    return f"{mean / 1e6:.3f} megapixels"


def _cells(cost: Cost) -> tuple[str, ...]:
    giga = (cost.macs / 1e9, cost.macs_without_operator / 1e9, cost.flops / 1e9)
    return (*(f"{value:,.2f}" for value in giga), f"{cost.activations / 1e6:,.2f} M")


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left")
    for column in columns:
        text = column in ("input", "padded to", "module")
        made.add_column(column, justify="left" if text else "right", no_wrap=True)
    return made
