"""Figures of many series: one legend, titles, dates, shades, and what is left out."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.dates import ConciseDateFormatter, DateFormatter
from matplotlib.figure import Figure

import tsar
from tsar import plot
from tsar.evaluation import backtest
from tsar.exceptions import DataError, MissingExtraError, ParameterError

matplotlib.use("Agg")
N_DAYS, HORIZON = 60, 7
COLUMNS = {"id_column": "item", "time_column": "day"}
DAYS = pd.date_range("2025-01-01", periods=N_DAYS)


def made(place: int, n_days: int = N_DAYS) -> pd.DataFrame:
    sold = np.random.default_rng(place).poisson(10 * (place + 1), N_DAYS).astype(float)
    rows = pd.DataFrame({"item": f"item_{place}", "day": DAYS, "y": sold})
    return rows.iloc[:n_days]


@pytest.fixture(scope="module")
def sales() -> pd.DataFrame:
    return pd.concat([made(place) for place in range(5)], ignore_index=True)


@pytest.fixture(scope="module")
def predicted(sales) -> pd.DataFrame:
    model = tsar.SeasonalNaive(horizon=HORIZON, season_length=7, **COLUMNS).fit(sales)
    return model.calibrate(sales).predict(level=[80, 95])


def titles(axes):
    return [ax.get_title(loc="left") for ax in axes]


def drawn(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def entries(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_a_page_has_a_panel_for_each_series_and_one_legend(sales, predicted):
    axes = plot.forecasts(sales, predicted, **COLUMNS)
    assert titles(axes) == [f"item_{place}" for place in range(5)]
    for place, ax in enumerate(axes):
        item = f"item_{place}"
        np.testing.assert_array_equal(
            drawn(ax)["observed"].get_ydata(), sales.loc[sales["item"] == item, "y"]
        )
        rows = predicted[predicted["item"] == item]
        np.testing.assert_array_equal(drawn(ax)["forecast"].get_ydata(), rows["y"])
        np.testing.assert_array_equal(drawn(ax)["forecast"].get_xdata(), rows["day"])
        assert ax.get_legend() is None
    figure = axes[0].figure
    (legend,) = figure.legends
    assert entries(legend) == ["observed", "95 %", "80 %", "forecast"]
    assert (figure.get_supylabel(), figure.get_supxlabel()) == ("y", "")
    figure.canvas.draw()


def test_what_a_page_leaves_out_is_said(sales, predicted):
    axes = plot.forecasts(sales, predicted, n=2, rows=20, **COLUMNS)
    assert titles(axes) == ["item_0", "item_1"]
    expected = "2 of 5 series; the last 20 observed rows of each"
    assert axes[0].figure.get_supxlabel() == expected
    np.testing.assert_array_equal(drawn(axes[1])["observed"].get_ydata(), made(1)["y"][-20:])
    whole = plot.forecasts(sales, predicted, rows=None, **COLUMNS)
    assert len(drawn(whole[0])["observed"].get_ydata()) == N_DAYS


def test_named_series_come_in_their_order(sales, predicted):
    assert titles(plot.forecasts(sales, predicted, ids=["item_3", "item_1"], **COLUMNS)) == [
        "item_3",
        "item_1",
    ]
    assert titles(plot.forecasts(sales, predicted, ids="item_2", **COLUMNS)) == ["item_2"]
    with pytest.raises(ParameterError, match="plot.forecasts: ids must be one of 'item_0', .*'x'"):
        plot.forecasts(sales, predicted, ids=["item_1", "x"], **COLUMNS)
    with pytest.raises(ParameterError, match="plot.forecasts: ids must name one at least"):
        plot.forecasts(sales, predicted, ids=[], **COLUMNS)
    with pytest.raises(ParameterError, match="id of a forecast must be one of .* got 'item_4'"):
        plot.forecasts(sales[sales["item"] != "item_4"], predicted, **COLUMNS)


@pytest.mark.parametrize("name", ["n", "rows"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "all"])
def test_numbers_of_a_page_are_counts(sales, predicted, name, value):
    with pytest.raises(ParameterError, match=f"plot.forecasts: {name} must be an integer in"):
        plot.forecasts(sales, predicted, **{name: value}, **COLUMNS)


def test_frames_in_the_other_order_are_an_error(sales, predicted):
    with pytest.raises(DataError, match="the history begins at 2025-03-02 .*in place of the other"):
        plot.forecasts(predicted, sales, **COLUMNS)
    with pytest.raises(DataError, match="plot.forecast: the history begins at 2025-03-02"):
        plot.forecast(sales, predicted, id="item_0", **COLUMNS)


def test_what_is_no_forecast_is_an_error(sales, predicted):
    with pytest.raises(DataError, match="plot.forecasts: the forecast must be what predict return"):
        plot.forecasts(sales, None, **COLUMNS)
    with pytest.raises(DataError, match="plot.forecasts: the forecast is empty"):
        plot.forecasts(sales, predicted[:0], **COLUMNS)
    with pytest.raises(DataError, match="the data must be a pandas DataFrame or Series"):
        plot.forecasts(None, predicted, **COLUMNS)


def test_long_ids_are_folded_above_their_panel(sales):
    long_id = "shop in the market street, article 4711, whole milk of one litre"
    odd = sales.replace({"item_0": long_id})
    axes = plot.forecasts(odd, tsar.Naive(horizon=3, **COLUMNS).fit(odd).predict(), **COLUMNS)
    assert titles(axes)[0].replace("\n", " ") == long_id
    axes[0].figure.canvas.draw()
    title = axes[0]._left_title.get_window_extent()
    assert title.x1 <= axes[0].bbox.x1 and title.y0 >= axes[0].bbox.y1


@pytest.mark.parametrize("kind", ["integer", "period", "local"])
def test_pages_of_times_of_any_kind(kind):
    times = {
        "integer": pd.RangeIndex(10, 70),
        "period": pd.period_range("2020-01", periods=60, freq="M"),
        "local": pd.date_range("2025-03-29", periods=60, freq="h", tz="Europe/Berlin"),
    }[kind]
    frame = pd.DataFrame({"unique_id": np.repeat([7, 3], 60), "ds": [*times, *times], "y": 1.0})
    axes = plot.forecasts(frame, tsar.Naive(horizon=4).fit(frame).predict(), ids=3)
    assert titles(axes) == ["3"] and len(drawn(axes[0])["forecast"].get_xdata()) == 4
    axes[0].figure.canvas.draw()


def test_columns_of_a_wide_frame_are_panels():
    wide = pd.DataFrame({f"shop {place}": made(place)["y"].to_numpy() for place in range(3)}, DAYS)
    predicted = tsar.Naive(horizon=2).fit(wide).predict()
    axes = plot.forecasts(wide, predicted)
    assert titles(axes) == ["shop 0", "shop 1", "shop 2"]
    np.testing.assert_array_equal(drawn(axes[2])["observed"].get_ydata(), wide["shop 2"])
    np.testing.assert_array_equal(drawn(axes[2])["forecast"].get_ydata(), predicted["shop 2"])
    assert titles(plot.forecasts(wide, predicted, variate=["shop 2", "shop 0"])) == [
        "shop 2",
        "shop 0",
    ]
    one = wide["shop 1"]
    assert titles(plot.forecasts(one, tsar.Naive(horizon=2).fit(one).predict())) == ["shop 1"]


@pytest.mark.parametrize("names", [["a\nb", "c"], ["", "b"], ["extrapolated", "b"], [True, 2.5]])
def test_names_of_columns_are_any(names):
    values = np.random.default_rng(0).normal(size=(len(DAYS), 2))
    wide = pd.DataFrame(values, DAYS, pd.Index(names, dtype=object))
    model = tsar.Naive(horizon=2).fit(wide).calibrate(wide)
    axes = plot.forecasts(wide, model.predict(level=80))
    np.testing.assert_array_equal(drawn(axes[0])["observed"].get_ydata(), values[:, 0])
    axis = plot.forecast(model.predict(3), wide, variate=names[0])
    np.testing.assert_array_equal(drawn(axis)["observed"].get_ydata(), values[:, 0])


def test_several_columns_of_several_series(sales):
    both = sales.assign(gone=sales["y"] / 2).set_index(["item", "day"])
    predicted = tsar.Naive(horizon=2).fit(both).predict()
    axes = plot.forecasts(both, predicted, ids=["item_1", "item_0"])
    assert titles(axes) == ["item_1, y", "item_1, gone", "item_0, y", "item_0, gone"]
    np.testing.assert_array_equal(drawn(axes[1])["observed"].get_ydata(), made(1)["y"] / 2)
    assert axes[0].figure.get_supylabel() == ""
    assert plot.forecasts(both, predicted, n=3)[0].figure.get_supxlabel() == "3 of 10 series"


def test_a_series_with_ids(sales):
    indexed = sales.set_index(["item", "day"])["y"]
    axes = plot.forecasts(indexed, tsar.Naive(horizon=3).fit(indexed).predict(), n=2)
    assert titles(axes) == ["item_0", "item_1"]
    np.testing.assert_array_equal(drawn(axes[1])["observed"].get_ydata(), made(1)["y"])


def test_ids_are_written_as_they_are(sales):
    """Between two dollar signs matplotlib would read mathematics."""
    odd = sales.replace({"item_0": "$x_1$", "item_1": "5 $ or $ 6"})
    predicted = tsar.Naive(horizon=3, **COLUMNS).fit(odd).predict()
    axes = plot.forecasts(odd, predicted, n=2, **COLUMNS)
    assert [ax._left_title.get_parse_math() for ax in axes] == [False, False]
    assert titles(axes) == ["$x_1$", "5 $ or $ 6"]


def test_series_of_other_days_keep_their_own_dates(predicted):
    ragged = pd.concat([made(0), made(1, n_days=30)], ignore_index=True)
    forecast = tsar.Naive(horizon=3, **COLUMNS).fit(ragged).predict()
    first, second = plot.forecasts(ragged, forecast, **COLUMNS)
    assert first.get_xlim() != second.get_xlim()
    same = plot.forecasts(
        pd.concat([made(0), made(1)]), predicted, ids=["item_0", "item_1"], **COLUMNS
    )
    assert same[0].get_xlim() == same[1].get_xlim()


def test_the_legend_shows_the_shade_that_is_seen(sales, predicted):
    ax = plot.forecast(predicted, sales, id="item_0", **COLUMNS)
    wide, narrow = (band.get_facecolor()[0] for band in ax.collections)
    blue = np.array(to_rgba("C0")[:3])
    outer = wide[3] * blue + (1 - wide[3])
    inner = narrow[3] * blue + (1 - narrow[3]) * outer
    shown = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    for label, color in (("95 %", outer), ("80 %", inner)):
        patch = np.array(shown[label].get_facecolor())
        np.testing.assert_allclose(patch[3] * patch[:3] + (1 - patch[3]), color, atol=1e-9)
    assert np.abs(outer - inner).max() > 0.15


def test_panels_of_a_grid_share_one_legend(sales, predicted):
    figure = Figure(layout="constrained")
    for place, ax in enumerate(figure.subplots(2, 2).ravel()):
        plot.forecast(predicted, sales, id=f"item_{place}", ax=ax, **COLUMNS)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"item_{k}" for k in range(4)]
    assert [ax.get_legend() for ax in figure.axes] == [None] * 4
    assert [entries(legend) for legend in figure.legends] == [
        ["observed", "95 %", "80 %", "forecast"]
    ]
    # The same, panel by panel; a legend that somebody else drew stays.
    figure = Figure()
    own = figure.legend([], [])
    for place in range(2):
        ax = figure.add_subplot(1, 2, place + 1)
        plot.forecast(predicted, sales, id="item_0", color=f"C{place}", ax=ax, **COLUMNS)
    assert [ax.get_legend() for ax in figure.axes] == [None] * 2
    assert figure.legends[0] is own
    # Of two colours both are explained.
    assert entries(figure.legends[1]).count("forecast") == 2


def test_panels_of_a_subfigure_share_its_legend(sales, predicted):
    parent = Figure(figsize=(10, 4), layout="constrained")
    left, right = parent.subfigures(1, 2)
    for ax in left.subplots(1, 2):
        plot.forecast(predicted, sales, id="item_0", ax=ax, **COLUMNS)
    alone = plot.forecast(predicted, sales, id="item_1", ax=right.add_subplot(), **COLUMNS)
    assert len(left.legends) == 1 and not right.legends
    assert len(entries(alone.get_legend())) == 4
    parent.canvas.draw()


def test_a_backtest_says_which_series_it_is_of(sales):
    model = tsar.SeasonalNaive(horizon=HORIZON, season_length=7, **COLUMNS)
    tested = backtest(model, sales, windows=2)
    assert plot.backtest(tested, id="item_2").get_title(loc="left") == "item_2"
    wide = pd.DataFrame({"a": made(0)["y"].to_numpy(), "b": 1.0}, DAYS)
    ax = plot.backtest(backtest(tsar.Naive(horizon=2), wide, windows=2), variate="b")
    assert (ax.get_title(loc="left"), ax.get_ylabel()) == ("", "b")


def test_a_legend_lies_on_no_data(sales, predicted):
    ax = plot.forecast(predicted, sales, id="item_0", **COLUMNS)
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().y0 >= ax.bbox.y1


def test_dates_do_not_repeat_what_stays(sales, predicted):
    ax = plot.forecast(predicted, sales, id="item_0", **COLUMNS)
    ax.figure.canvas.draw()
    assert isinstance(ax.xaxis.get_major_formatter(), ConciseDateFormatter)
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    boxes.sort(key=lambda box: box.x0)
    assert len(boxes) > 2
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    # Dates that somebody chose stay.
    ax = Figure().add_subplot()
    chosen = DateFormatter("%d.%m.")
    ax.xaxis.set_major_formatter(chosen)
    plot.forecast(predicted, sales, id="item_0", ax=ax, **COLUMNS)
    assert ax.xaxis.get_major_formatter() is chosen


def test_a_history_that_is_cut_is_said(sales, predicted):
    cut = plot.forecast(predicted, sales, id="item_0", rows=20, **COLUMNS)
    assert cut.get_xlabel() == "last 20 of 60 rows"
    for rows in (None, 60, 1000):
        whole = plot.forecast(predicted, sales, id="item_0", rows=rows, **COLUMNS)
        assert whole.get_xlabel() == ""


def test_one_step_is_a_point():
    series = made(0).set_index("day")["y"]
    ax = plot.forecast(tsar.Naive(horizon=1).fit(series).predict(), series)
    assert drawn(ax)["forecast"].get_marker() == "o"
    assert drawn(ax)["observed"].get_marker() == "None"


def test_a_page_without_matplotlib(sales, predicted, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="plot.forecasts needs matplotlib"):
        plot.forecasts(sales, predicted, **COLUMNS)
