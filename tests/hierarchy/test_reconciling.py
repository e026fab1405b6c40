"""Reconciliation against least squares, textbook formulas and hierarchicalforecast."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.evaluation import backtest
from tsar.exceptions import DataError, ParameterError
from tsar.hierarchy import Hierarchy
from tsar.hierarchy.projection import METHODS, covariance_of, projection, shrunk_covariance

GROUPS = ["g", "h"]
NODES = ["total", "a", "b", "a/1", "a/2", "a/3", "b/1", "b/2"]
# The bottom is not last, and series come in no order.
ORDER = [3, 0, 6, 1, 4, 7, 2, 5]


def _hierarchy() -> Hierarchy:
    parts = [(NODES[place].split("/") + ["total"])[:2] for place in ORDER]
    return Hierarchy.of("test", pd.DataFrame(parts, columns=GROUPS, dtype=object))


def _forecast(n_times: int = 4, seed: int = 0) -> pd.DataFrame:
    """A long frame with ids, rows of one time beside each other, base forecasts that differ."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "unique_id": [NODES[place] for _ in range(n_times) for place in ORDER],
            "ds": np.repeat(pd.date_range("2024-01-01", periods=n_times, freq="D"), len(ORDER)),
        }
    )
    return frame.assign(y=rng.normal(10, 3, len(frame)), extrapolated=False)


