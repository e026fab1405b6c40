"""What figures show: the data of their lines, their labels and their legends."""

import io
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

import tsar
from tsar import plot
from tsar.evaluation import backtest, compare, measure
from tsar.exceptions import DataError, MissingExtraError, ParameterError

matplotlib.use("Agg")
SMALL = {"context_length": 14, "max_epochs": 2, "random_state": 0, "device": "cpu"}


def lines(ax):
    """Return the lines of a figure by their labels."""
    return {line.get_label(): line for line in ax.get_lines()}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def bands(ax):
    """Return each shaded band as (low, high), from the first one drawn."""
    found = []
    for band in ax.collections:
        corners = band.get_paths()[0].vertices
        by_place = pd.Series(corners[:, 1]).groupby(corners[:, 0])
        found.append((by_place.min().to_numpy(), by_place.max().to_numpy()))
    return found


@pytest.fixture(scope="module")
def sold() -> pd.Series:
    rng = np.random.default_rng(1)
    values = 10 + 3 * np.sin(2 * np.pi * np.arange(90) / 7) + rng.normal(size=90)
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=90), name="sold")


@pytest.fixture(scope="module")
def network(sold):
    levels = [0.05, 0.1, 0.9, 0.95]
    return tsar.NLinear(horizon=6, loss="quantile", quantiles=levels, **SMALL).fit(sold)


@pytest.fixture(scope="module")
def tested(sold):
    models = {
        "net": tsar.NLinear(horizon=4, loss="quantile", quantiles=[0.1, 0.9], **SMALL),
        "naive": tsar.Naive(horizon=4),
    }
    both = backtest(models["naive"], sold, windows=5)
    frame = backtest(models["net"], sold, windows=5, level=80)
    return frame.assign(naive=both["Naive"]).rename(
        columns=lambda name: name.replace("NLinear", "net")
    )


def test_a_forecast_with_history_and_intervals(sold, network):
    predicted = network.predict(level=[80, 90])
    ax = plot.forecast(predicted, sold, rows=30)
    drawn = lines(ax)
    assert list(drawn) == ["observed", "forecast"]
    np.testing.assert_array_equal(drawn["observed"].get_ydata(), sold[-30:])
    np.testing.assert_array_equal(drawn["observed"].get_xdata(), sold.index[-30:])
    np.testing.assert_array_equal(drawn["forecast"].get_ydata(), predicted["sold"])
    np.testing.assert_array_equal(drawn["forecast"].get_xdata(), predicted.index)
    # The wide interval lies behind the narrow one.
    for (low, high), level in zip(bands(ax), (90, 80), strict=True):
        np.testing.assert_allclose(low, predicted[f"sold_lo{level}"])
        np.testing.assert_allclose(high, predicted[f"sold_hi{level}"])
    assert legend(ax) == ["observed", "90 %", "80 %", "forecast"]
    assert ax.get_ylabel() == "sold"


def test_pairs_of_quantiles_are_intervals(sold, network):
    predicted = network.predict(quantiles=[0.1, 0.9, 0.5])
    (band,) = bands(plot.forecast(predicted))
    np.testing.assert_allclose(band, predicted[["sold_q0.1", "sold_q0.9"]].to_numpy().T)


def test_rolled_steps_are_dashed(sold, network):
    for predicted in (network.predict(10), network.predict(10, level=80)):
        drawn = lines(plot.forecast(predicted, sold))
        values = predicted if isinstance(predicted, pd.Series) else predicted["sold"]
        np.testing.assert_array_equal(drawn["forecast"].get_ydata(), values[:6])
        # It begins where the other line ends.
        np.testing.assert_array_equal(drawn["rolled forward"].get_ydata(), values[5:])
        assert drawn["rolled forward"].get_linestyle() == "--"


