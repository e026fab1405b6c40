"""Standardisation against scikit-learn and loops."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from tsar.data import scaling as module
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling, series_tensors
from tsar.exceptions import DataError

CPU = torch.device("cpu")


@pytest.fixture
def small_blocks(monkeypatch):
    """Let blocks end everywhere: inside series, between them, and at single rows."""
    monkeypatch.setattr(module, "BLOCK_VALUES", 21)


def _series(lengths: list[int], n_variates: int = 3, missing: float = 0.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = rng.normal(loc=5, scale=3, size=(offsets[-1], n_variates))
    values[rng.random(values.shape) < missing] = np.nan
    return values, offsets


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.usefixtures("small_blocks")
def test_measured_as_scikit_learn_does(missing, dtype, order):
    values, offsets = _series([1, 40, 7, 0, 3, 90], missing=missing)
    values = np.asarray(values, dtype=dtype, order=order)
    values[offsets[2] : offsets[3], 1] = np.nan
    stop = offsets[1:] - np.array([0, 11, 0, 0, 1, 40])
    found = Scaling.measure(values, offsets, stop)
    for series in range(6):
        part = values[offsets[series] : stop[series]].astype(np.float64)
        if not len(part):
            assert np.isnan(found.mean[series]).all() and np.isnan(found.scale[series]).all()
            continue
        with np.errstate(invalid="ignore"):
            expected = StandardScaler().fit(part)
        seen = ~np.isnan(part).all(axis=0)
        np.testing.assert_allclose(found.mean[series][seen], expected.mean_[seen], rtol=1e-12)
        deviation = np.sqrt(expected.var_[seen])
        np.testing.assert_allclose(found.scale[series][seen], deviation, rtol=1e-9, atol=1e-12)
        assert np.isnan(found.mean[series][~seen]).all()


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.usefixtures("small_blocks")
def test_largest_values_as_scikit_learn_has_them(missing):
    values, offsets = _series([1, 40, 7, 0, 3, 90], missing=missing)
    values[offsets[2] : offsets[3], 1] = np.nan
    stop = offsets[1:] - np.array([0, 11, 0, 0, 1, 40])
    largest = Scaling.measure_largest(values, offsets, stop)
    for series in range(6):
        part = values[offsets[series] : stop[series]]
        if not len(part):
            assert np.isnan(largest.mean[series]).all() and np.isnan(largest.scale[series]).all()
            continue
        seen = ~np.isnan(part).all(axis=0)
        expected = MaxAbsScaler().fit(part[:, seen]).max_abs_
        np.testing.assert_array_equal(largest.scale[series][seen], expected)
        np.testing.assert_array_equal(largest.mean[series][seen], 0.0)
        assert np.isnan(largest.scale[series][~seen]).all()


@pytest.mark.usefixtures("small_blocks")
def test_statistics_do_not_depend_on_other_series_or_on_the_layout():
    """To the last bit: a series added to a panel changes no other forecast."""
    values, offsets = _series([35, 61, 5, 200], missing=0.1)
    whole = Scaling.measure(values, offsets, offsets[1:])
    turned = Scaling.measure(np.asfortranarray(values), offsets, offsets[1:])
    np.testing.assert_array_equal(whole.mean, turned.mean)
    np.testing.assert_array_equal(whole.scale, turned.scale)
    for series in range(4):
        part = values[offsets[series] : offsets[series + 1]]
        alone = Scaling.measure(part, np.array([0, len(part)]), np.array([len(part)]))
        np.testing.assert_array_equal(alone.mean[0], whole.mean[series])
        np.testing.assert_array_equal(alone.scale[0], whole.scale[series])


@pytest.mark.parametrize("level", [0.1, 1e6 / 3, 1e-9, -7.3e8])
def test_constant_has_no_scale(level):
    values = np.full((200_003, 1), level)
    found = Scaling.measure(values, np.array([0, len(values)]), np.array([len(values)]))
    assert found.scale[0, 0] == 0 and found.mean[0, 0] == pytest.approx(level, rel=1e-15)


def test_small_movement_at_a_large_level_is_kept():
    movement = np.random.default_rng(1).normal(size=(5000, 1))
    offsets = np.array([0, 5000])
    found = Scaling.measure(movement + 1e9, offsets, offsets[1:])
    np.testing.assert_allclose(found.scale[0], movement.std(axis=0), rtol=1e-6)
    tensors = series_tensors(movement + 1e9, offsets, found, CPU)
    expected = (movement - movement.mean()) / movement.std()
    np.testing.assert_allclose(tensors.values.numpy(), expected, atol=1e-5)


def test_what_comes_after_the_training_part_is_not_read():
    values, offsets = _series([50, 30])
    stop = offsets[1:] - 10
    expected = Scaling.measure(values, offsets, stop)
    for series in range(2):
        values[stop[series] : offsets[series + 1]] = 1e6
    found = Scaling.measure(values, offsets, stop)
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.scale, expected.scale)


def test_restoring_undoes_scaling():
    values, offsets = _series([30, 30])
    found = Scaling.measure(values, offsets, offsets[1:])
    tensors = series_tensors(values, offsets, found, CPU, torch.float64)
    scaled = tensors.values.numpy().reshape(2, 30, 3)
    np.testing.assert_allclose(found.restore(scaled), values.reshape(2, 30, 3), rtol=1e-12)
    quantiles = np.stack([scaled - 1, scaled, scaled + 1], axis=-1)
    restored = found.restore(quantiles)
    assert restored.shape == (2, 30, 3, 3)
    expected = values.reshape(2, 30, 3) + found.scale[:, None]
    np.testing.assert_allclose(restored[..., 2], expected, rtol=1e-12)


def test_unknown_statistics_are_filled_and_pooled():
    mean, scale = np.array([[1.0, np.nan], [3.0, 8.0]]), np.array([[2.0, np.nan], [0.0, 4.0]])
    scaling = Scaling(mean, scale)
    pooled = scaling.pooled()
    np.testing.assert_array_equal(pooled.mean, [[2, 8]])
    np.testing.assert_array_equal(pooled.scale, [[1, 4]])
    filled = scaling.filled(pooled)
    np.testing.assert_array_equal(filled.mean, [[1, 8], [3, 8]])
    np.testing.assert_array_equal(filled.scale, [[2, 4], [0, 4]])
    plain = scaling.without_change()
    np.testing.assert_array_equal(plain.mean, [[0, np.nan], [0, 0]])
    np.testing.assert_array_equal(plain.scale, [[1, np.nan], [1, 1]])
    np.testing.assert_array_equal(scaling.take(np.array([1, 1])).mean, [[3, 8], [3, 8]])


# -------------------------------------------------------------------- tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("small_blocks")
def test_tensors_against_a_loop(dtype):
    values, offsets = _series([4, 25, 1, 9, 33], missing=0.4)
    values[offsets[1] : offsets[1] + 3] = np.nan
    values[offsets[3] : offsets[4], 2] = np.nan
    overall = Scaling(np.zeros((1, 3)), np.ones((1, 3)))
    scaling = Scaling.measure(values, offsets, offsets[1:]).filled(overall)
    tensors = series_tensors(values, offsets, scaling, CPU, dtype)
    assert tensors.values.dtype == dtype and tensors.observed is not None
    for series in range(5):
        for variate in range(3):
            latest = 0.0
            for row in range(offsets[series], offsets[series + 1]):
                value = values[row, variate]
                if not np.isnan(value):
                    divisor = scaling.scale[series, variate] or 1.0
                    latest = (value - scaling.mean[series, variate]) / divisor
                found = tensors.values[row, variate].item()
                assert found == pytest.approx(latest, rel=1e-6, abs=1e-6)
                assert tensors.observed[row, variate].item() == (not np.isnan(value))
    np.testing.assert_array_equal(tensors.offsets.numpy(), offsets)
    np.testing.assert_allclose(tensors.scale.numpy(), scaling.scale, rtol=1e-6)


def test_complete_series_have_no_mask():
    values, offsets = _series([20, 30])
    scaling = Scaling.measure(values, offsets, offsets[1:])
    assert series_tensors(values, offsets, scaling, CPU).observed is None


def test_carrying_forward_never_looks_ahead_nor_across_series():
    values, offsets = _series([30, 30], missing=0.5, seed=4)
    scaling = Scaling(np.zeros((2, 3)), np.ones((2, 3)))
    before = series_tensors(values, offsets, scaling, CPU, torch.float64).values
    for cut in (7, 30, 31, 44):
        changed = values.copy()
        changed[cut:] += 100.0
        after = series_tensors(changed, offsets, scaling, CPU, torch.float64).values
        torch.testing.assert_close(after[:cut], before[:cut], rtol=0, atol=0)
    # The first series in another panel.
    changed = values.copy()
    changed[:30] = 1e6
    after = series_tensors(changed, offsets, scaling, CPU, torch.float64).values
    torch.testing.assert_close(after[30:], before[30:], rtol=0, atol=0)


def test_the_frame_is_never_written_to():
    frame = pd.DataFrame(
        {"a": [1.0, np.nan, 3.0], "b": [np.nan, 5.0, 6.0]}, index=pd.date_range("2024", periods=3)
    )
    kept = frame.copy()
    panel = Panel.from_frame(frame)
    scaling = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:])
    series_tensors(panel.values, panel.offsets, scaling, CPU)
    series_tensors(panel.values, panel.offsets, scaling, CPU, torch.float64)
    pd.testing.assert_frame_equal(frame, kept)


@pytest.mark.parametrize("missing", [False, True])
def test_a_million_rows_add_at_most_twice_their_size(missing):
    values = np.random.default_rng(0).normal(size=1_000_000)
    if missing:
        values[::7] = np.nan
    frame = pd.Series(values, index=pd.date_range("2000", periods=len(values), freq="min"))
    tracemalloc.start()
    try:
        panel = Panel.from_frame(frame)
        scaling = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:])
        tensors = series_tensors(panel.values, panel.offsets, scaling, CPU)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # tracemalloc counts what numpy allocates; torch shares these arrays.
    assert tensors.values.shape == (1_000_000, 1) and peak <= 2 * values.nbytes


def test_values_that_do_not_fit_are_refused():
    values = np.random.default_rng(0).normal(size=(50, 2)) * 1e60
    values[7] = np.nan
    offsets = np.array([0, 50])
    plain = Scaling(np.zeros((1, 2)), np.ones((1, 2)))
    with pytest.raises(DataError, match="more than float32 holds without scaling; set scaler="):
        series_tensors(values, offsets, plain, CPU)
    assert series_tensors(values, offsets, plain, CPU, torch.float64).values.isfinite().all()
    scaling = Scaling.measure(values, offsets, offsets[1:])
    tensors = series_tensors(values, offsets, scaling, CPU)
    assert tensors.values.isfinite().all() and tensors.scale.isfinite().all()


def test_large_sums_are_no_missing_values():
    values = np.full((1000, 1), 3e38)
    tensors = series_tensors(
        values, np.array([0, 1000]), Scaling(np.zeros((1, 1)), np.ones((1, 1))), CPU
    )
    assert tensors.observed is None and (tensors.values == 3e38).all()


@pytest.mark.parametrize("season", [1, 7])
@pytest.mark.parametrize("missing", [False, True])
def test_the_seasonal_naive_is_off_by_one_unit(season, missing):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(90, 2)).cumsum(axis=0) + 50
    if missing:
        values[rng.random(values.shape) < 0.2] = np.nan
    offsets, stop = np.array([0, 40, 90]), np.array([30, 90])
    scaling = Scaling.measure_seasonal(values, offsets, stop, season)
    np.testing.assert_array_equal(scaling.mean, Scaling.measure(values, offsets, stop).mean)
    for series, (begin, end) in enumerate(zip(offsets[:-1], stop, strict=True)):
        scaled = pd.DataFrame((values[begin:end] - scaling.mean[series]) / scaling.scale[series])
        np.testing.assert_allclose(scaled.diff(season).abs().mean(), 1.0)


def test_seasonal_units_are_bounded():
    wave = np.tile([1.0, 3.0], 20)
    noise = np.arange(40) % 5 / 1000
    values = np.stack([wave, wave + noise, np.full(40, 2.0), np.arange(40.0)], axis=1)
    whole = np.array([0, 40]), np.array([40])
    scale = Scaling.measure_seasonal(values, *whole, 2).scale[0]
    # What repeats itself, almost or altogether, counts by a tenth of its deviation.
    np.testing.assert_allclose(scale[:2], 0.1 * values[:, :2].std(axis=0))
    assert scale[2] == 0 and scale[3] == 2
    # Without a pair of rows a season apart, it is the deviation.
    np.testing.assert_allclose(
        Scaling.measure_seasonal(values, *whole, 40).scale[0], values.std(axis=0)
    )
