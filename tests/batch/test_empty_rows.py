"""Series that were set aside keep their rows, and the rows their times."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tsar.batch import forecast

HORIZON = 3


@pytest.mark.parametrize(
    "style",
    [
        "%d/%m/%Y",
        "%d.%m.%Y",
        "%m/%d/%Y",
        "%Y-%m-%d",
        "%d %b %Y",
        "%Y%m%dT%H%M%S",
        "%Y-%m-%d %H:%M:%S%z",
    ],
)
@pytest.mark.parametrize("until", [10, 40])
def test_empty_rows_have_dates_in_every_spelling(style, until, tmp_path):
    """Also where the times of the bad series alone can be read in two ways."""
    days = pd.date_range("2024-01-01", periods=40, tz="UTC" if "%z" in style else None)
    written = days.strftime(style)
    good = pd.DataFrame({"unique_id": "good", "ds": written, "y": 1.0})
    bad = {
        "gap": good[:until].drop(index=[5]),
        "doubled": pd.concat([good[:until], good[3:4]]),
        "words": good[:until].astype({"y": object}),
        "empty": good[:until].assign(y=np.nan),
        "infinite": good[:until].assign(y=np.inf),
        "torn": good[:until].assign(ds=[*written[: until - 1], "soon"]),
    }
    bad["words"].iloc[2, 2] = "many"
    frame = pd.concat([good, *(rows.assign(unique_id=name) for name, rows in bad.items())])
    frame.to_csv(tmp_path / "in.csv", index=False)
    found = forecast(tmp_path / "in.csv", model="SeasonalNaive", horizon=HORIZON).forecast
    assert found["status"].ne("ok").sum() == 6 * HORIZON
    for name in bad:
        last = until - 1 - (name == "torn")
        ahead = pd.date_range(days[last], periods=HORIZON + 1)[1:].strftime(style)
        times = found.loc[found["unique_id"] == name, "ds"].astype(str)
        assert times.tolist() == ahead.tolist(), name
    assert found.loc[found["unique_id"] == "good", "ds"].notna().all()


def test_the_times_of_bad_series_are_no_matter_of_categories(tmp_path):
    """What stands in for the covariates of a bad series was warned of as an unknown category."""
    days = pd.date_range("2024-01-01", periods=20)
    good = pd.DataFrame({"unique_id": "good", "ds": days, "y": 1.0, "kind": ["a", "b"] * 10})
    bad = good.assign(unique_id="bad", y=np.inf)
    pd.concat([good, bad]).to_csv(tmp_path / "in.csv", index=False)
    ahead = pd.date_range(days[-1], periods=3)[1:]
    future = pd.DataFrame({"unique_id": ["good"] * 2, "ds": ahead, "kind": "a"})
    future.to_csv(tmp_path / "future.csv", index=False)
    params = {"future_covariates": "kind", "context_length": 4, "max_epochs": 1}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = forecast(
            tmp_path / "in.csv",
            model="NLinear",
            horizon=2,
            future=tmp_path / "future.csv",
            params={**params, "random_state": 0},
        ).forecast
    assert found.loc[found["unique_id"] == "bad", "ds"].notna().all()
    assert not [str(given.message) for given in caught if "categor" in str(given.message)]


def test_the_last_time_on_the_grid_counts(tmp_path):
    """Months have a grid of their own, which a stray time at the end does not lie on."""
    months = pd.date_range("2020-01-01", periods=30, freq="MS")
    good = pd.DataFrame({"unique_id": "good", "ds": months, "y": 1.0})
    stray = good[:20].assign(unique_id="stray")
    stray.loc[19, "ds"] += pd.Timedelta(days=9)
    pd.concat([good, stray]).to_parquet(tmp_path / "in.parquet", index=False)
    found = forecast(tmp_path / "in.parquet", model="Naive", horizon=2).forecast
    rows = found[found["unique_id"] == "stray"]
    assert rows["y"].isna().all() and rows["ds"].notna().all()
    assert (rows["ds"] > months[18]).all()