def test_one_of_several_series(sold):
    long = pd.concat(
        [
            pd.DataFrame({"shop": name, "day": sold.index, "y": sold * factor, "tax": 1.0})
            for name, factor in (("a", 1.0), ("b", -2.0))
        ]
    )
    columns = {"id_column": "shop", "time_column": "day"}
    predicted = tsar.SeasonalNaive(horizon=3, **columns).fit(long).predict(5)
    drawn = lines(plot.forecast(predicted, long, id="b", **columns))
    np.testing.assert_array_equal(drawn["observed"].get_ydata(), -2 * sold)
    np.testing.assert_array_equal(drawn["forecast"].get_ydata(), -2 * sold[-7:-4])
    assert len(drawn["rolled forward"].get_ydata()) == 3
    with pytest.raises(ParameterError, match="plot.forecast: id must be one of 'a', 'b', got None"):
        plot.forecast(predicted, long, **columns)
    indexed = long.set_index(["shop", "day"])[["y"]]
    again = lines(plot.forecast(tsar.Naive(horizon=2).fit(indexed).predict(), indexed, id="a"))
    np.testing.assert_array_equal(again["observed"].get_ydata(), sold)


def test_one_of_several_variates(sold):
    wide = pd.DataFrame({"a": sold, "b": sold + 100})
    predicted = tsar.Naive(horizon=3).fit(wide).predict()
    ax = plot.forecast(predicted, wide, variate="b")
    np.testing.assert_array_equal(lines(ax)["observed"].get_ydata(), wide["b"])
    assert ax.get_ylabel() == "b"
    with pytest.raises(ParameterError, match="variate must be one of 'a', 'b', got 'c'"):
        plot.forecast(predicted, wide, variate="c")


def test_a_local_clock_is_shown(sold):
    local = sold.tz_localize("Asia/Tokyo")
    ax = plot.forecast(tsar.Naive(horizon=2).fit(local).predict(), local)
    assert str(ax.xaxis.get_major_locator().tz) == "Asia/Tokyo"
    places = pd.DatetimeIndex(lines(ax)["forecast"].get_xdata()).tz_localize("UTC")
    assert places.tolist() == [local.index[-1] + pd.Timedelta(days=day) for day in (1, 2)]


@pytest.mark.parametrize("kind", ["period", "integer", "text"])
def test_times_of_any_kind(sold, kind):
    index = {
        "period": sold.index.to_period("D"),
        "integer": pd.RangeIndex(10, 100),
        "text": sold.index.strftime("%Y-%m-%d"),
    }[kind]
    series = sold.set_axis(index)
    drawn = lines(plot.forecast(tsar.Naive(horizon=4).fit(series).predict(), series))
    places = drawn["forecast"].get_xdata()
    expected = np.arange(100, 104) if kind == "integer" else pd.date_range("2024-03-31", periods=4)
    np.testing.assert_array_equal(np.asarray(places), expected)


def test_a_backtest_by_cutoff(tested, sold):
    ax = plot.backtest(tested, model="net", history=sold)
    observed, *windows = ax.get_lines()
    np.testing.assert_array_equal(observed.get_ydata(), sold)
    assert len(windows) == 5 and len(bands(ax)) == 5
    for line, (_, rows) in zip(windows, tested.groupby("cutoff"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), rows["net"])
        np.testing.assert_array_equal(line.get_xdata(), rows["time"])
    np.testing.assert_allclose(bands(ax)[4][1], tested["net_hi80"][-4:])
    assert legend(ax) == ["observed", "80 %", "net"]
    both = plot.backtest(tested)
    assert legend(both) == ["observed", "net", "naive"] and not both.collections
    assert len({line.get_color() for line in both.get_lines()}) == 3
    with pytest.raises(ParameterError, match="model must be one of 'net', 'naive', got 'nett'"):
        plot.backtest(tested, model="nett")


