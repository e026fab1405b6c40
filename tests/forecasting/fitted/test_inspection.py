import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.checks import small_forecaster
from tsar.exceptions import DataError, MissingExtraError, NotFittedError, ParameterError
from tsar.forecasting.fitted.attribution import MovedWindows
from tsar.forecasting.fitted.gradients import integrated_gradients
from tsar.forecasting.registry import forecaster_class, forecaster_names
from tsar.training import LearnedMask

HORIZON = 5


def _wide(n=130):
    rng = np.random.default_rng(5)
    index = pd.date_range("2024-01-01", periods=n, freq="D", name="day")
    wave = np.sin(2 * np.pi * np.arange(n) / 7)
    values = {"a": 5 + wave + 0.2 * rng.normal(size=n), "b": 40 - 9 * wave + rng.normal(size=n)}
    return pd.DataFrame(values, index=index)


def _long():
    wide = _wide()
    tables = [
        pd.DataFrame({"shop": shop, "day": wide.index[:n], "sold": wide[column].to_numpy()[:n]})
        for shop, column, n in (("Bern", "b", 130), ("Chur", "a", 90), ("Uri", "a", 9))
    ]
    return pd.concat(tables, ignore_index=True)


def _columns(**names):
    return {"id_column": "shop", "time_column": "day", "target": "sold", **names}


# --------------------------------------------------------------- fitted values


@pytest.mark.parametrize("name", forecaster_names())
def test_fitted_values_are_the_forecasts_of_every_cutoff(name):
    wide = _wide()
    wide.iloc[70:73, 0] = np.nan
    model = small_forecaster(forecaster_class(name), horizon=HORIZON).fit(wide[:100])
    fitted = model.fitted_values(wide)
    keys = ["variate", "time", "step"]
    assert not fitted.duplicated(keys).any()
    context = max(model.context_rows, 1)
    for step in range(1, HORIZON + 1):
        of_step = fitted[(fitted["step"] == step) & (fitted["variate"] == "b")]
        assert list(of_step["time"]) == list(wide.index[context + step - 1 :])
    for place in (context, 101, 128):
        own = fitted[fitted["cutoff"] == wide.index[place]]
        ahead = min(HORIZON, len(wide) - place)
        forecast = model.predict(ahead, df=wide[:place])
        for variate in wide:
            found = own[own["variate"] == variate]
            np.testing.assert_allclose(found["forecast"], forecast[variate], rtol=2e-5)
            np.testing.assert_array_equal(found["y"], wide[variate][place : place + ahead])


def test_fitted_values_of_the_seasonal_naive_are_the_season_before():
    data = _long()
    model = tsar.SeasonalNaive(horizon=HORIZON, season_length=7, **_columns()).fit(data)
    fitted = model.fitted_values(data, horizon=1)
    assert list(fitted) == ["id", "cutoff", "time", "step", "y", "forecast"]
    expected = data.groupby("shop")["sold"].shift(7)
    known = expected.notna()
    np.testing.assert_allclose(fitted["forecast"], expected[known])
    assert list(fitted["id"]) == list(data["shop"][known])
    assert list(fitted["time"]) == list(data["day"][known])


def test_fitted_values_continue_the_fitted_series():
    wide = _wide()
    model = tsar.SeasonalNaive(horizon=HORIZON, season_length=7).fit(wide[:100])
    later = model.fitted_values(wide[100:104], horizon=3)
    assert len(later) == 2 * (3 + 3 + 2 + 1)
    whole = model.fitted_values(wide[:104], horizon=3)
    whole = whole[whole["cutoff"] >= wide.index[100]].reset_index(drop=True)
    pd.testing.assert_frame_equal(later, whole)


def test_fitted_values_need_a_history():
    model = tsar.SeasonalNaive(horizon=HORIZON, season_length=7).fit(_wide())
    with pytest.raises(DataError, match="needs 8 rows of a series, 7 of them as history; .* has 6"):
        model.fitted_values(_wide()[:6])
    with pytest.raises(ParameterError, match="horizon must be an integer"):
        model.fitted_values(_wide(), horizon=0)
    with pytest.raises(NotFittedError):
        tsar.SeasonalNaive().fitted_values(_wide())


