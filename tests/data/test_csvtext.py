"""CSV files of every spelling, at once and in pieces."""

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest

from tsar.batch.source import open_source
from tsar.data.csvtext import CsvText
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.tables import TableFile
from tsar.exceptions import DataError, ParameterError

DAYS = pd.date_range("2024-01-01", periods=12).strftime("%Y-%m-%d")


def _long(separator, cells, ids=("A", "B"), header=("unique_id", "ds", "y"), end="\n"):
    lines = [separator.join(header)]
    for name in ids:
        for row, day in enumerate(DAYS):
            lines.append(separator.join([name, day, cells[row % len(cells)]]))
    return end.join(lines) + end


def _both_ways(path, roles=None, stated=None):
    """Read a file at once and in pieces, which must be the same."""
    frames, said = [], []
    for rows in (10_000, 3):
        source = open_source(path, roles or Roles(), stated, rows_at_once=rows)
        (frame,) = source.frames([int(source.counts.sum())], {0})
        frames.append(frame.reset_index(drop=True))
        said.append(source.table.described())
    pd.testing.assert_frame_equal(*frames)
    assert said[0] == said[1]
    return frames[0], said[0]


def _refused(path, message, roles=None, stated=None):
    for rows in (10_000, 3):
        with pytest.raises(DataError, match=message):
            open_source(path, roles or Roles(), stated, rows_at_once=rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in.csv"


@pytest.mark.parametrize(
    ("separator", "cells", "numbers"),
    [
        (";", ["0,5", "1,5"], [0.5, 1.5]),
        (";", ["0.5", "1.5"], [0.5, 1.5]),
        (",", ["0.5", "1.5"], [0.5, 1.5]),
        (",", ['"0,5"', '"1,5"'], [0.5, 1.5]),
        ("\t", ["0,5", "1.050,25"], [0.5, 1050.25]),
        (",", ["900", '"1,050"'], [900, 1050]),
        (";", ["900", "1.050.000"], [900, 1050000]),
        ("|", ["900,5", "1 050,5"], [900.5, 1050.5]),
        (";", ["900,5", "1\u00a0050,5"], [900.5, 1050.5]),
        (";", ["1200", "1.050"], [1200, 1.05]),
        (";", ["1", ""], [1, np.nan]),
    ],
)
def test_numbers_of_any_notation(separator, cells, numbers, path):
    path.write_text(_long(separator, cells), encoding="utf-8")
    frame, _ = _both_ways(path)
    np.testing.assert_array_equal(frame["y"], np.tile(numbers, 12))


@pytest.mark.parametrize("late", ["1.050", "1.050,5", "1,5", "1.000.000"])
def test_what_comes_late_in_a_file_counts(late, path):
    """Thousands of whole numbers below a thousand, and then the first mark."""
    early = "".join(f"A;{day:%Y-%m-%d};{900 + day.day}\n" for day in pd.date_range("1990", "2010"))
    path.write_text(f"unique_id;ds;y\n{early}B;2024-01-01;{late}\nB;2024-01-02;900\n")
    if late == "1.050":
        _refused(path, r"'1\.050' can be read in two ways")
        frame, _ = _both_ways(path, stated=FileFormat(thousands="."))
        assert frame["y"].iloc[-2] == 1050
        return
    frame, said = _both_ways(path)
    assert frame["y"].tolist()[-2:] == [float(late.replace(".", "").replace(",", ".")), 900]
    assert "decimal mark ','" in said


def test_a_bad_cell_does_not_hide_the_decimal_comma(path):
    path.write_text(_long(";", ["0,5", "n/v", "1,5"]))
    frame, said = _both_ways(path)
    assert frame["y"].tolist()[:3] == ["0.5", "n/v", "1.5"] and "decimal mark ','" in said


def test_columns_that_are_not_read_may_leave_it_open(path):
    lines = [f"{day};{row};52.{500 + row}" for row, day in enumerate(DAYS)]
    path.write_text("ds;y;lat\n" + "\n".join(lines))
    _refused(path, r"'52\.500' can be read")
    frame, _ = _both_ways(path, Roles(used={"target": ["y"]}))
    assert frame["y"].tolist() == list(range(12))


@pytest.mark.parametrize("header", ['ds;"load, MW"', 'ds;"load; MW"', 'ds;"load\n, MW"', "ds;a,b"])
def test_separators_in_quotes_do_not_count(header, path):
    path.write_text(header + "\n" + "".join(f"{day};{row}\n" for row, day in enumerate(DAYS)))
    frame, _ = _both_ways(path)
    assert list(frame) == ["ds", header[3:].strip('"')]
    assert frame.iloc[:, 1].tolist() == list(range(12))


def test_separators_that_fit_both_are_refused(path):
    path.write_text("a,b;c,d\n1,5;2,5\n3,5;4,5\n")
    _refused(path, r"may be separated by ',' .* or by ';' .*FileFormat\(separator=','\)")
    # What is asked for is in one of the headers, and times are in one of the readings.
    path.write_text("t,b;c,d\n2024-01-01,5;2,5\n2024-01-02,5;4,5\n")
    frame, _ = _both_ways(path, Roles(time_column="t"))
    assert list(frame) == ["t", "b;c", "d"]
    path.write_text("when:x\n2024-01-01:1\n2024-01-02:2\n")
    frame, said = _both_ways(path, stated=FileFormat(separator=":"))
    assert frame["x"].tolist() == [1, 2] and "cells between ':'" in said


def _zipped(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.csv", content)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zip"])
def test_packed_files_are_read_as_others(ending, tmp_path):
    content = _long(";", ["0,5", "1,5"]).encode()
    path = tmp_path / f"in.csv{ending}"
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    if ending == ".zip":
        _zipped(path, content)
    else:
        path.write_bytes(packers[ending](content))
    frame, _ = _both_ways(path)
    assert frame["y"].tolist()[:2] == [0.5, 1.5]
    path.write_bytes(b"no packed file")
    _refused(path, "cannot be read as a table")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_are_no_text(encoding, path):
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    path.write_bytes(
        (mark + _long("\t", ["0,5"], header=('"unique_id"', "ds", "y"))).encode(encoding)
    )
    frame, _ = _both_ways(path)
    assert list(frame) == ["unique_id", "ds", "y"] and frame["y"].eq(0.5).all()


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "mac-roman"])
def test_text_of_another_encoding_is_read_if_it_is_stated(encoding, path):
    text = _long(";", ["0,5", "1,5"], ids=("Köln", "Zürich"))
    path.write_bytes(text.encode(encoding))
    _refused(path, r"FileFormat\(encoding='(cp1252|utf-16-le)'\)")
    frame, said = _both_ways(path, stated=FileFormat(encoding=encoding))
    assert frame["unique_id"].unique().tolist() == ["Köln", "Zürich"]
    assert encoding.upper() in said
    with pytest.raises(ParameterError, match="encoding must be the name of one"):
        FileFormat(encoding="cp12520")


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2")])
def test_packed_files_have_their_ending(pack, ending, path):
    path.write_bytes(pack(_long(";", ["0,5"]).encode()))
    _refused(path, f"begins as files that end in {ending} do")


