"""What is wrong and how to repair it, in terms of the command line.

Errors of the Python API name its parameters and the methods of frames. Who has a file and a
shell needs the same in options.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from tsar.batch.choosing import UNNAMED
from tsar.exceptions import DataError, ParameterError, TsarError
from tsar.forecasting.registry import forecaster_class
from tsar.params.text import parse_parameters

__all__ = ["for_command_line", "parameters_of_unnamed", "repairs"]

OPTIONS = {
    **{"id_column": "--id", "time_column": "--time", "target": "--target", "future": "--future"},
    "time_format": "--time-format",
}
# By the kind of a fault, see tsar.data.faults.
REPAIRS = {
    "timestamp": "an unparsable timestamp: repair or remove the row, or name the format with "
    "--time-format",
    "id": "a missing id: fill it in or remove the row",
    "time zone": "another time zone: write all times with the same offset from UTC",
    "duplicate": "a duplicate: --duplicates sum adds such rows up, --duplicates first keeps one; "
    "name the column of the id with --id if the rows are several series; name a second --time "
    "if the clock has a column of its own",
    "gap": "a gap: --gaps mask treats missing rows as missing values, --gaps zero as zeros",
    "off-grid": "an off-grid timestamp: round it to the grid, or state the step, for example with "
    "--set freq=h",
    "irregular": "irregular times: bring the rows to one step before",
    "frequency": "another frequency: bring the series to one step, or forecast it on its own",
    "infinite": "an infinite value, or one beyond 1e150: leave the cell empty, which is a missing "
    "value",
    "non-numeric": "a value that is no number: repair the cell, or name the columns to forecast "
    "with --target",
}
FORMATS = {"separator": "sep", **{name: name for name in ("decimal", "thousands", "encoding")}}
FORMAT = "name its format with --time-format"
# In this order: what is said in one phrase comes before the words of it.
PHRASES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (
        r"use pd\.to_datetime\(\.\.\., dayfirst=True\) or dayfirst=False",
        f"{FORMAT}, such as %d/%m/%Y",
    ),
    (r"convert it with pd\.to_datetime\(\.\.\., utc=True\)", "write all times in one way"),
    (r"convert it with pd\.to_datetime(\(.*?\))?(, or to integers with \.astype\(int\))?", FORMAT),
    (
        r"write quarters as in '2020Q1', and pd\.to_datetime\(.*\) makes them months",
        "--time-format %Y-%q reads quarters, %Y-%m months",
    ),
    (
        r"quarters of the form (\S+), or months; .* freq=(\d+) counts.*",
        r"quarters, or months; --time-format \1 reads quarters, %Y%m months, and --set freq=\2 "
        "counts them on as numbers",
    ),
    (r"FileFormat\(header=False\)", "--no-header"),
    (r"FileFormat\(header=True\)", "--header"),
    (r"FileFormat\((\w+)=(.*?)\)", lambda match: f"--{FORMATS[match[1]]} {match[2]}"),
    (r"FileFormat: (\w+) must", lambda match: f"--{FORMATS[match[1]]} must"),
    (r"pass it to the estimator, for example freq='h' or freq='D'", "state it: --set freq=h"),
    (
        r"dates of the form (\S+); \S.* makes them dates, and freq=(\d+) counts",
        r"dates of the form \1; --time-format \1 makes them dates, and --set freq=\2 counts",
    ),
    (r"with '(\w+)', which is nearest to most steps: .*", r"most steps are nearest to \1"),
    (r"\(expected freq='(.*?)'", r"(expected a step of \1"),
    (r"pass freq=$", "state it: --set freq=h"),
    (r"use tz_convert or tz_localize first", "write the times of all files in one zone"),
    (r"fill in .* and pass it as future=", "give them in a file with --future"),
    (r"tsar\.tidy\(df, (\w+)='(\w+)'\)", r"--\1 \2"),
    (r"make_future_frame\(\d+\) gives a frame .*", "it needs the columns of the data"),
    (r"name them by future_covariates= before fit", "name them with --set future_covariates=..."),
    (r"\bthe (frame|data) (has|have)\b", "the file has"),
    (r"\bthe frame\b", "the file"),
    (
        r"\b(id_column|time_column|time_format|target)(: | must be )",
        lambda match: OPTIONS[match[1]] + match[2],
    ),
    (
        r"\b(?:by |pass )?(id_column|time_column|target|future)=(?!\S*,)('[^']*')?",
        lambda match: f"with {OPTIONS[match[1]]}",
    ),
    (r"\b(?:pass|set|use) (\w+)='([^']*)'", r"use --set \1=\2"),
    (r"\bgaps='(\w+)'", r"--gaps \1"),
    (r"; pass space=$", "; give one with --space, or [tune.space] of a recipe"),
    (r"; set windows=(\d+)", r"; give --windows \1"),
]


def for_command_line(error: TsarError | OSError) -> str:
    """Return the message of an error with options in the place of Python.

    Parameters
    ----------
    error : TsarError or OSError
        As the Python API raised it.

    Returns
    -------
    str
        One line, or several for faults of a file.
    """
    message = str(error)
    if not isinstance(error, TsarError):
        return message
    faults = error.faults if isinstance(error, DataError) else None
    if faults is not None:
        message = message.partition("\nhow to repair:")[0]
    for pattern, said in PHRASES:
        message = re.sub(pattern, said, message)
    if faults is None:
        return message
    step = faults.attrs.get("step")
    hint = [] if step is None else [f"    --set freq={step} reads the series that have it"]
    return "\n".join([message, *repairs(faults["kind"]), *hint])


def repairs(kinds: Iterable[str]) -> list[str]:
    """Return the lines that say how to repair faults of some kinds, none for other kinds."""
    present = set(kinds)
    lines = [f"  {REPAIRS[kind]}" for kind in REPAIRS if kind in present]
    return ["how to repair:", *lines] if lines else []


def parameters_of_unnamed(settings: Iterable[str]) -> dict[str, Any]:
    """Read settings where no model is named, and point to that where they are of another model.

    Parameters
    ----------
    settings : iterable of str
        ``"preset=medium"``.

    Raises
    ------
    ParameterError
        One of them is no parameter of the model that forecasts where none is named.
    """
    try:
        return parse_parameters(forecaster_class(UNNAMED), settings)
    except ParameterError as error:
        raise ParameterError(
            f"{error}; without --model it forecasts by {UNNAMED}: name the model that is meant"
        ) from None