# --------------------------------------------------------------------- explain


@pytest.mark.parametrize("name", forecaster_names())
def test_every_forecaster_is_explained(name):
    wide = _wide()
    model = small_forecaster(forecaster_class(name), horizon=HORIZON).fit(wide[:110])
    explained = model.explain(wide, windows=4)
    tables = [explained]
    if model.lets_gradients_through:
        tables.append(model.explain(wide, windows=4, method=LearnedMask(n_steps=2)))
        keys = ["variate", "role", "input"]
        assert set(tables[1][keys].itertuples(index=False)) == set(
            explained[keys].itertuples(index=False)
        )
    for table in tables:
        assert list(table)[:3] == ["id", "variate", "role"]
        assert np.isfinite(table[["importance", "share", "mae_increase"]].to_numpy()).all()
        np.testing.assert_allclose(table.groupby("variate")["share"].sum(), 1.0)
    for _, own in explained.groupby("variate"):
        assert own["importance"].is_monotonic_decreasing
    if model.forecasts_variates_alone:
        first = explained.groupby("variate").first()
        assert list(first["input"]) == ["a", "b"] and set(first["role"]) == {"history"}
    crossed = explained[explained["variate"] != explained["input"]]
    assert crossed["role"].eq("history").any() == (not model.forecasts_variates_alone)


def test_importance_of_a_history_is_what_the_forecast_owes_to_it():
    data = _long()
    model = tsar.SeasonalNaive(horizon=HORIZON, season_length=7, **_columns()).fit(data)
    explained = model.explain(data, windows=10_000)
    assert list(explained["id"]) == ["Bern", "Chur"] and set(explained["input"]) == {"sold"}
    for row in explained.itertuples():
        y = data.loc[data["shop"] == row.id, "sold"].to_numpy()
        cutoffs = np.arange(7, len(y) - HORIZON + 1)
        ahead = np.arange(HORIZON)
        forecast = y[cutoffs[:, None] + ahead - 7]
        truth = y[cutoffs[:, None] + ahead]
        assert row.importance == pytest.approx(np.abs(forecast - y.mean()).mean())
        worse = np.abs(y.mean() - truth).mean() - np.abs(forecast - truth).mean()
        assert row.mae_increase == pytest.approx(worse)


def test_importance_of_a_regressor_is_its_coefficients_times_how_far_it_moves():
    wide = _wide().assign(heat=np.random.default_rng(1).normal(size=130))
    wide["a"] += 2 * wide["heat"]
    model = tsar.ARNet(
        horizon=1, context_length=3, target=["a", "b"], future_covariates="heat", random_state=0
    )
    model.fit(wide[:100])
    explained = model.explain(wide, windows=10_000).set_index(["variate", "input"])
    away = (wide["heat"] - wide["heat"].mean()).to_numpy()
    for variate in ("a", "b"):
        by_lag = model.covariate_coefficients_[variate]["heat"]
        lagged = [factor * np.roll(away, lag) for lag, factor in by_lag.items()]
        moved = np.abs(np.sum(lagged, axis=0))[3:].mean()
        found = explained.loc[(variate, "heat"), "importance"]
        assert found == pytest.approx(moved, rel=1e-4)
    assert explained.loc[("a", "heat"), "importance"] > 1


