"""Forecasts of many series: streamed or shared among machines, with bad series set aside."""

from tsar.batch.forecasting import forecast
from tsar.batch.partitioned import forecast_partitioned
from tsar.batch.report import Report
from tsar.data.fileformat import FileFormat

__all__ = ["FileFormat", "Report", "forecast", "forecast_partitioned"]
