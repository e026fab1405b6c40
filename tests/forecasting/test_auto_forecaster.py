"""AutoForecaster: what is tried, what is left out, and what the choice is made by."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import tsar
from tsar.data.panel import Panel
from tsar.evaluation import backtest
from tsar.exceptions import DataError, DataWarning, ParameterError, PersistenceError
from tsar.forecasting import trials
from tsar.forecasting.member_weights import selection_weights
from tsar.forecasting.trials import Trials, place_windows

CHEAP = {
    "seasonal": tsar.SeasonalNaive(),
    "last": tsar.Naive(),
    "lags": tsar.AutoReg(lags=7),
}

# A training that runs to its end, and may have been best before.
EARLY = {
    "context_length": 14,
    "learning_rate": 0.1,
    "learning_rate_schedule": "constant",
    "early_stopping": True,
    "patience": 60,
}


def days(n_series=3, rows=120, seed=0, noise=0.3):
    """Return long daily series with a weekly season and a slope."""
    rng = np.random.default_rng(seed)
    steps = np.arange(rows)
    frames = []
    for number in range(n_series):
        y = 10 * number + np.sin(2 * np.pi * steps / 7) * (1 + number) + 0.02 * steps
        frames.append(
            pd.DataFrame(
                {
                    "unique_id": f"s{number:03d}",
                    "ds": pd.date_range("2024-01-01", periods=rows),
                    "y": y + noise * (1 + number) * rng.normal(size=rows),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def panel_of(frame):
    return Panel.from_frame(frame)


# ------------------------------------------------------------------ the weights


def picked_slowly(forecasts, truth, counts, rounds=50):
    """Select with replacement as the paper says it, one sum at a time."""
    bag, best, least = [], [], math.inf
    for _ in range(rounds):
        losses = []
        for member in range(forecasts.shape[1]):
            mean = forecasts[:, [*bag, member]].mean(axis=1)
            losses.append(np.average(np.abs(mean - truth), weights=counts))
        bag.append(int(np.argmin(losses)))
        if min(losses) < least * (1 - 1e-9):
            least, best = min(losses), list(bag)
    return np.bincount(best, minlength=forecasts.shape[1]) / len(best)


@pytest.mark.parametrize("seed", range(5))
def test_selection_is_that_of_a_slow_one(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=60)
    forecasts = truth[:, None] + rng.normal(size=(60, 4)) * [0.5, 0.6, 1.0, 2.0]
    counts = rng.uniform(0.5, 2.0, size=60)
    weights = selection_weights(forecasts, truth, counts)
    np.testing.assert_allclose(weights, picked_slowly(forecasts, truth, counts), atol=1e-12)
    errors = np.average(np.abs(forecasts - truth[:, None]), axis=0, weights=counts)
    combined = np.average(np.abs(forecasts @ weights - truth), weights=counts)
    assert weights.sum() == pytest.approx(1) and combined <= errors.min()


def test_errors_on_both_sides_share_the_weight():
    truth = np.arange(5.0)
    forecasts = np.stack([truth + 1, truth - 1, truth + 9], axis=1)
    np.testing.assert_array_equal(selection_weights(forecasts, truth), [0.5, 0.5, 0.0])
    # Who makes no error takes all, and a later pick of the same changes nothing.
    np.testing.assert_array_equal(
        selection_weights(np.stack([truth, truth + 1], axis=1), truth), [1, 0]
    )


# ------------------------------------------------------------------ the windows


def test_windows_lie_in_what_is_held_out():
    panel = panel_of(days(n_series=10, rows=60))
    windows = place_windows(panel, 4)
    assert windows.before.lengths.tolist() == [48] * 10
    from_end = panel.offsets[1:][windows.owners] - windows.rows
    assert from_end.max() == 12 and from_end.min() == 4
    np.testing.assert_array_equal(windows.truth[0], panel.values[48:52])
    # A single series has more of them, short ones have one horizon or none.
    assert place_windows(panel_of(days(1, 300)), 4).before.lengths.tolist() == [200]
    assert place_windows(panel_of(days(1, 9)), 4).before.lengths.tolist() == [5]
    assert place_windows(panel_of(days(1, 7)), 4) is None
    assert place_windows(panel_of(days(1, 300)), 4, 2).before.lengths.tolist() == [292]


def test_errors_of_the_leaderboard_are_those_of_a_backtest():
    """Many series have windows one horizon apart, as a backtest has them."""
    frame = days(n_series=200, rows=45)
    naive = {name: CHEAP[name] for name in ("seasonal", "last")}
    model = tsar.AutoForecaster(candidates=naive, horizon=5).fit(frame)
    tested = backtest(list(naive.values()), frame, horizon=5, windows=3)
    wide = frame.pivot(index="ds", columns="unique_id", values="y").iloc[:30]
    unit = (wide - wide.shift(7)).abs().mean()
    unit = np.maximum(unit, 0.1 * wide.std(ddof=0))
    for name, column in {"seasonal": "SeasonalNaive", "last": "Naive"}.items():
        errors = (tested[column] - tested["y"]).abs() / tested["id"].map(unit)
        board = model.leaderboard_.set_index("model")
        assert board.loc[name, "mase"] == pytest.approx(errors.mean(), rel=1e-9)
    assert model.leaderboard_["mase"].is_monotonic_increasing


def test_what_is_held_out_is_not_learned_from():
    frame = days()
    later = frame["ds"] >= frame["ds"].max() - pd.Timedelta(days=7 * 3 - 1)
    other = frame.assign(y=frame["y"].where(~later, 1e6))
    seen = []

    class Noted(tsar.AutoReg):
        def fit_panel(self, panel, go_on):
            seen.append(panel.values.copy())
            return super().fit_panel(panel, go_on)

    for one in (frame, other):
        naive, noted = tsar.Naive(), Noted(lags=7)
        tsar.AutoForecaster(candidates=[naive, noted], horizon=7, windows=3).fit(one)
    before = [values for values in seen if len(values) == 3 * (120 - 21)]
    assert len(before) == 2
    np.testing.assert_array_equal(*before)


# ------------------------------------------------------------------ the choice


def test_the_combination_is_the_weighted_mean_of_its_members():
    frame = days()
    model = tsar.AutoForecaster(candidates=CHEAP, horizon=7).fit(frame)
    weights = model.weights_["y"]
    assert weights.sum() == pytest.approx(1) and set(weights.index) == set(model.models_)
    expected = sum(
        weight * clone(CHEAP[name]).set_params(horizon=7).fit(frame).predict()["y"]
        for name, weight in weights.items()
    )
    np.testing.assert_allclose(model.predict()["y"], expected, rtol=1e-12)
    board = model.leaderboard_.set_index("model")
    assert (board.loc[weights.index, "status"] == "member").all()
    np.testing.assert_allclose(board.loc[weights.index, "weight"], weights)
    assert model.in_words.startswith("AutoForecaster: 0.") or len(weights) == 1


def test_a_perfect_candidate_forecasts_alone():
    frame = days(noise=0.0).assign(
        y=lambda one: one["y"] - 0.02 * one.groupby("unique_id").cumcount()
    )
    model = tsar.AutoForecaster(candidates=[tsar.Naive(), tsar.SeasonalNaive()], horizon=7).fit(
        frame
    )
    assert model.weights_["y"].to_dict() == {"SeasonalNaive": 1.0}
    np.testing.assert_allclose(
        model.predict()["y"].to_numpy()[:7], frame["y"].to_numpy()[113:120], atol=1e-9
    )


@pytest.mark.parametrize("seed", range(3))
def test_hardly_worse_than_the_seasonal_naive_where_nothing_beats_it(seed):
    """Seasonal random walks, of which the last season is the best forecast there is."""
    rng = np.random.default_rng(seed)
    frame = days(n_series=20, rows=140)
    walks = rng.normal(size=(20, 20, 7)).cumsum(axis=1).reshape(20, 140)
    frame["y"] = walks.reshape(-1)
    before = frame.groupby("unique_id").head(126)
    truth = frame.groupby("unique_id").tail(14)["y"].to_numpy()
    errors = {}
    for model in (
        tsar.AutoForecaster(preset="fast", horizon=14, candidates=CHEAP),
        tsar.SeasonalNaive(horizon=14),
    ):
        errors[model.name] = np.abs(model.fit(before).predict()["y"].to_numpy() - truth).mean()
    assert errors["AutoForecaster"] <= 1.03 * errors["SeasonalNaive"]


def test_covariates_reach_the_candidates_that_read_them():
    rng = np.random.default_rng(2)
    frame = days(rows=150).assign(promo=rng.integers(0, 2, 450), cost=rng.normal(size=450))
    frame["y"] += 8.0 * frame["promo"]
    past = frame[frame["ds"] < "2024-05-23"]
    future = frame[frame["ds"] >= "2024-05-23"]
    candidates = [tsar.SeasonalNaive(), tsar.AutoReg(lags=7)]
    model = tsar.AutoForecaster(candidates=candidates, horizon=7, future_covariates="promo")
    forecast = model.fit(past).predict(future=future[["unique_id", "ds", "promo"]])
    assert model.models_["AutoReg"].future_covariates == "promo"
    assert np.abs(forecast["y"].to_numpy() - future["y"].to_numpy()).mean() < 2.0
    with pytest.raises(ParameterError, match="'promo', which is among past_covariates"):
        model.set_params(past_covariates=["promo"]).fit(past)


def test_intervals_come_from_the_held_out_windows():
    frame = days(n_series=1, rows=200)[["ds", "y"]].set_index("ds")
    model = tsar.AutoForecaster(candidates=[tsar.SeasonalNaive()], horizon=7).fit(frame)
    y = frame["y"].to_numpy()
    # A third of the series, a window at every row of it.
    n_held_out = 200 // 21 * 7
    errors = np.array(
        [
            [abs(y[cut + step] - y[cut + step - 7]) for step in range(7)]
            for cut in range(200 - n_held_out, 200 - 7 + 1)
        ]
    )
    n = len(errors)
    width = np.sort(errors, axis=0)[math.ceil(0.8 * (n + 1)) - 1]
    answer = model.predict(level=80)
    np.testing.assert_allclose(answer["y_hi80"] - answer["y"], width, rtol=1e-9)


# ------------------------------------------------------------------ what fails, what is too long


class Broken(tsar.Naive):
    def _learn(self, panel, go_on):
        raise ZeroDivisionError("by design")


class BrokenLater(tsar.Naive):
    def _learn(self, panel, go_on):
        if panel.lengths.max() == 120:
            raise ZeroDivisionError("on all rows")
        return super()._learn(panel, go_on)


def test_a_candidate_that_fails_is_survived():
    frame = days()
    model = tsar.AutoForecaster(candidates={**CHEAP, "broken": Broken()}, horizon=7)
    with pytest.warns(
        DataWarning, match="1 of 4 candidates failed .*broken, ZeroDivisionError: by"
    ):
        model.fit(frame)
    plain = tsar.AutoForecaster(candidates=CHEAP, horizon=7).fit(frame)
    pd.testing.assert_frame_equal(model.predict(), plain.predict())
    row = model.leaderboard_.set_index("model").loc["broken"]
    assert (row["status"], row["note"]) == ("failed", "ZeroDivisionError: by design")
    with pytest.raises(DataError, match="all candidates failed, the first with: ZeroDivisionErr"):
        tsar.AutoForecaster(candidates=[Broken()], horizon=7).fit(frame)


def test_a_member_that_fails_on_all_rows_leaves_its_share_to_the_others():
    frame = days().assign(y=lambda one: one.groupby("unique_id")["y"].cumsum())
    candidates = {"seasonal": tsar.SeasonalNaive(), "broken": BrokenLater()}
    model = tsar.AutoForecaster(candidates=candidates, horizon=7)
    with pytest.warns(DataWarning, match="candidates failed .*broken, on all rows"):
        model.fit(frame)
    # The one that failed had all the weight; the first is there in any case.
    assert model.weights_["y"].to_dict() == {"seasonal": 1.0}
    assert "on all rows" in model.leaderboard_.set_index("model").loc["broken", "note"]


def test_a_training_whose_best_length_was_seen_learns_from_all_rows():
    frame = days(n_series=2, rows=90)
    candidates = {"line": tsar.NLinear(batch_size=16, max_steps=60, random_state=3, **EARLY)}
    model = tsar.AutoForecaster(candidates=candidates, horizon=7, windows=2).fit(frame)
    before = frame.groupby("unique_id").head(90 - 14)
    trial = clone(candidates["line"]).set_params(horizon=7).fit(before)
    losses = trial.history_["val_loss"]
    share = (1 + int(np.argmin(losses))) / len(losses)
    assert share < 1
    again = clone(candidates["line"]).set_params(
        horizon=7, early_stopping=False, max_steps=round(60 * share)
    )
    pd.testing.assert_frame_equal(model.predict(), again.fit(frame).predict())


def test_a_training_that_lost_patience_is_repeated_as_it_was():
    frame = days(n_series=2, rows=90)
    line = tsar.NLinear(context_length=14, max_epochs=40, patience=1, random_state=3, horizon=7)
    model = tsar.AutoForecaster(candidates={"line": line}, horizon=7, windows=2).fit(frame)
    pd.testing.assert_frame_equal(model.predict(), clone(line).fit(frame).predict())


def test_without_time_the_first_candidate_forecasts():
    frame = days()
    model = tsar.AutoForecaster(preset="medium", time_limit=1e-6, horizon=7).fit(frame)
    assert list(model.models_) == ["SeasonalNaive"]
    expected = tsar.SeasonalNaive(horizon=7).fit(frame).predict()
    pd.testing.assert_frame_equal(model.predict(), expected)
    others = model.leaderboard_[model.leaderboard_["model"] != "SeasonalNaive"]
    assert (others["status"] == "left out").all() and others["note"].str.contains("time").all()


def test_short_series_have_nothing_to_compare_on():
    frame = days(rows=10)
    with pytest.warns(DataWarning, match="needs a series of 14 rows to compare"):
        model = tsar.AutoForecaster(candidates=CHEAP, horizon=7).fit(frame)
    assert list(model.models_) == ["seasonal"] and model.calibration_ is None


class Clock:
    """A clock that moves when candidates are fitted, by a price for each row."""

    def __init__(self, prices):
        self.now, self.prices, self.fitted = 0.0, prices, []

    def monotonic(self):
        return self.now

    def fit(self, forecaster, panel):
        name = type(forecaster).__name__
        steps = getattr(forecaster, "max_steps", None)
        self.fitted.append((name, panel.values.size, steps))
        self.now += self.prices[name] * (panel.values.size if steps is None else steps)
        # What is forecast plays no part here.
        own = dict(horizon=forecaster.horizon)
        return tsar.Naive(**own).fit_panel(panel, False)


@pytest.fixture
def timed(monkeypatch):
    def run(names, prices, frame, seconds):
        clock = Clock(prices)
        monkeypatch.setattr(trials, "time", clock)
        candidates = {name: getattr(tsar, name)(horizon=7) for name in names}
        windows = place_windows(panel_of(frame), 7)
        done = Trials(candidates, windows, clock.fit, seconds, lambda name: None).run()
        return {one.name: one for one in done}, clock

    return run


def test_what_takes_too_long_is_left_out(timed):
    # 30,000 rows: the cost is measured on 20 series, and a candidate is fitted twice.
    frame = days(n_series=200, rows=150)
    prices = {"Naive": 0.0, "Theta": 1e-4, "ETS": 1e-3, "AutoReg": 1e-5}
    done, clock = timed(list(prices), prices, frame, 20.0)
    statuses = {name: one.status for name, one in done.items()}
    assert statuses == {"Naive": "tried", "Theta": "tried", "ETS": "left out", "AutoReg": "tried"}
    rows = 200 * (150 - 21)
    whole = [name for name, size, _ in clock.fitted if size == rows]
    assert whole == ["Naive", "Theta", "AutoReg"]
    assert f"takes about {2 * 1e-3 * rows:.0f} s" in done["ETS"].note
    assert clock.now < 20.0


class NeedsRows(tsar.Naive):
    """Fails on the smaller sample alone."""

    def _learn(self, panel, go_on):
        if panel.values.size < 2000:
            raise ValueError("too few rows")
        return super()._learn(panel, go_on)


def test_what_fails_on_the_smaller_sample_is_tried_all_the_same():
    frame = days(n_series=20, rows=300)
    candidates = {"seasonal": tsar.SeasonalNaive(), "picky": NeedsRows()}
    model = tsar.AutoForecaster(candidates=candidates, horizon=7).fit(frame)
    assert model.leaderboard_["status"].isin(["member", "tried"]).all()


def test_samples_of_one_size_tell_costs_too():
    """Of a short and a long series, both samples are the short one."""
    short, long = days(1, 150), days(1, 2400, seed=1).assign(unique_id="z")
    candidates = {"seasonal": tsar.SeasonalNaive(), "last": tsar.Naive()}
    model = tsar.AutoForecaster(candidates=candidates, horizon=7)
    model.fit(pd.concat([short, long]))
    assert model.leaderboard_["status"].isin(["member", "tried"]).all()


def test_networks_have_fewer_steps_where_time_is_short(timed):
    frame = days()
    chosen = tsar.NLinear(horizon=7).choose(place_windows(panel_of(frame), 7).before)["max_steps"]
    prices = {"Naive": 0.0, "NLinear": 0.1}
    # Two trainings of a tenth of a second for each step, and the steps that were measured.
    for share, expected in ((2.0, 1.0), (0.5, 0.5), (0.1, 0.0)):
        seconds = 2 * 0.1 * chosen * share + 0.1 * (4 + 24)
        done, clock = timed(list(prices), prices, frame, seconds)
        steps = [steps for name, _, steps in clock.fitted if name == "NLinear"][2:]
        if expected:
            assert steps[0] == pytest.approx(expected * chosen, abs=1)
            assert ("for want of time" in done["NLinear"].note) == (expected < 1)
        else:
            assert not steps and done["NLinear"].status == "left out"


def test_the_better_networks_go_on(timed):
    frame = days()
    names = ["Naive", "NLinear", "DLinear", "PatchTST", "iTransformer"]
    prices = dict.fromkeys(names, 0.1) | {"Naive": 0.0}
    chosen = tsar.NLinear(horizon=7).choose(place_windows(panel_of(frame), 7).before)["max_steps"]
    done, clock = timed(names, prices, frame, 0.1 * chosen * 4)
    statuses = [one.status for one in done.values()]
    assert statuses.count("tried") == 3, "the first, and half of four"
    told = [one.note for one in done.values() if one.status == "left out"]
    assert all("not among the better half" in note for note in told)
    assert clock.now < 0.1 * chosen * 4


# ------------------------------------------------------------------ a folder of results


class Counted(tsar.AutoReg):
    n_fits = 0

    def _learn(self, panel, go_on):
        Counted.n_fits += 1
        return super()._learn(panel, go_on)


def test_a_folder_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Counted, "n_fits", 0)
    frame, folder = days(), tmp_path / "trials"
    candidates = {"seasonal": tsar.SeasonalNaive(), "lags": Counted(lags=7)}
    model = tsar.AutoForecaster(candidates=candidates, horizon=7, folder=str(folder))
    first = model.fit(frame).predict(level=80)
    assert "lags" in model.models_ and Counted.n_fits == 2
    pd.testing.assert_frame_equal(model.fit(frame).predict(level=80), first)
    assert Counted.n_fits == 3, "only on all rows"
    # Other data, other parameters, and what is damaged are tried.
    model.fit(frame.assign(y=frame["y"] + 1e-9))
    assert Counted.n_fits == 5
    model.set_params(lags__lags=5).fit(frame)
    assert Counted.n_fits == 7
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    pd.testing.assert_frame_equal(
        model.set_params(lags__lags=7).fit(frame).predict(level=80), first
    )
    assert Counted.n_fits == 9


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("here")
    model = tsar.AutoForecaster(candidates=CHEAP, horizon=7, folder=str(tmp_path / "file"))
    with pytest.raises(ParameterError, match="folder must be one that can be made"):
        model.fit(days())


# ------------------------------------------------------------------ the rest of an estimator


def test_a_saved_one_answers_and_knows_its_leaderboard(tmp_path):
    frame = days()
    candidates = {**CHEAP, "broken": Broken()}
    model = tsar.AutoForecaster(candidates=CHEAP, horizon=7, time_limit=60).fit(frame)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(level=80), model.predict(level=80))
    pd.testing.assert_frame_equal(loaded.leaderboard_, model.leaderboard_)
    pd.testing.assert_frame_equal(loaded.weights_, model.weights_)
    assert candidates.keys() - CHEAP.keys() == {"broken"}


def test_longer_cycles_are_tried_too():
    frame = pd.DataFrame(
        {"y": np.sin(np.arange(24 * 60) / 7)},
        index=pd.date_range("2024-01-01", periods=24 * 60, freq="h"),
    )
    model = tsar.AutoForecaster(preset="fast", time_limit=1e-6, horizon=24).fit(frame)
    assert "SeasonalNaive168" in set(model.leaderboard_["model"])


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"preset": "quick"}, "preset must be"),
        ({"time_limit": 0}, "time_limit must be"),
        ({"candidates": []}, "candidates must be at least one forecaster, got none"),
        ({"candidates": [3]}, "candidates must be a list .* got .3."),
        ({"candidates": [tsar.Naive(), tsar.Naive()]}, "candidates must have names of their own"),
        ({"windows": 0}, "windows must be"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_tried(parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.AutoForecaster(horizon=7, **parameters).fit(days())


def test_parameters_of_candidates_are_parameters():
    model = tsar.AutoForecaster(candidates=CHEAP)
    assert clone(model).set_params(lags__lags=3).candidates["lags"].lags == 3
    assert CHEAP["lags"].lags == 7
    with pytest.raises(ParameterError, match="names no member"):
        model.set_params(other__lags=3)


def test_a_record_without_weights_is_refused(tmp_path):
    model = tsar.AutoForecaster(candidates=CHEAP, horizon=7).fit(days())
    record, tensors = model.learned_state()
    tensors.pop("weights")
    with pytest.raises(PersistenceError, match="has no weights"):
        clone(model).restore_learned_state(record, tensors, model.models_)
