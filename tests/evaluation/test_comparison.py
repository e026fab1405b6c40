"""Leaderboards: what they are made of, and that they survive failures and kills."""

import json
import re
from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

import tsar
from tsar import plot
from tsar.evaluation import (
    backtest,
    compare,
    critical_difference,
    diebold_mariano,
    giacomini_white,
    measure,
    model_confidence_set,
)
from tsar.evaluation.backtesting import BacktestJob
from tsar.evaluation.runs import PeakMemory
from tsar.exceptions import DataError, DataWarning, ParameterError, PersistenceError
from tsar.training import on_epoch

SMALL = {"context_length": 24, "horizon": 6, "max_epochs": 2, "random_state": 0, "device": "cpu"}
ASKED = {"windows": 8, "step": 4}


JUDGEMENTS = (
    "critical_difference",
    "diebold_mariano",
    "giacomini_white",
    "win_rates",
    "winners",
)


@pytest.fixture
def models():
    return {
        "last": tsar.Naive(horizon=6),
        "net": tsar.NLinear(**SMALL),
        "SeasonalNaive": tsar.SeasonalNaive(horizon=6),
    }


@pytest.fixture
def long(wide):
    stacked = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    stacked.loc[::29, "y"] = np.nan
    return stacked


def test_intervals_of_all_models_are_compared(models, wide):
    data, asked = wide[["load"]], {**ASKED, "metrics": ["mae", "coverage"]}
    board = compare(models, data, level=80, **asked)
    assert board.frame["coverage_80"].between(0.4, 1).all()
    # The rows before the first cutoff are too few for this level, and no reason to give up.
    board = compare(models, data[:100], level=99.5, **asked)
    assert board.frame["status"].eq("ok").all() and board.frame["mae"].notna().all()
    assert not any("lo99.5" in name for name in board.backtest)


def test_a_leaderboard_is_made_of_its_parts(models, long):
    board = compare(models, long, **ASKED)
    tested = backtest(models, long, **ASKED)
    pd.testing.assert_frame_equal(board.backtest, tested, check_exact=True)
    measured = measure(tested, ["mase", "mae", "rmse"], history=long).set_index("model")
    found = board.frame.set_index("model")
    pd.testing.assert_frame_equal(found[measured.columns], measured.loc[found.index])
    assert found["mase"].is_monotonic_increasing
    base = measured.loc["SeasonalNaive", "mase"]
    np.testing.assert_allclose(found["skill"], 1 - found["mase"] / base)
    assert (found["mase_low"] < found["mase"]).all() and (found["mase"] < found["mase_high"]).all()
    assert (found.loc["SeasonalNaive", ["skill", "skill_low", "skill_high"]] == 0).all()
    losses, overlap = board.losses, 2
    pair = losses["net"], losses["SeasonalNaive"]
    assert found.loc["net", "p_value"] == diebold_mariano(*pair, overlap=overlap).p_value
    assert np.isnan(found.loc["SeasonalNaive", "p_value"])
    assert board.giacomini_white().loc["net", "SeasonalNaive"] == (
        giacomini_white(*pair, overlap=overlap).p_value
    )
    set_p_values = model_confidence_set(losses, block_length=2, n_resamples=1000)
    pd.testing.assert_series_equal(
        found["set_p_value"], set_p_values[found.index], check_names=False
    )
    assert board.confidence_set() == found.index[found["set_p_value"] > 0.1].tolist()
    ranks = critical_difference(board.series_losses).ranks
    pd.testing.assert_series_equal(board.critical_difference().ranks, ranks)


@pytest.mark.parametrize("metric", ["mae", "rmse", "mase"])
def test_losses_by_window_and_by_series_are_those_of_measure(models, long, metric):
    board = compare(models, long, metrics=metric, horizon=6, windows=8, step=6)
    root = metric == "rmse"
    options = {"history": long} if metric == "mase" else {}
    by_series = measure(board.backtest, "mse" if root else metric, by="series", **options)
    table = by_series.pivot(index="id", columns="model", values="mse" if root else metric)
    pd.testing.assert_frame_equal(
        board.series_losses, table.loc[board.series_losses.index, list(models)], check_names=False
    )
    if metric == "mae":
        by_window = measure(board.backtest, "mae", by="window")
        table = by_window.pivot(index="cutoff", columns="model", values="mae")
        np.testing.assert_allclose(board.losses, table[list(models)])