def test_a_backtest_of_several_series(sold):
    wide = pd.DataFrame({"a": sold, "b": sold + 100})
    frame = backtest(tsar.Naive(horizon=3), wide, windows=2, step=2)
    ax = plot.backtest(frame, variate="b")
    # Rows that two windows forecast are drawn once.
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), wide["b"][-5:])
    with pytest.raises(ParameterError, match="plot.backtest: variate must be one of 'a', 'b'"):
        plot.backtest(frame)
    with pytest.raises(DataError, match="it has no column 'cutoff'"):
        plot.backtest(wide)


def test_errors_by_step(tested, sold):
    ax = plot.error_by_step(tested, "rmse")
    table = measure(tested, "rmse", by="step")
    for name, line in lines(ax).items():
        rows = table[table["model"] == name]
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
        np.testing.assert_array_equal(line.get_ydata(), rows["rmse"])
    assert legend(ax) == ["net", "naive"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "rmse")
    scaled = plot.error_by_step(tested, "mase", history=sold)
    assert legend(scaled) == ["net", "naive"]
    shares = plot.error_by_step(tested[tested.columns.drop("naive")], "coverage")
    assert len(shares.get_lines()) == 1


def test_reliability_of_quantiles():
    rng = np.random.default_rng(3)
    y = rng.normal(size=4000)
    y[7] = np.nan
    levels = [0.1, 0.25, 0.5, 0.9]
    frame = pd.DataFrame({"id": 0, "cutoff": 0, "time": 0, "step": 1, "y": y, "sure": 0.0})
    for level in levels:
        # Half as wide as they should be.
        frame[f"sure_q{level}"] = 0.5 * stats.norm.ppf(level)
    frame["sure_lo90"], frame["sure_hi90"] = -0.5 * 1.6448536, 0.5 * 1.6448536
    ax = plot.reliability(frame)
    line = lines(ax)["sure"]
    np.testing.assert_allclose(line.get_xdata(), [0.05, *levels, 0.95])
    expected = stats.norm.cdf(0.5 * stats.norm.ppf(line.get_xdata()))
    np.testing.assert_allclose(line.get_ydata(), expected, atol=0.025)
    np.testing.assert_array_equal(lines(ax)["reliable"].get_ydata(), [0, 1])
    with pytest.raises(DataError, match="plot.reliability: the backtest holds no quantiles"):
        plot.reliability(frame[["id", "cutoff", "time", "step", "y", "sure"]])


def test_residuals_in_four_ways(sold):
    frame = backtest(tsar.Naive(horizon=2), sold, windows=40, step=1)
    axes = plot.residuals(frame, step=2)
    assert axes.shape == (2, 2)
    left = (sold.shift(0) - sold.shift(2))[-40:].to_numpy()
    over_time, histogram, correlation, quantiles = axes.ravel()
    np.testing.assert_allclose(lines(over_time)["residual"].get_ydata(), left)
    areas = [bar.get_height() * bar.get_width() for bar in histogram.patches]
    assert sum(areas) == pytest.approx(1)
    centred = left - left.mean()
    expected = [np.sum(centred[lag:] * centred[:-lag]) / np.sum(centred**2) for lag in (1, 2, 5)]
    found = lines(correlation)["autocorrelation"].get_ydata()[[0, 1, 4]]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(lines(quantiles)["residual"].get_ydata(), np.sort(left))
    assert [ax.get_title() for ax in axes.ravel()][1] == "histogram"
    with pytest.raises(DataError, match="step=3 of Naive has 0 residuals, 3 are needed"):
        plot.residuals(frame, step=3)


def test_a_learning_curve(network):
    ax = plot.learning_curve(network)
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["training"].get_ydata(), network.history_["train_loss"])
    np.testing.assert_array_equal(drawn["validation"].get_ydata(), network.history_["val_loss"])
    assert drawn[f"kept: epoch {network.best_epoch_}"].get_xdata()[0] == network.best_epoch_
    with pytest.raises(ParameterError, match="plot.learning_curve: model must be .* got Naive"):
        plot.learning_curve(tsar.Naive())


