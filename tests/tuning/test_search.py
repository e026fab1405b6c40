"""The search is an estimator, judges by time, and survives what trials do."""

import logging

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, TimeSeriesSplit

import tsar
from tsar.evaluation import backtest
from tsar.exceptions import (
    DataError,
    InterruptedWarning,
    MissingExtraError,
    NotFittedError,
    ParameterError,
    TrainingError,
)
from tsar.tuning import OptunaSearch

SPACE = {"learning_rate": (1e-4, 1e-1, "log"), "context_length": [12, 30]}


def _model(**params):
    return tsar.NLinear(**{"context_length": 24, "horizon": 6, "max_epochs": 4, **params})


@pytest.fixture(scope="module")
def data():
    hours = pd.date_range("2024-02-28", periods=211, freq="h")
    steps = np.arange(211)
    noise = np.random.default_rng(3).normal(scale=0.1, size=211)
    return pd.DataFrame({"load": np.sin(steps / 4) + 0.01 * steps + noise}, index=hours)


@pytest.fixture(scope="module")
def searched(data):
    return OptunaSearch(_model(random_state=3), SPACE, n_trials=7, random_state=1).fit(data)


def test_best_parameters_reproduce_the_best_score(searched, data):
    """The score is the loss of the weights that were kept, with a minus sign."""
    again = _model(**searched.best_params_, random_state=searched.best_seed_).fit(data)
    assert -min(again.history_["val_loss"]) == pytest.approx(searched.best_score_, abs=1e-9)
    best = searched.best_estimator_
    assert -min(best.history_["val_loss"]) == pytest.approx(searched.best_score_, abs=1e-9)
    pd.testing.assert_frame_equal(searched.predict(), again.predict())
    frame = searched.trials_
    assert searched.best_score_ == frame["score"].max()
    row = frame.loc[frame["score"].idxmax()]
    assert {name: row[name] for name in SPACE} == searched.best_params_


@pytest.mark.parametrize("metric", ["mae", "mse", lambda y, forecast: np.abs(y - forecast).max()])
def test_rolling_cutoffs_reproduce_the_best_score(metric, data):
    """The score is the error of a backtest of the same parameters, whoever makes it."""
    search = OptunaSearch(_model(), SPACE, n_trials=3, windows=4, metric=metric, random_state=2)
    search.fit(data)
    model = _model(**search.best_params_, random_state=search.best_seed_)
    tested = backtest(model, data, windows=4)
    error = tested["y"] - tested["NLinear"]
    expected = {"mae": error.abs().mean(), "mse": (error**2).mean()}.get(
        metric if isinstance(metric, str) else "", error.abs().max()
    )
    assert search.best_score_ == pytest.approx(-expected, abs=1e-9)
    # The best is fitted on the rows of the windows as well.
    assert search.predict().index[0] == data.index[-1] + pd.Timedelta(hours=1)


def test_models_without_training_are_searched_by_cutoffs(data):
    """The wave repeats after 25.1 rows; of these lags that is the nearest."""
    search = OptunaSearch(
        tsar.SeasonalNaive(horizon=6), {"season_length": [7, 13, 25]}, n_trials=9, windows=5
    ).fit(data)
    assert search.best_params_ == {"season_length": 25} and search.best_seed_ is None
    assert search.trials_["n_epochs"].eq(0).all()


def test_windows_are_not_seen_by_what_is_fitted(data):
    """Rows of the windows change the score and not what is forecast of the first one."""
    seen = []

    def peek(truth, forecast):
        seen.append(forecast[:6])
        return float(np.abs(truth - forecast).mean())

    changed = data.copy()
    changed.iloc[-18:] += 1e6
    options = {"n_trials": 2, "windows": 3, "metric": peek, "random_state": 0}
    for frame in (data, changed):
        OptunaSearch(_model(random_state=0), SPACE, **options).fit(frame)
    assert np.array_equal(seen[0], seen[2]) and np.array_equal(seen[1], seen[3])


def test_trials_are_listed_in_order(searched):
    frame = searched.trials_
    assert list(frame.columns) == [
        *("number", "state", "score", "seconds", "n_epochs"),
        *("learning_rate", "context_length", "error"),
    ]
    assert frame["number"].tolist() == list(range(7))
    assert set(frame["state"]) <= {"complete", "pruned"}
    assert (frame["score"].notna() == (frame["state"] == "complete")).all()
    assert (frame["n_epochs"] >= 1).all() and frame["error"].isna().all()
    assert len(searched.study_.trials) == 7


