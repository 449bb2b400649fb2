"""Stores the score thresholds that an evaluation found with the weights that were evaluated."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from detrex.checkpoint import FINAL_WEIGHTS, CheckpointError, add_metadata
from detrex.checkpoint.loading import PRECISION_THRESHOLDS, SCORE_THRESHOLDS
from detrex.evaluation.thresholds import BestThreshold
from detrex.structures import Categories

logger = logging.getLogger(__name__)

_NAMED = 10  # classes in the log


def describe_thresholds(thresholds: Mapping[int, BestThreshold], categories: Categories) -> str:
    """The thresholds in words, for the log."""
    named = [
        f"{categories.names[categories.index_of[i]]} {best.threshold:.2f} (F1 {best.f1:.0%})"
        for i, best in thresholds.items()
        if i in categories.index_of
    ]
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")


def evaluates_folder(train: DictConfig) -> bool:
    """Whether ``train.init_checkpoint`` names the final weights of the run in ``train.output_dir``.

    Thresholds are not added to other weights, which may be someone else's.
    """
    folder = Path(train.output_dir).resolve()
    source = train.init_checkpoint
    return bool(source) and Path(source).resolve() in (folder, folder / FINAL_WEIGHTS)


def keep_thresholds(path: Path, thresholds: Mapping[int, BestThreshold]) -> None:
    """Writes thresholds into a file of weights, if it exists; a failure does not end the run.

    Args:
        path: of the weights.
        thresholds: by category id.
    """
    if not thresholds or not path.is_file():
        return
    try:
        plain = {str(i): round(best.threshold, 4) for i, best in thresholds.items()}
        precise = {
            str(i): {str(p): round(t, 4) for p, t in best.for_precision.items()}
            for i, best in thresholds.items()
        }
        kept = {SCORE_THRESHOLDS: json.dumps(plain), PRECISION_THRESHOLDS: json.dumps(precise)}
        add_metadata(path, kept)
        logger.info(
            "score thresholds of each class, for the best F1 and for precisions, are kept in %s", path
        )
    except (OSError, CheckpointError) as error:
        logger.warning("score thresholds could not be kept in %s: %s", path, error)
