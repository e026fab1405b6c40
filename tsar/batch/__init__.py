"""Forecasts of whole files: streamed by series, with bad series set aside."""

from tsar.batch.forecasting import Report, forecast

__all__ = ["Report", "forecast"]
