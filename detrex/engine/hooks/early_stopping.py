"""Ending a run that gets no better."""

from __future__ import annotations

from detrex.engine.hooks.goal import Goal
from detrex.engine.hooks.history import EvaluationHistory


class EarlyStopping:
    """Says when ``patience`` evaluations in a row have not improved on the best one before them.

    A function of the evaluations alone: a resumed run counts on, and all processes agree.

    Args:
        goal: what counts.
        patience: evaluations, at least 1.
        min_delta: an improvement is larger than this.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, goal: Goal, patience: int, min_delta: float = 0.0):
        if patience < 1:
            raise ValueError(f"train.early_stopping.patience must be at least 1 evaluation, not {patience}")
        if min_delta < 0:
            raise ValueError(f"train.early_stopping.min_delta must not be negative, but is {min_delta}")
        self.goal = goal
        self._patience = patience
        self._min_delta = min_delta

    def reached(self, history: EvaluationHistory) -> bool:
        """Whether it is time to stop."""
        best, waited = None, 0
        for value in history.values(self.goal.metric):
            if self.goal.improves(value, best, self._min_delta):
                best, waited = value, 0
            else:
                waited += 1
        return waited >= self._patience

    def __str__(self) -> str:
        return f"{self.goal.metric} has not improved in {self._patience} evaluations"
