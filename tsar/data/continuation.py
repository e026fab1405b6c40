"""Series that go on: new rows after the ones that are held, without a gap and without an overlap.

Dimension letters: S series.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from tsar.data.covariates import CovariateRows
from tsar.data.matching import id_places
from tsar.data.panel import Panel
from tsar.exceptions import DataError

__all__ = ["check_adjoining", "continued"]

SHOWN = 10


def check_adjoining(panel: Panel, end: Panel) -> None:
    """Refuse rows that do not follow those of the same series.

    Parameters
    ----------
    panel : Panel
        New rows.
    end : Panel
        The rows that are held.

    Raises
    ------
    DataError
        Names the series with a gap or an overlap, and where each has to begin.
    """
    place = id_places(panel.ids, end.ids)
    first = end.axis.stamps_of(panel.first, panel.axis)
    expected = end.future_stamps(1)[:, 0]
    wrong = np.flatnonzero((place >= 0) & (first != expected[place]))
    if not len(wrong):
        return
    rows = []
    for series in wrong:
        owner = int(place[series])
        kind = "overlap" if first[series] <= end.last[owner] else "gap"
        began, needed = (end.axis.show(int(stamp)) for stamp in (first[series], expected[owner]))
        rows.append((panel.ids[int(series)], kind, began, needed))
    lines = [
        f"  {'the series' if name is None else f'id {name!r}'}: {kind}, begins at {began}, must "
        f"begin at {needed}"
        for name, kind, began, needed in rows[:SHOWN]
    ]
    lines += [f"  and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    faults = pd.DataFrame(rows, columns=["id", "kind", "first", "expected"])
    raise DataError(
        "\n".join(
            [
                f"new rows must follow the last ones of their series, {len(rows)} of "
                f"{panel.n_series} do not:",
                *lines,
                "how to repair: leave out the rows that are held already, add those that are "
                "missing (NaN where nothing was observed), or fit again",
            ]
        ),
        faults=faults,
    )


def continued(end: Panel, panel: Panel) -> Panel:
    """Return the rows that are held with new ones after them, and new series after the others.

    Parameters
    ----------
    end : Panel
        The rows that are held, covariates coded.
    panel : Panel
        New rows of some of the series, and of others; of the same variates in the same order,
        covariates coded, checked by :func:`check_adjoining`.

    Returns
    -------
    Panel
        In the form of the rows that were held.
    """
    place = id_places(panel.ids, end.ids)
    fresh = np.flatnonzero(place < 0)
    # Which series of the new rows goes on with each series, -1 where none does.
    source = np.full(end.n_series + len(fresh), -1)
    source[place[place >= 0]] = np.flatnonzero(place >= 0)
    source[end.n_series :] = fresh
    goes_on = source >= 0
    nothing = np.zeros(len(fresh), dtype=np.int64)
    before = np.concatenate([end.lengths, nothing])
    begins = np.concatenate([end.offsets[:-1], nothing])
    lengths = before + np.where(goes_on, panel.lengths[source], 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    row = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    later = len(end.values) + panel.offsets[source] - before
    taken = row + np.where(
        row < np.repeat(before, lengths), np.repeat(begins, lengths), np.repeat(later, lengths)
    )
    first, last = (end.axis.stamps_of(one, panel.axis) for one in (panel.first, panel.last))
    return replace(
        end,
        values=np.concatenate([end.values, panel.values])[taken],
        offsets=offsets,
        ids=_followed(end.ids, panel.ids[fresh]),
        first=np.concatenate([end.first, first[fresh]]),
        last=np.where(goes_on, last[source], np.concatenate([end.last, nothing])),
        moved=_moved(end, panel, source),
        covariates=_covariates(end, panel, taken, source),
    )


def _followed(ids: pd.Index, fresh: pd.Index) -> pd.Index:
    if not len(fresh):
        return ids
    dtype = ids.dtype if ids.dtype == fresh.dtype else object
    return pd.Index([*ids, *fresh], dtype=dtype, tupleize_cols=False, name=ids.name)


def _moved(end: Panel, panel: Panel, source: np.ndarray) -> np.ndarray | None:
    """Return how far a clock change moved the last stamps."""
    if end.moved is None and panel.moved is None:
        return None
    moved = np.zeros(len(source), dtype=np.int64)
    if end.moved is not None:
        moved[: end.n_series] = end.moved
    new = np.zeros(panel.n_series, dtype=np.int64) if panel.moved is None else panel.moved
    goes_on = source >= 0
    moved[goes_on] = end.axis.stamps_of(new, panel.axis)[source[goes_on]]
    return moved


def _covariates(
    end: Panel, panel: Panel, taken: np.ndarray, source: np.ndarray
) -> CovariateRows | None:
    if end.covariates is None or panel.covariates is None:
        return None
    rows = end.covariates.followed_by(panel.covariates).take(taken)
    static = np.empty((len(source), rows.static.shape[1]), dtype=rows.static.dtype)
    static[: end.n_series] = end.covariates.static
    static[source >= 0] = panel.covariates.static[source[source >= 0]]
    return replace(rows, static=static)
