import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from tsar.data.datasets import Borders, load_card
from tsar.evaluation import corr, evaluate, evaluate_last_step, rse
from tsar.exceptions import DataError
from tsar.forecasting.registry import forecaster_class

BORDERS = Borders(120, 150, 211)


class LastValue:
    """Repeats the last value; remembers how it was asked."""

    def __init__(self, horizon):
        self.horizon = horizon
        self.asked = []

    def forecast_windows(self, df, cutoffs, horizon):
        self.asked.append(np.asarray(cutoffs))
        return np.repeat(df.to_numpy()[cutoffs - 1][:, None], horizon, axis=1)


def _by_hand(frame, horizon, drop=0):
    """Compute the protocol with scikit-learn's scaler and one window at a time."""
    scaler = StandardScaler().fit(frame.to_numpy()[: BORDERS.train_end])
    scaled = scaler.transform(frame.to_numpy())
    starts = range(BORDERS.val_end, BORDERS.test_end - horizon + 1 - drop)
    errors = np.stack([scaled[s : s + horizon] - scaled[s - 1] for s in starts])
    return np.nanmean(errors**2), np.nanmean(np.abs(errors)), len(errors)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 4096])
def test_figures_do_not_depend_on_the_batch_size(wide, batch_size):
    mse, mae, n_windows = _by_hand(wide, horizon=9)
    found = evaluate(LastValue(9), wide, BORDERS, batch_size=batch_size)
    assert found["mse"] == pytest.approx(mse, rel=1e-9)
    assert found["mae"] == pytest.approx(mae, rel=1e-9)
    assert found["n_windows"] == n_windows == 53


def test_drop_last_leaves_out_the_incomplete_batch(wide):
    mse, mae, n_windows = _by_hand(wide, horizon=9, drop=53 - 48)
    found = evaluate(LastValue(9), wide, (120, 150, 211), drop_last=True, batch_size=16)
    assert (found["n_windows"], n_windows) == (48, 48)
    assert found["mse"] == pytest.approx(mse, rel=1e-9)
    assert found["mae"] == pytest.approx(mae, rel=1e-9)


def test_unobserved_values_are_left_out(wide):
    holes = wide.mask(np.random.default_rng(2).random(wide.shape) < 0.1)
    holes.iloc[149:] = holes.iloc[149:].fillna({"trend": 3.0}).ffill().bfill()
    holes.iloc[170:180, 1] = np.nan

    class Zero(LastValue):
        def forecast_windows(self, df, cutoffs, horizon):
            return np.zeros((len(cutoffs), horizon, df.shape[1]))

    found = evaluate(Zero(5), holes, BORDERS)
    deviation = np.nanstd(holes.to_numpy()[:120], axis=0)
    windows = np.stack([holes.to_numpy()[s : s + 5] for s in range(150, 207)])
    assert found["mse"] == pytest.approx(np.nanmean((windows / deviation) ** 2))


def test_every_window_is_asked_for_once_and_in_order(wide):
    model = LastValue(4)
    evaluate(model, wide, BORDERS, batch_size=10)
    np.testing.assert_array_equal(np.concatenate(model.asked), np.arange(150, 208))
    assert {len(cutoffs) for cutoffs in model.asked} == {10, 8}


@pytest.mark.parametrize(
    ("borders", "horizon", "options", "message"),
    [
        ((120, 150, 300), 4, {}, "has 211 rows"),
        ((120, 150, 160), 11, {}, "leave no window"),
        ((120, 150, 160), 5, {"drop_last": True}, "in a batch of 32"),
        (load_card("elnino"), 4, {}, "elnino has no published split"),
    ],
)
def test_what_cannot_be_measured_is_refused(wide, borders, horizon, options, message):
    with pytest.raises(DataError, match=message):
        evaluate(LastValue(horizon), wide, borders, **options)


def test_nothing_observed_is_refused(wide):
    wide.iloc[150:] = np.nan
    with pytest.raises(DataError, match="was observed"):
        evaluate(LastValue(3), wide, BORDERS)


def test_constant_column_does_not_divide_by_zero():
    frame = pd.DataFrame({"a": np.arange(20.0), "b": 5.0})
    found = evaluate(LastValue(2), frame, (10, 12, 20))
    assert np.isfinite(found["mse"])


@pytest.mark.parametrize("name", ["NLinear", "PatchTST", "SeasonalNaive"])
def test_figures_of_a_fitted_model_do_not_depend_on_the_batch_size(name, wide):
    cls = forecaster_class(name)
    trained = {"context_length": 24, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    params = {key: value for key, value in trained.items() if key in cls().get_params()}
    model = cls(horizon=5, **params).fit(wide.iloc[:150])
    found = [evaluate(model, wide, BORDERS, batch_size=size) for size in (1, 7, 32, 4096)]
    for figures in found[1:]:
        assert figures["mse"] == pytest.approx(found[0]["mse"], rel=1e-6)
        assert figures["mae"] == pytest.approx(found[0]["mae"], rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 16, 4096])
def test_every_test_row_is_the_last_step_of_one_window(wide, batch_size):
    values = wide.to_numpy()
    truth, forecast = values[150:211], values[150 - 9 : 211 - 9]
    result = evaluate_last_step(LastValue(9), wide, BORDERS, batch_size=batch_size)
    assert result["n_windows"] == 61
    assert result["rse"] == pytest.approx(rse(truth, forecast))
    assert result["corr"] == pytest.approx(corr(truth, forecast))


def test_the_last_step_needs_a_test_part(wide):
    with pytest.raises(DataError, match="evaluate_last_step: the test part must be rows of"):
        evaluate_last_step(LastValue(9), wide.iloc[:200], BORDERS)
