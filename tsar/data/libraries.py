"""Frames of other libraries: polars, Arrow, and whatever hands over an Arrow stream.

This is the one place where they become frames of pandas, and where what was made of them becomes
theirs again. Arrow is between both, which keeps what pandas alone would change: units and zones of
times, dates, categories, whole numbers beside missing ones.
"""

import base64
import binascii
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast

import pandas as pd

from tsar.exceptions import DataError, MissingExtraError, PersistenceError
from tsar.params.arguments import holds_columns

__all__ = ["PANDAS", "FrameLibrary", "LibraryRecord", "as_pandas", "library_of"]

Name = Literal["pandas", "polars", "pyarrow"]


class LibraryRecord(TypedDict):
    """A :class:`FrameLibrary` as JSON."""

    name: Name
    types: str


@dataclass(frozen=True)
class FrameLibrary:
    """Whose frame something is, and the types of its columns.

    Parameters
    ----------
    name : {"pandas", "polars", "pyarrow"}
    types : str
        The schema of some of its columns in the format of Arrow's streams, as base64; empty for
        pandas, whose dtypes are kept elsewhere.
    """

    name: Name = "pandas"
    types: str = ""

    def restored(self, frame: Any) -> Any:
        """Return a frame of pandas as one of this library, and pandas' own as it is.

        Parameters
        ----------
        frame : DataFrame or Series
            Without an index that means something. Its ``attrs`` are pandas' alone.

        Returns
        -------
        DataFrame of polars, Table of pyarrow, or the frame
            Missing values are null. Columns have the types that their namesakes had, as far as
            these can hold the values: means of whole numbers are none.

        Raises
        ------
        MissingExtraError
            The library is not installed.
        PersistenceError
            The types are those of a damaged file.
        """
        if self.name == "pandas":
            return frame
        pyarrow = _pyarrow(self.name)
        polars = _polars() if self.name == "polars" else None
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        for field in self._schema(pyarrow):
            place = table.schema.get_field_index(field.name)
            if place >= 0:
                column = _typed(pyarrow, table.column(place), field.type)
                # With its metadata, which names the categories of polars.
                typed = field if column.type == field.type else field.name
                table = table.set_column(place, typed, column)
        table = table.replace_schema_metadata(None)
        return table if polars is None else polars.from_arrow(table)

    def _schema(self, pyarrow: Any) -> Any:
        try:
            return pyarrow.ipc.read_schema(pyarrow.py_buffer(base64.b64decode(self.types)))
        except (ValueError, OSError, binascii.Error) as error:
            raise PersistenceError(
                f"the types of the columns that were fitted cannot be read: {error}; the model is "
                f"damaged, save it again or pass df="
            ) from None


PANDAS = FrameLibrary()


def library_of(df: Any, columns: Iterable[Any] | None = None) -> FrameLibrary:
    """Return whose frame something is, with the types of some or all columns.

    Frames of libraries that are neither pandas, polars nor pyarrow are answered in pandas.
    """
    name = _library_name(df)
    if name == "pandas":
        return PANDAS
    schema = _as_arrow(_head(df)).schema
    wanted = schema.names if columns is None else list(columns)
    fields = [field for field in schema if field.name in wanted]
    serialized = _pyarrow(name).schema(fields).serialize()
    return FrameLibrary(name, base64.b64encode(serialized.to_pybytes()).decode("ascii"))


def as_pandas(df: Any) -> Any:
    """Return a frame as one of pandas; what is no frame, and what is pandas' already, as it is.

    Parameters
    ----------
    df : frame
        Of polars or pyarrow, or anything with ``__arrow_c_stream__``, such as a relation of
        DuckDB. Whole numbers and truth values beside missing ones become the nullable dtypes,
        dates become times at midnight.

    Raises
    ------
    DataError
        It is not collected yet, or is a column and no frame.
    MissingExtraError
        pyarrow is not installed.
    """
    if isinstance(df, pd.DataFrame | pd.Series):
        return df
    if _is_lazy(df):
        raise DataError(
            f"the data must be a frame, got a {type(df).__name__} of {_module(df)}, which is not "
            f"computed yet; call .collect() and pass the result"
        )
    if not holds_columns(df):
        return df
    table = _as_arrow(df)
    columns = dict(enumerate(_column(column) for column in table.columns))
    frame = pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows), copy=False)
    frame.columns = pd.Index(table.column_names)
    return frame


