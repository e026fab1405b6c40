import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tsar.batch import forecast
from tsar.data.fileformat import Roles
from tsar.data.tables import TableFile, check_writable, read_table, write_table
from tsar.data.workbook import read_workbook
from tsar.exceptions import DataError, MissingExtraError

openpyxl = pytest.importorskip("openpyxl")


def _written(path, rows):
    """Write cells as a person does, with the library itself."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


@pytest.fixture
def shops():
    days = pd.date_range("2024-01-01", periods=40)
    values = np.arange(40.0)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": days, "y": values % 7 + k})
        for k, name in enumerate(("007", "NA"))
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_workbook_comes_back(shops, tmp_path):
    path = tmp_path / "shops.xlsx"
    write_table(shops, path)
    again = read_table(path, Roles("unique_id", None, {}))
    pd.testing.assert_frame_equal(again, shops, check_dtype=False)
    assert again["unique_id"].unique().tolist() == ["007", "NA"]
    assert str(again["ds"].dtype).startswith("datetime64") and again["y"].dtype.kind in "if"


def test_cells_are_what_the_sheet_holds(tmp_path):
    day = pd.Timestamp("2024-02-03").to_pydatetime()
    path = _written(
        tmp_path / "in.xlsx",
        [
            ["id", "day", "sold", "note"],
            ["a", day, 3, "NA"],
            [7, day, None, 2],
            ["NA", day, 2.5, "x"],
        ],
    )
    frame = read_workbook(path, "id")
    assert frame["id"].tolist() == ["a", 7, "NA"] and frame["note"].isna().tolist()[0]
    assert frame["sold"].dtype == "float64" and frame["sold"].isna().tolist() == [
        False,
        True,
        False,
    ]
    assert frame["day"].iloc[0] == pd.Timestamp("2024-02-03")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the first sheet is empty"),
        ([["a", "b", "a"], [1, 2, 3]], "column 'a' occurs more than once"),
        ([["a", None], [1, 2]], "column 2 of the first sheet has no name"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, rows, message):
    path = _written(tmp_path / "in.xlsx", rows)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_titles_above_the_names_are_left_out(tmp_path):
    table = [["shop", "sold"], ["a", 1], ["b", 2]]
    titles = [["Sales of 2024"], [], ["unit", None]]
    frame = read_table(_written(tmp_path / "titled.xlsx", titles + table))
    pd.testing.assert_frame_equal(frame, read_table(_written(tmp_path / "plain.xlsx", table)))


def test_a_damaged_workbook_is_one_error(shops, tmp_path):
    path = tmp_path / "in.xlsx"
    write_table(shops, path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(path)


def test_a_batch_reads_and_writes_workbooks_as_it_does_csv(shops, tmp_path):
    write_table(shops, tmp_path / "in.xlsx")
    write_table(shops, tmp_path / "in.csv")
    asked = {"model": "SeasonalNaive", "horizon": 3, "block_rows": 40}
    forecast(tmp_path / "in.xlsx", out=tmp_path / "out.xlsx", **asked)
    expected = forecast(tmp_path / "in.csv", **asked).forecast
    found = read_workbook(tmp_path / "out.xlsx", "unique_id")
    assert found["ds"].astype(str).tolist() == expected["ds"].astype(str).tolist()
    np.testing.assert_array_equal(found["y"], expected["y"])
    assert found["unique_id"].tolist() == expected["unique_id"].tolist()
    assert list(tmp_path.glob(".*")) == []


def test_times_with_a_zone_are_text(tmp_path):
    days = pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin")
    write_table(pd.DataFrame({"ds": days, "y": 1.0}), tmp_path / "out.xlsx")
    assert read_workbook(tmp_path / "out.xlsx")["ds"][0] == "2024-01-01T00:00:00+01:00"


def test_too_many_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tsar.data.workbook.MOST_ROWS", 3)
    with pytest.raises(DataError, match="at most 2 rows, got 3"):
        write_table(pd.DataFrame({"y": [1, 2, 3]}), tmp_path / "out.xlsx")
    assert not (tmp_path / "out.xlsx").exists()


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tsar.data.workbook.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[excel\]'"):
        check_writable(tmp_path / "out.xlsx")


def test_the_command_line_takes_one(shops, tmp_path):
    write_table(shops, tmp_path / "in.xlsx")
    call = ["forecast", "in.xlsx", "--model", "Naive", "--horizon", "2", "--out", "out.xlsx"]
    subprocess.run([sys.executable, "-m", "tsar", *call], cwd=tmp_path, check=True)
    assert len(read_workbook(tmp_path / "out.xlsx")) == 4
    assert TableFile.look_at(tmp_path / "in.xlsx").with_columns().roles.time_column == "ds"
