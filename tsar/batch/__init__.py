"""Forecasts of whole files: streamed by series, with bad series set aside."""

from tsar.batch.forecasting import forecast
from tsar.batch.report import Report
from tsar.data.fileformat import FileFormat

__all__ = ["FileFormat", "Report", "forecast"]
