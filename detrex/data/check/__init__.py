"""Finds everything that is wrong with a data set before training."""

from detrex.data.check.findings import KINDS, Example, Finding, Findings
from detrex.data.check.fix import Changes, write_fixed
from detrex.data.check.run import CheckOptions, CheckReport, check_sources, not_opened

__all__ = [
    "KINDS",
    "Changes",
    "CheckOptions",
    "CheckReport",
    "Example",
    "Finding",
    "Findings",
    "check_sources",
    "not_opened",
    "write_fixed",
]
