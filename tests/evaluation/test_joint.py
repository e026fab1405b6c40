"""Energy and variogram scores of backtests, window by window."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.evaluation import backtest, compare, energy_score, measure, variogram_score
from tsar.exceptions import ParameterError

SCORES = {"energy_score": energy_score, "variogram_score": variogram_score}
N = 40


def _long(n_rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": np.arange(n_rows), "y": walk})
        for name, walk in zip("pqr", rng.normal(size=(3, n_rows)).cumsum(axis=1), strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _tested(frame: pd.DataFrame | None = None, **options) -> pd.DataFrame:
    models = {"naive": tsar.Naive(horizon=5), "mean": tsar.Theta(horizon=5)}
    return backtest(models, _long() if frame is None else frame, windows=4, samples=N, **options)


def _by_hand(tested: pd.DataFrame, model: str, score) -> list[float]:
    columns = [f"{model}_sample{number}" for number in range(N)]
    found = []
    for _, own in tested.groupby(["id", "cutoff"], sort=False):
        own = own.sort_values("step")
        own = own[own["y"].notna()]
        if len(own):
            one = score(own["y"].to_numpy()[None], own[columns].to_numpy().T[None])
            found += [one] * len(own)
    return found


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_each_window(name):
    tested = _tested()
    found = measure(tested, name).set_index("model")[name]
    for model in ("naive", "mean"):
        assert found[model] == pytest.approx(np.mean(_by_hand(tested, model, SCORES[name])))
    mixed = measure(tested.sample(frac=1, random_state=0).sort_values("step"), name)
    np.testing.assert_allclose(mixed.set_index("model")[name], found)
    windows = measure(tested, name, by=["series", "window"])
    assert len(windows) == 2 * 3 * 4
    assert windows.loc[windows["model"] == "naive", name].mean() == pytest.approx(found["naive"])


@pytest.mark.parametrize("name", SCORES)
def test_steps_that_were_not_observed_are_left_out(name):
    tested = _tested()
    tested.loc[[3, 4, 17], "y"] = np.nan
    tested.loc[20:24, "y"] = np.nan
    found = measure(tested, name).set_index("model")[name]
    expected = np.mean(_by_hand(tested, "naive", SCORES[name]))
    assert found["naive"] == pytest.approx(expected)


def test_samples_are_those_of_predict():
    frame = _long()
    fitted = tsar.Naive(horizon=5).fit(frame[frame["ds"] < 60])
    fitted.calibrate(frame[frame["ds"] < 60])
    tested = backtest(fitted, frame, windows=2, samples=7)
    for cutoff in (70, 75):
        drawn = fitted.predict(df=frame[frame["ds"] < cutoff], samples=7)
        expected = drawn["y"].to_numpy().reshape(3, 7, 5).swapaxes(1, 2)
        own = tested[tested["cutoff"] == cutoff]
        columns = [f"Naive_sample{number}" for number in range(7)]
        np.testing.assert_allclose(own[columns].to_numpy().reshape(3, 5, 7), expected)


def test_joint_samples_have_the_better_variogram():
    """Steps torn apart are scored worse by who sees dependence, and energy sees less of it."""
    tested = _tested()
    columns = [f"naive_sample{number}" for number in range(N)]
    apart = tested[[name for name in tested if not name.startswith("mean")]].copy()
    rng = np.random.default_rng(0)
    apart[columns] = rng.permuted(apart[columns].to_numpy(), axis=1)
    for name in SCORES:
        joint = measure(tested, name).set_index("model")[name]["naive"]
        torn = measure(apart, name)[name][0]
        assert joint < torn


def test_what_cannot_be_scored_is_refused():
    tested = _tested()
    with pytest.raises(ParameterError, match="judges all steps of a window together"):
        measure(tested, "energy_score", by="step")
    plain = tested[["id", "cutoff", "time", "step", "y", "naive"]]
    with pytest.raises(ValueError, match=r"needs samples of naive.*samples=100"):
        measure(plain, "energy_score")
    with pytest.raises(ParameterError, match="needs samples, which are not drawn here"):
        compare([tsar.Naive(horizon=5)], _long(), metrics=["mae", "energy_score"])
    with pytest.raises(ParameterError, match="samples must be"):
        backtest(tsar.Naive(horizon=5), _long(), samples=0)
    fitted = tsar.Naive(horizon=5).fit(_long()[lambda frame: frame["ds"] < 60])
    with pytest.raises(ParameterError, match=r"samples=...\) needs a calibrated model"):
        backtest(fitted, _long(), windows=2, samples=5)
