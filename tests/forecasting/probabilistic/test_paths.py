"""Samples of calibrated forecasters: whole error paths, by hand and in how totals are covered."""

import json

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.estimator.manifest import write_manifest
from tsar.exceptions import ParameterError
from tsar.forecasting.probabilistic import paths as paths_module
from tsar.forecasting.probabilistic.paths import ErrorPaths, arranged

HORIZON = 6


def _walks(n_series: int, rows: int, seed: int = 0, phi: float = 0.8) -> np.ndarray:
    """Autoregressions of order one (rows, n_series), from their stationary distribution."""
    rng = np.random.default_rng(seed)
    values = np.empty((rows, n_series))
    values[0] = rng.normal(size=n_series) / np.sqrt(1 - phi**2)
    for row in range(1, rows):
        values[row] = phi * values[row - 1] + rng.normal(size=n_series)
    return values


def _long(values: np.ndarray, begins: tuple[int, ...] | None = None) -> pd.DataFrame:
    parts = []
    for number in range(values.shape[1]):
        begin = 0 if begins is None else begins[number]
        own = {"unique_id": f"s{number}", "ds": np.arange(begin, len(values))}
        parts.append(pd.DataFrame({**own, "y": values[begin:, number]}))
    return pd.concat(parts, ignore_index=True)


def _naive(**options) -> tsar.Naive:
    return tsar.Naive(horizon=HORIZON, **options)


def _drawn(frame: pd.DataFrame, n_samples: int, horizon: int = HORIZON) -> np.ndarray:
    return frame["y"].to_numpy().reshape(-1, n_samples, horizon)


def test_a_sample_is_the_forecast_and_the_errors_after_one_cutoff_of_all_series():
    values = _walks(3, 40)
    model = _naive().fit(_long(values)).calibrate(_long(values))
    point = model.predict()["y"].to_numpy().reshape(3, HORIZON)
    errors = _drawn(model.predict(samples=50), 50) - point[:, None]
    # The naive forecast is the last row, so that its errors are differences of rows.
    cutoffs = range(1, 40 - HORIZON + 1)
    held = np.stack([values[c : c + HORIZON] - values[c - 1] for c in cutoffs])  # (K, H, S)
    used = set()
    for number in range(50):
        gap = np.abs(held - errors[:, number].T).max(axis=(1, 2))
        assert gap.min() < 1e-12
        used.add(int(gap.argmin()))
    assert len(used) > 20