def test_a_leaderboard_is_the_figure_of_a_comparison(sold):
    models = [tsar.Naive(horizon=3), tsar.AutoReg(horizon=3)]
    board = compare(models, sold, windows=8, n_resamples=50)
    ax = plot.leaderboard(board)
    ranked = board.frame.sort_values(board.metric)
    assert [text.get_text() for text in ax.get_yticklabels()] == ranked["model"].tolist()
    points = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(points, ranked[board.metric])


def test_critical_differences_are_ranks_and_groups(sold):
    models = [tsar.Naive(horizon=3), tsar.AutoReg(horizon=3), tsar.SeasonalNaive(horizon=3)]
    board = compare(models, sold, windows=8, n_resamples=50)
    found = board.critical_difference(0.1)
    ax = plot.critical_difference(board, alpha=0.1)
    drawn = ax.get_lines()
    np.testing.assert_allclose(drawn[0].get_xdata(), found.ranks)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(found.ranks.index)
    assert len(drawn) == 1 + len(found.groups)
    for line, group in zip(drawn[1:], found.groups, strict=True):
        assert list(line.get_xdata()) == [found.ranks[group].min(), found.ranks[group].max()]
        assert line.get_label() == ", ".join(group)
    assert f"{found.difference:.3g}" in ax.get_xlabel()
    with pytest.raises(ParameterError, match="plot.critical_difference: board must be"):
        plot.critical_difference(board.frame)


EXPLAINED = pd.DataFrame(
    {
        "id": [0, 0, 0, 0, 0],
        "variate": ["a", "a", "a", "b", "b"],
        "role": ["history", "future", "past", "history", "future"],
        "input": ["a", "price", "heat", "b", "price"],
        "share": [0.3, 0.6, 0.1, 0.8, 0.2],
    }
)


def test_importance_is_the_mean_share_the_largest_first():
    ax = plot.importance(EXPLAINED)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    widths = [bar.get_width() for bar in ax.patches]
    # Bars are drawn from below; the history of a variate is an input of that one only.
    assert labels == ["heat", "a, history", "b, history", "price"]
    np.testing.assert_allclose(widths, [0.05, 0.15, 0.4, 0.4])
    assert len(plot.importance(EXPLAINED, most=2).patches) == 2
    with pytest.raises(DataError, match=r"plot.importance: explained must be the frame that expl"):
        plot.importance(EXPLAINED.drop(columns="share"))
    with pytest.raises(ParameterError, match="plot.importance: most must be an integer in"):
        plot.importance(EXPLAINED, most=0)


def test_fitted_values_have_residuals_to_draw(sold):
    model = tsar.SeasonalNaive(horizon=4, season_length=7).fit(sold)
    axes = plot.residuals(model.fitted_values(sold, horizon=1))
    left = axes[0, 0].lines[-1].get_ydata()
    np.testing.assert_allclose(left, (sold - sold.shift(7)).dropna())


def drawers(tested, network):
    return {
        "forecast": lambda ax: plot.forecast(network.predict(), ax=ax),
        "backtest": lambda ax: plot.backtest(tested, ax=ax),
        "error_by_step": lambda ax: plot.error_by_step(tested, ax=ax),
        "reliability": lambda ax: plot.reliability(tested, ax=ax),
        "learning_curve": lambda ax: plot.learning_curve(network, ax=ax),
        "importance": lambda ax: plot.importance(EXPLAINED, ax=ax),
    }


def test_axes_that_are_given_are_drawn_on_and_returned(tested, network, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda *args: pytest.fail("a figure was shown"))
    for name, draw in drawers(tested, network).items():
        ax = Figure().add_subplot()
        assert draw(ax) is ax, name
        ax.figure.canvas.draw()
        with pytest.raises(ParameterError, match=f"plot.{name}: ax must be matplotlib axes"):
            draw("here")
    four = Figure().subplots(2, 2)
    naive = tested[tested.columns.drop(["net", "net_lo80", "net_hi80"])]
    assert plot.residuals(naive, axes=list(four.ravel()))[1, 1] is four[1, 1]
    with pytest.raises(ParameterError, match="plot.residuals: axes must be 4 axes, got 3"):
        plot.residuals(naive, axes=four.ravel()[:3])
    assert pyplot.get_fignums() == [], "a figure is kept open"


