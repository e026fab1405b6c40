"""How times are spelt in text: the style of a column is found, read by, and written by again.

A style is a format of ``strftime``, with what ``strftime`` cannot say:

=========================  ====================================================
``%-d %-m %-H %-I %-V``    without the zero that pads it
``%1f`` to ``%9f``         a fraction of a second of so many digits
``%:z``, ``%#z``           an offset with a colon, and one of hours only
``%^b %^B %^a %^A``        names of months and days in capitals
``%_b %_B %_a %_A``        and in small letters
``%#Z``                    UTC under the name GMT
``%P``                     am or pm in small letters
``%q``                     the quarter, 1 to 4
``%G`` with ``%V``         an ISO week; without a day (``%u``) it is its Monday
=========================  ====================================================
"""

import re
from typing import Any, cast

import numpy as np
import pandas as pd

from tsar.exceptions import DataError

__all__ = [
    "check_no_dates",
    "date_style",
    "guess_style",
    "month_first",
    "offsets_of",
    "other_month_names",
    "parse_text",
    "plain",
    "spelling",
    "spelt_offset",
    "write_text",
]

_MONTHS = "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|"
_MONTHS += "Sep(?:tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?"
NAME = re.compile(
    rf"(?<![A-Za-z])(?:{_MONTHS}|(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
MONTH_AND_YEAR = [
    (re.compile(rf"({_MONTHS})([ \-/.,_]{{0,2}})\d{{4}}", re.IGNORECASE), r"%{}\2%Y"),
    (re.compile(rf"\d{{4}}([ \-/.,_]{{0,2}})({_MONTHS})", re.IGNORECASE), r"%Y\1%{}"),
]
# What pandas does not know the format of: quarters, weeks and months of statistical offices.
OTHERS = [
    (re.compile(r"\d{4}([ \-/:._]?)([Qq])[1-4]"), r"%Y\1\2%q"),
    (re.compile(r"([Qq])[1-4]([ \-/:._]?)\d{4}"), r"\1%q\2%Y"),
    (re.compile(r"[1-4]([Qq])([ \-/:._]?)\d{4}"), r"%q\1\2%Y"),
    (re.compile(r"\d{4}(-?)([Ww])\d{2}(-?)[1-7]"), r"%G\1\2%V\3%u"),
    (re.compile(r"\d{4}([ \-/:._]?)([Ww])\d{1,2}"), r"%G\1\2%V"),
    (re.compile(r"([Ww])\d{1,2}([ \-/:._])\d{4}"), r"\1%V\2%G"),
    (re.compile(r"\d{4}([ \-/:._]?)([Mm])\d{1,2}"), r"%Y\1\2%m"),
    (re.compile(r"\d{1,2}[A-Za-z]{3}\d{4}:\d\d:\d\d:\d\d"), "%d%b%Y:%H:%M:%S"),
]
NUMERIC_DATE = re.compile(r"(?<!\d)(\d{1,2})[/.\- ]{1,2}(\d{1,2})[/.\- ]{1,2}\d{2,4}")
# A year in front says the order.
MONTH_FIRST = re.compile(r"(?<!%[Yy][/.\- ])%(-?)m([/.\- ]{1,2})%(-?)d")
YEAR_DAY = re.compile(r"%[Yy]([/.\-])%d\1%m")
# A clock of twelve hours; pandas guesses its format in the morning and in capitals only.
HALF_DAY = re.compile(
    r"(?<!\d)(?:0?[1-9]|1[0-2])((?::\d\d){0,2} ?)(?:([AP]M)|([ap]m))(?![A-Za-z.])"
)
# A spelling that pandas takes for letters of no meaning: 1 o'clock p.m. would be one at night.
HALF_DAY_WORD = re.compile(r"\d ?[ap]\.? ?m\b", re.IGNORECASE)
BEYOND = re.compile(r"%-([dmHIMSV])|%([1-9])f|%([:#])z|%(P|#Z|[\^_][aAbB])|%(q)")
TOKEN = re.compile(r"%(?:[-:#^_]?[A-Za-z]|[1-9]f|%)")
PATTERNS = {
    **dict.fromkeys("dmHIMSyV", r"\d{1,2}"),
    **{"Y": r"\d{4}", "G": r"\d{4}", "f": r"\d{1,9}", "j": r"\d{1,3}", "q": "[1-4]", "u": "[1-7]"},
    **{"z": r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)", "Z": r"\w+", "p": r"[A-Za-z.]+"},
    "P": r"[A-Za-z.]+",
    **dict.fromkeys("aAbB", r"[^\W\d]+\.?"),
}
# A spelling is taken from the first rows that show it, looking at this many before all of them.
LOOKED_AT = 100
# Integers that are dates: their format, and how many digits they have.
INTEGERS = {
    **{"%Y%q": 5, "%Y%m": 6, "%G%V": 6, "%Y%j": 7, "%Y%m%d": 8},
    **{"%Y%m%d%H": 10, "%Y%m%d%H%M": 12, "%Y%m%d%H%M%S": 14},
}
# Those with two digits of the year, or with the year behind, which are read from padded text.
SHORT_INTEGERS = {"%y%m": 4, "%y%m%d": 6, "%d%m%Y": 8, "%m%d%Y": 8}
YEARS = 1900, 2100


def guess_style(text: str) -> str | None:
    """Return the style of one text, or None where it is no time.

    Parameters
    ----------
    text : str

    Returns
    -------
    str or None
        The month comes first where the text leaves it open.
    """
    for pattern, style in OTHERS:
        match = pattern.fullmatch(text)
        if match is not None:
            return match.expand(style)
    for place, (pattern, style) in enumerate(MONTH_AND_YEAR):
        match = pattern.fullmatch(text)
        if match is not None:
            name = match[1 + place]
            return match.expand(style).format("b" if len(name) == 3 else "B")
    # pandas knows no names in capitals.
    text = NAME.sub(lambda name: name[0].capitalize(), text)
    half_day = HALF_DAY.search(text)
    if half_day is not None:
        text = f"{text[: half_day.start()]}10{half_day[1]}AM{text[half_day.end() :]}"
    elif HALF_DAY_WORD.search(text):
        return None
    match = NUMERIC_DATE.search(text)
    day_first = match is not None and int(match.group(1)) > 12
    guessed: str | None = pd.tseries.api.guess_datetime_format(text, dayfirst=day_first)
    if guessed is not None and YEAR_DAY.search(guessed):
        # The day was 10.30 o'clock.
        guessed = pd.tseries.api.guess_datetime_format(text, dayfirst=False)
    if guessed is not None and half_day is not None and half_day[3]:
        guessed = guessed.replace("%p", "%P")
    return guessed


def month_first(style: str) -> tuple[str, str] | None:
    """Return a style with the month before the day as one with the day first.

    Returns
    -------
    style, separator : str
        None where no date of numbers has the month in front of the day.
    """
    match = MONTH_FIRST.search(style)
    if match is None:
        return None
    day_first = f"%{match[3]}d{match[2]}%{match[1]}m"
    return style[: match.start()] + day_first + style[match.end() :], match[2]


def other_month_names(style: str) -> str | None:
    """Return a style with names of months in full instead of cut short, or the other way round.

    May is both, so that one text does not tell. None where no month has a name.
    """
    if "%b" in style:
        return style.replace("%b", "%B")
    return style.replace("%B", "%b") if "%B" in style else None


def plain(style: str) -> str:
    """Return a style as it reads, whatever the zeros and digits of its spelling."""
    return re.sub(r"%(?:[-:#^_]|[1-9](?=f))", "%", style).replace("%P", "%p")


def parse_text(texts: Any, style: str) -> pd.DatetimeIndex:
    """Read text by a style.

    Parameters
    ----------
    texts : Index or Series of str, shape (rows,)
    style : str

    Returns
    -------
    DatetimeIndex of shape (rows,)
        NaT where it is written otherwise; in UTC where the style has an offset.

    Raises
    ------
    ValueError
        The style cannot be used.
    """
    if TOKEN.search(style) is None:
        raise ValueError("it has no directive; write it with such as %Y-%m-%d")
    # The series of a panel share their times: each distinct text is read once.
    places, distinct = pd.factorize(texts)
    if not len(distinct):
        return _parse_distinct(texts, plain(style))
    parsed: Any = _parse_distinct(distinct, plain(style))
    taken: pd.DatetimeIndex = parsed.take(places, fill_value=pd.NaT)
    return taken


def _parse_distinct(texts: Any, style: str) -> pd.DatetimeIndex:
    if style in SHORT_INTEGERS:
        # A number has no zero in front.
        texts = pd.Series(texts, dtype=object).str.zfill(SHORT_INTEGERS[style])
    if "%q" in style:
        return _parse_quarters(pd.Series(texts, dtype=object), style)
    if "%V" in style and "%u" not in style:
        texts, style = pd.Series(texts, dtype=object) + " 1", style + " %u"
    parsed = pd.DatetimeIndex(
        pd.to_datetime(texts, errors="coerce", format=style, utc="%z" in style)
    )
    if "%V" in style and "%z" not in style:
        # pandas 2 takes a 53rd week that a year has not for the first one of the next.
        numbers = pd.Series(texts, dtype=object).str.extract(_pattern(style))["V"].astype(float)
        there = parsed.isocalendar().week.to_numpy(dtype=float, na_value=np.nan)
        parsed = cast(pd.DatetimeIndex, parsed.where(there == numbers.to_numpy()))
    return parsed


def _parse_quarters(texts: pd.Series, style: str) -> pd.DatetimeIndex:
    if sorted(TOKEN.findall(style)) != ["%Y", "%q"]:
        raise ValueError("a quarter goes with a year, %Y, and nothing else")
    parts = texts.str.extract(_pattern(style))
    months = parts["Y"] + "-" + (parts["q"].astype(float) * 3 - 2).map("{:02.0f}".format)
    return pd.DatetimeIndex(pd.to_datetime(months, errors="coerce", format="%Y-%m"))


def _pattern(style: str) -> re.Pattern[str]:
    """Return what texts of a style look like, a group for each of its parts."""
    pieces, begin, seen = [], 0, set()
    for token in TOKEN.finditer(style):
        pieces.append(re.escape(style[begin : token.start()]))
        letter, begin = token[0][-1], token.end()
        if letter == "%":
            pieces.append("%")
            continue
        inside = PATTERNS.get(letter, r".*?")
        pieces.append(f"({inside})" if letter in seen else f"(?P<{letter}>{inside})")
        seen.add(letter)
    return re.compile("^" + "".join(pieces) + re.escape(style[begin:]) + "$")


def spelling(texts: pd.Index, parsed: pd.DatetimeIndex, style: str, like: str | None) -> str:
    """Say by a style also how the numbers of a column are written.

    Parameters
    ----------
    texts : Index of str, shape (rows,)
    parsed : DatetimeIndex of shape (rows,)
        The same, as the style reads them.
    style : str
    like : str or None
        A style for what no row shows: 10/10/2024 may be followed by 11/1 or by 11/01.

    Returns
    -------
    str
    """
    pattern = _pattern(style)
    shown: dict[str, bool] = {}
    for letter in "dmHIMSV":
        if f"%{letter}" in style:
            seen = _is_short(letter, texts, parsed, pattern)
            if seen is not None:
                shown[letter] = seen
    style_before = "" if like is None or plain(like) != plain(style) else like
    for letter in "dmHIMSV":
        if f"%{letter}" not in style:
            continue
        if letter not in shown:
            # A month that no row shows is written as the days are, and the other way round.
            shown[letter] = (
                f"%-{letter}" in style_before if style_before else _beside(letter, shown)
            )
        if shown[letter]:
            style = style.replace(f"%{letter}", f"%-{letter}")
    for letter in "aAbB":
        if f"%{letter}" in style:
            seen_names = "".join(_shown(letter, texts, parsed, pattern))
            case = "^" if seen_names.isupper() else "_" if seen_names.islower() else ""
            style = style.replace(f"%{letter}", f"%{case}{letter}")
    if "%Z" in style and _shown("Z", texts, parsed, pattern) == {"GMT"}:
        style = style.replace("%Z", "%#Z")
    if "%f" in style:
        digits = max(map(len, _shown("f", texts, parsed, pattern)), default=6)
        style = style.replace("%f", f"%{digits}f")
    return style


def offsets_of(texts: pd.Index, style: str) -> set[str]:
    """Return the offsets from UTC that texts show, as they are written; none without ``%z``."""
    pattern = _pattern(plain(style))
    if "z" not in pattern.groupindex:
        return set()
    matches = [pattern.match(str(text)) for text in pd.unique(texts)]
    return {match["z"] for match in matches if match is not None}


def spelt_offset(offset: str) -> str:
    """Return the style of an offset from UTC such as Z, +01, +0100 or +01:00."""
    return {1: offset, 3: "%#z", 6: "%:z"}.get(len(offset), "%z")


def _beside(letter: str, shown: dict[str, bool]) -> bool:
    other = {"d": "m", "m": "d"}.get(letter)
    return other is not None and shown.get(other, False)


def _is_short(
    letter: str, texts: pd.Index, parsed: pd.DatetimeIndex, pattern: re.Pattern[str]
) -> bool | None:
    """Return whether a number below ten is written as one digit; None where there is none."""
    for rows in (slice(0, LOOKED_AT), slice(LOOKED_AT, None)):
        below_ten = np.flatnonzero(_field(letter, parsed[rows]) < 10)
        if len(below_ten):
            match = pattern.match(str(texts[rows][below_ten[0]]))
            return match is not None and len(match[letter]) == 1
    return None


def _field(letter: str, times: pd.DatetimeIndex) -> np.ndarray:
    if letter == "V":
        return times.isocalendar()["week"].to_numpy(dtype=np.float64, na_value=np.nan)
    if letter == "I":
        return np.asarray((times.hour - 1) % 12 + 1, dtype=np.float64)
    names = {"d": "day", "m": "month", "H": "hour", "M": "minute", "S": "second"}
    return np.asarray(getattr(times, names[letter]), dtype=np.float64)


def _shown(
    letter: str, texts: pd.Index, parsed: pd.DatetimeIndex, pattern: re.Pattern[str]
) -> set[str]:
    """Return how a part of a style is written in the first texts."""
    first = texts[np.flatnonzero(parsed.notna())[:LOOKED_AT]]
    matches = [pattern.match(str(text)) for text in first]
    return {match[letter] for match in matches if match is not None}


def write_text(times: pd.DatetimeIndex, style: str) -> list[str]:
    """Write times by a style.

    Parameters
    ----------
    times : DatetimeIndex of shape (rows,)
    style : str

    Returns
    -------
    list of str
    """
    if BEYOND.search(style) is None:
        return list(times.strftime(style))
    return [_write(time, style) for time in times]


def _write(time: Any, style: str) -> str:
    if time is pd.NaT:
        return ""

    def number(token: re.Match[str]) -> str:
        unpadded, digits, offset, name, _ = token.groups()
        if unpadded:
            return str(int(time.strftime(f"%{unpadded}")))
        if digits:
            fraction = f"{time.microsecond * 1000 + time.nanosecond:09d}"
            # Steps that are finer than what was seen are not cut off.
            return fraction[: max(int(digits), len(fraction.rstrip("0")))]
        if offset:
            zone = time.strftime("%z")
            minutes = zone[3:5] if offset == ":" or zone[3:5] != "00" else ""
            return f"{zone[:3]}:{minutes}" if minutes else zone[:3]
        if name and name[0] in "^_":
            word = str(time.strftime(f"%{name[1]}"))
            return word.upper() if name[0] == "^" else word.lower()
        if name:
            return "GMT" if name == "#Z" else str(time.strftime("%p")).lower()
        return str(time.quarter)

    written: str = time.strftime(BEYOND.sub(number, style))
    return written


def date_style(stamps: np.ndarray) -> str | None:
    """Return the format of integers that are all dates, such as 20240131 or 202401.

    Parameters
    ----------
    stamps : int64 array of shape (rows,)

    Returns
    -------
    str or None
        None where one of them is no date of the years 1900 to 2100.
    """
    if not len(stamps):
        return None
    low, high = int(stamps.min()), int(stamps.max())
    for style, digits in INTEGERS.items():
        scale = 10 ** (digits - 4)
        if YEARS[0] * scale <= low and high < (YEARS[1] + 1) * scale:
            texts = pd.Series(np.unique(stamps)).astype(str)
            if bool(parse_text(texts, style).notna().all()):
                return style
    return _short_date_style(np.unique(stamps))


def _short_date_style(distinct: np.ndarray) -> str | None:
    """Return the format of integers such as 2401, 240131 or 31012024, None if they are none."""
    low, high = int(distinct[0]), int(distinct[-1])
    if low < 0:
        return None
    steps = np.diff(distinct)
    for style, digits in SHORT_INTEGERS.items():
        if not 10 ** (digits - 2) <= low <= high < 10**digits:
            continue
        even = len(set(steps.tolist())) <= 1
        if digits == 4 and even and not YEARS[1] < low <= high < 4000:
            # 2001, 2002, 2003 are years, and 1001, 1002 may be any count; 2401 is a month.
            continue
        parsed = parse_text(pd.Series(distinct).astype(str).str.zfill(digits), style)
        if bool(parsed.notna().all()) and bool(parsed.year.isin(range(*YEARS)).all()):
            return style
    return None


def check_no_dates(stamps: np.ndarray) -> None:
    """Refuse integers that are dates, which would be counted on to month 13.

    Parameters
    ----------
    stamps : int64 array of shape (rows,)

    Raises
    ------
    DataError
        They are; names the format by which to read them.
    """
    style = date_style(stamps)
    if style is None:
        return
    steps = np.diff(np.unique(stamps))
    step = int(np.median(steps)) if len(steps) else 1
    digits = SHORT_INTEGERS.get(style)
    padded = "" if digits is None else f".astype(str).str.zfill({digits})"
    read = f"pd.to_datetime(times{padded}, format={style!r})"
    if style == "%G%V":
        read = "pd.to_datetime(times.astype(str) + '1', format='%G%V%u')"
    if style == "%Y%m" and set((stamps % 100).tolist()) == {1, 2, 3, 4} and np.ptp(stamps) >= 100:
        # No month beyond April in several years.
        raise DataError(
            f"the time column holds integers such as {stamps[0]}, which are quarters of the form "
            f"%Y0%q, or months; times.astype(str).str.replace(r'0(.)$', r'Q\\1', regex=True) makes "
            f"them quarters, pd.to_datetime(times, format='%Y%m') makes them months, and "
            f"freq={step} counts them on as numbers"
        )
    if style == "%Y%q":
        read = "times.astype(str).str.replace(r'(.)$', r'Q\\1', regex=True)"
    raise DataError(
        f"the time column holds integers such as {stamps[0]}, which are dates of the form "
        f"{style}; {read} makes them dates, and freq={step} counts them on as numbers"
    )