def _totals(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Totals of the truth (S,), of joint samples and of samples torn apart (S, N)."""
    history, steps = 300, HORIZON
    values = _walks(300, history + steps, seed)
    past = _long(values[:history])
    joint = _drawn(_naive().fit(past).calibrate(past).predict(samples=400), 400)
    apart = np.random.default_rng(seed).permuted(joint, axis=1)
    return values[history:].sum(axis=0), joint.sum(axis=2), apart.sum(axis=2)


def test_intervals_of_totals_cover_as_they_say_and_independent_steps_are_too_narrow():
    truth, joint, apart = _totals(5)

    def coverage(samples: np.ndarray) -> float:
        low, high = np.quantile(samples, [0.1, 0.9], axis=1)
        return float(((low <= truth) & (truth <= high)).mean())

    # Three standard errors of a share of 300 series.
    assert abs(coverage(joint) - 0.8) < 3 * np.sqrt(0.8 * 0.2 / 300)
    assert coverage(apart) < 0.65
    assert np.ptp(np.quantile(joint, [0.1, 0.9], axis=1), axis=0).mean() > 1.5 * (
        np.ptp(np.quantile(apart, [0.1, 0.9], axis=1), axis=0).mean()
    )


def test_totals_over_series_that_move_together():
    """The deviation of a total of ten equal series is ten times that of one, not root ten."""
    one = _walks(1, 200)
    values = np.repeat(one, 10, axis=1)
    model = _naive().fit(_long(values)).calibrate(_long(values))
    drawn = _drawn(model.predict(samples=500), 500)
    np.testing.assert_allclose(drawn, np.repeat(drawn[:1], 10, axis=0), rtol=0, atol=1e-12)
    assert drawn.sum(axis=0).std(axis=0) == pytest.approx(10 * drawn[0].std(axis=0))


def test_a_distribution_keeps_its_quantiles_and_gets_the_dependence():
    values = _walks(20, 150)
    settings = {"context_length": 4, "max_epochs": 5, "random_state": 0, "device": "cpu"}
    model = tsar.NLinear(horizon=HORIZON, loss="gaussian", batch_size=256, **settings)
    model.fit(_long(values))
    free = _drawn(model.predict(samples=300), 300)
    joint = _drawn(model.calibrate(_long(values)).predict(samples=300), 300)
    np.testing.assert_array_equal(np.sort(joint, axis=1), np.sort(free, axis=1))

    def neighbours(drawn: np.ndarray) -> float:
        found = [np.corrcoef(own[:, 3], own[:, 4])[0, 1] for own in drawn]
        return float(np.mean(found))

    # Errors of an autoregression four and five steps ahead are correlated by 0.8 or nearly so.
    assert abs(neighbours(free)) < 0.05
    assert neighbours(joint) > 0.6


def test_samples_repeat_and_depend_on_nothing_else(tmp_path):
    values = _walks(4, 60)
    frame = _long(values, (0, 30, 0, 50))
    model = _naive().fit(frame).calibrate(frame)
    drawn = model.predict(samples=30)
    pd.testing.assert_frame_equal(model.predict(samples=30), drawn)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tsar.load(tmp_path / "model").predict(samples=30), drawn)
    for name in ("s1", "s3"):
        own = frame[frame["unique_id"] == name]
        alone = model.predict(df=own, samples=30)["y"].to_numpy()
        np.testing.assert_array_equal(alone, drawn.loc[drawn["unique_id"] == name, "y"])
    short = _drawn(model.predict(2, samples=30), 30, 2)
    np.testing.assert_array_equal(short, _drawn(drawn, 30)[:, :, :2])
    assert not drawn["y"].isna().any()


def test_a_new_series_has_the_errors_of_others_in_its_own_size():
    values = _walks(5, 200)
    model = _naive().fit(_long(values)).calibrate(_long(values))
    other = _long(1000 * _walks(1, 200, seed=9)).replace("s0", "new")
    drawn = _drawn(model.predict(df=other, samples=500), 500)[0] - other["y"].iloc[-1]
    known = _drawn(model.predict(samples=500), 500)[0]
    known = known - known.mean()
    assert 0.5 < drawn.std() / (1000 * known.std()) < 2


def test_missing_values_leave_whole_paths_and_ranges_hold():
    values = np.abs(_walks(2, 80))
    values[40, 0] = np.nan
    wide = pd.DataFrame(values, index=pd.RangeIndex(80), columns=["a", "b"])
    model = _naive(output_range=(0, None)).fit(wide).calibrate(wide)
    drawn = model.predict(samples=200)
    assert not drawn.isna().any().any()
    assert (drawn[["a", "b"]] >= 0).all().all()
    assert (drawn["a"] == 0).any()


@pytest.mark.parametrize("n_series", [1, 7, 50])
def test_of_many_series_some_stand_for_the_others(monkeypatch, n_series):
    monkeypatch.setattr(paths_module, "MOST_KEPT", 20_000)
    values = _walks(n_series, 300)
    model = _naive().fit(_long(values)).calibrate(_long(values))
    kept = model.calibration_.paths
    assert kept.errors.size <= 20_000
    assert len(kept.ids) == min(n_series, 20_000 // (100 * HORIZON))
    assert len(kept.errors) >= 100
    drawn = _drawn(model.predict(samples=200), 200)
    # Six steps of an autoregression: deviations from the last row of about 2.5.
    assert (drawn.std(axis=1)[:, -1] > 1).all()


def test_arranged_is_the_shuffle_by_ranks():
    rng = np.random.default_rng(0)
    drawn, errors = rng.normal(size=(2, 9, 3)), rng.normal(size=(2, 9, 5))
    found = arranged(drawn, errors, pd.Index(["a", "b"]), 3, 0)
    for series in range(2):
        for step in range(3):
            ranks = errors[series, :, step].argsort().argsort()
            expected = np.sort(drawn[series, :, step])[ranks]
            np.testing.assert_array_equal(found[series, :, step], expected)


def test_windows_are_lined_up_by_their_cutoff():
    nan = np.nan
    errors = np.array([[[1.0], [2]], [[3], [nan]], [[5], [6]], [[7], [8]]])
    ids, variates = pd.Index(["a", "b"]), pd.Index(["y"])
    found = ErrorPaths.of(ids, variates, np.array([0, 0, 1, 1]), np.array([10, 20, 20, 30]), errors)
    expected = [[[1, 2], [nan, nan]], [[nan, nan], [5, 6]], [[nan, nan], [7, 8]]]
    np.testing.assert_array_equal(found.errors[..., 0], expected)


def test_what_cannot_be_sampled_is_refused(tmp_path):
    frame = _long(_walks(2, 30))
    model = _naive().fit(frame)
    with pytest.raises(ParameterError, match=r"samples=.*\) needs a calibrated model"):
        model.predict(samples=3)
    model.calibrate(frame)
    with pytest.raises(ParameterError, match=r"samples are calibrated for 6 steps, got horizon=7"):
        model.predict(7, samples=3)
    with pytest.raises(ParameterError, match="frame of their own"):
        model.predict(level=50, samples=3)
    model.save(tmp_path / "model")
    # As a version without error paths wrote it.
    record = tmp_path / "model" / "model.json"
    content = json.loads(record.read_text())
    del content["learned"]["calibration"]["paths"]
    record.write_text(json.dumps(content))
    write_manifest(tmp_path / "model", ("model.json", "arrays.safetensors"), content["format"])
    older = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(older.predict(level=50), model.predict(level=50))
    with pytest.raises(ParameterError, match=r"call calibrate\(df\) again"):
        older.predict(samples=3)
    holes = pd.DataFrame({"y": np.where(np.arange(30) % 4 == 0, np.nan, 1.0 * np.arange(30))})
    broken = _naive().fit(holes).calibrate(holes)
    with pytest.raises(ParameterError, match="all 6 steps observed"):
        broken.predict(samples=3)
