"""Time-series forecasting with a scikit-learn interface."""

__version__ = "0.1.0"
