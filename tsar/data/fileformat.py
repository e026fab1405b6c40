"""What a user states about a file: how it is written, and what its columns are."""

import codecs
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tsar.data.frames import TARGET
from tsar.data.idcolumns import key_columns
from tsar.exceptions import ParameterError

__all__ = ["FileFormat", "Roles"]

MARKS = ".,"
TABS = {"tab": "\t", "\\t": "\t"}


@dataclass(frozen=True)
class FileFormat:
    """How files are written, as far as it has to be said; what is None is found.

    Parameters
    ----------
    separator : str or None
        What stands between the cells of a CSV file, one character.
    decimal : {".", ","} or None
        The decimal mark of a CSV file.
    thousands : str or None
        What groups the digits of large numbers in a CSV file, one character.
    header : bool or None
        Whether the first row of a CSV file or a sheet holds the names of the columns.
        Without one they are called ``column_1``, ``column_2``, ...
    time_format : str or None
        How times are written, a format of ``strptime``.
    encoding : str or None
        Of the text of a CSV file, such as "cp1252" or "utf-16"; None is UTF-8, and what a mark at
        its beginning says.

    Raises
    ------
    ParameterError
        One of them is not usable, or two are the same.

    Examples
    --------
    >>> from tsar.batch import FileFormat
    >>> FileFormat(separator=";", decimal=",", thousands=".").decimal
    ','
    """

    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    header: bool | None = None
    time_format: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.separator in TABS:
            object.__setattr__(self, "separator", TABS[self.separator])
        for name in ("separator", "thousands"):
            value = getattr(self, name)
            usable = isinstance(value, str) and len(value) == 1
            if value is not None and (not usable or value.isalnum() or value in '+-"\n\r'):
                raise ParameterError(
                    f"FileFormat: {name} must be one character that is no letter, digit, sign or "
                    f"quote, got {value!r}"
                )
        if self.decimal is not None and self.decimal not in (*MARKS,):
            raise ParameterError(f"FileFormat: decimal must be '.' or ',', got {self.decimal!r}")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ParameterError(
                f"FileFormat: decimal and thousands must differ, got {self.decimal!r} for both"
            )
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except (LookupError, TypeError):
                raise ParameterError(
                    f"FileFormat: encoding must be the name of one, such as 'cp1252' or 'utf-16', "
                    f"got {self.encoding!r}"
                ) from None
        if self.header is not None and not isinstance(self.header, bool):
            raise ParameterError(f"FileFormat: header must be a bool, got {self.header!r}")

    def settled(self, time_format: str | None) -> "FileFormat":
        """Return it with a format of times that is stated on its own.

        Raises
        ------
        ParameterError
            Both state one, and not the same.
        """
        if time_format is None or time_format == self.time_format:
            return self
        if self.time_format is not None:
            raise ParameterError(
                f"time_format must be stated once, got {time_format!r} and {self.time_format!r}"
            )
        return replace(self, time_format=time_format)


@dataclass(frozen=True)
class Roles:
    """What the user calls the columns.

    Parameters
    ----------
    id_column : str, list of str or None
        A list where several columns are one id; None where it is to be found.
    time_column : str, list of str or None
        A list where the time stands in several columns, such as a date and a clock.
    used : mapping of str to collection of labels
        Further columns, by the parameter that names them: "target", "future_covariates".
    """

    id_column: Any = None
    time_column: Any = None
    used: Mapping[str, Collection[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for parameter in ("id_column", "time_column"):
            stated = getattr(self, parameter)
            # No column of a file is called by a tuple.
            names = key_columns(list(stated) if isinstance(stated, tuple) else stated, parameter)
            object.__setattr__(self, parameter, names[0] if len(names) == 1 else names or None)
        both = [name for name in self.ids if name in self.times]
        if both:
            raise ParameterError(
                f"column {both[0]!r} cannot be both the id and the time; name another one"
            )

    @property
    def ids(self) -> list[Any]:
        """The columns of the id, none where there is none."""
        return key_columns(self.id_column)

    @property
    def times(self) -> list[Any]:
        """The columns of the time, none where it is to be found."""
        return key_columns(self.time_column, "time_column")

    @property
    def time_name(self) -> Any:
        """What the time is called where rows are read: by all names where there are several."""
        times = self.times
        return self.time_column if len(times) < 2 else " ".join(map(str, times))

    @property
    def keys(self) -> list[Any]:
        """The columns that say which row it is."""
        return [*self.ids, *self.times]

    @property
    def others(self) -> list[Any]:
        """The further columns, whatever for."""
        return [name for names in self.used.values() for name in names]

    @property
    def targets(self) -> list[Any]:
        """The columns to forecast, none where all are or they are to be found."""
        return list(self.used.get("target", ()))

    @property
    def covariates(self) -> list[Any]:
        """The columns that help to forecast."""
        return [name for role, names in self.used.items() if role != "target" for name in names]

    def read_of(self, names: Collection[Any]) -> tuple[Any, ...] | None:
        """Return which columns hold numbers that are read, None where all others do."""
        if self.targets:
            return tuple(self.others)
        alone = self.id_column is None or TARGET not in names
        return None if alone else (TARGET, *self.covariates)

    @property
    def named(self) -> dict[str, list[Any]]:
        """All columns that are known, by the parameter that names them."""
        own = {"id_column": self.ids, "time_column": self.times}
        return {**own, **{name: list(columns) for name, columns in self.used.items()}}
