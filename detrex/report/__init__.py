"""The page that summarises a run: one file that needs no network."""

from detrex.report.page import RunResults, save_report

__all__ = ["RunResults", "save_report"]