@pytest.mark.parametrize("separator", ["^", ":", " "])
def test_a_single_column_may_be_several(separator, path):
    path.write_text(_long(separator, ["5"], header=("unique_id", "day", "y")))
    message = r"if these are several columns, FileFormat\(separator=...\) parts them"
    with pytest.raises(DataError, match=message):
        TableFile.look_at(path).with_columns()
    if separator != " ":
        frame, _ = _both_ways(path, stated=FileFormat(separator=separator))
        assert list(frame) == ["unique_id", "day", "y"]


def test_a_row_with_a_cell_too_many_is_named(path):
    path.write_text(_long(";", ["5"]) + "B;2024-01-13;5;6\n")
    message = "line 26 has 4 cells and the header 3; quote the cell"
    for rows in (10_000, 3):
        with pytest.raises(DataError, match=message):
            source = open_source(path, Roles(), None, rows_at_once=rows)
            list(source.frames([int(source.counts.sum())], {0}))


def test_columns_of_values_have_names(path):
    path.write_text("day;;\n" + "".join(f"{day};1;2\n" for day in DAYS))
    _refused(path, "column 2 of .* has values and no name; name it in the header")
    # One that is not read needs none, and an empty one is left out and said to be.
    path.write_text("day;load;\n" + "".join(f"{day};1;2\n" for day in DAYS))
    frame, _ = TableFile.look_at(path, Roles(used={"target": ["load"]})).with_columns().read()
    assert frame["load"].eq(1).all()
    path.write_text("day;load;\n" + "".join(f"{day};1;\n" for day in DAYS))
    table = TableFile.look_at(path).with_columns()
    assert "1 column without a name or a cell left out" in table.described()
    assert list(table.read()[0]) == ["day", "load"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_any_way(end, path):
    path.write_bytes(_long(";", ["1,5"], end=end).encode())
    assert _both_ways(path)[0]["y"].eq(1.5).all()


def test_the_line_that_spreadsheets_write_for_each_other(path):
    path.write_text("sep=;\n" + _long(";", ["1,5"]))
    assert _both_ways(path)[0]["y"].eq(1.5).all()


def test_a_file_without_names(path):
    path.write_text("".join(_long(",", ["1", "2"]).splitlines(keepends=True)[1:]))
    _refused(
        path, r"holds values \('A', '2024-01-01', '1'\) and no names; FileFormat\(header=False"
    )
    stated = FileFormat(header=False)
    frame, said = _both_ways(path, Roles(id_column="column_1"), stated)
    assert list(frame) == ["column_1", "column_2", "column_3"] and len(frame) == 24
    assert "no header" in said and "times in 'column_2'" in said
    frame, _ = _both_ways(path, stated=FileFormat(header=True))
    assert list(frame) == ["A", "2024-01-01", "1"]


@pytest.mark.parametrize("names", ["0,1", "2019,2020", "1.5,2.5"])
def test_numbers_may_be_names(names, path):
    path.write_text(f"time,{names}\n" + "".join(f"{day},2001,3\n" for day in DAYS))
    assert list(_both_ways(path)[0]) == ["time", *names.split(",")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "titles", ["Sales of 2024\n", "Sales\n\n", "# unit: kWh\n# source: meter 7\n", '"Load, all"\n']
)
def test_titles_above_the_names_are_left_out(titles, separator, path):
    table = _long(separator, ["1.5", "2.5"])
    path.write_text(table)
    plain, _ = _both_ways(path)
    path.write_text(titles + table)
    titled, said = _both_ways(path)
    pd.testing.assert_frame_equal(titled, plain)
    assert f"names of the columns in line {titles.count(chr(10)) + 1}" in said


def test_names_for_fewer_cells_than_there_are_are_no_title(path):
    # What write.csv of R and a separator at the end of each line make.
    for text in ("ds,y\na,2024-01-01,1\nb,2024-01-02,2\n", "ds,y\n1,2024-01-01,\n2,2024-01-02,\n"):
        path.write_text(text)
        assert CsvText.look_at(path, Roles(), FileFormat()).names[0] == "ds"


@pytest.mark.parametrize("header", ["ds,load,load", 'ds,load,"load"', "ds,y,load,y"])
def test_columns_of_one_name_are_refused(header, path):
    width = header.count(",")
    path.write_text(header + "\n" + "".join(f"{day}{',1' * width}\n" for day in DAYS))
    _refused(path, "occurs more than once; rename or drop one of them")


@pytest.mark.parametrize(
    "ids", [("1001", "1002", "W003"), ("2024-01-05", "2024-02-09"), ("Jan 2024", "01/02/2024")]
)
def test_the_id_is_not_taken_for_the_time(ids, path):
    path.write_text(_long(",", ["1"], ids, header=("store", "week_start", "y")))
    frame, said = _both_ways(path, Roles(id_column="store"))
    assert frame["store"].unique().tolist() == list(ids) and "times in 'week_start'" in said
    rows = "".join(f"{day},{day},1\n" for day in DAYS)
    path.write_text(f"promo,week_start,y\n{rows}")
    _, said = _both_ways(path, Roles(used={"future_covariates": ["promo"]}))
    assert "times in 'week_start'" in said


def test_ids_and_times_are_kept_as_they_are_written(path):
    path.write_text(_long(";", ["0,5"], ids=("007", "1.50", "NA")))
    assert _both_ways(path)[0]["unique_id"].unique().tolist() == ["007", "1.50", "NA"]
    path.write_text("t;y\n" + "".join(f"2024.{month:02};1\n" for month in (9, 10, 11)))
    frame, _ = _both_ways(path, Roles(time_column="t"))
    assert frame["t"].tolist() == ["2024.09", "2024.10", "2024.11"]
    frame, _ = _both_ways(path, Roles(time_column="t"), FileFormat(time_format="%Y.%m"))
    assert list(frame["t"]) == list(pd.date_range("2024-09-01", periods=3, freq="MS"))


def test_words_of_a_covariate_stay_words(path):
    """Whether a piece of the file holds digits only does not matter."""
    rows = [f"A,{day},1,{size}\n" for day, size in zip(DAYS, ["1", "2", "L"] * 4, strict=True)]
    path.write_text("unique_id,ds,y,size\n" + "".join(rows))
    used = {"target": ["y"], "past_covariates": ["size"]}
    source = open_source(path, Roles(used=used), rows_at_once=3)
    first = next(source.frames([2, 10], {0}))
    assert first["size"].tolist() == ["1", "2"]


def test_columns_that_are_left_out_are_named(path):
    path.write_text(
        ",unique_id,ds,y,x,z\n" + "".join(f"{n},A,{d},1,2,3\n" for n, d in enumerate(DAYS))
    )
    table = TableFile.look_at(path).with_columns()
    assert table.unused == ["x", "z"] and table.targets is None
    assert "numbers the rows, left out; not used: 'x', 'z'" in table.described()
    table = TableFile.look_at(path, Roles(used={"past_covariates": ["x", "z"]})).with_columns()
    assert table.unused == []
    path.write_text("time,x,y,z\n" + "".join(f"{day},1,2,3\n" for day in DAYS))
    table = TableFile.look_at(path).with_columns()
    assert table.targets == ["x", "y", "z"] and table.unused == []
    table = TableFile.look_at(path, Roles(used={"future_covariates": ["x"]})).with_columns()
    assert table.targets == ["y", "z"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"separator": ";;"},
        {"separator": "a"},
        {"decimal": ";"},
        {"thousands": "5"},
        {"decimal": ",", "thousands": ","},
        {"header": "yes"},
    ],
)
def test_formats_that_no_file_has(wrong):
    with pytest.raises(ParameterError, match="FileFormat: "):
        FileFormat(**wrong)
    assert FileFormat(separator="tab").separator == FileFormat(separator="\\t").separator == "\t"


def test_the_format_of_times_is_stated_once():
    stated = FileFormat(time_format="%Y")
    assert stated.settled(None) is stated and FileFormat().settled("%Y") == stated
    with pytest.raises(ParameterError, match="stated once, got '%d' and '%Y'"):
        stated.settled("%d")
