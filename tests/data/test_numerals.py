"""Decimal marks and thousands are settled by what all cells show, or refused."""

import numpy as np
import pandas as pd
import pytest

from tsar.data.numerals import Evidence, Notation, is_numeral, read_numerals
from tsar.exceptions import DataError


def _notation(*columns, separator=";", whole=True, **stated):
    evidence = Evidence()
    for number, cells in enumerate(columns):
        evidence.add(number, cells)
    options = {"decimal": None, "thousands": None, "default": None, "used": None, **stated}
    return evidence.notation(separator=separator, whole=whole, **options)


@pytest.mark.parametrize(
    ("cells", "notation"),
    [
        (["1", "2"], (".", None)),
        (["1.5", "2"], (".", None)),
        (["0,5", "n/v"], (",", None)),
        (["1,5", "1.050"], (",", ".")),
        (["1.5", "1,050"], (".", ",")),
        (["900,5", "1.050,25"], (",", ".")),
        (["1,050.25"], (".", ",")),
        (["900", "1.050.000"], (",", ".")),
        (["1,05,000.5"], (".", ",")),
        (["1 050,5"], (",", " ")),
        (["1\u00a0050", "900,5"], (",", "\u00a0")),
        (["1'050.5"], (".", "'")),
        # Who groups digits would group these.
        (["1200", "1.050"], (".", None)),
        (["1200", "1,050"], (",", None)),
        (["0.250", "1.050"], (".", None)),
        (["1.0500", "1.050"], (".", None)),
        (["-1.5e3", "1.050"], (".", None)),
        # One slip among many.
        (["1.5", *(f"{n}.25" for n in range(20)), "1,5"], (".", None)),
    ],
)
def test_what_cells_show(cells, notation):
    assert _notation(cells) == notation
    assert _notation([f"-{cell}" if cell[0].isdigit() else cell for cell in cells]) == notation


@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_thousands_or_decimals_are_not_guessed(mark, separator):
    cells = ["900", f"1{mark}050", f"1{mark}200"]
    with pytest.raises(DataError, match=rf"'1\{mark}050' can be read in two ways: .* reads 1050"):
        _notation(cells, separator=separator)
    with pytest.raises(DataError, match="in two ways"):
        _notation(cells[1:], separator=separator)
    other = "," if mark == "." else "."
    assert _notation(cells, separator=separator, thousands=mark) == (other, mark)
    assert _notation(cells, separator=separator, decimal=mark) == (mark, None)
    # Another column, or another file, can settle it; a column that is not read need not be.
    assert _notation(cells, [f"0{mark}5"], separator=separator) == (mark, None)
    assert _notation(cells, [f"0{other}5"], separator=separator) == (other, mark)
    assert _notation(cells, separator=separator, default=Notation(other, mark)) == (other, mark)
    assert _notation(["1"], cells, separator=separator, used=[0]) == (".", None)
    assert _notation(cells, separator=separator, whole=False) is None


def test_commas_between_cells_say_that_the_point_is_decimal():
    assert _notation(["900", "1,050"], separator=",") == (".", ",")
    assert _notation(["1.050", "1.200"], separator=",") == (".", None)
    with pytest.raises(DataError, match="in two ways"):
        _notation(["900", "1.050"], separator=",")


def test_two_notations_in_one_file_are_refused():
    with pytest.raises(DataError, match=r"written as '1\.5' and as '2,5'; FileFormat\(decimal"):
        _notation(["1.5"], ["2,5"])
    assert _notation(["1.5"], ["2,5"], decimal=",") == (",", None)


@pytest.mark.parametrize("notation", [(".", ","), (",", "."), (",", " "), (".", "'"), (",", None)])
def test_numbers_are_read_as_python_writes_them(notation):
    decimal, thousands = notation
    values = np.array([0.0, 0.5, 12, 999.25, 1000, 1234.5, 1234567.125, -4321])
    texts = [
        f"{value:,}".replace(".", "D").replace(",", thousands or "").replace("D", decimal)
        for value in values
    ]
    read = read_numerals(pd.Series(texts), Notation(*notation))
    np.testing.assert_array_equal(read, values)
    assert all(map(is_numeral, texts))


def test_a_cell_that_is_no_number_stays_as_it_is():
    texts = pd.Series(["1,5", "n/v", None, "1.5", "1.050", "1.05"], dtype=object)
    read = read_numerals(texts, Notation(",", "."))
    # 1.05 groups nothing: to drop its mark would make it 105.
    assert read.tolist()[:2] == ["1.5", "n/v"] and pd.isna(read[2])
    assert read.tolist()[3:] == ["1.5", "1050", "1.05"]
    assert not pd.api.types.is_numeric_dtype(read.dtype)
    for text in ("5%", "1.2.3", "12.34.567", "a1", "", "1,2,3"):
        assert not is_numeral(text)