def test_categories_and_constants_are_inputs():
    rng = np.random.default_rng(2)
    shops = []
    for place, kind in enumerate(["small", "large", "small", "large", "small"]):
        day = pd.date_range("2024-01-01", periods=120)
        sale = rng.random(120) < 0.4
        sold = 10 * place + 5 * sale + rng.normal(size=120)
        frame = {"shop": f"s{place}", "day": day, "sold": sold, "kind": kind}
        shops.append(pd.DataFrame({**frame, "sale": np.where(sale, "yes", "no")}))
    data = pd.concat(shops, ignore_index=True)
    model = tsar.NLinear(
        horizon=HORIZON, context_length=14, max_epochs=15, learning_rate=0.01, random_state=0,
        future_covariates="sale", static_covariates="kind", **_columns(),
    )  # fmt: skip
    explained = model.fit(data).explain(data)
    assert len(explained) == 5 * 3
    assert set(explained["role"]) == {"history", "future", "static"}
    apart = explained.pivot(index="id", columns="input", values="importance")
    assert (apart["sale"] > 3 * apart["kind"]).all()
    # What is hidden is what is most frequent: nothing moves where the shop is of that kind.
    frequent = data["kind"].mode()[0]
    same = data.groupby("shop")["kind"].first() == frequent
    assert (apart.loc[same, "kind"] == 0).all() and (apart.loc[~same, "kind"] > 0).all()


def test_members_of_an_ensemble_lose_an_input_together():
    wide = _wide().assign(heat=np.random.default_rng(1).normal(size=130))
    wide["a"] += 2 * wide["heat"]
    regression = tsar.ARNet(context_length=3, future_covariates="heat", random_state=0)
    model = tsar.Ensemble(
        models=[regression, tsar.Naive()], horizon=1, target=["a"], time_column=None
    )
    alone = tsar.ARNet(
        horizon=1, context_length=3, target=["a"], future_covariates="heat", random_state=0
    ).fit(wide[:100])
    both = model.fit(wide[:100]).explain(wide[3:]).set_index("input")["importance"]
    one = alone.explain(wide[3:], windows=20).set_index("input")["importance"]
    # The same cutoffs, and the mean of a member that is moved and of one that is not.
    assert both["heat"] == pytest.approx(one["heat"] / 2, rel=1e-4)


def test_masks_show_the_one_lag_that_is_read():
    wide = _wide()
    model = tsar.NLinear(
        horizon=2,
        context_length=6,
        max_epochs=1,
        device="cpu",
        random_state=0,
        output_range=(0, 44),
    ).fit(wide[:100])
    linear = model.module_.linear
    with torch.no_grad():
        # What is third of six, relative to the last value; the last value is added again.
        linear.weight.copy_(torch.eye(6)[2].expand(2, 6))
        linear.bias.zero_()
    explained = model.explain(wide, method="learned_mask", windows=10_000).set_index("variate")
    values = wide.to_numpy()
    cutoffs = np.arange(6, len(values) - 2 + 1)
    # Of m, (1 - m)^2 is added to the error, and m / 6 to the price.
    shown = 1 - 1 / 12
    forecast = values[cutoffs - 4]
    without = np.clip(forecast + shown * (values.mean(axis=0) - forecast), 0, 44)
    truth = values[cutoffs[:, None] + np.arange(2)]
    forecast = np.clip(forecast, 0, 44)
    for column, variate in enumerate(wide):
        row = explained.loc[variate]
        assert row["importance"] == pytest.approx(shown, abs=2e-3)
        errors = [
            np.abs(each[:, None, column] - truth[..., column]).mean()
            for each in (without, forecast)
        ]
        assert row["mae_increase"] == pytest.approx(errors[0] - errors[1], abs=0.02)


class _ReadsPrice(nn.Module):
    """Forecast what the second future covariate is."""

    def forward(self, inputs):
        return inputs.future[:, -HORIZON:, 1:2]


