"""Rows of databases, compared with the frames that were written into them."""

import datetime
import sqlite3
import sys

import duckdb
import numpy as np
import pandas as pd
import pytest
import sqlalchemy

import tsar
from tsar.exceptions import DataError, MissingExtraError, ParameterError

ROWS = 30
LARGE = 2**53 + 1


@pytest.fixture
def sold() -> pd.DataFrame:
    days = pd.date_range("2024-01-01", periods=ROWS)
    values = np.random.default_rng(3).normal(10, 1, 2 * ROWS)
    return pd.DataFrame(
        {
            "unique_id": np.repeat([LARGE, LARGE + 1], ROWS),
            "ds": np.tile(days, 2),
            "y": values,
        }
    )


@pytest.fixture
def sqlite(sold, tmp_path) -> str:
    address = f"sqlite:///{tmp_path / 'shop.db'}"
    engine = sqlalchemy.create_engine(address)
    sold.to_sql("sold", engine, index=False)
    engine.dispose()
    return address


@pytest.fixture
def duck(sold, tmp_path) -> str:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        connection.register("given", sold)
        connection.execute("create table sold as select * from given")
    return f"duckdb:///{tmp_path / 'shop.duckdb'}"


def _forecast(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(ds=pd.to_datetime(rows["ds"]).astype("datetime64[us]"))
    return tsar.SeasonalNaive(horizon=3).fit(rows).predict()


def test_every_way_gives_the_rows_that_were_written(sold, sqlite, duck):
    expected = _forecast(sold)
    query = "select * from sold order by unique_id, ds"
    table = sqlalchemy.table("sold", *map(sqlalchemy.column, sold.columns))
    engine = sqlalchemy.create_engine(sqlite)
    with engine.connect() as connection, duckdb.connect(duck[len("duckdb:///") :]) as own:
        frames = [
            tsar.read_query(query, sqlite),
            tsar.read_query(query, engine),
            tsar.read_query(query, connection),
            tsar.read_query(sqlalchemy.select(table).order_by("unique_id", "ds"), connection),
            tsar.read_query(sqlalchemy.text(query), sqlalchemy.make_url(sqlite)),
            tsar.read_query(query, own),
        ]
        # The connections are still those of the caller.
        assert connection.execute(sqlalchemy.text("select 1")).scalar() == 1
        assert own.execute("select 1").fetchall() == [(1,)]
        # A relation is read as any frame that hands its columns over by Arrow.
        direct = tsar.SeasonalNaive(horizon=3).fit(own.sql(query)).predict()
    engine.dispose()
    frames.append(tsar.read_query(query, duck))
    for frame in frames:
        pd.testing.assert_frame_equal(_forecast(frame), expected)
    assert direct["y"].tolist() == expected["y"].tolist()


def test_missing_values_round_nothing(tmp_path, duck):
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("create table kinds (id integer, level real, word text)")
        rows = [(LARGE, 0.5, "a"), (None, None, None), (LARGE + 1, 2.0, "b")]
        connection.executemany("insert into kinds values (?, ?, ?)", rows)
    connection.close()
    frames = [
        tsar.read_query("select * from kinds", f"sqlite:///{tmp_path / 'other.db'}"),
        tsar.read_query(
            f"select * from (values ({LARGE}::bigint, 0.5::double, 'a'), (null, null, null), "
            f"({LARGE + 1}, 2.0, 'b')) as t(id, level, word)",
            duck,
        ),
    ]
    for frame in frames:
        assert frame["id"].dropna().tolist() == [LARGE, LARGE + 1]
        assert frame["level"].dtype == np.float64 and frame["level"].isna().tolist() == [
            False,
            True,
            False,
        ]
        assert frame["word"].dropna().tolist() == ["a", "b"]


def test_dates_of_duckdb_are_times(duck):
    frame = tsar.read_query("select date '2024-02-29' as ds, 1 as y", duck)
    assert frame["ds"].dt.date.tolist() == [datetime.date(2024, 2, 29)]


def test_a_database_is_not_written_to(duck, sold):
    with pytest.raises(DataError, match="refuses the query"):
        tsar.read_query("drop table sold", duck)
    assert len(tsar.read_query("select * from sold", duck)) == len(sold)


def test_what_is_wrong_is_one_error(sqlite, duck, tmp_path):
    for address in (sqlite, duck):
        with pytest.raises(DataError, match="refuses the query.*none"):
            tsar.read_query("select * from none", address)
        with pytest.raises(DataError, match="no rows"):
            tsar.read_query("select * from sold where 1 = 0", address)
        with pytest.raises(ParameterError, match="query must be"):
            tsar.read_query(7, address)
    with pytest.raises(ParameterError, match="query must be SQL, got ' '"):
        tsar.read_query(" ", sqlite)
    for address in (f"duckdb:///{tmp_path / 'none.duckdb'}", f"sqlite:///{tmp_path / 'none.db'}"):
        with pytest.raises(DataError, match="there is no file"):
            tsar.read_query("select 1", address)
    assert not list(tmp_path.glob("none*"))
    (tmp_path / "text.duckdb").write_text("no database")
    with pytest.raises(DataError, match="cannot be opened"):
        tsar.read_query("select 1", f"duckdb:///{tmp_path / 'text.duckdb'}")
    with pytest.raises(DataError, match="address of the database cannot be read") as raised:
        tsar.read_query("select 1", "no address, but a secret")
    assert "secret" not in str(raised.value)


def test_missing_packages_name_their_extra(monkeypatch, sqlite, duck):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[sql\]'"):
        tsar.read_query("select 1", sqlite)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[duckdb\]'"):
        tsar.read_query("select 1", duck)
