"""Checks data sets, for ``detrex check``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from detrex.cli.arguments import read_config
from detrex.cli.config_data import sources_of_config
from detrex.data.check import KINDS, CheckOptions, CheckReport, check_sources, not_opened, write_fixed
from detrex.data.errors import DataError
from detrex.data.sources import Source, find_sources, source_of
from detrex.report.dataset_page import save_dataset_page
from detrex.runtime.progress import progress_bar


def check(options: argparse.Namespace) -> int:
    """Checks, writes the outputs that the options ask for, and returns the exit code.

    Raises:
        ConfigError: the config has no data to check.
        DataError: a cleaned copy cannot be written.
    """
    try:
        sources, check_options = _what_to_check(options)
        report = check_sources(sources, check_options, _track)
    except DataError as error:  # no split was recognised
        report, check_options = not_opened(error), CheckOptions()
    text = sys.stderr if options.json == "-" else sys.stdout
    text.write(format_report(report) + "\n")
    if options.json is not None:
        _write_json(options.json, report)
    if options.html is not None:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        save_dataset_page(options.html, options.config_file or " ".join(options.paths), report)
        text.write(f"wrote {options.html}\n")
    if options.fix is not None:
        text.write(_format_changes(write_fixed(report, options.fix, check_options), options.fix))
    failing = {"error": {"error"}, "warning": {"error", "warning"}, "never": set()}[options.fail_on]
    return int(report.findings.worst() in failing)


def format_report(report: CheckReport) -> str:
    """The findings as text for a terminal."""
    lines = [
        f"{s.split}: {s.format}, images in {s.images}, annotations in {s.annotations}" for s in report.sources
    ]
    if (census := report.census) is not None:
        lines += ["", census.text()]
    if report.advice:
        lines += ["", "settings that fit:", *(f"  {name}: {value}" for name, value in report.advice.items())]
    findings = report.findings.sorted()
    for finding in findings:
        kind = KINDS[finding.kind]
        lines += ["", f"{finding.severity.upper()}  {finding.title}  [{finding.kind}]", f"  {kind.advice}"]
        lines += [f"  - {example.text}" for example in finding.examples[:3]]
        lines += ["  - ..."] if finding.count > 3 else []
    errors = sum(finding.severity == "error" for finding in findings)
    lines += ["", f"{errors} kinds of errors, {len(findings) - errors} kinds of warnings"]
    return "\n".join(lines)


def _what_to_check(options: argparse.Namespace) -> tuple[list[Source], CheckOptions]:
    chosen = CheckOptions(options.pictures, options.queries, options.crop, tuple(options.ignore_label))
    if options.config_file is not None:
        config = read_config(options)
        return sources_of_config(config, chosen)
    if len(options.paths) == 2:
        images, annotations = map(Path, options.paths)
        return [source_of(images, annotations)], chosen
    return list(find_sources(options.paths[0]).values()), chosen


def _track(items: Sequence[Any], title: str) -> Iterable[Any]:
    with progress_bar(Console(stderr=True)) as progress:
        yield from progress.track(items, description=title)


def _write_json(target: str, report: CheckReport) -> None:
    text = json.dumps(report.to_dict(), indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(text, encoding="utf-8")


def _format_changes(changes: Mapping[str, Mapping[str, int]], output: Path) -> str:
    lines = [f"\ncleaned copy in {output}:"]
    for split, done in changes.items():
        lines += [f"{split}.json:", *(f"  {count} {change}" for change, count in done.items())]
        lines += [] if done else ["  nothing to change"]
    return "\n".join(lines) + "\n"