def test_without_matplotlib(tested, network, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for name, draw in drawers(tested, network).items():
        message = rf"plot.{name} needs matplotlib: pip install 'tsar\[plot\]'"
        with pytest.raises(MissingExtraError, match=message):
            draw(None)


@pytest.mark.parametrize("rows", [0, -3, 2.5, True])
def test_rows_of_the_history(sold, network, rows):
    with pytest.raises(ParameterError, match="plot.forecast: rows must be an integer in"):
        plot.forecast(network.predict(), sold, rows=rows)


def test_a_frame_is_no_leaderboard():
    with pytest.raises(ParameterError, match=r"board must be what tsar\.evaluation\.compare"):
        plot.leaderboard(pd.DataFrame({"model": ["Naive"]}))


DOLLARS = ["sales_$ / cost_$", "cost ($) vs price ($)", "$x^2$", "a $", r"\$ and $_", "$$"]


def shown(figure):
    """Return the texts of a figure as they are drawn, none of them as a formula."""
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(written, format="svg")
    texts = ElementTree.fromstring(written.getvalue()).iter("{http://www.w3.org/2000/svg}text")
    return {"".join(text.itertext()) for text in texts}


@pytest.mark.parametrize("name", DOLLARS)
def test_dollar_signs_in_the_name_of_a_series_are_no_formula(sold, name):
    model = tsar.SeasonalNaive(horizon=3).fit(sold.rename(name))
    assert name in shown(plot.forecast(model.predict(), sold.rename(name)).figure)
    if name not in DOLLARS[:2]:
        return
    wide = pd.DataFrame({name: sold, "other": sold})
    predicted = tsar.SeasonalNaive(horizon=3).fit(wide).calibrate(wide).predict(level=80)
    assert name in shown(plot.forecast(predicted, wide, variate=name).figure)
    two = tsar.ARNet(horizon=1, context_length=3, max_epochs=1, random_state=0).fit(wide)
    assert name in shown(plot.coefficients(two).figure)


@pytest.mark.parametrize("name", DOLLARS[:2])
def test_dollar_signs_in_the_name_of_a_model_or_an_input_are_no_formula(sold, name):
    tested = backtest(tsar.Naive(horizon=3), sold, windows=4, step=1)
    tested = tested.rename(columns={"Naive": name})
    tested[f"{name}_q0.1"], tested[f"{name}_q0.9"] = tested[name] - 1, tested[name] + 1
    assert name in shown(plot.backtest(tested.drop(columns=list(tested)[-2:])).figure)
    for draw in (plot.reliability, plot.error_by_step):
        assert name in shown(draw(tested).figure)
    axes = plot.residuals(tested)
    assert f"residuals of {name}, step 1" in shown(axes[0, 0].figure)
    board = compare({name: tsar.Naive(horizon=3)}, sold, windows=4, n_resamples=10)
    assert name in shown(plot.leaderboard(board).figure)
    ranked = compare(
        {name: tsar.Naive(horizon=3), "other": tsar.Theta(horizon=3)},
        sold,
        windows=4,
        n_resamples=10,
    )
    assert name in shown(plot.critical_difference(ranked).figure)
    explained = pd.DataFrame({"role": ["history", "future"], "input": ["y", name], "share": 0.5})
    assert name in shown(plot.importance(explained).figure)


def test_figures_show_the_times_that_were_read():
    """The third of four days of May is no day of March, and text is not sorted as text."""
    days = pd.date_range("2024-03-20", periods=40)
    series = pd.Series(np.arange(40.0), index=days.strftime("%d/%m/%Y"))
    model = tsar.Naive(horizon=3).fit(series)
    drawn = lines(plot.forecast(model.predict(), series))
    np.testing.assert_array_equal(drawn["observed"].get_xdata(), days)
    expected = pd.date_range("2024-04-29", periods=3)
    np.testing.assert_array_equal(drawn["forecast"].get_xdata(), expected)
    short = series.iloc[:14]
    np.testing.assert_array_equal(
        lines(plot.forecast(model.predict(df=short), series))["forecast"].get_xdata(),
        pd.date_range("2024-04-03", periods=3),
    )
    tested = tsar.evaluation.backtest(tsar.Naive(horizon=2), series, windows=6)
    observed, *windows = plot.backtest(tested, history=series).get_lines()
    np.testing.assert_array_equal(observed.get_xdata(), days)
    assert len(windows) == 6
    quarters = pd.Series(
        [1.0, 2, 3, 4, 5], index=[f"2023 Q{q}" for q in (1, 2, 3, 4)] + ["2024 Q1"]
    )
    drawn = lines(plot.forecast(tsar.Naive(horizon=1).fit(quarters).predict(), quarters))
    assert list(drawn["forecast"].get_xdata()) == [np.datetime64("2024-04-01")]


def test_names_come_from_the_forecast_and_the_backtest(sold):
    read = {"id_column": "shop", "time_column": "day", "target": "sold"}
    both = pd.concat(
        [sold.rename_axis("day").reset_index().assign(shop=name) for name in ("a", "b")],
        ignore_index=True,
    )
    model = tsar.Naive(horizon=4, **read).fit(both)
    found = lines(plot.forecast(model.predict(), both, id="b"))
    np.testing.assert_array_equal(found["observed"].get_ydata(), sold)
    tested = backtest(tsar.Naive(horizon=4, **read), both, windows=3)
    drawn = lines(plot.backtest(tested, id="a", history=both))["observed"]
    np.testing.assert_array_equal(drawn.get_ydata(), sold)
    ax = plot.error_by_step(tested, "mase", history=both)
    expected = measure(tested, "mase", by="step", history=tsar.Panel.from_frame(both, **read))
    np.testing.assert_allclose(lines(ax)["Naive"].get_ydata(), expected["mase"])


def test_names_survive_a_parquet_file(sold, tmp_path):
    pytest.importorskip("pyarrow")
    frame = sold.rename_axis("day").reset_index().assign(shop="a")
    read = {"id_column": "shop", "time_column": "day", "target": ("sold",)}
    written = tsar.Naive(horizon=4, **read).fit(frame).predict()
    written.to_parquet(tmp_path / "forecast.parquet")
    again = pd.read_parquet(tmp_path / "forecast.parquet")
    assert again.attrs["reading"] == {**read, "target": ["sold"], "gaps": "raise"}
    assert len(lines(plot.forecast(again, frame))["observed"].get_ydata()) == len(sold)


def test_series_of_several_id_columns_and_days_that_only_the_history_tells_from_months():
    days = pd.date_range("2024-01-01", periods=40)
    frame = pd.concat(
        [
            pd.DataFrame({"shop": shop, "item": item, "ds": days.strftime("%d/%m/%Y")}).assign(
                y=np.arange(40.0) + 100 * item
            )
            for shop in "ab"
            for item in (1, 2)
        ],
        ignore_index=True,
    )
    model = tsar.Naive(horizon=2, id_column=["shop", "item"])
    tested = backtest(model, frame, windows=2)
    observed, *_ = plot.backtest(tested, id=("b", 2), history=frame).get_lines()
    np.testing.assert_array_equal(observed.get_xdata(), days)
    np.testing.assert_array_equal(observed.get_ydata(), np.arange(40.0) + 200)
    drawn = lines(plot.forecast(model.fit(frame).predict(), frame, id=("a", 1)))
    np.testing.assert_array_equal(drawn["observed"].get_ydata(), np.arange(40.0) + 100)
    np.testing.assert_array_equal(
        drawn["forecast"].get_xdata(), pd.date_range("2024-02-10", periods=2)
    )
