import numpy as np
import pytest
import torch
from statsmodels.tsa.stattools import acf

from tsar.data.scaling import Scaling, series_tensors
from tsar.forecasting.layers.autocorrelation import TrainingAutocorrelation, autocorrelation


@pytest.mark.parametrize("length", [2, 3, 64, 101])
def test_it_is_that_of_statsmodels(length):
    x = np.random.default_rng(length).normal(size=(length, 2)).cumsum(axis=0)
    expected = np.stack([acf(column, nlags=length - 1, fft=False) for column in x.T], axis=1)
    np.testing.assert_allclose(autocorrelation(torch.from_numpy(x)), expected, atol=1e-12)


def test_what_does_not_move_is_like_nothing():
    assert not autocorrelation(torch.full((7, 1), 3.1)).any()
    assert not autocorrelation(torch.zeros(1, 2)).any()


def test_lags_of_windows_are_looked_up_by_series_and_variate():
    """Of the training rows, smoothed by a moving average with the ends repeated."""
    rng = np.random.default_rng(0)
    values, offsets, stop = rng.normal(size=(40, 2)).cumsum(axis=0), [0, 25, 40], [20, 31]
    series = series_tensors(
        values, np.array(offsets), Scaling.identity(2, 2), torch.device("cpu"), torch.float64
    )
    measured = TrainingAutocorrelation(5).double()
    measured.measure(series, torch.tensor(stop))
    lags = torch.tensor([[[0, 3, 4], [19, 20, 7]], [[0, 5, 6], [2, 1, 90]]])
    result = measured.at(torch.tensor([0, 1]), lags)
    for b in range(2):
        for c in range(2):
            rows = values[offsets[b] : stop[b], c]
            smooth = np.convolve(np.pad(rows, 2, mode="edge"), np.ones(5) / 5, mode="valid")
            expected = np.abs(acf(smooth, nlags=len(rows) - 1, fft=False))
            for k in range(3):
                lag = int(lags[b, c, k])
                wanted = expected[lag] if lag < len(rows) else 0.0
                assert float(result[b, c, k]) == pytest.approx(wanted, abs=1e-12)
    assert not measured.state_dict(), "what is measured is not saved"
