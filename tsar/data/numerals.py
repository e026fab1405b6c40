"""Numbers in text: which mark is the decimal one, and which groups thousands.

One cell often leaves it open: 1.050 is one thousand and fifty in Germany, and one and a
twentieth elsewhere. What all cells of a file show together settles it, or the user does.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from tsar.exceptions import DataError

__all__ = ["Evidence", "Notation", "is_numeral", "read_numerals"]

MARKS = (".", ",")
# Blanks of all kinds and apostrophes group digits and do nothing else.
BLANKS = " '\u2019\u00a0\u202f"
# A tenth of the cells may be slips of the pen.
SLIPS = 0.1
SIGN, EXPONENT = r"[+-]?", r"(?:[eE][+-]?\d+)?"
PLAIN = re.compile(rf"{SIGN}(?:\d+{EXPONENT}|inf|infinity)", re.IGNORECASE)
ONE_GROUP = re.compile(rf"{SIGN}[1-9]\d{{0,2}}([.,])\d{{3}}")
GROUPS = re.compile(rf"{SIGN}[1-9]\d{{0,2}}(?:(?:\.\d{{3}}){{2,}}|(?:,\d{{2,3}})+,\d{{3}})")
GROUPS_AND_FRACTION = re.compile(
    rf"{SIGN}[1-9]\d{{0,2}}(?:(?:\.\d{{3}})+,|(?:,\d{{2,3}})*,\d{{3}}\.)\d+"
)
BLANK_GROUPS = re.compile(rf"{SIGN}[1-9]\d{{0,2}}(?:[{BLANKS}]\d{{3}})+(?:([.,])\d+)?")
FRACTION = re.compile(rf"{SIGN}(?:\d+([.,])\d*|([.,])\d+){EXPONENT}")


class Notation(NamedTuple):
    """How numbers are written; ``thousands`` is None where digits are not grouped."""

    decimal: str = "."
    thousands: str | None = None


@dataclass
class _Column:
    """What the cells of one column show."""

    decimal: Counter[str] = field(default_factory=Counter)
    thousands: Counter[str] = field(default_factory=Counter)
    # Cells such as 1.050, and one of them.
    open: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    few_digits: int = 0
    many_digits: int = 0

    def add(self, text: str) -> None:
        text = text.strip()
        if PLAIN.fullmatch(text):
            few = len(text.lstrip("+-")) <= 3
            self.few_digits += few
            self.many_digits += not few
        elif match := ONE_GROUP.fullmatch(text):
            self.open[match[1]] += 1
            self.example.setdefault(match[1], text)
        elif match := BLANK_GROUPS.fullmatch(text):
            self.thousands[next(mark for mark in text if mark in BLANKS)] += 1
            self._fraction(match[1], text)
        elif GROUPS_AND_FRACTION.fullmatch(text):
            mark = next(mark for mark in text if mark in MARKS)
            self.thousands[mark] += 1
            self._fraction(_other(mark), text)
        elif GROUPS.fullmatch(text):
            self.thousands[next(mark for mark in text if mark in MARKS)] += 1
        elif match := FRACTION.fullmatch(text):
            self._fraction(match[1] or match[2], text)

    def _fraction(self, mark: str | None, text: str) -> None:
        if mark is not None:
            self.decimal[mark] += 1
            self.example.setdefault(mark, text)


class Evidence:
    """What the cells of a file show about its numbers, gathered column by column."""

    def __init__(self) -> None:
        self._columns: dict[Any, _Column] = {}

    def add(self, name: Any, texts: Iterable[str]) -> None:
        """Look at cells of a column.

        Parameters
        ----------
        name : label
        texts : iterable of str
            What is no number says nothing.
        """
        column = self._columns.setdefault(name, _Column())
        for text in texts:
            column.add(str(text))

    def notation(
        self,
        decimal: str | None,
        thousands: str | None,
        *,
        separator: str,
        default: Notation | None,
        used: Collection[Any] | None,
        whole: bool,
    ) -> Notation | None:
        """Say how the numbers are written.

        Parameters
        ----------
        decimal, thousands : str or None
            As the user states them.
        separator : str
            Between cells. Commas stand between cells where the decimal mark is a point.
        default : Notation or None
            How a file is written that this one goes with.
        used : collection of labels or None
            The columns that must not be left open; None takes all.
        whole : bool
            Whether all cells were seen.

        Returns
        -------
        Notation or None
            None where more cells can settle it.

        Raises
        ------
        DataError
            All cells leave it open.
        """
        columns = self._columns.values()
        groups = sum((column.thousands for column in columns), Counter[str]())
        if decimal is None and thousands in MARKS:
            decimal = _other(str(thousands))
        if decimal is None:
            decimal = self._decimal(groups, whole)
        left_open = self._open(used)
        unsettled = [] if decimal is not None else left_open
        if decimal is None and not whole:
            return None
        if unsettled and default is not None:
            decimal = default.decimal
        elif unsettled:
            decimal = self._by_separator(unsettled, separator)
        if decimal is None:
            decimal = "." if default is None else default.decimal
        if thousands is None:
            marked = [mark for mark, _ in left_open if mark != decimal]
            grouping = [*(mark for mark, _ in groups.most_common() if mark != decimal), *marked]
            thousands = grouping[0] if grouping else None
        return Notation(decimal, thousands)

    def _open(self, used: Collection[Any] | None) -> list[tuple[str, _Column]]:
        columns = [self._columns[name] for name in self._columns if used is None or name in used]
        return [(mark, column) for column in columns for mark in column.open]

    def _decimal(self, groups: Counter[str], whole: bool) -> str | None:
        """Return the mark that cells show to be the decimal one."""
        shown: Counter[str] = Counter()
        for column in self._columns.values():
            shown.update(column.decimal)
            if column.many_digits:
                # Who writes 1200 does not write 1.050 for a thousand and fifty.
                shown.update(column.open)
        if not shown:
            return next((_other(mark) for mark in MARKS if groups[mark]), None)
        (mark, most), *rest = shown.most_common()
        if rest and rest[0][1] > SLIPS * most:
            if not whole:
                return None
            examples = [
                next(
                    column.example[mark]
                    for column in self._columns.values()
                    if mark in column.example
                )
                for mark in MARKS
            ]
            raise DataError(
                f"numbers are written as {examples[0]!r} and as {examples[1]!r}; "
                f"FileFormat(decimal='.') or FileFormat(decimal=',') says which mark is the "
                f"decimal one"
            )
        return mark

    def _by_separator(self, unsettled: list[tuple[str, _Column]], separator: str) -> str:
        marks = {mark for mark, _ in unsettled}
        bare = any(column.few_digits for _, column in unsettled)
        if separator == "," and (marks == {","} or (marks == {"."} and not bare)):
            return "."
        mark, column = unsettled[0]
        text = column.example[mark]
        raise DataError(
            f"numbers such as {text!r} can be read in two ways: FileFormat(thousands={mark!r}) "
            f"reads {text.replace(mark, '')}, FileFormat(decimal={mark!r}) reads "
            f"{text.replace(mark, '.')}; say which is meant"
        )


def _other(mark: str) -> str:
    return "," if mark == "." else "."


def is_numeral(text: str) -> bool:
    """Return whether a text is a number in one of the notations.

    Parameters
    ----------
    text : str
    """
    text = text.strip()
    kinds = (PLAIN, FRACTION, GROUPS, GROUPS_AND_FRACTION, BLANK_GROUPS)
    return any(kind.fullmatch(text) for kind in kinds)


def read_numerals(texts: pd.Series, notation: Notation) -> pd.Series:
    """Read a column of numbers in text.

    Parameters
    ----------
    texts : Series of str, shape (rows,)
    notation : Notation

    Returns
    -------
    Series of shape (rows,)
        Numbers. Where a cell is none, all stay text, those that are with a decimal point and
        without groups, so that the cell can be told of.
    """
    mark = re.escape(notation.decimal)
    digits = r"\d+"
    groups = ""
    if notation.thousands is not None:
        blank = notation.thousands in BLANKS
        groups = BLANKS if blank else notation.thousands
        few = r"\d{2,3}" if notation.thousands == "," else r"\d{3}"
        digits = rf"(?:\d{{1,3}}(?:[{re.escape(groups)}]{few})*[{re.escape(groups)}]\d{{3}}|\d+)"
    pattern = re.compile(rf"{SIGN}(?:{digits}(?:{mark}\d*)?|{mark}\d+){EXPONENT}")
    drop = str.maketrans(notation.decimal, ".", groups)

    def plain(text: str) -> str:
        stripped = text.strip()
        return stripped.translate(drop) if pattern.fullmatch(stripped) else text

    distinct = texts.dropna().unique()
    written = texts.map({text: plain(str(text)) for text in distinct}, na_action="ignore")
    try:
        return pd.to_numeric(written)
    except (ValueError, TypeError):
        return written
