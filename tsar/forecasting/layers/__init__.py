"""Layers that know series: what forecasting networks share."""
