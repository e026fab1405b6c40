"""Smoothing as a linear filter against statsmodels, whose likelihood it maximises."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from tsar.forecasting.additive_smoothing import AdditiveSmoothing

FORMS = [
    AdditiveSmoothing(trend, damped, season)
    for trend, damped in ((False, False), (True, False), (True, True))
    for season in (1, 5)
]
WEIGHTS = {"level": 0.35, "slope": 0.07, "season": 0.15, "damping": 0.9}


def series(n_rows=47, seed=1):
    rng = np.random.default_rng(seed)
    steps = np.arange(n_rows)
    season = np.sin(2 * np.pi * steps / 5)
    return (
        0.03 * steps + season + np.cumsum(rng.normal(0, 0.2, n_rows)) + rng.normal(0, 0.3, n_rows)
    )


def of_statsmodels(form, y, **initial):
    return ETSModel(
        y,
        trend="add" if form.trend else None,
        damped_trend=form.damped,
        seasonal="add" if form.seasonal else None,
        seasonal_periods=form.season_length if form.seasonal else None,
        **initial,
    )


def weights_of(form):
    present = {"slope": form.trend, "season": form.seasonal, "damping": form.damped}
    return np.array([value for name, value in WEIGHTS.items() if present.get(name, True)])


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_errors_are_those_of_statsmodels(form):
    y, rng = series(), np.random.default_rng(3)
    states = rng.normal(size=1 + form.trend + form.season_length * form.seasonal)
    initial = {"initialization_method": "known", "initial_level": states[0]}
    if form.trend:
        initial["initial_trend"] = states[1]
    if form.seasonal:
        initial["initial_seasonal"] = states[-form.season_length :][::-1]
    expected = of_statsmodels(form, y, **initial).smooth(weights_of(form)).resid
    errors = form.errors(y, weights_of(form), states)
    np.testing.assert_allclose(errors, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_optimum_is_no_worse(form):
    y = series()
    direct = of_statsmodels(form, y).fit(disp=0)
    smoothed = form.estimate(y)
    errors = form.errors(y, smoothed.weights, smoothed.states)
    assert smoothed.squares == pytest.approx(errors @ errors)
    assert smoothed.squares <= (direct.resid @ direct.resid) * (1 + 1e-9)
    assert form.n_parameters == len(direct.params) - form.seasonal + 1


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_gradient_is_exact(form):
    y = series()
    shares = np.array([0.3, 0.4, 0.2, 0.9])[[True, form.trend, form.seasonal, form.damped]]
    numeric = approx_fprime(shares, lambda at: form._objective(at, y, None)[0], 1e-7)
    np.testing.assert_allclose(form._objective(shares, y, None)[1], numeric, rtol=1e-4, atol=1e-6)


def test_a_perfect_line_is_continued():
    y = 3.0 + 0.5 * np.arange(20)
    smoothed = AdditiveSmoothing(True, False).estimate(y)
    np.testing.assert_allclose(smoothed.states, [2.5, 0.5], rtol=1e-6)
    assert smoothed.squares < 1e-15
