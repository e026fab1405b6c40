"""The one error for every fault."""

import numpy as np
import pytest

from tsar.data.faults import REPAIRS, Faults
from tsar.exceptions import DataError


def test_nothing_recorded_is_no_error():
    faults = Faults()
    faults.raise_if_any()
    assert len(faults) == 0


def test_message_says_what_where_how_often_and_how_to_repair():
    faults = Faults()
    faults.add("a", "gap", 3, "2024-01-02")
    faults.add(np.int64(7), "infinite", 1, "2024-01-05", column="y")
    with pytest.raises(DataError) as error:
        faults.raise_if_any(None, frequency="freq='D'")
    assert str(error.value).splitlines() == [
        "the data have 2 faults in 2 series (expected freq='D'):",
        "  id 'a': gap, count 3, first at 2024-01-02",
        "  id 7, column 'y': infinite, count 1, first at 2024-01-05",
        "how to repair:",
        f"  {REPAIRS['gap']}",
        f"  {REPAIRS['infinite']}",
    ]
    table = error.value.faults
    assert list(table.columns) == ["id", "kind", "count", "first", "column"]
    assert table["id"].tolist() == ["a", 7] and table["count"].tolist() == [3, 1]


def test_single_series_has_no_id():
    faults = Faults()
    faults.add(None, "duplicate", 1, "5")
    with pytest.raises(DataError) as error:
        faults.raise_if_any("the frame", frequency="freq='D'")
    lines = str(error.value).splitlines()
    # Duplicates are duplicates at any frequency.
    assert lines[:2] == [
        "the data have 1 fault in 1 series:",
        "  the frame: duplicate, count 1, first at 5",
    ]


@pytest.mark.parametrize("count", [100, 101, 5000])
def test_long_lists_are_cut_and_kept_in_full_on_the_error(count):
    faults = Faults()
    for series in range(count):
        faults.add(series, "gap", 1, "x")
    with pytest.raises(DataError) as error:
        faults.raise_if_any()
    lines = str(error.value).splitlines()
    assert len(error.value.faults) == count
    assert len(lines) == 1 + 100 + (count > 100) + 2
    assert (f"  and {count - 100} more, all in the error's `faults` frame" in lines) == (
        count > 100
    )
