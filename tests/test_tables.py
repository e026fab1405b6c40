import os
import sys

import pandas as pd
import pytest

from tsar.exceptions import DataError, MissingExtraError
from tsar.tables import find_time_column, read_table, write_table

FRAME = pd.DataFrame({"when": ["2024-01-01", "2024-01-02"], "load": [1.1, 1 / 3]})


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_was_written_is_read_back(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / "new" / f"table.{ending}"
    write_table(FRAME, path)
    pd.testing.assert_frame_equal(read_table(path), FRAME, check_exact=True)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail(self, target, **options):
        target.write_text("half")
        raise OSError("the disk is full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_table(FRAME, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_has_ordinary_rights(tmp_path):
    (tmp_path / "plain").touch()
    write_table(FRAME, tmp_path / "table.csv")
    if os.name == "posix":
        assert (tmp_path / "table.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_missing_file_suggests_a_neighbour(tmp_path):
    (tmp_path / "sales.csv").touch()
    with pytest.raises(DataError, match="did you mean 'sales.csv'"):
        read_table(tmp_path / "sale.csv")


@pytest.mark.parametrize("content", ["", 'a,b\n"1,2\n'])
def test_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "broken.csv"
    path.write_text(content)
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_table(path)


def test_missing_pyarrow_names_the_extra(tmp_path, monkeypatch):
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "table.parquet"
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[parquet\]'"):
        write_table(FRAME, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"load": [1, 2], "Date": ["2024-01-01", "2024-01-02"]}, "Date"),
        ({"time": [1, 2], "load": [3, 4]}, "time"),
        ({"name": ["a", "b"], "when": ["2024-01-01 10:00", "2024-01-01 11:00"]}, "when"),
        ({"stamp": pd.date_range("2024", periods=2), "load": [3, 4]}, "stamp"),
    ],
)
def test_time_column_is_found(columns, found):
    assert find_time_column(pd.DataFrame(columns)) == found


def test_missing_time_column_lists_the_columns():
    with pytest.raises(DataError, match="--time.*'a', 'b'"):
        find_time_column(pd.DataFrame({"a": [1], "b": ["x"]}))
