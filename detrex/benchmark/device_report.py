"""Measures the most important facts about a GPU in one run of a few minutes, and writes a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from detrex.benchmark.machine import GIBIBYTE, describe_machine
from detrex.benchmark.model import Setup
from detrex.benchmark.op import Case, measure_op
from detrex.benchmark.syncs import count_syncs
from detrex.benchmark.worker import measure_models

Size = tuple[int, int]
Section = tuple[str, Callable[[], str]]

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "float32": (),
    "bf16": ("train.amp=bf16",),
    "bf16, compiled backbone": ("train.amp=bf16", "train.compile.modules=[backbone]"),
    "bf16, backbone as CUDA graph": (
        "train.amp=bf16",
        "train.compile.modules=[backbone]",
        "train.compile.backend=cudagraphs",
    ),
}
"""Variants that take turns, with their overrides."""


def device_report(
    base: Setup,
    device: torch.device,
    sizes: Sequence[Size],
    repeats: int = 5,
    minutes: float = 10,
    variants: Mapping[str, tuple[str, ...]] = VARIANTS,
) -> Iterator[str]:
    """Measures in order of importance until the time is over.

    Args:
        base: the config.
        device: to measure on.
        sizes: (height, width) of images in pixels.
        repeats: runs that count.
        minutes: time limit. A section begins only if it would end in time if it took as long as the longest
            one before it.
        variants: overrides by name; the others are compared with the first one.

    Yields:
        Markdown: the machine, then one section after another. A section that fails contains the error.
    """
    start, longest = time.monotonic(), 0.0
    facts = ", ".join(f"{name} {value}" for name, value in describe_machine(device).items())
    yield f"Measured on: {facts}. Config: `{' '.join((base.config_file, *base.overrides))}`.\n"
    for title, measure in _sections(base, device, sizes, repeats, variants):
        begin = time.monotonic()
        if begin - start + longest > 60 * minutes:
            yield f"### {title}\n\nLeft out: it might not have ended within {minutes:g} minutes.\n"
            continue
        try:
            yield f"### {title}\n\n{measure()}\n"
        except (RuntimeError, ChildProcessError, ValueError) as error:
            yield f"### {title}\n\nFailed: {str(error).strip().splitlines()[0]}\n"
        longest = max(longest, time.monotonic() - begin)


def _sections(
    base: Setup,
    device: torch.device,
    sizes: Sequence[Size],
    repeats: int,
    variants: Mapping[str, tuple[str, ...]],
) -> Iterator[Section]:
    for training in (False, True):
        mode = "Training step" if training else "Inference"
        for size in sizes:
            setups = {
                name: replace(base, overrides=(*base.overrides, *extra), training=training, size=size)
                for name, extra in variants.items()
            }
            name = f"{mode}, {base.batch} image(s) of {size[0]}x{size[1]}"
            yield name, partial(_models, setups, repeats)
    cases = [Case(n, size, q) for size in sizes for n, q in (("encoder", None), ("decoder", 300))]
    for dtype in (torch.float32, torch.bfloat16):
        title = f"Deformable attention, {str(dtype).removeprefix('torch.')}, batch {base.batch}"
        yield title, partial(_op, cases, device, dtype, base.batch, repeats)
    for training in (False, True):
        setup = replace(base, training=training, size=sizes[0])
        name = "training step" if training else "inference"
        yield f"Waiting for the device, {name}", partial(_syncs, setup)


def _models(setups: Mapping[str, Setup], repeats: int) -> str:
    return models_table(measure_models(setups, repeats, warmup=3))


def _op(cases: Sequence[Case], device: torch.device, dtype: torch.dtype, batch: int, repeats: int) -> str:
    return op_table(measure_op(cases, device, dtype, batch, repeats))


def _syncs(setup: Setup) -> str:
    return syncs_table(count_syncs(setup))


def models_table(result: Mapping[str, Any]) -> str:
    """Tables of models: times, ratios to the first model and memory, and the times by part."""
    rows = []
    for name, model in result["models"].items():
        seconds, ratio = model["seconds"], result["ratios"].get(name, {"median": 1.0})
        rows.append(
            [
                name,
                f"{1e3 * seconds['median']:.1f} ({1e3 * seconds['low']:.1f} to {1e3 * seconds['high']:.1f})",
                f"{ratio['median']:.2f}",
                f"{model['images_per_second']:.2f}",
                f"{model['peak_memory'] / GIBIBYTE:.2f}",
            ]
        )
    parts = list(next(iter(result["models"].values()))["parts"])
    by_part = [
        [
            name,
            *(
                f"{1e3 * model['parts'][part]['median']:.1f}" if part in model["parts"] else "-"
                for part in parts
            ),
        ]
        for name, model in result["models"].items()
    ]
    columns = ["", "ms (lowest to highest)", "times as fast", "images/s", "peak memory, GiB"]
    return f"{_table(columns, rows)}\n{_table(['ms in', *parts], by_part)}"


def op_table(rows: Iterator[Mapping[str, Any]]) -> str:
    """A table of the operator: times, and their ratios to the reference and to the roofline."""
    lines = []
    for row in rows:
        case = f"{row['case']} {row['image'][0]}x{row['image'][1]}, {row['direction']}"
        for name, found in row["implementations"].items():
            median = 1e3 * found["seconds"]["median"]
            ratio, least = found["ratio"]["median"], found["roofline"]
            lines.append([case, name, f"{median:.3f}", f"{ratio:.2f}", f"{least:.2f}"])
    return _table(["case", "implementation", "ms", "times the reference", "of the shortest time"], lines)


def syncs_table(found: Mapping[str, Any]) -> str:
    """A table of the results of :func:`detrex.benchmark.syncs.count_syncs`."""
    bound = "at most " if found["is_bound"] else ""
    places = [[f"`{p['place']}`", p["operation"], str(p["count"])] for p in found["places"]]
    return f"{bound}{found['count']} times.\n\n{_table(['line', 'operation', 'times'], places)}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, rule, *rows))
