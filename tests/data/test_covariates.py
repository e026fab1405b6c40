"""Columns with a role, coded as numbers and cut into windows."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler

import tsar
from tsar.data.calendar import calendar_features
from tsar.data.covariates import ColumnCoding, CovariateCoding, covariate_tensors
from tsar.data.panel import Panel
from tsar.exceptions import DataError, DataWarning

ROLES = {
    "past_covariates": ["load"],
    "future_covariates": ["price", "event"],
    "static_covariates": ["shop", "size"],
}


def _frame(lengths=(7, 5, 9)) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    parts = []
    for series, length in enumerate(lengths):
        part = pd.DataFrame({"ds": pd.date_range("2024-03-08 21:00", periods=length, freq="h")})
        part["unique_id"] = f"s{series}"
        part["y"] = rng.normal(size=length)
        part["load"] = rng.normal(5, 2, size=length)
        part["price"] = rng.normal(-1, 3, size=length)
        part["event"] = rng.choice(["none", "fair"], size=length)
        part["shop"] = "north" if series == 1 else "south"
        part["size"] = 10.0 * series
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _panel(frame: pd.DataFrame, **options) -> Panel:
    return Panel.from_frame(frame, calendar="features", **ROLES, **options)


def test_numbers_are_standardised_by_their_training_rows():
    frame = _frame()
    panel = _panel(frame)
    stop = panel.offsets[1:] - [2, 1, 4]
    coded = panel.coded(panel.coding(stop)).covariates
    training = np.concatenate(
        [np.arange(begin, end) for begin, end in zip(panel.offsets, stop, strict=False)]
    )
    for column, found in (("load", coded.past[:, 0]), ("price", coded.future[:, 0])):
        scaler = StandardScaler().fit(frame[[column]].iloc[training])
        np.testing.assert_allclose(found, scaler.transform(frame[[column]])[:, 0], rtol=1e-5)
    expected = StandardScaler().fit_transform([[0.0], [10.0], [20.0]])[:, 0]
    np.testing.assert_allclose(coded.static[:, 1], expected, rtol=1e-6)


def test_categories_are_codes_and_unknown_ones_are_zero():
    frame = _frame()
    panel = _panel(frame)
    coding = panel.coding(panel.offsets[1:])
    assert [column.n_categories for column in coding.future] == [0, 3]
    coded = panel.coded(coding).covariates
    names = coding.future[1].categories
    assert [names[int(code) - 1] for code in coded.future[:, 1]] == list(frame["event"])
    assert (coded.static[:, 0] == [1, 2, 1]).all()
    frame.loc[3, "event"] = "strike"
    frame.loc[4, "event"] = None
    with pytest.warns(DataWarning, match="'event' has categories that were not fitted.*'strike'"):
        other = _panel(frame).coded(coding).covariates
    np.testing.assert_array_equal(other.future[[3, 4], 1], 0)


def test_a_missing_category_has_a_code_where_there_was_one_in_training():
    frame = _frame()
    frame.loc[[2, 10], "event"] = None
    frame.loc[frame["unique_id"] == "s2", "shop"] = None
    panel = _panel(frame)
    coding = panel.coding(panel.offsets[1:])
    event, shop = coding.future[1], coding.static[0]
    assert (event.n_categories, shop.n_categories) == (4, 4)
    coded = panel.coded(coding).covariates
    assert (coded.future[[2, 10], 1] == 3).all() and (coded.future[:, 1] == 3).sum() == 2
    assert coded.static[:, 0].tolist() == [1, 2, 3]
    for empty in (None, np.nan, pd.NA, pd.NaT):
        with pytest.warns(DataWarning, match="for example 'strike'"):
            codes = event.encode(np.array(["strike", empty, event.categories[0]], dtype=object))
        assert codes.tolist() == [0, 3, 1]
    again = ColumnCoding.from_state(json.loads(json.dumps(event.to_state())))
    assert again.missing and again.n_categories == 4
    stored = event.to_state()
    del stored["missing"]
    before = ColumnCoding.from_state(stored)
    assert before.encode(np.array([None, "none"], dtype=object))[0] == 0
    # Rows that are not trained on teach nothing of it.
    assert not panel.coding(panel.offsets[:-1] + 2).future[1].missing


def test_missing_numbers_take_the_value_before_them():
    frame = _frame().astype({"price": "Float64"})
    frame.loc[[0, 1, 9, 12], "price"] = pd.NA
    panel = _panel(frame)
    coded = panel.coded(panel.coding(panel.offsets[1:])).covariates.future[:, 0]
    np.testing.assert_array_equal(coded[:2], 0)
    assert coded[9] == coded[8] and coded[12] == 0 and coded[13] != 0


def test_calendar_is_that_of_every_row_also_of_inserted_ones():
    frame = _frame()
    zoned = frame.assign(ds=frame["ds"].dt.tz_localize("America/New_York"))
    panel = _panel(zoned)
    np.testing.assert_array_equal(panel.calendar, calendar_features(pd.DatetimeIndex(zoned["ds"])))
    gappy = _panel(zoned.drop(index=[2, 3, 15]), gaps="mask")
    np.testing.assert_array_equal(gappy.calendar, panel.calendar)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pd.date_range("2024", periods=21), "covariate 'price' holds times"),
        (np.where(np.arange(21) == 4, np.inf, 1.0), "covariate 'price' holds 1 infinite"),
        (np.arange(21) * 1j, "covariate 'price' holds complex"),
        (pd.date_range("2024", periods=21, tz="Asia/Tokyo"), "covariate 'price' holds times"),
        (pd.period_range("2024", periods=21, freq="D"), "covariate 'price' holds times"),
        ([[1, 2]] * 21, "holds .1, 2. of type list, which is neither a number nor a category"),
    ],
)
def test_columns_without_a_code_are_refused(column, words):
    panel = _panel(_frame().assign(price=column))
    with pytest.raises(DataError, match=words):
        panel.coding(panel.offsets[1:])


def test_constant_and_empty_columns_are_no_trouble():
    values = np.array([4.0, 4.0, 4.0, np.nan])
    constant = ColumnCoding.measure("a", values, np.ones(4, dtype=bool))
    np.testing.assert_array_equal(constant.encode(values)[:3], 0)
    empty = ColumnCoding.measure("a", values, np.arange(4) == 3)
    np.testing.assert_array_equal(empty.encode(values)[:3], 4)


@pytest.mark.parametrize("noise", ["one step of single precision", 1e-12, 1e-9])
def test_what_single_precision_leaves_of_a_constant_is_read_as_constant(noise):
    """6.04, and one cent off plan: neither a network nor a model of a series may explode."""
    rng, n = np.random.default_rng(0), 120
    days = pd.date_range("2024-01-01", periods=n)
    moved = np.where(np.arange(n) % 9 == 0, 4.8e-7, 0) if isinstance(noise, str) else noise
    price = 6.04 + moved * (1.0 if isinstance(noise, str) else rng.normal(size=n))
    frame = pd.DataFrame({"y": 20 + rng.normal(size=n), "price": price}, days)
    options = {"horizon": 3, "target": "y", "future_covariates": "price"}
    network = {"context_length": 14, "max_steps": 5, "random_state": 0, "device": "cpu"}
    for model in (tsar.AutoReg(**options), tsar.NLinear(**options, **network)):
        with pytest.warns(DataWarning, match="is no more than rounding, and is read as constant"):
            model.fit(frame)
        ahead = model.make_future_frame().assign(price=5.99)
        assert np.abs(model.predict(future=ahead)["y"] - 20).max() < 5


@pytest.mark.parametrize("level", [0.3, -7e5, 0.0, 1e-9])
def test_what_rounding_leaves_of_a_constant_is_no_movement(level):
    values = np.full(150, level)
    coding = ColumnCoding.measure("a", values, np.ones(150, dtype=bool))
    np.testing.assert_array_equal(coding.encode(values), 0)
    # Nothing was learned of it, so that nothing is known when it moves.
    np.testing.assert_array_equal(coding.encode(values + 20), 0)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (np.array([2.0, np.inf]), "holds 1 values that are infinite or far beyond"),
        (np.array([2.0, 1e300]), "for example 1e.300"),
        (np.array([2.0, "dear"], dtype=object), "was fitted as numbers, got 'dear' of type str"),
        (np.array([0, 1], dtype="datetime64[s]"), "was fitted as numbers, got .* datetime64"),
    ],
)
def test_what_has_no_code_later_is_refused(column, words):
    coding = ColumnCoding.measure("a", np.arange(4.0), np.ones(4, dtype=bool))
    with pytest.raises(DataError, match=f"covariate 'a' .*{words}"):
        coding.encode(column)


@pytest.mark.parametrize("dtype", ["float", "Int64", "boolean", "object"])
def test_numbers_are_numbers_also_as_objects(dtype):
    numbers = pd.Series(np.arange(21) % 2)
    numbers[4] = None
    panel, plain = (
        _panel(_frame().assign(price=given.to_numpy()))
        for given in (numbers.astype(dtype), numbers.astype(float))
    )
    np.testing.assert_array_equal(panel.future["price"], plain.future["price"])


def test_categories_that_are_numbers_stay_categories():
    weekday = np.arange(21) % 7
    panel = _panel(_frame().assign(event=pd.Categorical(weekday)))
    coding = panel.coding(panel.offsets[1:]).future[1]
    assert coding.n_categories == 8
    # Later they are known as plain numbers, too.
    np.testing.assert_array_equal(coding.encode(weekday), weekday + 1)
    assert ColumnCoding.from_state(json.loads(json.dumps(coding.to_state()))).n_categories == 8


def test_coding_goes_through_json():
    panel = _panel(_frame())
    coding = panel.coding(panel.offsets[1:])
    again = CovariateCoding.from_state(json.loads(json.dumps(coding.to_state())))
    for one, other in zip(
        vars(panel.coded(coding).covariates).values(),
        vars(panel.coded(again).covariates).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert CovariateCoding.from_state({}) == CovariateCoding() and not CovariateCoding()


def test_tail_and_after_carry_covariates_along():
    frame = _frame((7, 7, 7))
    panel = _panel(frame)
    coding = panel.coding(panel.offsets[1:])
    whole = panel.coded(coding)
    early = frame.groupby("unique_id").head(4)
    late = frame.groupby("unique_id").tail(3)
    joined = _panel(late).coded(coding).after(_panel(early).coded(coding).tail(2))
    rows = np.concatenate([np.arange(2, 7) + 7 * series for series in range(3)])
    for role in ("past", "future", "calendar"):
        found = getattr(joined.covariates, role)
        np.testing.assert_array_equal(found, getattr(whole.covariates, role)[rows])


def test_windows_cut_covariates_at_the_rows_of_their_targets():
    frame = _frame()
    panel = _panel(frame)
    coding = panel.coding(panel.offsets[1:])
    panel = panel.coded(coding)
    given = {"price": np.arange(6.0).reshape(3, 2), "event": np.full((3, 2), "fair")}
    ahead = panel.known_ahead(coding, given, 3)
    assert ahead.shape == (3, 3, 2 + 4)
    mean, scale = coding.future[0].mean, coding.future[0].scale
    np.testing.assert_allclose(ahead[1, :, 0], (np.array([2, 3, 3]) - mean) / scale, rtol=1e-5)
    stamps = panel.future_index(3)
    np.testing.assert_array_equal(ahead[:, :, 2:].reshape(9, 4), calendar_features(stamps))
    tensors = covariate_tensors(panel.covariates, panel.offsets, ahead, torch.device("cpu"))
    series, cutoffs = torch.tensor([2, 0, 1]), torch.tensor([21, 5, 8])
    offsets = torch.from_numpy(panel.offsets)
    cut = tensors.gather(offsets, series, cutoffs, before=4, after=3)
    rows = panel.covariates
    assert cut["past"].shape == (3, 4, 1) and cut["future"].shape == (3, 7, 2)
    np.testing.assert_array_equal(cut["past"][0, :, 0], rows.past[17:21, 0])
    np.testing.assert_array_equal(cut["future"][0, :4], rows.future[17:21])
    np.testing.assert_array_equal(cut["future"][0, 4:], ahead[2, :, :2])
    np.testing.assert_array_equal(cut["calendar"][1, :6], rows.calendar[1:7])
    np.testing.assert_array_equal(cut["calendar"][1, 6], ahead[0, 0, 2:])
    # The second series begins at row 7: what lies before it is none of its business.
    np.testing.assert_array_equal(cut["future"][2, :3], 0)
    np.testing.assert_array_equal(cut["future"][2, 3:4], rows.future[7:8])
    np.testing.assert_array_equal(cut["static"], rows.static[[2, 0, 1]])
