"""The estimator around the network of PatchTST."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import ParameterError

SMALL = {"context_length": 48, "horizon": 12, "random_state": 0, "device": "cpu"}


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"patch_length": 0}, "PatchTST: patch_length must be an integer in .* or None, got 0"),
        ({"patch_length": 49}, "patch_length must be at most context_length=48, got 49"),
        ({"d_model": 10}, "d_model must be a multiple of n_heads=4, got 10"),
        ({"mixer": "atention"}, "did you mean 'attention'"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\) or None, got 1.0"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.PatchTST(**(SMALL | parameters)).fit(wide)


def test_variates_are_forecast_one_by_one(wide):
    model = tsar.PatchTST(max_epochs=1, **SMALL).fit(wide)
    altered = wide.assign(trend=wide["trend"] * -3)
    pd.testing.assert_series_equal(
        model.predict(df=altered)["load"], model.predict(df=wide)["load"], check_exact=True
    )


def test_a_wave_is_learned():
    """A noiseless daily wave is forecast far better than by its mean."""
    steps = np.arange(600)
    index = pd.date_range("2024-01-01", periods=600, freq="h")
    wave = pd.Series(np.sin(2 * np.pi * steps / 24), index=index)
    model = tsar.PatchTST(max_epochs=30, learning_rate=3e-3, dropout=0.0, **SMALL).fit(wave)
    truth = np.sin(2 * np.pi * np.arange(600, 612) / 24)
    assert np.abs(model.predict() - truth).mean() < 0.1
