"""Digests of data: what they depend on, and what they do not."""

import numpy as np
import pandas as pd
import pytest

from tsar.data.digest import data_digest
from tsar.data.panel import Panel


@pytest.fixture
def long():
    """Return three series of different lengths, with covariates of all kinds."""
    generator = np.random.default_rng(3)
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range("2024-03-01", periods=length, freq="h"),
                "y": generator.integers(0, 50, length),
                "price": generator.normal(size=length).astype(np.float32),
                "event": generator.choice(["none", "fair"], length),
                "size": 3 + place,
            }
        )
        for place, (name, length) in enumerate([("b", 30), ("a", 41), ("c", 7)])
    ]
    return pd.concat(parts, ignore_index=True)


ROLES = {
    "past_covariates": ["event"],
    "future_covariates": ["price"],
    "static_covariates": ["size"],
}


def _digest(frame, **options):
    return data_digest(Panel.from_frame(frame, **{**ROLES, **options}))


def test_order_and_storage_do_not_matter(long):
    expected = _digest(long)
    assert _digest(long.sample(frac=1, random_state=1)) == expected
    assert _digest(long[long.columns[::-1]]) == expected
    assert _digest(long.astype({"y": "float32", "price": "float64"})) == expected
    assert _digest(long.astype({"ds": "datetime64[s]"})) == expected
    assert _digest(long.astype({"event": "category"})) == expected
    parts = [rows for _, rows in long.groupby("unique_id")]
    assert _digest(pd.concat(parts)) == expected


def test_forms_of_the_same_series_have_the_same_digest(long):
    plain = long[["unique_id", "ds", "y"]]
    roles = dict.fromkeys(ROLES, ())
    expected = _digest(plain, **roles)
    assert _digest(plain.set_index(["unique_id", "ds"]), **roles) == expected
    renamed = plain.rename(columns={"unique_id": "shop", "ds": "hour"})
    assert _digest(renamed, id_column="shop", time_column="hour", **roles) == expected
    numbered = plain.assign(unique_id=plain["unique_id"].map({"a": 1, "b": 2, "c": 3}))
    written = numbered.astype({"unique_id": str})
    assert _digest(numbered, **roles) == _digest(written, **roles) != expected


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(y=frame["y"].where(frame.index != 5, frame["y"] + 1)),
        lambda frame: frame.assign(y=frame["y"].where(frame.index != 5)),
        lambda frame: frame.assign(price=frame["price"].where(frame.index != 40, 0.5)),
        lambda frame: frame.assign(event=frame["event"].where(frame.index != 3, "storm")),
        lambda frame: frame.assign(size=frame["size"] + 1),
        lambda frame: frame.assign(ds=frame["ds"] + pd.Timedelta("1h")),
        lambda frame: frame.assign(unique_id=frame["unique_id"].replace("b", "d")),
        lambda frame: frame.assign(
            unique_id=frame["unique_id"].map({"a": "b", "b": "a", "c": "c"})
        ),
        lambda frame: frame.iloc[1:],
        lambda frame: frame.iloc[:-1],
    ],
)
def test_any_change_changes_the_digest(long, change):
    assert _digest(change(long)) != _digest(long)


def test_values_that_change_places_change_the_digest(long):
    plain = long[["unique_id", "ds", "y"]]
    roles = dict.fromkeys(ROLES, ())
    y = np.arange(len(plain), dtype=float)
    swapped = y.copy()
    swapped[[4, 5]] = y[[5, 4]]
    elsewhere = y.copy()
    # Between series, at the same place in each.
    elsewhere[[2, 32]] = y[[32, 2]]
    digests = {_digest(plain.assign(y=values), **roles) for values in (y, swapped, elsewhere)}
    assert len(digests) == 3


def test_zero_has_no_sign_and_what_is_missing_no_payload(long):
    plain = long[["unique_id", "ds", "y"]].assign(y=0.0)
    roles = dict.fromkeys(ROLES, ())
    assert _digest(plain.assign(y=-0.0), **roles) == _digest(plain, **roles)
    payload = np.full(len(plain), np.nan)
    payload.view(np.uint64)[:] += 1
    payload[0] = np.nan
    assert np.isnan(payload).all()
    keep = plain.index % 3 == 0
    missing, other = (
        plain.assign(y=plain["y"].where(keep, values)) for values in (np.nan, pd.Series(payload))
    )
    assert _digest(missing, **roles) == _digest(other, **roles)


def test_long_panels_are_hashed_in_parts(monkeypatch, long):
    expected = _digest(long)
    monkeypatch.setattr("tsar.data.digest.ROWS", 11)
    assert _digest(long) == expected
