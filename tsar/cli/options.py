"""The options that ``tsar forecast``, ``backtest`` and ``tune`` have in common."""

from pathlib import Path
from typing import Annotated

import typer

from tsar.cli.file_recipes import load_file_recipe
from tsar.exceptions import ParameterError
from tsar.registration import load_plugin

__all__ = [
    "BlockRows",
    "Data",
    "Decimal",
    "Duplicates",
    "Ended",
    "Encoding",
    "EndedAfter",
    "Engine",
    "Events",
    "Gaps",
    "Header",
    "Holidays",
    "Horizon",
    "IdColumn",
    "Latex",
    "Levels",
    "OnError",
    "Plugins",
    "READING",
    "RecipeFile",
    "Separator",
    "Settings",
    "Shard",
    "Targets",
    "Thousands",
    "TimeColumn",
    "TimeFormat",
    "Trailing",
    "Verbose",
    "parse_shard",
]


def _read_recipe(ctx: typer.Context, path: Path | None) -> Path | None:
    """Let a recipe say what options do not; it is checked before they are read."""
    if path is not None:
        ctx.obj = load_file_recipe(path)
        ctx.default_map = ctx.obj.options(ctx.info_name)
    return path


def _load_plugins(paths: list[Path] | None) -> list[Path]:
    """Make what is defined in files known by name, before names are read."""
    # An empty list and no list are the same; the oldest typer asks how long it is.
    paths = paths or []
    for path in paths:
        load_plugin(path)
    return paths


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        is_eager=True,
        callback=_load_plugins,
        help="Python file with a model, mixer or loss of your own; repeatable, before --recipe.",
    ),
]
Latex = Annotated[bool, typer.Option("--latex", help="Print a table for LaTeX (booktabs).")]
# What forecast, backtest and tune have in common.
Data = Annotated[
    Path | None, typer.Argument(help="CSV, Parquet or .xlsx file, one row per time step.")
]
Horizon = Annotated[int | None, typer.Option(help="Steps to forecast.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        is_eager=True,
        callback=_read_recipe,
        help="TOML file that says all of this; options go before what it says.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", help="Column to forecast; repeatable. Default: every other column, with --id y."
    ),
]
TimeColumn = Annotated[
    list[str] | None,
    typer.Option(
        "--time",
        help="Column of the time; found if left out. Repeatable, if date and clock are two.",
    ),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(help="How times are written, such as %d/%m/%Y; found if left out."),
]
Separator = Annotated[
    str | None,
    typer.Option("--sep", help="Between cells, such as ; or tab; found if left out."),
]
Decimal = Annotated[str | None, typer.Option(help="Decimal mark, . or ,; found if left out.")]
Thousands = Annotated[
    str | None, typer.Option(help="What groups digits, such as . in 1.050; found if left out.")
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        show_default=False,
        help="Whether the first row holds names; else column_1, column_2, ... are.",
    ),
]
Encoding = Annotated[
    str | None, typer.Option(help="Of a CSV file, such as cp1252; UTF-8 if left out.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say how the files are read.")]
IdColumn = Annotated[
    list[str] | None,
    typer.Option(
        "--id",
        help="Column of the series id, if there are several; repeatable, several are one id.",
    ),
]
Levels = Annotated[
    list[float] | None,
    typer.Option(help="Interval that is to cover so many percent of values; repeatable."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the model; repeatable."),
]
Duplicates = Annotated[
    str,
    typer.Option(metavar="POLICY", help="Doubled rows: raise, sum, mean, first or last."),
]
Gaps = Annotated[
    str | None,
    typer.Option(metavar="POLICY", help="Missing rows: raise, mask (missing values) or zero."),
]
Ended = Annotated[
    str,
    typer.Option(metavar="POLICY", help="Series that ended: forecast, skip or extend by --gaps."),
]
EndedAfter = Annotated[
    int, typer.Option(min=1, help="Last steps a series must lack to have ended.")
]
Trailing = Annotated[
    str,
    typer.Option(
        metavar="POLICY",
        help="Rows at the end without a target: keep, or future, to be forecast.",
    ),
]
Events = Annotated[
    Path | None,
    typer.Option(help="File of events: date, and perhaps end, name and the id."),
]
Holidays = Annotated[
    str | None,
    typer.Option("--country-holidays", help="Country whose holidays are known, such as DE."),
]
OnError = Annotated[
    str, typer.Option(metavar="POLICY", help="Broken series: raise, or quarantine to leave out.")
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Forecast the I-th of N parts of the series.")
]
Engine = Annotated[
    str,
    typer.Option(help="What shares the blocks of series: local (this process), ray, dask, spark."),
]
BlockRows = Annotated[int, typer.Option(help="Rows that are read and forecast at a time.")]
# The options of these, by their names in Python as well.
READING = ("duplicates", "gaps", "ended", "ended_after", "trailing", "events", "country_holidays")


def parse_shard(text: str) -> tuple[int, int]:
    """Return which part of how many is meant."""
    number, _, n_shards = text.partition("/")
    if not (number.strip().isdecimal() and n_shards.strip().isdecimal()):
        raise ParameterError(f"--shard must be such as 2/4, the second part of four, got {text!r}")
    return int(number), int(n_shards)
