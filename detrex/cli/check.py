"""Checks a data set before anything is trained, and shows what is wrong.

Reads a config's data, or any path: COCO JSON (also gzip), a folder of Roboflow, YOLO's data.yaml, Pascal
VOC, LabelMe, CVAT, VIA, and PNG masks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrex.data.check import CheckOptions, CheckReport
    from detrex.data.sources import Source

EXAMPLES = """\
examples:
  a data set of any format     check_dataset.py mydata
  images and their annotations check_dataset.py mydata/train mydata/annotations/instances_train.json
  the data of a config         check_dataset.py --config-file CONFIG.py dataloader.root=mydata
  a page with pictures         check_dataset.py mydata --html check.html
  for a program                check_dataset.py mydata --json check.json --fail-on warning
  a cleaned copy               check_dataset.py mydata --fix mydata_clean

The exit code is 0 if nothing as bad as --fail-on was found, 1 if something was, 2 for wrong arguments.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, by default that of this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a data set, or the folder of its images and the path of its annotations; with "
        "--config-file, changes to the config (KEY=VALUE)",
    )
    parser.add_argument("--config-file", metavar="FILE", help="check the data of this config")
    parser.add_argument("--trust-code", action="store_true", help="let a config beside weights name any code")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with pictures of what is wrong"
    )
    parser.add_argument("--json", metavar="FILE", help="write what was found as JSON; - for the terminal")
    parser.add_argument(
        "--fix", type=Path, metavar="OUT", help="write a cleaned copy of the annotations to OUT"
    )
    parser.add_argument(
        "--pictures",
        type=int,
        metavar="N",
        help="decode N pictures of each split, evenly spread (default: all; 0: none)",
    )
    parser.add_argument("--queries", type=int, metavar="N", help="how many queries the model has")
    parser.add_argument(
        "--crop", type=int, default=512, metavar="PIXELS", help="of training (default: %(default)s)"
    )
    parser.add_argument(
        "--ignore-label",
        type=int,
        nargs="*",
        default=[255],
        metavar="VALUE",
        help="unlabelled pixels of masks",
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning", "never"),
        default="error",
        help="what ends with exit code 1 (default: %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of every error")
    options = parser.parse_intermixed_args(arguments)
    if options.config_file is None and not 1 <= len(options.paths) <= 2:
        parser.error("give the path of a data set, or IMAGES ANNOTATIONS, or --config-file")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parse_arguments(arguments)
    # The arguments are read before anything slow is imported.
    from detrex.cli.errors import readable_errors
    from detrex.data.check import CheckOptions, check_sources, not_opened, write_fixed
    from detrex.data.errors import DataError

    with readable_errors(options.debug):
        try:
            sources, check_options = _what_to_check(options)
            report = check_sources(sources, check_options, _track)
        except DataError as error:  # no split could be told
            report, check_options = not_opened(error), CheckOptions()
        text = sys.stderr if options.json == "-" else sys.stdout
        text.write(format_report(report) + "\n")
        if options.json is not None:
            _write_json(options.json, report)
        if options.html is not None:
            from detrex.report.dataset_page import save_dataset_page

            options.html.parent.mkdir(parents=True, exist_ok=True)
            save_dataset_page(options.html, " ".join(options.paths) or options.config_file, report)
            text.write(f"wrote {options.html}\n")
        if options.fix is not None:
            text.write(_format_changes(write_fixed(report, options.fix, check_options), options.fix))
    worst = report.findings.worst()
    failing = {"error": {"error"}, "warning": {"error", "warning"}, "never": set()}[options.fail_on]
    return int(worst in failing)


def format_report(report: CheckReport) -> str:
    """What was found, for a terminal."""
    from detrex.data.check import KINDS

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
    from detrex.data.check import CheckOptions
    from detrex.data.sources import find_sources, source_of

    chosen = CheckOptions(options.pictures, options.queries, options.crop, tuple(options.ignore_label))
    if options.config_file is not None:
        from detrex.cli.config_data import sources_of_config

        return sources_of_config(options.config_file, options.paths, options.trust_code, chosen)
    if len(options.paths) == 2:
        images, annotations = map(Path, options.paths)
        return [source_of(images, annotations)], chosen
    return list(find_sources(options.paths[0]).values()), chosen


def _track(items: Sequence[Any], title: str) -> Iterable[Any]:
    from rich.console import Console

    from detrex.runtime.progress import progress_bar

    with progress_bar(Console(stderr=True)) as progress:
        yield from progress.track(items, description=title)


def _write_json(target: str, report: CheckReport) -> None:
    text = json.dumps(report.to_dict(), indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(text, encoding="utf-8")


def _format_changes(changes: dict[str, Any], output: Path) -> str:
    lines = [f"\ncleaned copy in {output}:"]
    for split, done in changes.items():
        lines += [f"{split}.json:", *(f"  {count} {what}" for what, count in done.items())]
        lines += [] if done else ["  nothing to change"]
    return "\n".join(lines) + "\n"