def test_masks_show_the_one_covariate_that_is_read():
    rng = np.random.default_rng(3)
    frame = _wide()[["a"]].assign(
        rain=rng.normal(size=130),
        wind=rng.normal(size=130),
        price=rng.normal(4, 2, size=130),
        kind=np.where(rng.random(130) < 0.5, "x", "y"),
    )
    frame.iloc[60:64, 0] = np.nan
    model = tsar.NLinear(
        horizon=HORIZON, context_length=8, max_epochs=1, device="cpu", random_state=0,
        past_covariates="rain", future_covariates=["wind", "price", "kind"],
        calendar_features=True, target=["a"], gaps="mask",
    ).fit(frame[:100])  # fmt: skip
    model.module_ = _ReadsPrice()
    explained = model.explain(frame, method="learned_mask", windows=10_000).set_index("input")
    assert set(explained["role"]) == {"history", "past", "future", "calendar"}
    assert "kind" not in explained.index
    assert (explained["importance"].drop("price") == 0).all() and explained["share"].iloc[0] == 1
    coding = model.learned_.coding.future[1]
    z = ((frame["price"] - coding.mean) / coding.scale).to_numpy()
    n_calendar, n_steps = model.learned_.coding.n_calendar, 8 + HORIZON
    shown = []
    for cutoff in range(8, 130 - HORIZON + 1):
        seen = frame["a"].iloc[cutoff - 8 : cutoff].notna().sum()
        n_values = seen + 8 + (2 + n_calendar) * n_steps
        squares = z[cutoff : cutoff + HORIZON] ** 2
        # Where the derivative of the error is that of the price.
        shown.append(np.clip(1 - squares.sum() / (2 * n_values * squares), 0, None).sum())
    assert explained.loc["price", "importance"] == pytest.approx(np.mean(shown), rel=5e-3)


class _ReadsB(nn.Module):
    """Forecast both variates by the last value of the second."""

    def forward(self, inputs):
        return inputs.target[:, -1:, 1:].expand(-1, HORIZON, 2)


def test_masks_show_which_variate_another_one_reads():
    wide = _wide()
    model = small_forecaster(tsar.iTransformer, horizon=HORIZON)
    model.set_params(calendar_features=False).fit(wide[:100])
    model.module_ = _ReadsB()
    explained = model.explain(wide, method=LearnedMask(mask_weight=20.0), windows=5)
    of_b = explained["input"] == "b"
    np.testing.assert_allclose(explained["share"], of_b)
    # The price of the only value is that of one in two contexts.
    price = 20 / (2 * 2 * model.context_rows)
    np.testing.assert_allclose(explained["importance"][of_b], 1 - price, atol=5e-3)


class _ReadsArea(nn.Module):
    """Forecast the second static covariate at each step."""

    def forward(self, inputs):
        return inputs.static[:, None, 1:2].expand(-1, HORIZON, 1)


def test_masks_show_the_one_constant_that_is_read():
    data = _long().query("shop != 'Uri'").assign(age=0.0, area=0.0, kind="x")
    data.loc[data["shop"] == "Bern", ["age", "area"]] = 5.0, 3.0
    model = tsar.NLinear(
        horizon=HORIZON, context_length=8, max_epochs=1, device="cpu", random_state=0,
        static_covariates=["age", "area", "kind"], **_columns(),
    ).fit(data)  # fmt: skip
    model.module_ = _ReadsArea()
    # A series that was not fitted is scaled by its own history, and has an area between the others.
    other = data[data["shop"] == "Chur"].assign(shop="Davos", area=2.5)
    explained = model.explain(pd.concat([data, other]), method="learned_mask", windows=3)
    assert set(explained["role"]) == {"history", "static"} and len(explained) == 3 * 3
    importance = explained.pivot(index="id", columns="input", values="importance")
    # One value of ten; the others are eight of the history and the age.
    np.testing.assert_allclose(importance["area"], 1 - 1 / 20, atol=5e-3)
    assert (importance[["age", "sold"]] == 0).all(axis=None)


def test_gradients_of_a_linear_model_are_what_hiding_changes():
    wide = _wide()
    model = tsar.NLinear(
        horizon=2, context_length=6, max_epochs=2, device="cpu", random_state=0
    ).fit(wide[:100])
    by_gradients = model.explain(wide, method="gradients", windows=5)
    by_hiding = model.explain(wide, windows=5)
    pd.testing.assert_frame_equal(by_gradients, by_hiding, rtol=1e-4, atol=1e-4)


