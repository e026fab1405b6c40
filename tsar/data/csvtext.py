"""CSV files: one reading of each is settled before it is read, at once or in pieces."""

import bz2
import contextlib
import csv
import gzip
import importlib
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import pandas as pd

from tsar.data.fileformat import FileFormat, Roles
from tsar.data.numerals import Evidence, Notation, is_numeral, read_numerals
from tsar.data.timestyle import guess_style
from tsar.exceptions import DataError, foreign_warnings

__all__ = ["PACKED", "CsvText", "as_names", "is_nameless"]

SEPARATORS = ",;\t|"
SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# What is looked at first: so many characters, and so many rows of them.
SAMPLE, SAMPLE_ROWS = 1 << 16, 200
UNPACKED: dict[str, Callable[[Path], Any]] = {
    **{".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open},
    ".zip": lambda path: _only_member(path),
    ".zst": lambda path: _zstandard(path),
}
PACKED = tuple(UNPACKED)
ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# How packed files begin.
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zX": ".xz", b"PK\x03\x04": ".zip or .xlsx"}
# What stands for a missing value in a CSV file, as pandas has it.
MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
MISSING_CELLS = frozenset(MISSING)
SEPARATOR_LINE = re.compile(r'"?sep=([^"])"?\r?\n', re.IGNORECASE)
BOOLEANS = {"True", "False", "TRUE", "FALSE", "true", "false"}
# What pandas calls a column without a name.
NAMELESS = re.compile(r"Unnamed: \d+")


@dataclass(frozen=True)
class CsvText:
    """How a CSV file is read; the same for a piece of it as for the whole.

    Parameters
    ----------
    path : pathlib.Path
    encoding, separator : str
    skipped : int
        Lines in front of the table: titles, and sep=; which spreadsheets write for each other.
    header : bool
        Whether its first row holds names.
    names : tuple of str
        Of the columns.
    sample : DataFrame
        Its first rows as text.
    stated : FileFormat
        What the user said.
    default : Notation or None
        How the numbers are written of a file that it goes with.
    notation : Notation or None
        How numbers are written; None where the sample does not show it.
    words : tuple of str
        Columns that are no numbers, whatever they look like: the id, the time, covariates in
        words.
    text : tuple of str
        Those of them that are read as they are written.
    used : tuple of str or None
        The columns whose numbers matter; None is all.
    names_columns : tuple of str
        Those of them in which only an empty cell is missing: the id.
    evidence : Evidence
        What the cells seen so far show of the notation.
    """

    path: Path
    encoding: str
    separator: str
    skipped: int
    header: bool
    names: tuple[str, ...]
    sample: pd.DataFrame
    stated: FileFormat
    default: Notation | None = None
    notation: Notation | None = None
    words: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    used: tuple[str, ...] | None = None
    names_columns: tuple[str, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)

    @classmethod
    def look_at(
        cls, path: Path, roles: Roles, stated: FileFormat, default: Notation | None = None
    ) -> "CsvText":
        """Look at the first rows of a file, and find how it is written.

        Parameters
        ----------
        path : pathlib.Path
            CSV, perhaps packed.
        roles : Roles
            Columns that are asked for tell one separator from another.
        stated : FileFormat
            What is not to be found.
        default : Notation or None
            How the numbers are written of a file that it goes with, for what its own cells
            leave open.

        Raises
        ------
        DataError
            It can be read in several ways; names the option that settles it.
        """
        encoding, lines, complete = _sample(path, stated.encoding)
        if "\0" in lines:
            raise DataError(
                f"{path} holds NUL characters, as UTF-16 text without a mark does; "
                f"FileFormat(encoding='utf-16-le') reads it"
            )
        said = SEPARATOR_LINE.match(lines)
        lines = lines if said is None else lines[said.end() :]
        stated_separator = stated.separator or (None if said is None else said[1])
        n_titles = 0
        if stated.header is None and lines:
            n_titles = _titles(lines, SEPARATORS if stated_separator is None else stated_separator)
            lines = "".join(lines.splitlines(keepends=True)[n_titles:])
        separator, rows = _split(path, lines, complete, roles, stated_separator)
        header = stated.header
        if header is None:
            header = not _holds_values(rows)
            if not header:
                raise DataError(
                    f"the first row of {path} holds values ({_listed(rows[0])}) and no names; "
                    f"FileFormat(header=False) numbers the columns, FileFormat(header=True) takes "
                    f"it for names"
                )
        if header and not roles.targets:
            _check_named(path, rows)
        names = _names(rows[0]) if header else [f"column_{n + 1}" for n in range(len(rows[0]))]
        cells = [row[: len(names)] for row in rows[header:]]
        sample = pd.DataFrame(
            [row + [""] * (len(names) - len(row)) for row in cells], columns=names, dtype=object
        )
        # A separator at the end of each line makes a column of nothing.
        blank = [name for name in names if is_nameless(name) and (sample[name] == "").all()]
        sample = sample.drop(columns=blank)
        return cls(
            *(path, encoding, separator, int(said is not None) + n_titles),
            *(header, tuple(names), sample),
            *(stated, default),
        )

    def with_roles(self, roles: Roles) -> "CsvText":
        """Return it with what the roles of the columns say of them.

        Parameters
        ----------
        roles : Roles
            The id and the time are known, if there are any.
        """
        words = [name for name in roles.covariates if self._holds_words(name)]
        words = [name for name in (*roles.keys, *words) if name in self.names]
        # Integers and words are read as such anyhow, but 2024.10 is no number, and 0900 no 900.
        alone = roles.times[0] if len(roles.times) == 1 else None
        plain = alone in words and not self._holds_fractions(str(alone))
        text = [name for name in words if not (plain and name == alone)]
        with_roles = replace(
            self,
            words=tuple(words),
            text=tuple(text),
            used=roles.read_of(self.names),
            names_columns=tuple(name for name in roles.ids if name in self.names),
            evidence=Evidence(),
        )
        for name in with_roles.numbers:
            with_roles.evidence.add(name, self.cells[name])
        return replace(with_roles, notation=with_roles.shown_notation(whole=False))

    @cached_property
    def cells(self) -> dict[str, list[str]]:
        """The first cells of each column that are not missing."""
        columns = zip(self.sample, self.sample.to_numpy().T, strict=True)
        return {
            str(name): [cell for cell in column if cell not in MISSING_CELLS]
            for name, column in columns
        }

    @cached_property
    def numbers(self) -> list[str]:
        """The columns that hold numbers for the most part, or nothing so far."""
        numbers = []
        for name, cells in self.cells.items():
            if name not in self.words and sum(map(is_numeral, cells)) >= len(cells) / 2:
                numbers.append(name)
        return numbers

    def _holds_words(self, name: str) -> bool:
        cells = self.cells.get(name, [])
        return not all(map(is_numeral, cells)) and not set(cells) <= BOOLEANS

    def _holds_fractions(self, name: str) -> bool:
        return any(is_numeral(cell) and not cell.isdecimal() for cell in self.cells.get(name, []))

    def shown_notation(self, whole: bool) -> Notation | None:
        """Return how the cells seen so far show numbers to be written, None if they do not.

        Parameters
        ----------
        whole : bool
            Whether these are all cells.
        """
        stated = self.stated
        try:
            return self.evidence.notation(
                stated.decimal,
                stated.thousands,
                separator=self.separator,
                default=self.default,
                used=self.used,
                whole=whole,
            )
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None

    # ------------------------------------------------------------------- read

    def whole(self) -> tuple[pd.DataFrame, "CsvText"]:
        """Read the file at once.

        Returns
        -------
        frame : DataFrame
        reading : CsvText
            With the notation of its numbers settled.

        Raises
        ------
        DataError
            It is no table, or its numbers can be read in two ways.
        """
        frame = self.rows()
        reading = self
        if self.notation is None:
            reading = self.settled(self.unsettled(frame))
            if reading.notation != Notation():
                frame = reading.rows()
        frame = reading.typed(frame)
        for name in self.names_columns:
            frame[name] = as_names(frame[name])
        return frame, reading

    def rows(self) -> pd.DataFrame:
        """Read it at once, as :meth:`options` say."""
        # Cells beyond the header would be dropped, or the first ones taken for an index.
        with foreign_warnings("error", pd.errors.ParserWarning):
            frame: pd.DataFrame = pd.read_csv(self.path, low_memory=False, **self.options())
        return frame

    def options(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Return how :func:`pandas.read_csv` reads it.

        Parameters
        ----------
        columns : sequence of str or None
            Which to read; None reads all.
        """
        notation = self.notation or Notation()
        options: dict[str, Any] = {
            **{"sep": self.separator, "encoding": self.encoding, "decimal": notation.decimal},
            **{"header": 0 if self.header else None, "names": list(self.names)},
            "index_col": False,
            "skiprows": self.skipped,
            "dtype": dict.fromkeys(self.text, str),
        }
        if notation.thousands is not None:
            # pandas drops the mark wherever it stands, also from 1.5.
            options["dtype"] |= dict.fromkeys(self.numbers, str)
        if self.names_columns:
            # 007 stays what it is, and so does NA.
            missing = dict.fromkeys(self.names, list(MISSING))
            missing |= dict.fromkeys(self.names_columns, [""])
            options |= {"keep_default_na": False, "na_values": missing}
        return options if columns is None else {**options, "usecols": list(columns)}

    def unsettled(self, frame: pd.DataFrame) -> list[str]:
        """Return the columns of rows that were read whose numbers may have marks.

        Parameters
        ----------
        frame : DataFrame
            As :meth:`options` read it.
        """
        columns = [name for name in self.numbers if name in frame]
        return [name for name in columns if not pd.api.types.is_integer_dtype(frame[name].dtype)]

    def settled(self, columns: Sequence[str]) -> "CsvText":
        """Return it with the notation that all cells of some columns show.

        Parameters
        ----------
        columns : sequence of str
            The other columns of numbers hold nothing but integers without marks.

        Raises
        ------
        DataError
            Its numbers can be read in two ways.
        """
        if columns:
            options = {**self.options(columns), "dtype": str}
            with pd.read_csv(self.path, chunksize=100_000, **options) as reader:
                for frame in reader:
                    for name in columns:
                        self.evidence.add(name, frame[name].dropna().unique())
        return replace(self, notation=self.shown_notation(whole=True))

    def typed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return rows with numbers in the place of text that is one.

        Parameters
        ----------
        frame : DataFrame
            As :meth:`options` read it.
        """
        notation = self.notation or Notation()
        if notation != Notation():
            for name in self.numbers:
                if name in frame and not pd.api.types.is_numeric_dtype(frame[name].dtype):
                    frame[name] = read_numerals(frame[name], notation)
        blank = [name for name in self.names if name not in self.cells and name in frame]
        empty = [name for name in blank if frame[name].isna().all()]
        return frame.drop(columns=empty) if empty else frame

    def described(self) -> list[str]:
        """Say how it is read."""
        notation = self.notation or Notation()
        said = [f"cells between {SEPARATOR_NAMES.get(self.separator, repr(self.separator))}"]
        said.append(f"decimal mark {notation.decimal!r}")
        if notation.thousands is not None:
            said.append(f"thousands grouped by {notation.thousands!r}")
        if not self.header:
            said.append("no header")
        if self.skipped:
            said.append(f"the names of the columns in line {self.skipped + 1}")
        if not self.encoding.startswith("utf-8"):
            said.append(self.encoding.upper())
        left_out = len(self.names) - len(self.sample.columns)
        if left_out:
            said.append(f"{left_out} column{'s'[: left_out > 1]} without a name or a cell left out")
        return said


def as_names(texts: pd.Series) -> pd.Series:
    """Return texts as integers, if that is how all are written: 007 is a name and no number.

    Parameters
    ----------
    texts : Series of str
    """
    distinct = pd.Series(texts.unique(), dtype=object)
    integers = distinct.str.fullmatch(r"0|-?[1-9]\d{0,17}", na=False).all()
    return texts.astype("int64") if integers else texts


def is_nameless(name: Any) -> bool:
    """Return whether a column has no name in its file."""
    return NAMELESS.fullmatch(str(name)) is not None


# ------------------------------------------------------------------ the sample


def _opened(path: Path) -> BinaryIO:
    unpack = UNPACKED.get(path.suffix.lower())
    return cast(BinaryIO, path.open("rb") if unpack is None else unpack(path))


def _only_member(path: Path) -> Any:
    archive = zipfile.ZipFile(path)
    members = [name for name in archive.namelist() if not name.endswith("/")]
    if len(members) != 1:
        raise DataError(f"{path} holds {len(members)} files; pack one table into it")
    return archive.open(members[0])


def _zstandard(path: Path) -> Any:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise DataError(f"{path} needs the package zstandard to be unpacked; install it") from None
    return zstandard.open(path, "rb")


def _sample(path: Path, stated: str | None) -> tuple[str, str, bool]:
    """Return the encoding, the first lines, and whether these are all there are."""
    try:
        with _opened(path) as file:
            begin = file.read(4)
            packed = next((ending for mark, ending in MAGIC.items() if begin.startswith(mark)), "")
            if packed:
                raise DataError(
                    f"{path} begins as files that end in {packed} do, and its name says "
                    f"otherwise; give it that ending"
                )
            marked = (name for mark, name in ENCODINGS.items() if begin.startswith(mark))
            encoding = stated or next(marked, "utf-8")
        with _opened(path) as file:
            text = io.TextIOWrapper(file, encoding=encoding, newline="")
            lines = text.read(SAMPLE)
            rest = text.readline() if len(lines) == SAMPLE else ""
            complete = not text.read(1)
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    return encoding, lines + rest, complete


def _split(
    path: Path, text: str, complete: bool, roles: Roles, stated: str | None
) -> tuple[str, list[list[str]]]:
    """Return the separator and the rows of the sample."""
    readings = {}
    for separator in SEPARATORS if stated is None else stated:
        rows = list(_rows(text, separator))
        # The last of them may be the beginning of a row with a quoted line break.
        if rows:
            readings[separator] = rows if complete or len(rows) < 3 else rows[:-1]
    if not readings:
        raise DataError(f"{path} cannot be read as a table: it is empty")
    likely = _likely(readings, roles)
    if len(likely) > 1:
        first, second = likely[:2]
        raise DataError(
            f"the cells of {path} may be separated by {first!r} (columns "
            f"{_listed(readings[first][0])}) or by {second!r} (columns "
            f"{_listed(readings[second][0])}); FileFormat(separator={first!r}) or "
            f"FileFormat(separator={second!r}) says which"
        )
    return likely[0], readings[likely[0]]


def _titles(text: str, separators: str) -> int:
    """Return how many lines stand above the names of the columns, 0 where there is no telling.

    Titles have fewer cells than the rows of a table, and the names below them are no values.
    """
    lines = text.splitlines()[:SAMPLE_ROWS]
    tables = []
    for separator in separators:
        table = [next(csv.reader([line], delimiter=separator), []) for line in lines]
        tables.append([row if any(map(str.strip, row)) else [] for row in table])
    if any(table[0] and len(table[0]) > 1 and _regular(_filled(table)) == 1 for table in tables):
        return 0
    for table in tables:
        widths = [len(row) for row in table]
        width = max(widths[len(widths) // 2 :])
        if width < 2 or widths[0] >= width:
            continue
        n_titles = widths.index(width)
        names = [cell for cell in table[n_titles] if cell.strip()]
        rows = _filled(table[n_titles:])
        values = any(is_numeral(cell) or _is_date(cell) for cell in names)
        if len(rows) > 1 and _regular(rows) == 1 and not values:
            return n_titles
    return 0


def _filled(rows: list[list[str]]) -> list[list[str]]:
    return [row for row in rows if row]


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    """Cut text into the cells of its first rows."""
    count = 0
    # What is wrong with it is told when it is read.
    with contextlib.suppress(csv.Error):
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            # pandas passes over lines without anything as well.
            if row and (len(row) > 1 or row[0].strip()):
                yield row
                count += 1
            if count == SAMPLE_ROWS:
                return


def _likely(readings: dict[str, list[list[str]]], roles: Roles) -> list[str]:
    """Return the separators that may be meant: of the same shape in all rows, and of use."""
    several = {sep: rows for sep, rows in readings.items() if len(rows[0]) > 1}
    if not several:
        return [next(iter(readings))]
    fit = {sep: _regular(rows) for sep, rows in several.items()}
    best = max(fit.values())
    likely = [sep for sep in several if fit[sep] == best]
    if len(likely) == 1:
        return likely
    named = {*roles.keys, *roles.others}
    for suits in (
        lambda rows: named <= set(rows[0]),
        lambda rows: any(_shows_times(cells) for cells in zip(*rows[:20], strict=False)),
    ):
        chosen = [sep for sep in likely if suits(several[sep])]
        likely = chosen or likely
    return likely


def _regular(rows: list[list[str]]) -> float:
    """Return which share of the rows is as long as the header, but for an empty cell."""
    width = len(rows[0])
    like = [len(row) == width or (len(row) == width + 1 and not row[-1]) for row in rows[1:]]
    return sum(like) / len(like) if like else 1.0


def _shows_times(cells: Sequence[str]) -> bool:
    return any(_is_date(cell) for cell in cells[1:])


def _holds_values(rows: list[list[str]]) -> bool:
    """Return whether the first row is one like the others: numbers and times, no names."""
    first = [cell for cell in rows[0] if cell.strip()]
    if first and all(is_numeral(cell) or _is_date(cell) for cell in first):
        return True
    second = rows[1] if len(rows) > 1 else []
    return any(
        _is_date(one) and _is_date(other) for one, other in zip(rows[0], second, strict=False)
    )


def _is_date(text: str) -> bool:
    """Return whether a text is a time of at least a month: 2019 may as well be a number."""
    if is_numeral(text):
        return False
    style = guess_style(text)
    return style is not None and any(part in style for part in ("d", "m", "q", "V", "b", "B"))


def _names(cells: Sequence[str]) -> list[str]:
    names = [cell or f"Unnamed: {place}" for place, cell in enumerate(cells)]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise DataError(f"column {twice!r} occurs more than once; rename or drop one of them")
    return names


def _check_named(path: Path, rows: list[list[str]]) -> None:
    """Refuse columns of values without a name, but for a first one, which numbers the rows."""
    for place in range(1, len(rows[0])):
        held = (row[place] for row in rows[1:] if place < len(row))
        if not rows[0][place].strip() and any(cell.strip() for cell in held):
            raise DataError(
                f"column {place + 1} of {path} has values and no name; name it in the header, or "
                f"name the columns to forecast by target="
            )


def _listed(cells: Sequence[str]) -> str:
    return ", ".join(map(repr, cells[:5])) + (", ..." if len(cells) > 5 else "")