def test_is_an_estimator_of_scikit_learn(searched, data):
    copy = clone(searched)
    assert not hasattr(copy, "trials_") and copy.estimator is not searched.estimator
    assert copy.get_params()["estimator__context_length"] == 24
    copy.set_params(estimator__max_epochs=2, n_trials=1, space={"batch_size": [16]})
    assert searched.estimator.max_epochs == 4
    assert copy.fit(data).best_params_ == {"batch_size": 16}
    assert copy.best_estimator_.n_epochs_ <= 2
    assert copy.score(data[-40:]) == copy.best_estimator_.score(data[-40:])
    with pytest.raises(NotFittedError, match="OptunaSearch is not fitted yet"):
        clone(searched).predict()


def test_same_seed_same_search(data):
    """Whatever is drawn comes from random_state, and the caller's generators stay as they are."""
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    runs = [
        OptunaSearch(_model(), SPACE, n_trials=4, random_state=5).fit(data).trials_
        for _ in range(2)
    ]
    drop = ["seconds"]
    pd.testing.assert_frame_equal(runs[0].drop(columns=drop), runs[1].drop(columns=drop))
    assert runs[0]["learning_rate"].nunique() == 4
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_nothing_after_the_data_is_seen(data):
    """Rows that are not passed cannot matter; a search in a backtest is blind to the future."""
    longer = data.copy()
    longer.iloc[-20:] = 1e6
    search = OptunaSearch(_model(random_state=0), SPACE, n_trials=2, random_state=0)
    one, other = (clone(search).fit(frame[:-20]) for frame in (data, longer))
    assert one.predict().equals(other.predict())


def test_failed_trials_are_recorded_and_skipped(data):
    def length(trial):
        if trial.number == 2:
            raise torch.OutOfMemoryError("no room for 3 GiB")
        return [24, 2400][trial.number % 2]

    search = OptunaSearch(_model(random_state=0), {"context_length": length}, n_trials=4)
    frame = search.fit(data).trials_
    assert frame["state"].tolist() == ["complete", "failed", "failed", "failed"]
    assert "longest series has 211" in frame["error"][1]
    assert frame["error"][2] == "OutOfMemoryError: no room for 3 GiB"
    assert search.best_params_ == {"context_length": 24}


def test_a_search_without_a_completed_trial_says_why(data):
    search = OptunaSearch(_model(), {"context_length": [2000, 3000]}, n_trials=2)
    with pytest.raises(TrainingError, match="none of 2 trials was completed; the first error was"):
        search.fit(data)
    assert len(search.trials_) == 2


def test_what_falls_behind_is_pruned(data):
    """The last rate learns nothing, and is stopped as soon as it lies below the median."""
    space = {"learning_rate": lambda trial: 1e-2 if trial.number < 6 else 1e-9}
    models = [_model(max_epochs=6, random_state=0)] * 2
    pruners = [None, optuna.pruners.NopPruner()]
    frames = [
        OptunaSearch(model, space, n_trials=7, pruner=pruner).fit(data).trials_
        for model, pruner in zip(models, pruners, strict=True)
    ]
    for frame, state in zip(frames, ["pruned", "complete"], strict=True):
        assert frame["state"].tolist() == [*["complete"] * 6, state]
    assert frames[1]["n_epochs"].eq(6).all()


def test_losses_in_other_units_are_compared_in_those_of_the_data(data):
    search = OptunaSearch(_model(random_state=0), {"loss": ["mse", "mae"]}, n_trials=3).fit(data)
    best = search.best_estimator_
    expected = best.history_["val_mae"][best.best_epoch_ - 1]
    assert search.best_score_ == pytest.approx(-expected)


def test_time_is_a_budget(data):
    """No trial begins after the time is up, and one that runs stops at its next epoch."""
    model = _model(max_epochs=10_000, patience=10_000, learning_rate=1e-7)
    space = {"max_epochs": lambda trial: 1 if trial.number == 0 else 10_000}
    frame = OptunaSearch(model, space, n_trials=None, timeout=0.2).fit(data).trials_
    assert frame["state"].tolist()[0] == "complete"
    assert len(frame) == 1 or frame["state"].iloc[-1] == "pruned"


def test_a_sampler_is_told_of_every_trial(data):
    space = {"context_length": [12, 18, 24]}
    search = OptunaSearch(
        _model(random_state=3, max_epochs=1),
        space,
        n_trials=9,
        sampler=optuna.samplers.GridSampler(space),
        pruner=optuna.pruners.NopPruner(),
    ).fit(data)
    assert sorted(search.trials_["context_length"]) == [12, 18, 24]


