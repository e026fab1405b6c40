"""What a fit chooses where a parameter is None, and that it holds to what is given."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

import tsar
from tsar.data.panel import Panel
from tsar.exceptions import ParameterError, PersistenceError
from tsar.forecasting.chosen import (
    DataSize,
    choose_batch_size,
    choose_context_length,
    choose_max_steps,
)

HOURS, DAYS, WEEKS, QUARTERS = (24, 168, 8760), (7, 365), (52,), (4,)
NETWORKS = [
    name for name, cls in tsar.forecasting.registry.FORECASTERS.items() if hasattr(cls, "settled")
]


def _size(rows, cycles, horizon, n_series=1, n_variates=1):
    return DataSize(np.full(n_series, rows), n_variates, cycles, horizon)


@pytest.mark.parametrize(
    ("rows", "cycles", "horizon", "expected"),
    [
        (1000, HOURS, 48, 336),
        (8784, HOURS, 48, 336),
        # Two weeks do not leave half of the rows, two days do; a horizon asks for twice of it.
        (500, HOURS, 48, 96),
        # 61 steps are a quarter of the room, in days.
        (500, HOURS, 12, 72),
        # Half of what is left has three days.
        (200, HOURS, 48, 72),
        (1941, DAYS, 28, 70),
        (1941, DAYS, 3, 70),
        # A year of days is too long, twice the horizon is rounded up to weeks.
        (7588, DAYS, 96, 196),
        (1500, WEEKS, 13, 104),
        (80, QUARTERS, 8, 16),
        (1000, (), 24, 64),
        (1000, (), 96, 192),
        (10, (), 3, 3),
        (4, QUARTERS, 3, 1),
        # No context is longer than 512 steps, in whole cycles.
        (100_000, HOURS, 720, 504),
    ],
)
def test_contexts_are_cycles_for_which_there_is_room(rows, cycles, horizon, expected):
    assert choose_context_length(_size(rows, cycles, horizon)) == expected


@given(
    rows=st.integers(2, 5000),
    cycles=st.sampled_from([HOURS, DAYS, WEEKS, QUARTERS, ()]),
    horizon=st.integers(1, 200),
)
def test_a_context_leaves_half_of_the_origins_or_is_one_step(rows, cycles, horizon):
    chosen = choose_context_length(_size(rows, cycles, horizon))
    assert chosen == 1 or chosen <= (rows - horizon) / 2
    assert choose_context_length(_size(rows, cycles, horizon), at_least=40) >= 40


def test_batches_have_as_many_numbers_whatever_the_variates():
    sizes = [_size(5000, HOURS, 48, n_variates=n) for n in (1, 4, 7, 321)]
    assert [choose_batch_size(size, 336) for size in sizes] == [128, 32, 18, 8]
    # 100 - 24 - 12 + 1 = 65 windows, of which a step takes a quarter.
    assert choose_batch_size(_size(100, (12,), 12), 24) == 16


def test_trainings_pass_a_hundred_times_within_bounds():
    assert choose_max_steps(_size(100, (12,), 12), 24, 16) == 100 * 65 // 16
    assert choose_max_steps(_size(50, (12,), 12), 24, 8) == 400
    assert choose_max_steps(_size(5000, HOURS, 48, n_series=400), 336, 128) == 2000


@pytest.fixture
def hourly():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=150, freq="h")
    wave = np.sin(2 * np.pi * np.arange(150) / 24)
    values = wave[:, None] + 0.1 * rng.normal(size=(150, 2))
    return pd.DataFrame(values, index=index, columns=["a", "b"])


def test_what_was_chosen_is_said_and_parameters_stay_none(hourly):
    model = tsar.PatchTST(horizon=6, max_epochs=1, random_state=0)
    before = model.get_params()
    model.fit(hourly)
    # 150 rows leave room for 72 steps: two days of hours.
    expected = {
        **{"context_length": 48, "batch_size": 32, "learning_rate": 1e-3},
        **{"learning_rate_schedule": "constant", "early_stopping": True, "patience": 5},
        **{"patch_length": 3, "stride": 2, "d_model": 16, "dropout": 0.2},
    }
    assert model.chosen_ == expected
    assert {name: getattr(model, f"{name}_") for name in expected} == expected
    assert model.max_epochs_ == 1 and model.max_steps_ is None
    assert model.get_params() == before == clone(model).get_params()
    assert model.context_rows == 48 and model.module_.embedding.n_patches == 24


def test_what_is_given_is_used(hourly):
    given_ones = {"context_length": 20, "batch_size": 7, "patch_length": 5, "d_model": 8}
    model = tsar.PatchTST(horizon=6, max_steps=3, random_state=0, **given_ones).fit(hourly)
    assert not model.chosen_.keys() & {*given_ones, "max_steps", "max_epochs"}
    assert {name: getattr(model, f"{name}_") for name in given_ones} == given_ones
    explicit = tsar.PatchTST(
        horizon=6, max_steps=3, random_state=0, **given_ones, **model.chosen_
    ).fit(hourly)
    pd.testing.assert_frame_equal(explicit.predict(), model.predict())


def test_a_chosen_length_runs_to_the_end_of_its_schedule(hourly):
    model = tsar.NLinear(horizon=6, random_state=0).fit(hourly)
    steps_per_epoch = model.history_["learning_rate"]
    assert model.chosen_["learning_rate_schedule"] == "one_cycle"
    assert model.max_steps_ == model._training_state.step == 100 * 97 // 24
    assert steps_per_epoch[-1] < 1e-6


def test_large_data_are_learned_from_as_a_whole():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=400, freq="h")
    frame = pd.DataFrame(rng.normal(size=(400, 60)), index=index)
    model = tsar.PatchTST(horizon=24, context_length=56)
    # 400 rows are five windows of 80, of sixty variates, and of 59.
    large, small = (Panel.from_frame(frame[frame.columns[:n]]) for n in (60, 59))
    assert {name: model.choose(large)[name] for name in ("early_stopping", "dropout")} == {
        "early_stopping": False,
        "dropout": 0.0,
    }
    chosen = model.choose(small)
    assert chosen["early_stopping"] is True and chosen["dropout"] == 0.2
    assert chosen["d_model"] == 16 and model.choose(large)["d_model"] == 32
    # Whoever gives the length of the training has the validation that there was.
    assert model.set_params(max_epochs=3).choose(large)["early_stopping"] is True


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_chooses_what_it_can_be_built_with(name, hourly):
    model = tsar.forecasting.registry.forecaster_class(name)(horizon=6)
    with model.settled(Panel.from_frame(hourly)) as chosen:
        assert model.context >= 6
        assert all(getattr(model, name) == value for name, value in chosen.items())
    assert all(getattr(model, name) is None for name in chosen)


def test_parameters_are_none_again_after_a_fit_that_failed(hourly):
    model = tsar.PatchTST(horizon=6, patch_length=60, context_length=50)
    with pytest.raises(ParameterError, match="patch_length must be at most context_length=50"):
        model.fit(hourly)
    other = tsar.AutoTimes(horizon=6, segment_length=200)
    with pytest.raises(tsar.exceptions.DataError, match="the longest series has 150"):
        other.fit(hourly)
    assert other.context_length is None and other.batch_size is None


def test_a_loaded_model_is_what_was_saved(hourly, tmp_path):
    model = tsar.PatchTST(horizon=6, max_epochs=1, random_state=0).fit(hourly)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    assert loaded.chosen_ == model.chosen_ and loaded.context_length_ == 48
    pd.testing.assert_frame_equal(loaded.predict(), model.predict())
    loaded.partial_fit(hourly)
    assert loaded.n_epochs_ == 2 and loaded.chosen_ == model.chosen_


def test_a_record_that_names_other_choices_is_refused(hourly, tmp_path):
    model = tsar.NLinear(horizon=6, max_epochs=1, random_state=0).fit(hourly)
    record, tensors = model.learned_state()
    record["fitted"]["chosen"] = ["horizon"]
    with pytest.raises(PersistenceError, match="must be among .* got \\['horizon'\\]"):
        copy.deepcopy(model).restore_learned_state(record, tensors, {})
    assert json.dumps(record)


def test_training_goes_on_with_what_was_chosen(hourly):
    model = tsar.PatchTST(horizon=6, max_epochs=1, random_state=0).fit(hourly.iloc[:100])
    chosen = dict(model.chosen_)
    model.partial_fit(hourly)
    assert model.chosen_ == chosen and model.n_epochs_ == 2


def test_a_fit_after_a_pretraining_has_its_sizes(hourly):
    model = tsar.PatchTST(
        horizon=6, stride=8, patch_length=8, end_padding=False, max_epochs=1, random_state=0
    )
    model.pretrain(hourly)
    sizes = model._backbone.parameters
    # A short frame alone would choose less.
    model.fit(hourly.iloc[:100])
    assert model.context_length_ == sizes["context_length"] == 48
    assert model.d_model_ == sizes["d_model"]
