"""The series that the shipped weights are trained on, see examples/pretraining."""

import importlib.util
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).resolve().parents[2] / "examples/pretraining/synthetic.py"


@pytest.fixture(scope="module")
def synthetic():
    spec = importlib.util.spec_from_file_location("synthetic_series", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_same_seed_gives_the_same_stream_from_any_place(synthetic):
    first = list(islice(synthetic.stream(3, 16), 3))
    again = next(synthetic.stream(3, 16, start=2))
    other = next(synthetic.stream(4, 16, start=2))
    np.testing.assert_array_equal(first[2].values, again.values)
    assert (first[2].cycles, first[2].context) == (again.cycles, again.context)
    assert first[2].values.shape != other.values.shape or not np.array_equal(
        first[2].values, other.values, equal_nan=True
    )


def test_batches_are_finite_where_observed_and_complete_ahead(synthetic):
    n_missing = 0
    for batch in islice(synthetic.stream(0, 64), 12):
        assert batch.cycles in synthetic.CALENDARS and batch.context in synthetic.CONTEXTS
        assert batch.context >= 2 * batch.cycles[0]
        assert not np.isinf(batch.values).any()
        assert not np.isnan(batch.values[:, batch.context - 4 :]).any()
        n_missing += int(np.isnan(batch.values).sum())
    assert n_missing


def test_season_repeats_itself_where_cycles_are_alike(synthetic):
    rng = np.random.default_rng(0)
    season = synthetic._season(rng, 200, 24 * 7 * 4, (24, 168))
    np.testing.assert_allclose(season.std(axis=1), 1, rtol=1e-6)
    misses = {lag: np.abs(season[:, lag:] - season[:, :-lag]).mean() for lag in (168, 24, 17)}
    # Days are like the day of the week before more than like the day before.
    assert misses[168] < misses[24] < misses[17]
    flat = synthetic._season(rng, 5, 100, (1, 1))
    np.testing.assert_array_equal(flat, 0)


def test_autoregression_has_its_root(synthetic):
    rng = np.random.default_rng(0)
    for root in (-0.5, 0.0, 0.9):
        values = synthetic._autoregressive(rng, 400, 300, np.full((400, 1), root))
        correlation = (values[:, 1:] * values[:, :-1]).mean() / (values**2).mean()
        assert abs(correlation - root) < 0.02
        assert abs(values.std() - 1) < 0.05


def test_counts_are_counts(synthetic):
    counts = synthetic._counts(np.random.default_rng(0), 300, 200, (7, 7))
    assert (counts >= 0).all() and np.array_equal(counts, np.round(counts))
    shares = (counts == 0).mean(axis=1)
    assert (shares > 0.8).any() and (shares < 0.05).any()


def test_walks_spread_as_walks_do(synthetic):
    walks = synthetic._walks(np.random.default_rng(0), 2000, 400, (1, 1))
    spread = [np.sqrt(((walks[:, lag:] - walks[:, :-lag]) ** 2).mean(axis=1)) for lag in (4, 64)]
    # By the root of the time where nothing is added to a walk; those that turn back stay near.
    low, high = np.quantile(spread[1] / spread[0], [0.1, 0.75])
    assert low < 1.5 and high == pytest.approx(4, rel=0.15)