def test_no_time_for_a_trial(data):
    search = OptunaSearch(_model(), SPACE, n_trials=2, timeout=1e-9)
    with pytest.raises(TrainingError, match="timeout=1e-09 was over before the first one"):
        search.fit(data)


def test_interrupted_search_keeps_the_best(data):
    def rate(trial):
        if trial.number == 2:
            raise KeyboardInterrupt
        return 0.01

    search = OptunaSearch(_model(random_state=0), {"learning_rate": rate}, n_trials=9)
    with pytest.warns(InterruptedWarning, match="interrupted after 3 trials"):
        search.fit(data)
    assert search.trials_["error"].tolist()[2] == "interrupted"
    assert search.predict().shape == (6, 1)


def test_default_space_fits_the_data(data):
    search = OptunaSearch(_model(context_length=60, random_state=0), n_trials=2, random_state=0)
    search.fit(data)
    assert set(search.best_params_) == {"context_length", "learning_rate", "batch_size"}
    # 211 rows, of which 42 are held out and 6 are the horizon: 240 has no room.
    assert search.study_.trials[0].distributions["context_length"].choices == (30, 60, 120)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"estimator": "PatchTST"}, ParameterError, "estimator must be a forecaster of tsar, got"),
        ({"estimator": tsar.Naive()}, ParameterError, "windows must be a number for a model that"),
        ({"estimator": _model(early_stopping=False)}, ParameterError, "or early_stopping=True"),
        ({"windows": 36}, DataError, "need more than 216 rows of a series, the longest has 211"),
        ({"windows": 2.5}, ParameterError, "windows must be an integer in"),
        ({"metric": "mape"}, ParameterError, "metric must be one of"),
        ({"space": {"horizon": [3, 6]}}, ParameterError, "space must leave out 'horizon'"),
        ({"estimator": _model(batch_size=0)}, ParameterError, "NLinear: batch_size must be"),
        ({"n_trials": 0}, ParameterError, "OptunaSearch: n_trials must be an integer in"),
        ({"n_trials": None}, ParameterError, "n_trials or timeout must be given"),
        ({"timeout": -1}, ParameterError, "timeout must be a number in"),
        ({"sampler": "tpe"}, ParameterError, "sampler must be one of optuna.samplers or None"),
        ({"pruner": 5}, ParameterError, "pruner must be one of optuna.pruners or None, got 5"),
        ({"space": {"d_model": [3]}}, ParameterError, "parameter of the space must be one of"),
    ],
)
def test_faults_are_one_error_before_the_first_trial(params, error, message, data):
    search = OptunaSearch(**{"estimator": _model(), "space": SPACE, **params})
    with pytest.raises(error, match=message):
        search.fit(data)
    assert not hasattr(search, "trials_")


def test_a_bad_frame_is_no_failure_of_trials(data):
    bad = data.copy()
    bad.iloc[5] = np.inf
    with pytest.raises(DataError, match="infinite"):
        OptunaSearch(_model(), SPACE).fit(bad)


def test_missing_optuna_names_the_extra(data, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[tune\]'"):
        OptunaSearch(_model(), SPACE).fit(data)


def test_silent_unless_asked(data, capfd, terminal, caplog):
    caplog.set_level(logging.INFO, logger="tsar")
    search = OptunaSearch(_model(random_state=0), SPACE, n_trials=2, random_state=0).fit(data)
    assert capfd.readouterr() == ("", "") and not caplog.messages
    search.set_params(verbose=1).fit(data)
    lines = [line for line in caplog.messages if line.startswith("trial ")]
    assert len(lines) == 2 and "score" in lines[0] and "learning_rate" in lines[0]
    assert "2/2" in capfd.readouterr().err


def test_searches_of_scikit_learn_work(data):
    """Folds of TimeSeriesSplit are in order; two processes agree with one."""
    folds = TimeSeriesSplit(3, test_size=20)
    grid = {"learning_rate": [1e-2, 1e-4]}
    model = _model(random_state=0)
    one = GridSearchCV(model, grid, cv=folds).fit(data)
    assert one.best_params_ == {"learning_rate": 1e-2}
    assert one.predict(data).shape == (6, 1)
    drawn = RandomizedSearchCV(model, grid, n_iter=2, cv=folds, random_state=0, n_jobs=1).fit(data)
    assert drawn.best_score_ == one.best_score_
