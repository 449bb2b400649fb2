"""The page that sums a run up: one file, opened without network."""

from detrex.report.page import RunResults, save_report

__all__ = ["RunResults", "save_report"]