def _module(df: Any) -> str:
    return type(df).__module__.partition(".")[0]


def _library_name(df: Any) -> Name:
    module = _module(df)
    has_frames = module in ("polars", "pyarrow") and not _is_lazy(df) and holds_columns(df)
    return cast(Name, module) if has_frames else "pandas"


def _is_lazy(df: Any) -> bool:
    return hasattr(df, "collect") and "Lazy" in type(df).__name__


def _head(df: Any) -> Any:
    """Return a frame with the same columns and few rows."""
    return df.slice(0, 0) if hasattr(df, "slice") else df


def _as_arrow(df: Any) -> Any:
    module = _module(df)
    pyarrow = _pyarrow(module)
    if module == "polars" and type(df).__name__ == "DataFrame":
        # Older versions of pyarrow know no views of text.
        return df.to_arrow(compat_level=_polars().CompatLevel.oldest())
    if isinstance(df, pyarrow.Table):
        return df
    try:
        return pyarrow.table(df)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"the data must be a frame, got a {type(df).__name__} of {module}, which cannot be "
            f"read as one: {error}; pass a DataFrame or a Table with a column of times"
        ) from None


def _column(column: Any) -> pd.Series:
    """Return a column of Arrow as one of pandas, with its values as they are."""
    import pyarrow

    types = pyarrow.types
    if column.null_count and (types.is_integer(column.type) or types.is_boolean(column.type)):
        # Floats would round large numbers, and objects are slow.
        name = "boolean" if types.is_boolean(column.type) else str(column.type).capitalize()
        nullable = pd.api.types.pandas_dtype(name.replace("Uint", "UInt"))
        return column.to_pandas(types_mapper=lambda dtype: nullable)
    if types.is_dictionary(column.type) and types.is_unsigned_integer(column.type.index_type):
        # polars' categories, which older versions of pyarrow do not hand to pandas.
        coded = column.type
        signed = pyarrow.dictionary(pyarrow.int64(), coded.value_type, coded.ordered)
        chunks = [
            pyarrow.DictionaryArray.from_arrays(
                chunk.indices.cast(pyarrow.int64()), chunk.dictionary, ordered=coded.ordered
            )
            for chunk in column.chunks
        ]
        column = pyarrow.chunked_array(chunks, type=signed)
    return column.to_pandas(date_as_object=False)


def _typed(pyarrow: Any, column: Any, wanted: Any) -> Any:
    """Return a column in a type, if that can hold what it has, else as it is."""
    types = pyarrow.types
    if column.type == wanted:
        return column
    # A time within a day is no date, and would become one without a word.
    if types.is_date(wanted) and not _all_midnight(column):
        return column
    try:
        if not types.is_dictionary(wanted):
            return _plain(pyarrow, column).cast(wanted)
        plain = _plain(pyarrow, column).cast(wanted.value_type)
        coded = plain.combine_chunks().dictionary_encode()
        if isinstance(coded, pyarrow.ChunkedArray):
            coded = coded.combine_chunks()
        indices = coded.indices.cast(wanted.index_type)
        return pyarrow.chunked_array(
            [pyarrow.DictionaryArray.from_arrays(indices, coded.dictionary, ordered=wanted.ordered)]
        )
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        return column


def _plain(pyarrow: Any, column: Any) -> Any:
    is_coded = pyarrow.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_coded else column


def _all_midnight(column: Any) -> bool:
    times = pd.DatetimeIndex(column.to_pandas())
    return bool((times == times.normalize())[times.notna()].all())


def _pyarrow(library: str) -> Any:
    extra = "polars" if library == "polars" else "arrow"
    try:
        import pyarrow.ipc
    except ImportError:
        raise MissingExtraError(
            f"frames of {library} need pyarrow: pip install 'tsar[{extra}]'"
        ) from None
    return pyarrow


def _polars() -> Any:
    if importlib.util.find_spec("polars") is None:
        raise MissingExtraError(
            "the data that were fitted are a frame of polars, and so is the forecast, which needs "
            "polars: pip install 'tsar[polars]', or pass df="
        )
    import polars

    return polars
