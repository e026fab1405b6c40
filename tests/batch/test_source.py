"""Large files are read in pieces that hold whole series, and small ones in any order."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsar.batch.source import Source, open_source, share_of_series
from tsar.data.fileformat import Roles
from tsar.exceptions import DataError

COUNTS = [5, 1, 7, 3, 4]


def _frame(ids=("b", "a", "e", "c", "d")):
    return pd.DataFrame(
        {
            "unique_id": np.repeat(list(ids), COUNTS),
            "ds": np.concatenate([pd.date_range("2024", periods=n).astype(str) for n in COUNTS]),
            "y": np.arange(20) / 2,
            "z": 1,
        }
    )


def _open(path, rows_at_once, used=None, stated=None):
    roles = Roles(used={"target": ["y"]} if used is None else used)
    return open_source(path, roles, stated, rows_at_once=rows_at_once)


@pytest.fixture(params=["in.csv", "in.parquet"])
def path(request, tmp_path):
    return tmp_path / request.param


def _write(frame, path):
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False, row_group_size=3)


@pytest.mark.parametrize("rows_at_once", [100, 19])
def test_stretches_hold_the_rows_that_are_asked_for(rows_at_once, path):
    frame = _frame()
    _write(frame, path)
    source = _open(path, rows_at_once)
    assert source.series.tolist() == ["b", "a", "e", "c", "d"]
    assert source.counts.tolist() == COUNTS
    found = list(source.frames([6, 7, 7], {0, 2}))
    columns = ["unique_id", "ds", "y"]
    for rows, expected in zip(found, (frame[:6], frame[13:]), strict=True):
        assert rows[columns].to_numpy().tolist() == expected[columns].to_numpy().tolist()
    # As often as need be.
    assert len(list(source.frames([20], {0}))[0]) == 20


def test_blocks_hold_whole_series():
    source = Source(None, pd.Index(range(5)), np.array(COUNTS))
    assert source.blocks(8) == [(0, 2), (2, 3), (3, 5)]
    assert source.blocks(1) == [(k, k + 1) for k in range(5)]
    assert source.blocks(20) == [(0, 5)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((3, 1, 20, 4, 5), [3, 1, 20, 4, 5]),
        (("007", "08", "1", "2", "3"), ["007", "08", "1", "2", "3"]),
    ],
)
def test_ids_of_a_long_text_file_have_one_type(ids, expected, tmp_path):
    """A piece that holds digits only is read as the whole file would be."""
    path = tmp_path / "in.csv"
    _write(_frame(ids), path)
    source = _open(path, 10)
    assert source.series.tolist() == expected
    rows = next(source.frames([5, 15], {0}))
    assert rows["unique_id"].unique().tolist() == expected[:1]


def test_a_small_file_may_have_any_order(path):
    frame = _frame().sort_values("ds", kind="stable")
    _write(frame, path)
    source = _open(path, 100)
    assert source.series.tolist() == ["b", "a", "e", "c", "d"]
    first = next(source.frames([5, 15], {0}))
    assert first["unique_id"].eq("b").all() and len(first) == 5


def test_a_large_file_has_the_rows_of_a_series_together(path):
    _write(_frame().sort_values("ds", kind="stable"), path)
    with pytest.raises(DataError, match="must then lie together, those of id 'b' do not; sort"):
        _open(path, 19)


@pytest.mark.parametrize("rows_at_once", [100, 19])
def test_rows_without_an_id_are_told_of(rows_at_once, path):
    frame = _frame()
    frame.loc[[3, 8], "unique_id"] = None
    _write(frame, path)
    with pytest.raises(DataError, match="2 rows have no id in column 'unique_id', the first is"):
        _open(path, rows_at_once)


def test_a_column_that_is_not_there_is_told_of_early(path):
    _write(_frame(), path)
    with pytest.raises(
        DataError, match="target: the frame has no column 'sold', its columns are 'unique_id'"
    ):
        _open(path, 19, used={"target": ["sold"]})
    with pytest.raises(DataError, match="future_covariates: the frame has no column 'price'"):
        _open(path, 19, used={"target": ["y"], "future_covariates": ["price"]})


def test_damage_in_the_middle_is_one_error(tmp_path):
    pa = pytest.importorskip("pyarrow")
    assert pa is not None
    path = tmp_path / "in.parquet"
    frame = pd.concat([_frame().assign(y=np.random.default_rng(1).normal(size=20))])
    frame.to_parquet(path, index=False, compression="zstd")
    content = bytearray(path.read_bytes())
    begin = content.find(b"\x28\xb5\x2f\xfd", 300)
    content[begin : begin + 40] = b"\xff" * 40
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="cannot be read"):
        source = _open(path, 19)
        list(source.frames([20], {0}))


def test_shares_are_whole_series_all_over_the_file():
    counts = np.full(1000, 20)
    chosen = share_of_series(counts, 2000)
    assert chosen.sum() == 100
    in_tenths = np.histogram(np.flatnonzero(chosen), bins=10, range=(0, 1000))[0]
    assert set(in_tenths) <= {9, 10, 11}
    assert share_of_series(counts, None).all() and share_of_series(counts, 20_000).all()
    assert share_of_series(np.array([50, 60]), 10).sum() == 1


def test_a_large_parquet_file_is_not_kept_in_memory(tmp_path, monkeypatch):
    """What was read of it is freed, whatever is still to come."""
    monkeypatch.setattr("tsar.batch.source._LargeParquet.BATCH", 10_000)
    draw, path = np.random.default_rng(0), tmp_path / "panel.parquet"
    rows, n_groups, writer = 20_000, 40, None
    for group in range(n_groups):
        columns = {"unique_id": np.full(rows, f"s{group}"), "ds": np.arange(rows)}
        table = pa.table({**columns, "y": draw.normal(size=rows)})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()
    source = open_source(path, Roles(), rows_at_once=rows)
    before, held = pa.total_allocated_bytes(), []
    for frame in source.frames([rows] * n_groups, range(n_groups)):
        assert len(frame) == rows
        held.append(pa.total_allocated_bytes() - before)
    assert len(held) == n_groups
    assert max(held) < path.stat().st_size / 2
