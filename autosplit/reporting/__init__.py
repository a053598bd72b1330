"""Tells people what came out: tables, plots, the run record and the report page."""

from autosplit.reporting.page import render_report, write_report
from autosplit.reporting.record import run_record
from autosplit.reporting.report_data import Accuracy, Photograph, ReportData

__all__ = [
    "Accuracy",
    "Photograph",
    "ReportData",
    "render_report",
    "run_record",
    "write_report",
]
