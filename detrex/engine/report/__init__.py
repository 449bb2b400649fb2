"""The page that sums a run up: one file, opened without network."""

from detrex.engine.report.page import save_report

__all__ = ["save_report"]
