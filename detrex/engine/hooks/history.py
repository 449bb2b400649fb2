"""The figures of all evaluations of a run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

from detrex.runtime.distributed import all_gather_objects, is_main_process
from detrex.runtime.files import replaced_file

logger = logging.getLogger(__name__)


class EvaluationHistory:
    """Figures by iteration, the same on all processes, in a JSON file from which a resumed run reads them.

    They are not part of checkpoints: one is saved before the evaluation at the same step, so that a failure
    of the latter loses nothing.
    """

    def __init__(self, path: Path):
        self._path = path
        self._metrics: dict[int, dict[str, float]] = {}

    def __contains__(self, iteration: int) -> bool:
        return iteration in self._metrics

    def restore(self, iteration: int) -> None:
        """Reads the figures of evaluations after at most ``iteration`` steps; later ones will come again."""
        found = all_gather_objects(self._read() if is_main_process() else None)[0]
        self._metrics = {i: metrics for i, metrics in found.items() if i <= iteration}

    def add(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Keeps the figures of an evaluation, in the file too."""
        self._metrics[iteration] = dict(metrics)
        if is_main_process():
            try:
                self._write()
            except OSError as error:
                logger.warning(
                    "%s cannot be written; only a resumed run would miss it: %s", self._path, error
                )

    def values(self, metric: str) -> list[float]:
        """All values of ``metric`` in the order of their iterations; NaN where it was not measured."""
        return [self._metrics[i].get(metric, math.nan) for i in sorted(self._metrics)]

    def _read(self) -> dict[int, dict[str, float]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return {
            entry["iteration"]: {k: math.nan if v is None else v for k, v in entry["metrics"].items()}
            for entry in entries
        }

    def _write(self) -> None:
        entries = [
            {"iteration": i, "metrics": {k: v if math.isfinite(v) else None for k, v in metrics.items()}}
            for i, metrics in sorted(self._metrics.items())
        ]
        with replaced_file(self._path) as temporary:
            temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
