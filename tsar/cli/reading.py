"""The rows of a file as the commands read them, and what is said of them."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tsar.batch.preparing import Preparation, Prepared, read_events
from tsar.batch.report import ENDED
from tsar.cli.advice import repairs
from tsar.cli.options import READING
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.forecasts import plain_label
from tsar.data.frames import ID, TARGET
from tsar.data.idcolumns import labels_of
from tsar.data.quarantine import all_bad, set_aside
from tsar.data.tables import TableFile

__all__ = ["preparation_options", "fit_to_read", "note", "read_data", "tell_reading"]

# Series that are left out, as many as are listed.
LISTED = 20


def preparation_options(params: Mapping[str, Any], roles: Roles, stated: FileFormat) -> Preparation:
    """Return what is done to the rows, by the options of a command."""
    options = {name: params[name] for name in (*READING, "on_error") if name in params}
    if options["events"] is not None:
        options["events"] = read_events(Path(options["events"]), roles.id_column, stated)
    return Preparation.of("tsar", **options)


def read_data(
    data: Path,
    roles: Roles,
    stated: FileFormat,
    params: Iterable[Mapping[str, Any]],
    preparation: Preparation,
    verbose: bool,
) -> tuple[pd.DataFrame, dict[str, Any], TableFile]:
    """Return the rows of a file, the parameters by which estimators read them, and the table."""
    used = {
        role: [name for name in columns if name not in preparation.names]
        for one in params
        for role, columns in _covariates(one).items()
    }
    roles = replace(roles, used={**roles.used, **used})
    frame, table = TableFile.look_at(data, roles, stated).with_columns().read()
    tell_reading(table.described() if verbose else "", table.roles.targets, table.unused)
    columns = {"time_column": table.roles.time_name, "id_column": roles.id_column}
    return table.prepared(frame), {**columns, "target": table.targets}, table


def fit_to_read(
    frame: pd.DataFrame, models: list[Any], preparation: Preparation
) -> tuple[pd.DataFrame, int]:
    """Make the rows of a file fit to be read by some models.

    Series that ``tsar forecast`` would set aside are, and are listed, unless one of them is to
    be an error.

    Returns
    -------
    frame : DataFrame
    n_bad : int
        How many series were set aside, those left out because they ended not counted.
    """
    readers = [one for one in models if "future_covariates" in one.get_params(deep=False)]
    for one in readers or models:
        preparation.let_read(one)
    first = models[0]
    ready = Prepared(frame, None)
    if preparation.changes_rows:
        ready = preparation.prepared(frame, first, int(first.horizon))
    note(ready.notes)
    id_column = first.id_column or (ID if ID in frame.columns else None)
    good, bad = ready.frame, ready.bad
    if id_column is not None and preparation.policies.on_error == "quarantine":

        def check(rows: Any) -> None:
            for model in models:
                model.read(rows, freq=model.freq)

        good, bad_here = set_aside(good, id_column, first.target or [TARGET], check)
        bad = bad | bad_here
    if bad and not len(good):
        raise all_bad(bad)
    n_series = 0 if id_column is None else labels_of(frame, id_column).nunique()
    return good, _tell_bad(bad, n_series)


def _tell_bad(bad: Mapping[Any, tuple[str, str]], n_series: int) -> int:
    """List series that are left out; return how many of them cannot be read."""
    broken = {name: why for name, why in bad.items() if why[0] != ENDED}
    for name, (_, reason) in bad.items():
        if name not in broken:
            print(f"Note: {plain_label(name)!r} is left out, {ENDED}: {reason}", file=sys.stderr)
    if broken:
        lines = [f"  {plain_label(name)!r}: {reason}" for name, (_, reason) in broken.items()]
        more = [f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
        remedies = repairs(kind for kind, _ in broken.values())
        title = f"Warning: {len(broken)} of {n_series} series cannot be read and are left out:"
        print("\n".join([title, *lines[:LISTED], *more, *remedies]), file=sys.stderr)
    return len(broken)


def tell_reading(said: str, target: Any, unused: list[Any]) -> None:
    """Say how files were read, and of columns that are left out although nobody said so."""
    if said:
        print(said, file=sys.stderr)
    if unused and not target:
        listed = ", ".join(map(repr, unused))
        print(
            f"Warning: not used: {listed}; name them with --target, or as covariates with --set",
            file=sys.stderr,
        )


def _covariates(params: Mapping[str, Any]) -> dict[str, list[str]]:
    roles = {name: params[name] for name in params if name.endswith("_covariates")}
    return {
        name: [columns] if isinstance(columns, str) else list(columns or ())
        for name, columns in roles.items()
    }


def note(notes: Any) -> None:
    """Say what was done to the rows of a file."""
    for (kind, handling), rows in notes.groupby(["kind", "handling"], sort=False):
        series, count = f"{len(rows)} series", rows["count"].sum()
        words = {
            "duplicate": f"{count} doubled rows of {series} (--duplicates {handling})",
            "gap": f"{count} missing rows of {series} (--gaps {handling})",
            "ended": f"{series} ended before the others (--ended {handling})",
            "trailing": f"{count} rows of {series} to forecast (--trailing future)",
        }
        print(f"Note: {words[kind]}", file=sys.stderr)
