"""The estimator of a hierarchy: sums, intervals, scikit-learn's contract, disk, real data."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import tsar
from tsar.exceptions import DataError, NotFittedError, ParameterError
from tsar.hierarchy import aggregate

GROUPS = ["state", "shop"]
SHOPS = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("b", "3")]


def _sold(n_times: int = 80, seed: int = 0) -> pd.DataFrame:
    """Autoregressions with a common part."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_times, len(SHOPS))) + rng.normal(size=(n_times, 1))
    values = np.zeros_like(noise)
    for time in range(1, n_times):
        values[time] = 0.7 * values[time - 1] + noise[time]
    stamps = pd.date_range("2024-01-01", periods=n_times, freq="D")
    parts = [
        pd.DataFrame({"state": state, "shop": shop, "ds": stamps, "y": 20 + values[:, place]})
        for place, (state, shop) in enumerate(SHOPS)
    ]
    return pd.concat(parts, ignore_index=True)


def _model(**options) -> tsar.Reconciled:
    settings = {"model": tsar.Theta(horizon=3), "groups": GROUPS}
    return tsar.Reconciled(**(settings | options))


def _wide(forecast: pd.DataFrame, column: str = "y", keys: tuple = ("ds",)) -> pd.DataFrame:
    ids = forecast["state"] + "/" + forecast["shop"]
    return forecast.assign(id=ids).pivot(index=list(keys), columns="id", values=column)


def _check_sums(wide: pd.DataFrame) -> None:
    for state, shops in (("a", "12"), ("b", "123")):
        parts = wide[[f"{state}/{shop}" for shop in shops]].sum(axis=1)
        np.testing.assert_allclose(wide[f"{state}/total"], parts, rtol=0, atol=1e-9)
    states = wide["a/total"] + wide["b/total"]
    np.testing.assert_allclose(wide["total/total"], states, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["mint_shrink", "wls_var", "wls_struct", "ols", "bottom_up"])
def test_forecasts_of_all_levels_agree_and_are_those_of_reconcile(method):
    sold = _sold()
    model = _model(method=method).fit(sold)
    found = model.predict()
    assert found.columns.tolist() == ["state", "shop", "ds", "y"]
    assert found["state"].iloc[0] == "total" and len(found) == 8 * 3
    _check_sums(_wide(found))
    series = aggregate(sold, GROUPS).drop(columns=GROUPS)
    base = tsar.Theta(horizon=3).fit(series)
    needs = method in ("mint_shrink", "wls_var")
    errors = base.fitted_values(series, horizon=1) if needs else None
    expected = tsar.reconcile(base.predict(), GROUPS, method=method, errors=errors)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-9)
    assert not np.allclose(found["y"], base.predict()["y"])


def test_samples_agree_one_by_one_and_intervals_are_their_quantiles():
    sold = _sold()
    model = _model(model=tsar.Naive(horizon=3)).fit(sold).calibrate(sold)
    drawn = model.predict(samples=50)
    _check_sums(_wide(drawn, keys=("sample", "ds")))
    found = model.predict(level=[50, 90])
    many = model.predict(samples=2000)["y"].to_numpy().reshape(8, 2000, 3)
    for level in (50, 90):
        low, high = np.percentile(many, [50 - level / 2, 50 + level / 2], axis=1).reshape(2, -1)
        np.testing.assert_allclose(found[f"y_lo{level}"], np.minimum(low, found["y"]))
        np.testing.assert_allclose(found[f"y_hi{level}"], np.maximum(high, found["y"]))
    # The parts move together: the total is less certain than if they were independent.
    width = found.assign(width=found["y_hi90"] - found["y_lo90"])
    total = width.loc[width["state"] == "total", "width"].to_numpy()
    parts = (
        width[width["shop"] != "total"]
        .groupby("ds")["width"]
        .apply(lambda own: np.sqrt((own**2).sum()))
    )
    assert (total > 1.3 * parts.to_numpy()).all()


def test_intervals_of_the_total_cover():
    """80 % of 120 later totals, within three standard errors."""
    sold = _sold(520, seed=4)
    stamps = sold["ds"].drop_duplicates()
    past = sold[sold["ds"] <= stamps[399]]
    model = _model(model=tsar.AutoReg(horizon=3)).fit(past).calibrate(past, refit=True)
    inside = []
    for cutoff in range(400, 518, 3):
        forecast = model.predict(df=sold[sold["ds"] < stamps[cutoff]], level=80)
        own = forecast[forecast["state"] == "total"].set_index("ds")
        truth = sold.groupby("ds")["y"].sum().loc[own.index]
        inside.append(((own["y_lo80"] <= truth) & (truth <= own["y_hi80"])).to_numpy())
    share = np.concatenate(inside).mean()
    # Steps of one window hang together: as if they were one.
    assert abs(share - 0.8) < 3 * np.sqrt(0.8 * 0.2 / len(inside))


def test_it_is_an_estimator_and_is_the_same_from_disk(tmp_path):
    sold = _sold()
    model = _model(model=tsar.Naive(horizon=3)).fit(sold).calibrate(sold)
    again = clone(model)
    assert not hasattr(again, "model_") and again.get_params()["model__horizon"] == 3
    again.set_params(model__horizon=2, method="ols").fit(sold)
    assert len(again.predict()) == 8 * 2
    # What is set later does not change what was fitted.
    model.set_params(groups=["state"], target="z")
    later = sold[sold["ds"] <= "2024-02-20"].sample(frac=1, random_state=1)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    for options in ({}, {"level": 80}, {"samples": 3}, {"df": later}, {"horizon": 2}):
        pd.testing.assert_frame_equal(loaded.predict(**options), model.predict(**options))
    assert loaded.predict(df=later)["ds"].min() == pd.Timestamp("2024-02-21")


