import os
import sys

import numpy as np
import pandas as pd
import pytest

from tsar.data.fileformat import Roles
from tsar.data.tables import (
    as_csv,
    check_writable,
    drop_row_numbers,
    find_time_column,
    parse_times,
    read_table,
    write_table,
)
from tsar.exceptions import DataError, MissingExtraError

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
    with pytest.raises(DataError, match="time_column=.*'a', 'b'"):
        find_time_column(pd.DataFrame({"a": [1], "b": ["x"]}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("day;a;b\nmon;1,5;2\ntue;2,25;3\n", {"a": [1.5, 2.25], "b": [2, 3]}),
        ("day;a;b\nmon;1.5;2\ntue;2.25;3\n", {"a": [1.5, 2.25], "b": [2, 3]}),
        ("day\ta\tb\nmon\t1.5\t2\ntue\t2.25\t3\n", {"a": [1.5, 2.25], "b": [2, 3]}),
        ("day|a|b\nmon|1.5|2\ntue|2.25|3\n", {"a": [1.5, 2.25], "b": [2, 3]}),
        ('day,"a;x",b\nmon,1.5,2\ntue,2.25,3\n', {"a;x": [1.5, 2.25], "b": [2, 3]}),
        # A separator at the end of each line, with and without one in the header.
        ("day,a,b,\nmon,1.5,2,\ntue,2.25,3,\n", {"a": [1.5, 2.25], "b": [2, 3]}),
        ("day,a,b\nmon,1.5,2,\ntue,2.25,3,\n", {"a": [1.5, 2.25], "b": [2, 3]}),
        ("\ufeffday;a;b\nmon;1,5;2\ntue;2,25;3\n", {"a": [1.5, 2.25], "b": [2, 3]}),
    ],
)
def test_cells_may_be_separated_in_several_ways(tmp_path, content, expected):
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="utf-8")
    read = read_table(path)
    assert read.to_dict("list") == {"day": ["mon", "tue"], **expected}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        # Decimal commas between commas: the first cell would have become an index.
        ("a.csv", b"day,load\nmon,1,5\ntue,2,5\n", "more cells than its header; write decimals"),
        ("a.csv", "day,l\xe4dt\nmon,1\n".encode("latin-1"), "its text is not UTF-8"),
        ("a.xls", b"PK", "tables are .csv, .parquet or .xlsx files; export it"),
        ("a.xlsx", b"PK", "cannot be read as a workbook: it is damaged"),
    ],
)
def test_other_files_say_what_to_do(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)


@pytest.mark.parametrize("name", ["f.xls", "f", "f.csv.gz", "f.txt"])
def test_endings_that_are_not_written_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="the name must end in .csv, .parquet or .xlsx"):
        check_writable(tmp_path / name)
    check_writable(tmp_path / "f.CSV")


def test_the_input_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("a\n1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is the file that is read"):
        check_writable(path, inputs=[path.relative_to(tmp_path)])
    check_writable(tmp_path / "other.csv", inputs=[path])


def test_parquet_is_known_to_be_missing_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[parquet\]'"):
        check_writable(tmp_path / "f.parquet")


def test_an_index_in_a_parquet_file_is_a_column(tmp_path):
    pytest.importorskip("pyarrow")
    frame = FRAME.set_index("when")
    frame.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.parquet"), FRAME)


def test_row_numbers_are_no_data(tmp_path):
    path = tmp_path / "table.csv"
    FRAME.to_csv(path)
    read = read_table(path)
    assert list(drop_row_numbers(read, ["when", None])) == ["when", "load"]
    assert list(drop_row_numbers(read, ["Unnamed: 0"])) == ["Unnamed: 0", "when", "load"]
    # Times without a name stay, and get none on the way back.
    FRAME.set_index("when").rename_axis(None).to_csv(path)
    read = read_table(path)
    assert find_time_column(read) == "Unnamed: 0"
    assert list(drop_row_numbers(read, ["Unnamed: 0"])) == ["Unnamed: 0", "load"]
    assert as_csv(read) == path.read_text()
    write_table(read, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == path.read_text()


@pytest.mark.parametrize("text", ["31.01.2024", "01/31/2024", "31/01/2024 10:00", "3 May 2024"])
def test_any_way_of_writing_times_is_found(text):
    frame = pd.DataFrame({"name": ["x", "y"], "Datum": [text, text], "load": [1, 2]})
    assert find_time_column(frame) == "Datum"
    later = pd.DataFrame({"Datum": ["01.02.2024", "31.01.2024"]})
    assert find_time_column(later) == "Datum"


def test_times_are_read_as_stated():
    frame = pd.DataFrame({"t": [20240131, 20240201], "load": [1, 2]})
    read = parse_times(frame, "t", "%Y%m%d")
    assert list(read["t"]) == [pd.Timestamp("2024-01-31"), pd.Timestamp("2024-02-01")]
    with pytest.raises(DataError, match="2 times are not written as '%d/%m/%Y', .* '20240131'"):
        parse_times(frame, "t", "%d/%m/%Y")
    with pytest.raises(DataError, match="'%Q' cannot be used"):
        parse_times(frame, "t", "%Q")
    with pytest.raises(DataError, match=r"no column 'tt' \(did you mean 't'\?\)"):
        parse_times(frame, "tt", "%Y%m%d")


def test_only_an_empty_cell_is_no_name(tmp_path):
    """Namibia is called NA; in other columns it is a missing value, as pandas has it."""
    path = tmp_path / "in.csv"
    path.write_text("land,y,z\nNA,1,2\n,NA,null\nnull,3,-nan\n")
    frame = read_table(path, Roles(id_column="land"))
    assert frame["land"].isna().tolist() == [False, True, False]
    assert frame["land"].tolist()[::2] == ["NA", "null"]
    np.testing.assert_array_equal(frame["y"], [1, np.nan, 3])
    np.testing.assert_array_equal(frame["z"], [2, np.nan, np.nan])
    assert read_table(path)["land"].isna().all()
