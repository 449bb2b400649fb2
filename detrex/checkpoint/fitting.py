"""Loads weights into a model, and reports what fitted."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detrex.checkpoint.weights import CheckpointError
from detrex.structures import Categories

# By convention, parameters with one row per class belong to modules of these names.
_PER_CLASS = re.compile(r"\b(classes\.(weight|bias)|label_embed\.weight)$")
_COLUMNS = ("loaded", "re-initialised", "missing", "unused")
_SHOWN = 8

logger = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """Which entries of a file were loaded into which parameters of a model.

    Attributes:
        source: the file.
        format: the recognised kind of the file.
        loaded: names of parameters that got the file's values, in full or in the rows of ``kept_rows``.
        kept_rows: for parameters with a row per class whose classes differ: the classes whose rows are the
            file's; the other rows keep their initial values.
        reinitialised: name to (shape in the file, shape in the model); these keep their initial values.
        missing: names that only the model has.
        unused: names that only the file has.
        notes: for users of the weights.
        state: training state beside the weights, if it was asked for.
    """

    source: str | Path
    format: str = "detrex weights"
    loaded: list[str] = field(default_factory=list)
    kept_rows: dict[str, list[str]] = field(default_factory=dict)
    reinitialised: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    state: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether every entry went into the model and every parameter got its value."""
        return not (self.reinitialised or self.missing or self.unused or self.kept_rows)

    def table(self) -> str:
        """The numbers of entries by part of the model, and the details of what did not fit."""
        columns = (self.loaded, self.reinitialised, self.missing, self.unused)
        counts: dict[str, Counter[str]] = {
            part: Counter() for part in dict.fromkeys(map(_part, chain(*columns)))
        }
        for column, names in zip(_COLUMNS, columns, strict=True):
            for name in names:
                counts[_part(name)][column] += 1
        rows = [["part", *_COLUMNS]]
        rows += [[part, *(str(count[c]) for c in _COLUMNS)] for part, count in counts.items()]
        return "\n".join([*_aligned(rows), *self.details()])

    def details(self) -> list[str]:
        """Lines about what did not fit, and why; empty if everything fitted."""
        lines = [
            f"re-initialised: {name}, {_shape(old)} in the file, {_shape(new)} in the model"
            for name, (old, new) in self.reinitialised.items()
        ]
        lines += [
            f"partly loaded: {name}, rows of {_shortened(classes)}"
            for name, classes in self.kept_rows.items()
        ]
        if self.missing:
            lines.append(f"missing in the file: {_shortened(self.missing)}")
        if self.unused:
            lines.append(f"unused of the file: {_shortened(self.unused)}")
        return lines + [f"note: {note}" for note in self.notes]


def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    strict: bool,
    source: str | Path,
    classes: tuple[Categories | None, Categories | None] = (None, None),
) -> LoadReport:
    """Loads tensors under this toolbox's names into a model.

    Args:
        model: the model, unwrapped.
        weights: tensors by name.
        strict: raise if anything differs. Otherwise, parameters of a different shape (as after a change of
            the class count) and those that the file lacks keep their initial values.
        source: the file, for messages.
        classes: classes of the file and of the model, if known. Unless ``strict``, parameters with a row per
            class take the rows of classes with equal names.

    Raises:
        CheckpointError: something differs in a strict load, or no parameter fits at all.

    Returns:
        A report of what fitted.
    """
    model_state = model.state_dict()
    report = LoadReport(source, unused=[name for name in weights if name not in model_state])
    fitting = {}
    for name, value in model_state.items():
        if name not in weights:
            report.missing.append(name)
            continue
        rows = None if strict else _rows_of_classes(name, weights[name], value, *classes)
        if rows is not None:
            fitting[name], report.kept_rows[name] = rows
        elif weights[name].shape == value.shape:
            fitting[name] = weights[name]
        else:
            report.reinitialised[name] = (tuple(weights[name].shape), tuple(value.shape))
    report.loaded = list(fitting)
    if strict and not report.complete:
        details = "\n  ".join(report.details())
        raise CheckpointError(
            f"{source} does not fit the model; was it made with another config or class count?\n  {details}"
        )
    if not fitting:
        raise CheckpointError(f"{source}: none of its {len(weights)} tensors fits a parameter of the model")
    model.load_state_dict(fitting, strict=False)
    return report


def _rows_of_classes(
    name: str, stored: Tensor, current: Tensor, old: Categories | None, new: Categories | None
) -> tuple[Tensor, list[str]] | None:
    """The model's parameter with the file's rows for the classes that both have, and these classes' names.

    None if the parameter has no row per class, or classes are unknown, equal, or have none in common.
    """
    if old is None or new is None or not _PER_CLASS.search(name) or old.names == new.names:
        return None
    # A classifier may have an additional row for "no object".
    extra = len(stored) - len(old)
    if stored.shape[1:] != current.shape[1:] or extra not in (0, 1) or len(current) - len(new) != extra:
        return None
    row_of = {class_name.casefold(): k for k, class_name in enumerate(old.names)}
    pairs = [(k, row_of[n.casefold()]) for k, n in enumerate(new.names) if n.casefold() in row_of]
    if not pairs:
        return None
    rows = current.detach().clone()
    for k, row in pairs:
        rows[k] = stored[row]
    if extra:
        rows[-1] = stored[-1]
    return rows, [new.names[k] for k, _ in pairs]


def _part(name: str) -> str:
    return name.split(".", 1)[0]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {', '.join(names[:_SHOWN])}{more}"
