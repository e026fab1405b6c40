"""Metrics of backtests against the functions on arrays, group by group."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar import evaluation
from tsar.data.panel import Panel
from tsar.evaluation import backtest, measure
from tsar.exceptions import DataError, ParameterError

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]
SEASON = 24


@pytest.fixture
def long(wide):
    stacked = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    stacked.loc[::13, "y"] = np.nan
    return stacked


@pytest.fixture
def tested(long):
    """A backtest of two models; the quantiles are made up."""
    models = [tsar.Naive(horizon=5), tsar.SeasonalNaive(horizon=5)]
    frame = backtest(models, long, windows=4, step=3)
    rng = np.random.default_rng(5)
    for level, steps in zip(LEVELS, np.sort(rng.normal(size=(5, len(frame))), axis=0), strict=True):
        frame[f"Naive_q{level}"] = frame["Naive"] + steps
    return frame


GROUPS = {
    None: [],
    "series": ["id"],
    "step": ["step"],
    "window": ["cutoff"],
    ("step", "series"): ["step", "id"],
}


def _groups(frame, by):
    columns = GROUPS[by]
    return frame.groupby(columns, sort=False) if columns else [((), frame)]


@pytest.mark.parametrize("by", GROUPS)
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_the_functions_of_the_same_name(tested, by, weighted):
    names = ["mse", "mae", "rmse", "mape", "smape"]
    tested["w"] = np.random.default_rng(8).integers(0, 3, len(tested)) if weighted else 1
    groups = list(by) if isinstance(by, tuple) else by
    found = measure(tested, names, by=groups, weights="w")
    assert list(found.columns) == ["model", *GROUPS[by], *names]
    expected = [
        [
            model,
            *[
                getattr(evaluation, name)(rows["y"], rows[model], weights=rows["w"])
                for name in names
            ],
        ]
        for model in ("Naive", "SeasonalNaive")
        for _, rows in _groups(tested, by)
    ]
    expected = pd.DataFrame(expected, columns=["model", *names])
    pd.testing.assert_frame_equal(found[expected.columns], expected)


@pytest.mark.parametrize("by", [None, "step"])
def test_quantiles_and_intervals(tested, by):
    names = ["quantile_loss", "crps", "coverage", "interval_width", "interval_score"]
    own = tested.drop(columns="SeasonalNaive")
    found = measure(own, names, by=by)
    for (_, rows), (_, measured) in zip(_groups(own, by), found.iterrows(), strict=True):
        quantiles = rows[[f"Naive_q{level}" for level in LEVELS]]
        loss = evaluation.quantile_loss(rows["y"], quantiles, LEVELS)
        assert measured["quantile_loss"] == pytest.approx(loss)
        assert measured["crps"] == pytest.approx(
            evaluation.crps_from_quantiles(rows["y"], quantiles, LEVELS)
        )
        for level, lower, upper in ((80, "0.1", "0.9"), (50, "0.25", "0.75")):
            ends = rows[f"Naive_q{lower}"], rows[f"Naive_q{upper}"]
            known = rows["y"].notna()
            assert measured[f"coverage_{level}"] == evaluation.coverage(rows["y"], *ends)
            assert measured[f"interval_width_{level}"] == pytest.approx(
                evaluation.interval_width(*(end[known] for end in ends))
            )
            assert measured[f"interval_score_{level}"] == pytest.approx(
                evaluation.interval_score(rows["y"], *ends, level)
            )


def test_intervals_by_level(tested):
    own = tested.drop(columns="SeasonalNaive").rename(
        columns={"Naive_q0.1": "Naive_lo80", "Naive_q0.9": "Naive_hi80"}
    )
    found = measure(own, ["coverage", "interval_score"])
    assert list(found.columns[1:3]) == ["coverage_50", "coverage_80"]
    ends = own["Naive_lo80"], own["Naive_hi80"]
    assert found.loc[0, "coverage_80"] == evaluation.coverage(own["y"], *ends)
    expected = evaluation.interval_score(own["y"], *ends, 80)
    assert found.loc[0, "interval_score_80"] == pytest.approx(expected)


@pytest.mark.parametrize("by", [None, "window"])
def test_scaled_metrics_are_those_of_each_series_averaged(tested, long, by):
    found = measure(
        tested, ["mase", "rmsse", "owa"], by=by, history=long, season_length=SEASON
    ).set_index("model")
    wide = long.pivot(index="ds", columns="unique_id", values="y")
    before = wide[wide.index < tested["cutoff"].min()]
    for model in ("Naive", "SeasonalNaive"):
        for place, (_, rows) in enumerate(_groups(tested, by)):
            measured = found.loc[[model]].iloc[place]
            each = {"mase": [], "rmsse": []}
            for name, own in rows.groupby("id"):
                for metric, values in each.items():
                    function = getattr(evaluation, metric)
                    values.append(function(own["y"], own[model], before[name], SEASON))
            for metric, values in each.items():
                assert measured[metric] == pytest.approx(np.mean(values))
            if model == "SeasonalNaive":
                assert measured["owa"] == pytest.approx(1.0)


def test_weeks_are_scaled_by_the_year_where_two_are_before_the_cutoff():
    values = np.random.default_rng(0).normal(size=112)
    weeks = pd.Series(values, index=pd.date_range("2022-01-02", periods=112, freq="W"))
    for end, season in ((112, 52), (106, 1)):
        known = weeks[:end]
        tested = backtest(tsar.Naive(horizon=4), known, windows=1)
        found = measure(tested, "mase", history=known)["mase"].item()
        before = known[: end - 4]
        expected = evaluation.mase(tested["y"], tested["Naive"], before, season)
        assert found == pytest.approx(expected)


def test_owa_is_the_mean_of_two_ratios(tested, long):
    found = measure(tested, ["smape", "mase", "owa"], history=long).set_index("model")
    ratios = found.loc["Naive"] / found.loc["SeasonalNaive"]
    assert found.loc["Naive", "owa"] == pytest.approx((ratios["smape"] + ratios["mase"]) / 2)


def test_scaled_quantile_loss(tested, long):
    own = tested.drop(columns="SeasonalNaive")
    found = measure(own, "scaled_quantile_loss", by="series", history=long, season_length=3)
    wide = long.pivot(index="ds", columns="unique_id", values="y")
    history = wide[wide.index < tested["cutoff"].min()]
    for (name, rows), value in zip(
        own.groupby("id", sort=False), found["scaled_quantile_loss"], strict=True
    ):
        quantiles = rows[[f"Naive_q{level}" for level in LEVELS]]
        expected = evaluation.scaled_quantile_loss(rows["y"], quantiles, LEVELS, history[name], 3)
        assert value == pytest.approx(expected)


def test_the_scale_is_that_of_the_rows_before_the_first_cutoff(wide):
    tested = backtest(tsar.Naive(horizon=5), wide, windows=4)
    changed = wide.copy()
    changed.loc[changed.index >= tested["cutoff"].min()] *= 7.0
    once, again = (measure(tested, "mase", history=data) for data in (wide, changed))
    pd.testing.assert_frame_equal(once, again, check_exact=True)
    # The history alone, without what was forecast, is enough; and so is a panel.
    alone = wide[wide.index < tested["cutoff"].min()]
    pd.testing.assert_frame_equal(measure(tested, "mase", history=alone), once)
    panel = tsar.Panel.from_frame(alone)
    pd.testing.assert_frame_equal(measure(tested, "mase", history=panel), once)
    by_series = measure(tested, ["mase", "mae"], by="series", history=alone)
    assert by_series["variate"].tolist() == ["load", "trend", "price"]
    assert once.loc[0, "mase"] == pytest.approx(by_series["mase"].mean())


def test_series_that_never_change_have_no_scale(long):
    long.loc[long["unique_id"] == "load", "y"] = 2.0
    tested = backtest(tsar.Naive(horizon=5), long)
    by_series = measure(tested, "mase", by="series", history=long).set_index("id")["mase"]
    assert np.isnan(by_series["load"]) and by_series.notna().sum() == 2
    overall = measure(tested, "mase", history=long).loc[0, "mase"]
    assert overall == pytest.approx(by_series.mean())


def test_a_missing_forecast_is_not_hidden(tested):
    tested.loc[tested.index[:2], "Naive"] = np.nan
    found = measure(tested, "mae", by="series").set_index(["model", "id"])["mae"]
    assert np.isnan(found["Naive", "load"]) and found.notna().sum() == 5


def test_groups_without_truth_are_nan(tested):
    tested.loc[tested["id"] == "trend", "y"] = np.nan
    found = measure(tested, ["mae", "rmse"], by="series").set_index(["model", "id"])
    assert found.loc[("Naive", "trend")].isna().all() and found.notna().to_numpy().sum() == 8


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"metrics": "smap"}, ParameterError, "did you mean 'smape'"),
        ({"by": "steps"}, ParameterError, "did you mean 'step'"),
        ({"metrics": "mase"}, DataError, "pass history=df"),
        ({"metrics": "coverage"}, DataError, "needs intervals of SeasonalNaive"),
        ({"weights": "w"}, DataError, "no column"),
        ({"weights": [1.0]}, DataError, "one for each row"),
    ],
)
def test_wrong_arguments(tested, wrong, error, message):
    with pytest.raises(error, match=message):
        measure(tested, **wrong)


def test_histories_of_something_else(tested, long):
    with pytest.raises(DataError, match="history has no id 'load'"):
        measure(tested, "mase", history=long[long["unique_id"] != "load"])
    with pytest.raises(DataError, match="history has no row at the cutoff"):
        measure(tested, "mase", history=long.assign(ds=long["ds"] + pd.Timedelta(minutes=7)))
    with pytest.raises(ParameterError, match="season_length must be"):
        measure(tested, "mase", history=long, season_length=0)
    with pytest.raises(ParameterError, match="'owa' compares with benchmark='SeasonalNaive'"):
        measure(tested.drop(columns="SeasonalNaive"), "owa", history=long)
    with pytest.raises(DataError, match="must be what backtest returns"):
        measure(long)


def test_infinite_intervals_cover(wide):
    tested = backtest(tsar.Naive(horizon=6), wide[["load"]], windows=3, level=80)
    tested["Naive_lo80"], tested["Naive_hi80"] = -np.inf, np.inf
    assert measure(tested, "coverage")["coverage_80"].tolist() == [1.0]


def test_a_history_with_names_of_its_own(wide):
    named = wide.reset_index(names="day").melt("day", var_name="shop", value_name="sold")
    read = {"id_column": "shop", "time_column": "day", "target": "sold"}
    tested = backtest(tsar.Naive(horizon=6, **read), named, windows=3)
    expected = measure(tested, "mase", history=Panel.from_frame(named, **read))
    assert expected.notna().all(axis=None)
    # The backtest knows them, and what a file keeps of it does not.
    pd.testing.assert_frame_equal(measure(tested, "mase", history=named), expected)
    tested.attrs = {}
    with pytest.raises(DataError, match=r"measure: history cannot.*history=Panel\.from_frame"):
        measure(tested, "mase", history=named)


def test_a_column_of_text_is_no_forecast(wide):
    tested = backtest(tsar.Naive(horizon=6), wide, windows=2).assign(note="checked")
    with pytest.raises(DataError, match="column 'note' of the backtest holds no numbers"):
        measure(tested)


def test_levels_near_a_hundred_keep_their_names(wide):
    model = tsar.NLinear(
        context_length=8, horizon=2, loss="gaussian", max_epochs=1, random_state=0, device="cpu"
    )
    tested = backtest({"net": model}, wide[["load"]], windows=2, level=[99.99999, 99.999999])
    assert len(tested.columns.unique()) == len(tested.columns) == 10
    found = measure(tested, ["coverage", "interval_score"])
    assert {"coverage_99.99999", "interval_score_99.999999"} <= set(found)