def test_gradients_show_which_variate_another_one_reads():
    wide = _wide()
    model = small_forecaster(tsar.iTransformer, horizon=HORIZON)
    model.set_params(calendar_features=False).fit(wide[:100])
    model.module_ = _ReadsB()
    explained = model.explain(wide, method="gradients", windows=10_000)
    of_b = explained["input"] == "b"
    np.testing.assert_allclose(explained["share"], of_b)
    # In the units of the variate that is forecast.
    scale = model.learned_.scaling.scale[0]
    deviation = pd.Series(scale / scale[1], wide.columns)
    last = wide["b"].iloc[model.context_rows - 1 : -HORIZON]
    expected = (last - wide["b"].mean()).abs().mean() * deviation
    importance = explained[of_b].set_index("variate")["importance"]
    np.testing.assert_allclose(importance, expected[importance.index], rtol=1e-4)


def _moved(forecast, x, baseline, where=None):
    where = torch.ones_like(x, dtype=torch.bool) if where is None else where
    return MovedWindows(forecast, x, baseline, where, [slice(0, x.shape[2])], x.new_ones(len(x), 1))


def _draws(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_gradients_share_a_product_equally():
    """Of x1 x2 from (0, b): the integrals of t x2 and of t x1 + (1 - t) 0, and b in between."""
    x, baseline = _draws(4, 1, 2, seed=0), torch.zeros(4, 1, 2, dtype=torch.float64)
    baseline[..., 1] = 3.0
    first, second = x[:, 0].T
    windows = _moved(lambda x: x.prod(dim=2, keepdim=True), x, baseline)
    with torch.inference_mode():
        found = integrated_gradients(windows)
    expected = torch.stack([first * (second + 3) / 2, first * (second - 3) / 2], dim=1)
    torch.testing.assert_close(found[:, 0, 0], expected)


def test_gradients_are_complete():
    """What the numbers have of each step adds up to what it differs by from the baseline."""
    x, baseline = _draws(3, 5, 2, seed=1), _draws(3, 5, 2, seed=2)
    where = _draws(3, 5, 2, seed=3) > -0.5
    first, second = _draws(10, 7, seed=4), _draws(7, 4, seed=5)

    def forecast(x):
        return ((x.flatten(1) @ first).tanh() @ second)[..., None]

    found = integrated_gradients(_moved(forecast, x, baseline, where))
    assert found.shape == (3, 4, 5, 2)
    assert (found[(~where)[:, None].expand_as(found)] == 0).all()
    change = (forecast(x) - forecast(torch.where(where, baseline, x)))[..., 0]
    torch.testing.assert_close(found.sum(dim=(2, 3)), change, rtol=1e-6, atol=1e-6)


def test_gradients_need_captum(monkeypatch):
    wide = _wide()
    model = tsar.NLinear(horizon=2, context_length=6, max_steps=1, device="cpu").fit(wide)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[explain\]', or take"):
        model.explain(wide, method="gradients", windows=1)


def test_explanations_that_are_refused():
    wide = _wide()
    model = tsar.SeasonalNaive(horizon=HORIZON, season_length=7).fit(wide)
    with pytest.raises(ParameterError, match="did you mean 'occlusion'"):
        model.explain(wide, method="oclusion")
    with pytest.raises(ParameterError, match="SeasonalNaive: explain by learned masks needs a tra"):
        model.explain(wide, method="learned_mask")
    with pytest.raises(ParameterError, match="SeasonalNaive: explain by gradients needs a trained"):
        model.explain(wide, method="gradients")
    with pytest.raises(ParameterError, match="windows must be an integer"):
        model.explain(wide, windows=0)
    with pytest.raises(DataError, match="needs 12 rows of a series, 7 of them as history"):
        model.explain(wide[:11])
    with pytest.raises(NotFittedError):
        tsar.SeasonalNaive().explain(wide)
    before = wide.copy()
    model.explain(wide)
    pd.testing.assert_frame_equal(wide, before)
