"""Files as they are: ids of any type, numbers of any notation, columns that nobody named."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.batch import forecast


def _shops(ids, columns=("unique_id", "ds", "y")):
    days = pd.date_range("2024-01-01", periods=60)
    week = np.sin(np.arange(60) * 2 * np.pi / 7)
    frames = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": days,
                "p": np.arange(60) % 3,
                "y": k * (10 + 5 * week + np.random.default_rng(k).normal(size=60)),
            }
        )
        for k, name in enumerate(ids, 1)
    ]
    return pd.concat(frames)[list(columns)]


@pytest.mark.parametrize("block_rows", [1_000_000, 60])
def test_a_saved_series_is_known_whatever_else_is_in_the_file(block_rows, tmp_path):
    """Beside W3 the ids of a file are text, and those of the fit were integers."""
    train = _shops([1, 2])
    model = tsar.AutoReg(horizon=3).fit(train).calibrate(train, refit=True)
    model.save(tmp_path / "saved")
    expected = model.predict(level=80)
    for ids in (["1", "2"], ["1", "2", "W3"], ["007", "2", "1"]):
        levels = {"1": 1, "2": 2}
        frame = pd.concat(
            _shops([1, 2]).query(f"unique_id == {levels.get(name, 2)}").assign(unique_id=name)
            for name in ids
        )
        frame.to_csv(tmp_path / "new.csv", index=False)
        done = forecast(
            tmp_path / "new.csv", model=tmp_path / "saved", level=80, block_rows=block_rows
        ).forecast
        for name in ("1", "2"):
            got = done[done["unique_id"].astype(str) == name]
            wanted = expected[expected["unique_id"] == int(name)]
            columns = ["y", "y_lo80", "y_hi80"]
            np.testing.assert_allclose(got[columns], wanted[columns], rtol=1e-9)


def test_files_may_type_their_ids_differently(tmp_path):
    _shops(["1", "2"], ["unique_id", "ds", "p", "y"]).to_csv(tmp_path / "known.csv", index=False)
    ahead = pd.date_range("2024-03-01", periods=3)
    names = np.repeat(["2", "total", "1"], 3)
    future = pd.DataFrame({"unique_id": names, "ds": np.tile(ahead, 3), "p": 1})
    options = {"model": "AutoReg", "horizon": 3, "params": {"future_covariates": "p"}}
    found = []
    for rows in (future, future[future["unique_id"] != "total"]):
        rows.to_csv(tmp_path / "future.csv", index=False)
        done = forecast(tmp_path / "known.csv", future=tmp_path / "future.csv", **options)
        assert done.n_failed == 0
        found.append(done.forecast)
    pd.testing.assert_frame_equal(*found)


@pytest.mark.parametrize("block_rows", [1_000_000, 60])
def test_a_bad_cell_among_decimal_commas_is_one_bad_series(block_rows, tmp_path):
    lines = _shops(["A", "B", "C"]).assign(y=lambda frame: frame["y"].round(1))
    lines["y"] = lines["y"].map("{:.1f}".format).str.replace(".", ",")
    lines.iloc[70, 2] = "n/v"
    lines.to_csv(tmp_path / "in.csv", sep=";", index=False)
    done = forecast(tmp_path / "in.csv", model="SeasonalNaive", horizon=7, block_rows=block_rows)
    assert done.series["id"].tolist() == ["B"]
    assert done.series["reason"].tolist() == ["column 'y' holds 'n/v', which is no number"]
    last = lines[lines["unique_id"] == "C"]["y"].tolist()[-7:]
    assert done.forecast["y"].tolist()[-7:] == [float(cell.replace(",", ".")) for cell in last]
    assert "decimal mark ','" in done.reading
    assert done.to_json()["reading"] == done.reading


def test_every_column_of_one_series_is_forecast(tmp_path):
    frame = _shops(["A"], ["ds", "p", "y"]).assign(z=1.0)
    frame.to_csv(tmp_path / "in.csv", index=False)
    done = forecast(tmp_path / "in.csv", model="SeasonalNaive", horizon=2)
    assert list(done.forecast) == ["ds", "p", "y", "z"] and done.unused == []
    done = forecast(tmp_path / "in.csv", model="SeasonalNaive", horizon=1, target=["y"])
    assert list(done.forecast) == ["ds", "y"] and done.unused == ["p", "z"]
    _shops(["A"], ["unique_id", "ds", "p", "y"]).to_csv(tmp_path / "in.csv", index=False)
    done = forecast(tmp_path / "in.csv", model="SeasonalNaive", horizon=2)
    assert done.unused == ["p"] and "not used: 'p'" in done.reading


def test_bad_series_have_times_as_the_others_are_spelt(tmp_path):
    frame = _shops(["A", "B", "C"])
    frame["ds"] = [f"{day.day}.{day.month}.{day.year}" for day in frame["ds"]]
    # The second series has a gap.
    keep = ~((frame["unique_id"] == "B") & (frame.index == 30)).to_numpy()
    frame[keep].to_csv(tmp_path / "in.csv", index=False)
    done = forecast(tmp_path / "in.csv", model="SeasonalNaive", horizon=2)
    assert done.series["id"].tolist() == ["B"]
    assert done.forecast["ds"].tolist() == ["1.3.2024", "2.3.2024"] * 3
    assert done.forecast["y"].isna().tolist() == [False, False, True, True, False, False]
