"""NLinear and DLinear are linear: training approaches the least-squares solution."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import ParameterError

CONTEXT, HORIZON = 6, 2


@pytest.fixture
def series():
    """An autoregression whose best linear forecast is known from its samples."""
    rng = np.random.default_rng(3)
    values = np.zeros(1500)
    for step in range(2, len(values)):
        values[step] = 1.2 * values[step - 1] - 0.5 * values[step - 2] + rng.normal()
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=1500, freq="h"))


def windows(values):
    rows = np.lib.stride_tricks.sliding_window_view(values, CONTEXT + HORIZON)
    return rows[:, :CONTEXT], rows[:, CONTEXT:]


@pytest.mark.parametrize("model", [tsar.NLinear, tsar.DLinear])
def test_training_reaches_least_squares(model, series):
    history, future = windows(series.to_numpy())
    last = history[:, -1:] if model is tsar.NLinear else 0.0
    design = np.column_stack([history - last, np.ones(len(history))])
    weights, *_ = np.linalg.lstsq(design, future - last, rcond=None)
    best = np.square(design @ weights - (future - last)).mean()
    fitted = model(
        context_length=CONTEXT,
        horizon=HORIZON,
        max_epochs=150,
        learning_rate=1e-2,
        learning_rate_schedule="cosine",
        batch_size=256,
        early_stopping=False,
        random_state=0,
    ).fit(series)
    forecast = fitted.forecast_windows(series.to_frame("y"), np.arange(CONTEXT, 1500 - HORIZON + 1))
    assert np.square(forecast[:, :, 0] - future).mean() == pytest.approx(best, rel=0.01)


def test_an_even_kernel_is_refused(series):
    with pytest.raises(ParameterError, match="kernel must be odd.*take 25"):
        tsar.DLinear(kernel=24).fit(series)
