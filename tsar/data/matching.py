"""Whether new data are of the kind that was fitted, and panels made to match."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.panel import Panel
from tsar.data.timeaxis import TimeAxis, same_zone
from tsar.exceptions import DataError

__all__ = [
    "check_axis",
    "check_counts",
    "check_variates",
    "id_places",
    "in_order",
    "of_series",
    "without_end",
]

NAMES_SHOWN = 10


def id_places(ids: pd.Index, among: pd.Index) -> np.ndarray:
    """Return where ids are among others: by value, else by the way they are written.

    Whether the ids of a file are read as 1 or as "1" depends on its other ids, and says
    nothing about the series.

    Parameters
    ----------
    ids : Index of shape (n,)
        Tuples where several columns are the id.
    among : Index of shape (S,)
        Distinct.

    Returns
    -------
    int64 array of shape (n,)
        -1 where there is none.
    """
    places = np.asarray(among.get_indexer(ids))
    unknown = places < 0
    if not unknown.any() or not _differ_in_writing(ids, among):
        return places
    written = _written_index(among)
    if written.has_duplicates:
        # Somebody tells 1 from "1".
        return places
    places[unknown] = written.get_indexer(_written_index(ids[unknown]))
    return places


def _differ_in_writing(ids: pd.Index, among: pd.Index) -> bool:
    """Return whether ids, or a part of them, are integers on one side and text on the other."""
    parts = zip(_parts(ids), _parts(among), strict=False)
    return any(_kinds(one) | _kinds(other) == {"integer", "text"} for one, other in parts)


def _parts(ids: pd.Index) -> list[pd.Index]:
    """Return the columns of ids that are tuples, else the ids."""
    if pd.api.types.infer_dtype(ids, skipna=True) != "mixed" or not isinstance(ids[0], tuple):
        return [ids]
    return [pd.Index(part, dtype=object) for part in zip(*ids, strict=True)]


def _kinds(ids: pd.Index) -> set[str]:
    held = pd.api.types.infer_dtype(ids, skipna=True)
    kinds = {"integer": {"integer"}, "string": {"text"}, "mixed-integer": {"integer", "text"}}
    return kinds.get(held, {held})


def _written_index(ids: pd.Index) -> pd.Index:
    return pd.Index([_written(label) for label in ids], dtype=object, tupleize_cols=False)


def _written(label: Any) -> Any:
    if isinstance(label, tuple):
        return tuple(map(_written, label))
    whole = isinstance(label, int | np.integer) and not isinstance(label, bool)
    return str(label) if whole else label


def check_axis(word: str, axis: TimeAxis, fitted: TimeAxis) -> None:
    """Refuse times of another kind, zone or period than those that were fitted.

    Parameters
    ----------
    word : str
        What to call the times.
    axis, fitted : TimeAxis

    Raises
    ------
    DataError
        Names both, and the repair.
    """
    if axis.kind != fitted.kind or not same_zone(axis.tz, fitted.tz):
        raise DataError(
            f"{word} must be like the fitted one ({fitted.kind}, time zone {fitted.tz}), got "
            f"{axis.kind}, time zone {axis.tz}; use tz_convert or tz_localize first"
        )
    if axis.kind == "period" and axis.dtype != fitted.dtype:
        raise DataError(
            f"{word}: the periods must be {fitted.dtype} as fitted, got {axis.dtype}; use asfreq"
        )


def check_variates(panel: Panel, fitted: Panel, *, others_allowed: bool) -> None:
    """Refuse variates other than the fitted ones.

    Parameters
    ----------
    panel, fitted : Panel
    others_allowed : bool
        Whether the caller could allow others.

    Raises
    ------
    DataError
        Names what is missing and what is new.
    """
    if set(panel.variates) == set(fitted.variates):
        return
    # The variate of a Series has a name of ours, which would explain nothing.
    first = panel.variates[0]
    if fitted.form.squeeze and not panel.form.squeeze:
        raise DataError(
            f"the model was fitted on a Series, got a frame with the columns "
            f"{_listed(panel.variates)}; pass one of them, df[{first!r}]"
        )
    if panel.form.squeeze and not fitted.form.squeeze:
        name = fitted.variates[0]
        repair = f"pass series.to_frame({name!r})" if fitted.n_variates == 1 else "pass them all"
        raise DataError(
            f"the model was fitted on a frame with the columns {_listed(fitted.variates)}, got a "
            f"Series; {repair}"
        )
    missing = sorted(map(str, set(fitted.variates) - set(panel.variates)))
    new = sorted(map(str, set(panel.variates) - set(fitted.variates)))
    repair = "rename them, or pass allow_new_variates=True"
    raise DataError(
        f"the variates differ from the fitted ones: missing {missing}, not fitted {new}; "
        f"{repair if others_allowed else 'pass the fitted ones'}"
    )


def _listed(names: Any) -> str:
    shown = list(map(repr, names[:NAMES_SHOWN]))
    return ", ".join([*shown, "..."] if len(names) > NAMES_SHOWN else shown)


def in_order(panel: Panel, variates: pd.Index) -> Panel:
    """Return the panel with its variates in another order, if it holds exactly these."""
    if panel.variates.equals(variates):
        return panel
    place = panel.variates.get_indexer(variates)
    if (place < 0).any() or len(place) < panel.n_variates:
        return panel
    form = replace(panel.form, dtypes=tuple(panel.form.dtypes[column] for column in place))
    ordered = panel.with_values(panel.values[:, place], panel.variates[place])
    return replace(ordered, form=form)


def without_end(panel: Panel, rows: np.ndarray) -> Panel:
    """Return a panel without the last rows of each series.

    Parameters
    ----------
    panel : Panel
        Its covariates not yet coded.
    rows : int64 array of shape (S,)
        How many; fewer than there are.

    Returns
    -------
    Panel
    """
    lengths = panel.lengths - rows
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    keep = np.repeat(panel.offsets[:-1] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return replace(
        panel,
        values=panel.values[keep],
        offsets=offsets,
        last=panel.stamps()[panel.offsets[:-1] + lengths - 1],
        moved=None,
        past={name: column[keep] for name, column in panel.past.items()},
        future={name: column[keep] for name, column in panel.future.items()},
        calendar=None if panel.calendar is None else panel.calendar[keep],
        weight=None if panel.weight is None else panel.weight[keep],
    )


def of_series(panel: Panel, places: np.ndarray) -> Panel:
    """Return a panel of some of the series.

    Parameters
    ----------
    panel : Panel
        Its covariates not yet coded.
    places : int64 array of shape (n,)
        Which of them, increasing.

    Returns
    -------
    Panel
    """
    chosen = np.zeros(panel.n_series, dtype=bool)
    chosen[places] = True
    keep = np.repeat(chosen, panel.lengths)
    return replace(
        panel,
        values=panel.values[keep],
        offsets=np.concatenate([[0], np.cumsum(panel.lengths[places])]),
        ids=panel.ids[places],
        first=panel.first[places],
        last=panel.last[places],
        moved=None if panel.moved is None else panel.moved[places],
        past={name: column[keep] for name, column in panel.past.items()},
        future={name: column[keep] for name, column in panel.future.items()},
        static={name: column[places] for name, column in panel.static.items()},
        calendar=None if panel.calendar is None else panel.calendar[keep],
        weight=None if panel.weight is None else panel.weight[keep],
    )


def check_counts(panel: Panel, loss: str) -> None:
    """Raise a :class:`DataError` where a panel holds something else than counts."""
    with np.errstate(invalid="ignore"):
        wrong = (panel.values < 0) | (panel.values != np.floor(panel.values))
    wrong &= ~np.isnan(panel.values)
    if wrong.any():
        row, place = (int(places[0]) for places in wrong.nonzero())
        series = panel.ids[int(np.searchsorted(panel.offsets, row, side="right")) - 1]
        of_series = "" if series is None else f" of id {series!r}"
        raise DataError(
            f"loss={loss!r} needs counts, whole numbers from 0 on, got "
            f"{panel.values[row, place]:g} in column {panel.variates[place]!r}{of_series}, "
            f"and {int(wrong.sum()) - 1} others that are none; choose another loss, such as "
            f"'gaussian' with output_range=(0, None)"
        )