def test_a_network_of_a_distribution():
    sold = _sold()
    settings = {"context_length": 8, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    net = tsar.NLinear(horizon=3, loss="gaussian", **settings)
    _check_sums(_wide(_model(model=net).fit(sold).predict(samples=5), keys=("sample", "ds")))


def test_other_columns_and_groups_that_cross():
    sold = _sold().rename(columns={"ds": "day", "y": "pieces"}).assign(note="kept out")
    levels = [[], ["state"], ["shop"], ["state", "shop"]]
    model = _model(groups=levels, time_column="day", target="pieces").fit(sold)
    found = model.predict()
    assert len(found) == 3 * (1 + 2 + 3 + 5)
    wide = _wide(found, "pieces", ("day",))
    _check_sums(wide)
    np.testing.assert_allclose(wide["total/1"], wide["a/1"] + wide["b/1"])


def test_what_is_refused():
    sold = _sold()
    with pytest.raises(NotFittedError):
        _model().predict()
    with pytest.raises(ParameterError, match="Reconciled: groups must be a list"):
        tsar.Reconciled().fit(sold)
    with pytest.raises(ParameterError, match="method must be one of"):
        _model(method="best").fit(sold)
    with pytest.raises(ParameterError, match="model must be"):
        _model(model="ETS").fit(sold)
    with pytest.raises(ParameterError, match="y must be None"):
        _model().fit(sold, sold["y"])
    with pytest.raises(ParameterError, match="no covariates, which do not add up, got .'price'"):
        _model(model=tsar.NLinear(past_covariates=["price"])).fit(sold)
    with pytest.raises(DataError, match="Reconciled: every series needs a row for every time"):
        _model().fit(sold[1:])
    model = _model(model=tsar.Naive(horizon=3)).fit(sold)
    with pytest.raises(
        ParameterError, match=r"Reconciled: predict\(level=...\) takes .* calibrate"
    ):
        model.predict(level=80)
    with pytest.raises(DataError, match="must be the fitted ones"):
        model.predict(df=sold[sold["state"] == "a"])
    model.calibrate(sold)
    with pytest.raises(ParameterError, match="frame of their own"):
        model.predict(level=80, samples=3)
    with pytest.raises(ParameterError, match="level=99.9 needs at least 999 windows"):
        model.predict(level=99.9)


def test_tourism():
    """Overnight trips by state and region: reconciled forecasts err less than their base."""
    folder = Path(os.environ.get("TSAR_DATA", "")) / "panels"
    if not os.environ.get("TSAR_DATA") or not (folder / "tourism.csv").is_file():
        pytest.skip("TSAR_DATA names no folder with panels/tourism.csv")
    trips = pd.read_csv(folder / "tourism.csv")
    trips["Quarter"] = pd.PeriodIndex(trips["Quarter"].str.replace(" ", ""), freq="Q")
    trips = trips.groupby(["State", "Region", "Quarter"], as_index=False)["Trips"].sum()
    quarters = trips["Quarter"].drop_duplicates()
    past = trips[trips["Quarter"] <= quarters.iloc[-9]]
    groups = ["State", "Region"]
    columns = {"time_column": "Quarter", "target": "Trips"}
    model = tsar.Reconciled(
        model=tsar.Theta(horizon=8), groups=groups, method="ols", **columns
    ).fit(past)
    found = model.predict()
    truth = aggregate(trips, groups, **columns)
    truth = truth[truth["Quarter"] > quarters.iloc[-9]]
    assert found[[*groups, "Quarter"]].equals(truth[[*groups, "Quarter"]].reset_index(drop=True))
    assert len(found) == 8 * (1 + 8 + 76)
    raw = model.model_.predict()
    errors = {
        name: np.abs(one["Trips"].to_numpy() - truth["Trips"].to_numpy()).mean()
        for name, one in (("base", raw), ("reconciled", found))
    }
    total = found.loc[found["State"] == "total", "Trips"].to_numpy()
    regions = found[found["Region"] != "total"].groupby("Quarter")["Trips"].sum()
    np.testing.assert_allclose(total, regions, rtol=1e-12)
    assert errors["reconciled"] < errors["base"]


def test_what_is_changed_after_fit_changes_nothing_that_was_fitted(tmp_path):
    sold, groups = _sold(), list(GROUPS)
    model = _model(groups=groups).fit(sold.groupby(GROUPS).head(60))
    expected = model.predict(df=sold)
    model.set_params(model__horizon=-1)
    groups.append("no such column")
    pd.testing.assert_frame_equal(model.predict(df=sold), expected)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    assert loaded.model.horizon == 3 and loaded.groups == GROUPS
    pd.testing.assert_frame_equal(loaded.predict(df=sold), expected)


def test_a_network_trained_on_a_device_that_is_not_here_is_loaded(tmp_path):
    network = tsar.NLinear(horizon=3, context_length=12, max_epochs=1, device="cpu", random_state=0)
    model = _model(model=network, method="ols").fit(_sold())
    # As if it had been trained elsewhere.
    model.fitted_parameters_["model"].device = "cuda:99"
    model.model_.fitted_parameters_["device"] = "cuda:99"
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    assert loaded.model.device == "cuda:99"
    pd.testing.assert_frame_equal(loaded.predict(), model.predict())
