"""Categories in regressions against least squares and means of their own."""

import warnings

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.covariates import ColumnCoding, CovariateCoding
from tsar.exceptions import DataWarning
from tsar.forecasting.regressors import Regressors

LEVELS = {"base": 50.0, "fair": 80.0, "sale": 150.0}
MODELS = {
    "AutoReg": lambda: tsar.AutoReg(
        horizon=3, lags=1, target="y", future_covariates=["kind", "price"]
    ),
    "ARIMA": lambda: tsar.ARIMA(
        horizon=3, order=(1, 0, 0), constant=True, target="y", future_covariates=["kind", "price"]
    ),
    "ARIMA without constant": lambda: tsar.ARIMA(
        horizon=3, order=(1, 0, 0), target="y", future_covariates=["kind", "price"]
    ),
}


def _sold(rows=120, seed=0):
    draw = np.random.default_rng(seed)
    kind = draw.choice(list(LEVELS), size=rows, p=[0.6, 0.3, 0.1])
    price = draw.normal(size=rows)
    level = pd.Series(LEVELS)[kind].to_numpy()
    index = pd.date_range("2024-01-01", periods=rows)
    values = level + 5 * price + draw.normal(size=rows)
    return pd.DataFrame({"y": values, "kind": kind, "price": price}, index=index)


def _forecast(model, data, kind):
    ahead = model.fit(data).make_future_frame().assign(kind=kind, price=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return model.predict(future=ahead)["y"].mean()


@pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))
def test_an_unknown_category_is_an_average_step_whatever_comes_first(make):
    data = _sold()
    found = {first: data.iloc[int((data["kind"] == first).argmax()) :] for first in LEVELS}
    assert {rows["kind"].iloc[0] for rows in found.values()} == set(LEVELS)
    for rows in found.values():
        unknown = _forecast(make(), rows, "never seen")
        share = rows["kind"].value_counts(normalize=True)
        assert unknown == pytest.approx((share * pd.Series(LEVELS)).sum(), abs=4)
        for kind, level in LEVELS.items():
            assert _forecast(make(), rows, kind) == pytest.approx(level, abs=4)


@pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))
def test_a_missing_category_is_neither_unknown_nor_the_first(make):
    data = _sold()
    missing = np.random.default_rng(1).choice(len(data), size=25, replace=False)
    data.iloc[missing, data.columns.get_loc("y")] = 250.0
    data.iloc[missing, data.columns.get_loc("kind")] = None
    model = make()
    forecasts = [_forecast(model, data, kind) for kind in (*LEVELS, "never seen")]
    coding = model.learned_.coding.future[0]
    assert coding.missing and coding.n_categories == 5
    regressors = Regressors.of(model.learned_.coding)
    estimate = model._estimates.grid[0]
    assert regressors.width == 5 and regressors.n_estimated(estimate.effects) == 4
    # In original units: between missing and "base" lie 200, in the order of the codes.
    by_name = dict(zip(coding.categories, estimate.effects[:3], strict=True))
    apart = (estimate.effects[3] - by_name["base"]) * estimate.scale
    assert apart == pytest.approx(200, abs=8)
    np.testing.assert_allclose(forecasts[:3], list(LEVELS.values()), atol=8)
    mean = data["y"].mean()
    assert forecasts[3] == pytest.approx(mean, abs=8) and abs(mean - LEVELS["base"]) > 30


def test_a_category_that_a_series_never_had_is_unknown_to_it():
    plain, other = _sold(seed=2), _sold(seed=3)
    plain = plain[plain["kind"] != "sale"].set_axis(
        pd.date_range("2024-01-01", periods=(plain["kind"] != "sale").sum())
    )
    data = pd.concat(
        [
            part.reset_index(names="ds").assign(unique_id=name)
            for name, part in {"plain": plain, "other": other}.items()
        ]
    )
    model = MODELS["AutoReg"]().fit(data)
    ahead = model.make_future_frame().assign(price=0.0)
    forecasts = {}
    for kind in ("sale", "never seen"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            found = model.predict(future=ahead.assign(kind=kind))
        forecasts[kind] = found.groupby("unique_id")["y"].mean()
    assert forecasts["sale"]["plain"] == forecasts["never seen"]["plain"]
    assert forecasts["sale"]["other"] > forecasts["never seen"]["other"] + 50


def test_effects_add_up_to_nothing_over_the_rows():
    rng = np.random.default_rng(0)
    names = pd.Index(["a", "b", "c", "d"], dtype=object)
    coding = CovariateCoding(
        future=(ColumnCoding("n"), ColumnCoding("k", categories=names), ColumnCoding("m"))
    )
    regressors = Regressors.of(coding)
    assert (regressors.width, regressors.groups, regressors.n_effects) == (6, ((1, 5),), 5)
    codes = rng.choice([1, 2, 4], size=50, p=[0.5, 0.3, 0.2])
    known = np.stack([rng.normal(size=50), codes, rng.normal(size=50)], axis=1)
    x = regressors.columns(known, coding)
    y = known[:, 0] + np.array([0, 1.0, 4.0, 0, -2.0])[codes] - known[:, 2]
    chosen, read = regressors.to_estimate(x)
    assert len(chosen) == 4
    design = np.column_stack([np.ones(50), read])
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    effects = regressors.effects(x, chosen, weights[1:])
    np.testing.assert_allclose(effects[[0, 5]], [1.0, -1.0])
    assert effects[3] == 0 and regressors.n_estimated(effects) == 4
    # Those seen lie as far apart as they were made, and the mean row has none of them.
    np.testing.assert_allclose(effects[2] - effects[1], 3.0)
    np.testing.assert_allclose(effects[4] - effects[1], -3.0)
    np.testing.assert_allclose((x[:, 1:5] @ effects[1:5]).mean(), 0.0, atol=1e-12)
    unknown = regressors.columns(np.array([[0.0, 0.0, 0.0]]), coding)
    assert (unknown @ effects).item() == 0.0


def test_effects_of_before_have_the_first_category_for_reference():
    names = pd.Index(["a", "b", "c"], dtype=object)
    column = ColumnCoding("k", categories=names)
    regressors = Regressors.of(CovariateCoding(future=(ColumnCoding("n"), column, column)))
    found = regressors.after_format_1(np.array([9.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.tolist() == [9.0, 0.0, 2.0, 3.0, 0.0, 4.0, 5.0]