def test_winners_have_the_smallest_loss_of_each_series(models, long):
    board = compare(models, long, **ASKED, metrics="mae")
    winners = board.winners()
    by_series = measure(board.backtest, "mae", by="series").pivot(index="id", columns="model")
    losses = by_series["mae"].loc[winners["id"]]
    assert winners["model"].tolist() == losses.idxmin(axis=1).tolist()
    np.testing.assert_allclose(winners["loss"], losses.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(winners["baseline"], losses["SeasonalNaive"], rtol=1e-12)
    np.testing.assert_allclose(winners["skill"], 1 - winners["loss"] / winners["baseline"])


def test_winners_of_equal_losses_and_of_several_variates(wide):
    same = {"one": tsar.Naive(horizon=6), "two": tsar.Naive(horizon=6)}
    board = compare(same, wide, **ASKED, metrics="mae", baseline="one")
    winners = board.winners()
    assert winners["variate"].tolist() == list(wide.columns)
    assert winners["model"].unique().tolist() == board.frame["model"].iloc[:1].tolist()


def test_bootstrap_intervals_of_independent_series():
    """One window of many series: the interval is that of a mean."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(2, 400)).cumsum(axis=0)
    frame = pd.DataFrame(values, index=pd.date_range("2024-01-01", periods=2, freq="h"))
    long = frame.melt(var_name="unique_id", value_name="y", ignore_index=False)
    long = long.reset_index(names="ds")
    board = compare(
        [tsar.Naive(horizon=1, freq="h"), tsar.SeasonalNaive(horizon=1, freq="h", season_length=1)],
        long,
        metrics="mse",
        windows=1,
        n_resamples=4000,
    )
    row = board.frame.iloc[0]
    squared = np.diff(values, axis=0)[0] ** 2
    error = squared.std() / np.sqrt(400)
    assert row["mse"] == pytest.approx(squared.mean())
    assert row["mse_low"] == pytest.approx(row["mse"] - 1.96 * error, rel=0.05)
    assert row["mse_high"] == pytest.approx(row["mse"] + 1.96 * error, rel=0.05)
    # One time is too few for tests in time.
    assert np.isnan(row["p_value"]) and "set_p_value" not in board.frame
    assert board.confidence_set() == []


def test_bootstrap_intervals_of_one_series():
    """Windows that do not overlap: the interval is nearly that of a mean."""
    rng = np.random.default_rng(4)
    series = pd.Series(
        rng.normal(size=700).cumsum(), index=pd.date_range("2024-01-01", periods=700, freq="h")
    )
    board = compare(
        tsar.Naive(horizon=1),
        series,
        metrics="mae",
        windows=600,
        baseline="Naive",
        n_resamples=2000,
    )
    row, losses = board.frame.iloc[0], board.losses["Naive"]
    error = losses.std() / np.sqrt(600)
    assert row["mae_high"] - row["mae_low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_the_baseline_is_added_and_reads_the_frame_as_the_models(wide):
    data = wide.assign(plan=np.arange(len(wide)))
    model = tsar.NLinear(**SMALL, future_covariates="plan")
    board = compare(model, data, windows=3)
    assert set(board.frame["model"]) == {"NLinear", "SeasonalNaive"}
    alone = backtest(tsar.SeasonalNaive(horizon=6), wide, windows=3)
    np.testing.assert_array_equal(board.backtest["SeasonalNaive"], alone["SeasonalNaive"])
    assert board.losses.shape == (3, 2) and board.series_losses.shape == (3, 2)


def test_a_baseline_that_is_added_has_the_intervals_that_are_asked_for(wide):
    asked = {**ASKED, "level": 80}
    board = compare(tsar.Naive(horizon=6), wide, metrics=["mae", "coverage"], **asked)
    tested = backtest(tsar.SeasonalNaive(horizon=6), wide, **asked)
    expected = measure(tested, "coverage").loc[0, "coverage_80"]
    assert board.frame.set_index("model").loc["SeasonalNaive", "coverage_80"] == expected


def test_series_without_truth_leave_the_bootstrap_intervals(models, wide):
    stacked = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    some = stacked[stacked["unique_id"].isin(wide.columns[:2])].copy()
    some.loc[(some["unique_id"] == wide.columns[1]) & (some["ds"] > "2024-03-03"), "y"] = np.nan
    board = compare({"last": tsar.Naive(horizon=6)}, some, metrics="mae", **ASKED)
    assert len(board.series_losses) == 1
    assert board.frame[["mae_low", "mae_high", "skill_low", "skill_high"]].notna().all(axis=None)


def test_nothing_to_rank_by_is_told(wide):
    with pytest.warns(DataWarning, match="'mase' is NaN of all models, nothing is ranked"):
        board = compare(tsar.Naive(horizon=6), wide * 0 + 1, **ASKED)
    assert board.confidence_set() == []
    for name in JUDGEMENTS:
        told = f"Leaderboard.{name}: no series has a loss by 'mase', .* nothing to scale by"
        with pytest.raises(DataError, match=told):
            getattr(board, name)()
    with pytest.raises(DataError, match="nothing to scale by"):
        plot.critical_difference(board)
    # The same data are judged by a metric that has no scale.
    board = compare(tsar.Naive(horizon=6), wide * 0 + 1, metrics="mae", **ASKED)
    assert board.critical_difference().p_value == 1.0


def test_unscaled_series_are_left_out_of_the_ranks(wide):
    models = [tsar.Naive(horizon=6), tsar.SeasonalNaive(horizon=6)]
    with pytest.warns(DataWarning, match="did not change"):
        board = compare(models, wide.assign(flat=1.0), metrics="mase", **ASKED)
    ranked = board.critical_difference()
    alone = compare(models, wide, metrics="mase", **ASKED).critical_difference()
    assert ranked.n_rows == alone.n_rows == wide.shape[1]
    pd.testing.assert_series_equal(ranked.ranks, alone.ranks)


def test_quantiles_and_models_without(models, wide):
    models["net"].set_params(loss="gaussian")
    board = compare(
        models,
        wide,
        metrics=["crps", "coverage", "mae"],
        quantiles=[0.1, 0.5, 0.9],
        level=80,
        **ASKED,
    )
    found = board.frame.set_index("model")
    tested = backtest({"net": models["net"]}, wide, quantiles=[0.1, 0.5, 0.9], level=80, **ASKED)
    expected = measure(tested, ["crps", "coverage", "mae"]).iloc[0, 1:]
    np.testing.assert_allclose(
        found.loc["net", expected.index].astype(float), expected.astype(float)
    )
    # Models of points have quantiles where the level has them calibrated.
    points = {name: models[name] for name in ("last", "SeasonalNaive") if name in models}
    tested = backtest(points, wide, quantiles=[0.1, 0.5, 0.9], level=80, **ASKED)
    for name, crps in measure(tested, "crps").set_index("model")["crps"].items():
        assert found.loc[name, "crps"] == pytest.approx(crps) and crps > 0
    bare = compare(models, wide, metrics=["mae", "crps"], quantiles=[0.1, 0.5, 0.9], **ASKED)
    bare = bare.frame.set_index("model")["crps"]
    assert bare[["last", "SeasonalNaive"]].isna().all() and bare["net"] > 0
    assert found["coverage_80"].notna().all()
    assert found["mae"].notna().all() and (found["status"] == "ok").all()


def test_no_model_gives_what_ranks(wide):
    with pytest.warns(DataWarning, match="no model gives what 'crps' needs"):
        board = compare(tsar.Naive(horizon=6), wide, metrics="crps", quantiles=[0.5], **ASKED)
    assert board.frame["crps"].isna().all() and str(board)


def test_a_model_that_fails_is_told_and_left_out(models, wide):
    models["far"] = tsar.NLinear(**{**SMALL, "context_length": 500})
    with pytest.warns(DataWarning, match="compare: far failed .* need 506 rows"):
        board = compare(models, wide, **ASKED)
    assert board.frame["model"].iloc[-1] == "far"
    assert board.frame["status"].iloc[-1].startswith("DataError: backtest")
    assert "far" not in board.losses and "far" in str(board)
    assert plot.leaderboard(board).get_yticklabels()[-1].get_text() != "far"
    with pytest.warns(DataWarning, match="compare: far failed"):
        board = compare(models, wide, metrics=["mae", "owa"], baseline="far", **ASKED)
    assert board.frame["mae"].notna().sum() == 3 and "skill" not in board.frame
    with pytest.warns(DataWarning), pytest.raises(DataError, match="need 506 rows"):
        compare({"far": models["far"]}, wide, baseline="far", **ASKED)


def test_wrong_arguments_are_found_before_any_fit(models, wide, monkeypatch):
    monkeypatch.setattr(BacktestJob, "run", lambda *_, **__: pytest.fail("work has begun"))
    wrong = [
        ({"metrics": "mea"}, "did you mean"),
        ({"metrics": "coverage"}, "the first metric must be one of"),
        ({"metrics": "crps"}, "needs quantiles="),
        ({"metrics": []}, "the first metric"),
        ({"windows": 0}, "windows must be"),
        ({"baseline": "Naive"}, "baseline must be 'SeasonalNaive' or the name of a model"),
        ({"level": 200}, "level must be percentages"),
        ({"n_resamples": 0}, "n_resamples must be an integer in"),
        ({"random_state": -1}, "random_state must be an integer in"),
        ({"season_length": 0}, "season_length must be an integer in"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ParameterError, match=message):
            compare(models, wide, **arguments)
    with pytest.raises(DataError, match="at most windows=35 fit"):
        compare(models, wide, windows=36)
    with pytest.raises(ParameterError, match="learning_rate must be"):
        compare([tsar.Naive(), tsar.NLinear(learning_rate=-1.0)], wide, windows=1)
    with pytest.raises(ParameterError, match="one horizon, got 6 of last and 7 of other"):
        compare({**models, "other": tsar.Naive(horizon=7)}, wide)


# ------------------------------------------------------------------- resuming


def _without_costs(board):
    return board.frame.drop(columns=["fit_seconds", "forecast_seconds", "peak_memory_mb"])


def test_an_interrupted_comparison_goes_on(models, wide, tmp_path, monkeypatch):
    whole = compare(models, wide, **ASKED)
    ran, run = [], BacktestJob.run

    def interrupted(self, name, verbose):
        ran.append(name)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return run(self, name, verbose)

    monkeypatch.setattr(BacktestJob, "run", interrupted)
    folder = tmp_path / "new" / "runs"
    with pytest.raises(KeyboardInterrupt):
        compare(models, wide, folder=folder, **ASKED)
    resumed = compare(models, wide, folder=folder, **ASKED)
    assert ran == ["last", "net", "SeasonalNaive", "SeasonalNaive"]
    pd.testing.assert_frame_equal(_without_costs(resumed), _without_costs(whole))
    again = compare(models, wide, folder=folder, **ASKED)
    assert len(ran) == 4
    pd.testing.assert_frame_equal(again.frame, resumed.frame)
    # Another model joins, other metrics are free.
    more = {**models, "a/b": tsar.Naive(horizon=6)}
    assert len(compare(more, wide, folder=folder, metrics="smape", **ASKED).frame) == 4
    assert ran[4:] == ["a/b"] and not list(folder.glob(".*"))


def test_the_keyboard_stops_a_comparison_and_nothing_unfinished_is_kept(models, wide, tmp_path):
    def press(record):
        # As the interpreter does on Ctrl-C; a shell may have told it to take no such signal.
        raise KeyboardInterrupt

    with on_epoch(press), pytest.raises(KeyboardInterrupt):
        compare(models, wide, folder=tmp_path, **ASKED)
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["last.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["wide"].iloc.__setitem__((5, 0), 9.0), "other data"),
        (lambda a: a.update(wide=a["wide"].rename(columns={"load": "lead"})), "other data"),
        (lambda a: a.update(windows=7), "windows=8, not 7"),
        (lambda a: a.update(step=3), "step=4, not 3"),
        (lambda a: a.update(level=80), "level='None', not '80'"),
        (lambda a: a["models"]["net"].set_params(max_epochs=1), "holds 'net' with other param"),
        (lambda a: a["models"].update(net=tsar.Naive(horizon=6)), "holds 'net' with other param"),
    ],
)
def test_a_folder_of_something_else_is_refused(models, wide, tmp_path, change, message):
    arguments = {"models": models, "wide": wide.copy(), **ASKED}
    compare(models, wide, folder=tmp_path, **ASKED)
    change(arguments)
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PersistenceError, match=re.escape(message)):
        compare(arguments.pop("models"), arguments.pop("wide"), folder=tmp_path, **arguments)
    assert held == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_model_fitted_otherwise_is_another_one(wide, tmp_path):
    early, late = (tsar.NLinear(**SMALL).fit(wide[:rows]) for rows in (120, 140))
    compare(early, wide, windows=3, folder=tmp_path)
    compare(early, wide, windows=3, folder=tmp_path)
    with pytest.raises(PersistenceError, match="another fit"):
        compare(late, wide, windows=3, folder=tmp_path)


def test_folders_that_cannot_be_used(models, wide, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    with pytest.raises(PersistenceError, match="holds something else"):
        compare(models, wide, folder=full, **ASKED)
    with pytest.raises(PersistenceError, match="cannot be written"):
        compare(models, wide, folder=full / "thesis.txt", **ASKED)
    runs = tmp_path / "runs"
    compare(models, wide, folder=runs, **ASKED)
    (runs / "net.npz").write_bytes(b"PK broken")
    with pytest.raises(PersistenceError, match="results of 'net' .* delete net.json"):
        compare(models, wide, folder=runs, **ASKED)
    (runs / "net.json").write_text("{")
    with pytest.raises(PersistenceError, match="cannot be read"):
        compare(models, wide, folder=runs, **ASKED)
    (runs / "compare.json").write_text(json.dumps([1]))
    with pytest.raises(PersistenceError, match="no record of a comparison"):
        compare(models, wide, folder=runs, **ASKED)


# ------------------------------------------------------------- text and figure


def test_text_and_figure(models, wide):
    matplotlib.use("Agg")
    board = compare(models, wide, **ASKED)
    text = str(board)
    assert "8 windows of 3 series, ranked by mase" in text and "90 % confidence set" in text
    assert "status" not in text and text.splitlines()[1].split()[0] == board.frame["model"].iloc[0]
    axes = matplotlib.figure.Figure().add_subplot()
    assert plot.leaderboard(board, axes) is axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == board.frame["model"].tolist() and axes.get_xlabel() == "mase"
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, board.frame["mase"])


def test_nothing_is_printed_unless_asked_for(models, wide, capsys, terminal):
    compare(models, wide, **ASKED)
    printed = capsys.readouterr()
    assert not printed.out and not printed.err
    compare(models, wide, verbose=1, **ASKED)
    printed = capsys.readouterr()
    assert not printed.out and "3/3" in printed.err


def test_costs_are_measured(models, wide):
    found = compare(models, wide, **ASKED).frame.set_index("model")
    assert (found["fit_seconds"] > 0).all() and (found["forecast_seconds"] > 0).all()
    # So large that it is never room which the process had already.
    with PeakMemory() as memory:
        held = np.ones(128 * 2**20 // 8)
    assert held.sum()
    if Path("/proc/self/statm").exists():
        assert 120 < memory.megabytes < 200
    else:
        assert np.isnan(memory.megabytes)


def test_series_without_a_scale_are_named():
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=60, freq="D")
    parts = [
        pd.DataFrame({"unique_id": name, "ds": stamps, "y": values})
        for name, values in (("moves", rng.normal(size=60)), ("stands", np.full(60, 3.0)))
    ]
    frame = pd.concat(parts, ignore_index=True)
    models = [tsar.Naive(horizon=3), tsar.SeasonalNaive(horizon=3)]
    with pytest.warns(DataWarning, match=r"1 of 2 series did not change .* mase .*'stands'"):
        board = compare(models, frame, metrics=["mase", "mae"], windows=4)
    alone = compare(models, frame[frame["unique_id"] == "moves"], metrics="mase", windows=4)
    np.testing.assert_allclose(board.frame["mase"], alone.frame["mase"])
    compare(models, frame, metrics="mae", windows=4)
