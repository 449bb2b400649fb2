"""Score thresholds of classes, which an evaluation stores with weights and with exported files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEFAULT_THRESHOLD = 0.5
"""Score threshold for classes whose best threshold is not known."""

_NAMED = 4  # classes in a warning

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """The lowest score threshold of each class that reached a precision in the evaluation.

    Classes that did not reach it with any threshold are left out. Thresholds are stored for some precisions
    (:data:`detrex.evaluation.thresholds.PRECISIONS`); for one between two of them, the higher one's counts.

    Attributes:
        share: the precision: the share of shown objects that are right, from 0 to 1.
    """

    share: float


def best_thresholds(kept: Sequence[float | None] | None, count: int) -> list[float]:
    """The thresholds of ``count`` classes with the best F1; the default where one is not known."""
    return [DEFAULT_THRESHOLD if threshold is None else threshold for threshold in kept or [None] * count]


def thresholds_for_precision(
    kept: Sequence[Mapping[float, float]] | None, precision: float, names: Sequence[str]
) -> list[float]:
    """The threshold of each class; infinite, with a warning, for classes that did not reach the precision.

    Args:
        kept: for each class, the lowest score threshold that reached each precision; None: none are stored.
        precision: the precision that is wanted, see :class:`Precision`.
        names: of the classes.

    Raises:
        ValueError: the precision is not in (0, 1] or above all that are stored, or none are stored.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision={precision}: expected a number above 0, up to 1")
    if kept is None:
        raise ValueError(
            f"precision={precision}: no thresholds for it are kept with these weights; 'detrex eval' of "
            "their run finds them and keeps them there"
        )
    wanted = [min((p for p in of_class if p >= precision), default=None) for of_class in kept]
    if all(p is None for p in wanted):
        raise ValueError(f"precision={precision}: no class reached it in the evaluation of these weights")
    lacking = [name for name, p in zip(names, wanted, strict=True) if p is None]
    if lacking:
        named = ", ".join(lacking[:_NAMED]) + (", ..." if len(lacking) > _NAMED else "")
        logger.warning("left out, as no threshold has a precision of %g: %s", precision, named)
    return [float("inf") if p is None else of_class[p] for p, of_class in zip(wanted, kept, strict=True)]