def _errors(n_rows: int = 40, seed: int = 1, unit: float = 1.0) -> pd.DataFrame:
    """As fitted_values gives them: correlated errors of all series."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n_rows, 8)) @ rng.normal(size=(8, 8)) * unit
    parts = [
        pd.DataFrame(
            {
                "id": name,
                "cutoff": np.arange(n_rows),
                "time": np.arange(n_rows),
                "step": 1,
                "y": 3 * unit + mixed[:, place],
                "forecast": 3 * unit,
            }
        )
        for place, name in enumerate(NODES)
    ]
    return pd.concat(parts, ignore_index=True)


def _wide(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.pivot(index="ds", columns="unique_id", values="y")[NODES]


SUMMING = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
        *np.eye(5),
    ]
)


@pytest.mark.parametrize("method", METHODS)
def test_sums_agree_and_agreeing_forecasts_stay(method):
    errors = _errors() if method in ("wls_var", "mint_shrink") else None
    once = tsar.reconcile(_forecast(), GROUPS, method=method, errors=errors)
    wide = _wide(once).to_numpy()
    np.testing.assert_allclose(wide, wide[:, 3:] @ SUMMING.T, rtol=0, atol=1e-9)
    twice = tsar.reconcile(once, GROUPS, method=method, errors=errors)
    np.testing.assert_allclose(twice["y"], once["y"], rtol=0, atol=1e-9)
    pd.testing.assert_frame_equal(once.drop(columns="y"), _forecast().drop(columns="y"))


def test_ols_is_least_squares():
    frame = _forecast()
    found = _wide(tsar.reconcile(frame, GROUPS, method="ols")).to_numpy()
    bottom = np.linalg.lstsq(SUMMING, _wide(frame).to_numpy().T, rcond=None)[0]
    np.testing.assert_allclose(found, (SUMMING @ bottom).T, atol=1e-10)


def test_bottom_up_adds_up():
    frame = _forecast()
    found = _wide(tsar.reconcile(frame, GROUPS, method="bottom_up")).to_numpy()
    np.testing.assert_allclose(found, _wide(frame).to_numpy()[:, 3:] @ SUMMING.T, atol=1e-12)


def _by_weights(frame: pd.DataFrame, covariance: np.ndarray) -> np.ndarray:
    """The formula of the textbook, W inverted."""
    inverse = np.linalg.inv(covariance)
    mapped = np.linalg.solve(SUMMING.T @ inverse @ SUMMING, SUMMING.T @ inverse)
    return (SUMMING @ mapped @ _wide(frame).to_numpy().T).T


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_weighted_methods_are_the_formula_in_any_unit(unit):
    frame, errors = _forecast(), _errors(unit=unit)
    known = (errors["y"] - errors["forecast"]).to_numpy().reshape(8, -1).T / unit
    found = _wide(tsar.reconcile(frame, GROUPS, method="wls_struct")).to_numpy()
    np.testing.assert_allclose(found, _by_weights(frame, np.diag(SUMMING.sum(axis=1))), rtol=1e-9)
    found = _wide(tsar.reconcile(frame, GROUPS, method="wls_var", errors=errors)).to_numpy()
    np.testing.assert_allclose(found, _by_weights(frame, np.diag((known**2).mean(0))), rtol=1e-7)
    found = _wide(tsar.reconcile(frame, GROUPS, method="mint_shrink", errors=errors)).to_numpy()
    shrunk = _shrunk_slowly(known)
    np.testing.assert_allclose(found, _by_weights(frame, shrunk), rtol=1e-7)


def _shrunk_slowly(errors: np.ndarray) -> np.ndarray:
    """Schäfer and Strimmer 2005, pair by pair."""
    n_rows, n_nodes = errors.shape
    z = (errors - errors.mean(axis=0)) / errors.std(axis=0, ddof=1)
    variance = squares = 0.0
    correlation = np.eye(n_nodes)
    for i in range(n_nodes):
        for j in range(n_nodes):
            if i != j:
                w = z[:, i] * z[:, j]
                correlation[i, j] = n_rows / (n_rows - 1) * w.mean()
                variance += n_rows / (n_rows - 1) ** 3 * ((w - w.mean()) ** 2).sum()
                squares += correlation[i, j] ** 2
    share = min(1.0, variance / squares)
    assert 0.01 < share < 0.99, "the test is of something in between"
    shrunk = (1 - share) * correlation + share * np.eye(n_nodes)
    deviation = errors.std(axis=0, ddof=1)
    return shrunk * np.outer(deviation, deviation)


def test_shrinking_of_errors_without_any_correlation():
    rng = np.random.default_rng(0)
    found = shrunk_covariance(rng.normal(size=(50, 4)))
    assert (np.abs(found - np.diag(np.diag(found))) < 0.15).all()
    constant = shrunk_covariance(np.ones((5, 3)))
    np.testing.assert_array_equal(constant, 0)


@pytest.mark.parametrize("method", ["ols", "wls_struct", "wls_var", "mint_shrink"])
def test_the_map_is_that_of_hierarchicalforecast(method):
    methods = pytest.importorskip("hierarchicalforecast.methods", reason="a test oracle")
    errors = np.random.default_rng(1).normal(size=(60, 8)) @ np.random.default_rng(2).normal(
        size=(8, 8)
    )
    theirs = methods.MinTrace(method).fit(
        S=SUMMING,
        y_hat=np.zeros((8, 1)),
        y_insample=errors.T,
        y_hat_insample=np.zeros((8, 60)),
    )
    labels = [(name.split("/") + ["total"])[:2] for name in NODES]
    hierarchy = Hierarchy.of("test", pd.DataFrame(labels, columns=GROUPS, dtype=object))
    ours = projection(hierarchy, covariance_of("test", hierarchy, method, errors))
    # Theirs add 2e-8 to the variances.
    np.testing.assert_allclose(ours, theirs.P, atol=1e-6)


def test_weights_need_not_be_invertible():
    hierarchy = _hierarchy()
    rng = np.random.default_rng(0)
    low = rng.normal(size=(8, 2))
    mapped = projection(hierarchy, low @ low.T)
    values = rng.normal(size=8)
    np.testing.assert_allclose(mapped @ hierarchy.summing, np.eye(5), atol=1e-9)
    assert np.isfinite(mapped @ values).all()
    np.testing.assert_allclose(projection(hierarchy, np.zeros(8)) @ hierarchy.summing, np.eye(5))


@pytest.mark.parametrize("form", ["long with columns", "multiindex", "wide", "samples"])
def test_every_form_of_a_forecast(form):
    frame = _forecast().drop(columns="extrapolated")
    expected = _wide(tsar.reconcile(frame, GROUPS))
    if form == "wide":
        wide = frame.pivot(index="ds", columns="unique_id", values="y").assign(sample=1)
        found = tsar.reconcile(wide, GROUPS)
        assert found["sample"].dtype.kind == "i" and found.index.name == "ds"
        pd.testing.assert_frame_equal(found[NODES], expected, check_names=False)
        return
    if form == "long with columns":
        parts = frame["unique_id"].str.split("/", expand=True).fillna("total")
        given = parts.set_axis(GROUPS, axis=1).join(frame.drop(columns="unique_id"))
        found = tsar.reconcile(given.sample(frac=1, random_state=3), GROUPS).sort_index()
        found = found.assign(unique_id=frame["unique_id"])
    elif form == "multiindex":
        given = frame.set_index(["unique_id", "ds"])
        found = tsar.reconcile(given, GROUPS)
        assert found.index.equals(given.index)
        found = found.reset_index()
    else:
        twice = pd.concat([frame.assign(sample=0), frame.assign(sample=1, y=2 * frame["y"])])
        found = tsar.reconcile(twice, GROUPS)
        np.testing.assert_allclose(_wide(found[found["sample"] == 1]), 2 * expected)
        found = found[found["sample"] == 0]
    pd.testing.assert_frame_equal(_wide(found), expected)


def test_a_backtest_is_reconciled_cutoff_by_cutoff():
    rng = np.random.default_rng(0)
    bottom = pd.DataFrame(rng.normal(5, 1, (60, 5)), columns=NODES[3:])
    bottom.index = pd.date_range("2024-01-01", periods=60, freq="D")
    values = pd.DataFrame(bottom.to_numpy() @ SUMMING.T, columns=NODES, index=bottom.index)
    long = values.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    # The median of members is not linear, so that its forecasts do not add up by themselves.
    model = tsar.Ensemble(
        models=[tsar.Naive(), tsar.SeasonalNaive(season_length=7), tsar.AutoReg()],
        weights="median",
        horizon=3,
    )
    tested = backtest(model, long, windows=4)
    with pytest.raises(DataError, match="got two|one model"):
        two = tested.assign(other=1.0)
        tsar.reconcile(tested, GROUPS, method="wls_var", errors=two, columns="Ensemble")
    weighed = tsar.reconcile(tested, GROUPS, method="wls_var", errors=tested)
    assert not np.allclose(weighed["Ensemble"], tested["Ensemble"])
    found = tsar.reconcile(tested, GROUPS)
    np.testing.assert_allclose(found["y"], tested["y"], atol=1e-9)
    assert not np.allclose(found["Ensemble"], tested["Ensemble"])
    for _, part in found.groupby(["cutoff", "step"]):
        own = part.set_index("id")["Ensemble"][NODES].to_numpy()
        np.testing.assert_allclose(own, SUMMING @ own[3:], atol=1e-9)


def test_what_cannot_be_reconciled_is_refused():
    frame, errors = _forecast(), _errors()
    refused = [
        (ParameterError, "method must be one of|did you mean", {"method": "olls"}),
        (ParameterError, r"errors must be fitted_values.*got NoneType", {"method": "wls_var"}),
        (ParameterError, "errors must be None for method='ols'", {"errors": errors}),
        (DataError, "columns must name columns of the frame, got 'z'", {"columns": "z"}),
    ]
    for error, message, options in refused:
        with pytest.raises(error, match=message):
            tsar.reconcile(frame, GROUPS, **options)
    with pytest.raises(ParameterError, match="the levels follow from the frame"):
        tsar.reconcile(frame, [[], ["g"], ["g", "h"]])
    with pytest.raises(ParameterError, match="'y_lo80' is an end of an interval"):
        tsar.reconcile(frame.assign(y_lo80=1.0), GROUPS)
    with pytest.raises(DataError, match=r"'b/2' has 3 rows where there are 4"):
        tsar.reconcile(frame.drop(index=ORDER.index(7)), GROUPS)
    with pytest.raises(DataError, match="one row for the same"):
        tsar.reconcile(pd.concat([frame, frame]), GROUPS)
    with pytest.raises(DataError, match="'y' must be finite"):
        tsar.reconcile(frame.assign(y=[np.nan, *frame["y"][1:]]), GROUPS)
    with pytest.raises(DataError, match="'b' is the sum of no series that is there"):
        tsar.reconcile(frame[~frame["unique_id"].str.startswith("b/")], GROUPS)
    with pytest.raises(DataError, match="'a/1/2' must have a label for each"):
        tsar.reconcile(frame.replace({"unique_id": {"a/1": "a/1/2"}}), GROUPS)
    with pytest.raises(DataError, match="got list"):
        tsar.reconcile([1], GROUPS)
    with pytest.raises(DataError, match="none of 'b/2'"):
        tsar.reconcile(frame, GROUPS, method="wls_var", errors=errors[errors["id"] != "b/2"])
    with pytest.raises(DataError, match="one model"):
        tsar.reconcile(frame, GROUPS, method="wls_var", errors=frame)
    with pytest.raises(DataError, match="'note' must be numbers"):
        tsar.reconcile(frame.assign(note="x"), GROUPS, columns=["y", "note"])
    few = errors[errors["cutoff"] < 2]
    with pytest.raises(DataError, match="three times or more .* there are 2"):
        tsar.reconcile(frame, GROUPS, method="mint_shrink", errors=few)
    hole = errors.assign(y=errors["y"].where(errors["id"] != "a/1"))
    with pytest.raises(DataError, match="'a/1' has none"):
        tsar.reconcile(frame, GROUPS, method="wls_var", errors=hole)
