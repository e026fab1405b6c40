"""Rows of databases: DuckDB, and whatever SQLAlchemy reaches."""

import os
from typing import Any

import pandas as pd

from tsar.data.libraries import as_pandas
from tsar.exceptions import DataError, MissingExtraError, ParameterError

__all__ = ["read_query"]

DUCKDB, SQLITE = "duckdb:///", "sqlite"
# What rows of a database leave as objects where some are missing, by what pandas calls it.
TYPED: dict[str, Any] = {"floating": "float64", "integer": "Int64", "boolean": "boolean"}


def read_query(query: Any, database: Any) -> pd.DataFrame:
    """Return the rows that a database answers a query with.

    Parameters
    ----------
    query : str or SQLAlchemy selectable
        What to read; nothing is bound into a text.
    database : str, SQLAlchemy URL, engine or connection, or DuckDB connection
        ``"duckdb:///shop.duckdb"`` is a file of DuckDB (the extra ``duckdb``), which is opened to
        be read alone; other addresses are those of SQLAlchemy (the extra ``sql``), such as
        ``"postgresql+psycopg://host/shop"``. A connection stays open.

    Returns
    -------
    DataFrame
        Decimals and dates as they are; whole numbers and truth values beside missing ones have
        the nullable dtypes.

    Raises
    ------
    MissingExtraError
        A library is not installed.
    ParameterError
        The query is none.
    DataError
        The database is not there, refuses the query, or answers without rows.

    Examples
    --------
    >>> import duckdb
    >>> import tsar
    >>> shop = duckdb.connect()
    >>> rows = tsar.read_query("select range as ds, range % 3 as y from range(30)", shop)
    >>> tsar.SeasonalNaive(horizon=2, season_length=3).fit(rows).predict()
       ds    y
    0  30  0.0
    1  31  1.0
    """
    if isinstance(query, str) and not query.strip():
        raise ParameterError(f"read_query: query must be SQL, got {query!r}; pass 'select ...'")
    if isinstance(database, str) and database.startswith("duckdb:"):
        frame = _of_duckdb_file(query, database)
    elif type(database).__module__.split(".")[0] in ("duckdb", "_duckdb"):
        frame = _of_duckdb(query, database, "DuckDB")
    else:
        frame = _of_sqlalchemy(query, database)
    if not len(frame):
        raise DataError(f"read_query: the query has no rows: {query}; widen it")
    return frame


def _of_duckdb_file(query: Any, address: str) -> pd.DataFrame:
    try:
        import duckdb
    except ImportError:
        raise MissingExtraError(f"{address!r} needs duckdb: pip install 'tsar[duckdb]'") from None
    path = address.removeprefix(DUCKDB)
    if not address.startswith(DUCKDB) or not os.path.isfile(path):
        raise DataError(
            f"read_query: there is no file of DuckDB at {address!r}; write duckdb:///shop.duckdb "
            f"for a file in the current folder, and four slashes before a path from the root"
        )
    try:
        connection = duckdb.connect(path, read_only=True)
    except duckdb.Error as error:
        raise DataError(f"read_query: {address!r} cannot be opened: {error}") from None
    with connection:
        return _of_duckdb(query, connection, repr(address))


def _of_duckdb(query: Any, connection: Any, shown: str) -> pd.DataFrame:
    import duckdb

    if not isinstance(query, str):
        raise ParameterError(
            f"read_query: query must be text for DuckDB, got {type(query).__name__}"
        )
    try:
        relation = connection.sql(query)
        # A statement that answers nothing has no relation.
        frame: pd.DataFrame = pd.DataFrame() if relation is None else as_pandas(relation)
    except duckdb.Error as error:
        raise DataError(f"read_query: {shown} refuses the query: {error}") from None
    return frame


def _of_sqlalchemy(query: Any, database: Any) -> pd.DataFrame:
    try:
        import sqlalchemy
    except ImportError:
        raise MissingExtraError(
            "databases need SQLAlchemy: pip install 'tsar[sql]', or for DuckDB 'tsar[duckdb]'"
        ) from None
    statement = sqlalchemy.text(query) if isinstance(query, str) else query
    if not isinstance(statement, sqlalchemy.Executable):
        raise ParameterError(
            f"read_query: query must be SQL or a select of SQLAlchemy, got {type(query).__name__}"
        )
    if isinstance(database, sqlalchemy.Connection):
        return _rows(database, statement)
    if isinstance(database, sqlalchemy.Engine):
        with _connected(database) as connection:
            return _rows(connection, statement)
    try:
        engine = sqlalchemy.create_engine(database)
    except ImportError as error:
        raise MissingExtraError(
            f"read_query: the database needs another package: {error}"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        # The address may hold a password.
        raise DataError(
            f"read_query: the address of the database cannot be read: {type(error).__name__}; it "
            f"is such as postgresql+psycopg://host/shop"
        ) from None
    file = engine.url.database
    try:
        if engine.url.drivername.startswith(SQLITE) and file and not os.path.isfile(file):
            raise DataError(f"read_query: there is no file {file}")
        with _connected(engine) as connection:
            return _rows(connection, statement)
    finally:
        engine.dispose()


def _connected(engine: Any) -> Any:
    import sqlalchemy

    try:
        return engine.connect()
    except sqlalchemy.exc.SQLAlchemyError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise DataError(f"read_query: {shown} cannot be reached: {error}") from None


def _rows(connection: Any, statement: Any) -> pd.DataFrame:
    import sqlalchemy

    shown = connection.engine.url.render_as_string(hide_password=True)
    try:
        result = connection.execute(statement)
        names, rows = list(result.keys()), result.fetchall()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise DataError(f"read_query: {shown} refuses the query: {error}") from None
    parts = [pd.Series(list(part), dtype=object) for part in zip(*rows, strict=True)]
    frame = pd.DataFrame(dict(enumerate(map(_typed, parts))))
    # Two columns may share a name, which whoever reads the frame tells.
    frame.columns = pd.Index(names[: len(parts)])
    return frame


def _typed(column: pd.Series) -> pd.Series:
    """Return a column of objects in the dtype that holds them as they are, if there is one."""
    kind = pd.api.types.infer_dtype(column, skipna=True)
    # Left to itself, pandas makes floats of whole numbers beside missing ones.
    if kind in TYPED and column.isna().any():
        return column.astype(TYPED[kind])
    return column.infer_objects()
