"""What figures are made of: forecasts, and what backtests hold of one series."""

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsar.data.frames import read_rows
from tsar.data.idcolumns import key_columns
from tsar.data.timeaxis import TimeAxis, read_times
from tsar.evaluation.backtesting import BESIDE
from tsar.evaluation.measuring import Forecasts
from tsar.exceptions import DataError, ParameterError
from tsar.params.constraints import check_choice
from tsar.plot.drawing import placeable

__all__ = [
    "axis_of",
    "ReadForecast",
    "chosen_models",
    "chosen_one",
    "chosen_panels",
    "listed",
    "only_series",
    "names_of",
    "one_series",
    "one_tested",
    "read_forecast",
]

NAMES_SHOWN = 5


class ReadForecast(NamedTuple):
    """The forecast of one variate of one series, and whether steps were rolled forward.

    ``id`` is None where the data do not name their series.
    """

    id: Any
    name: Any
    times: pd.Index
    point: np.ndarray
    intervals: dict[float, tuple[np.ndarray, np.ndarray]]
    rolled: np.ndarray


def names_of(frame: Any, id_column: Any = None, time_column: Any = None) -> dict[str, Any]:
    """Return the names of columns, as they were given or as a forecast or backtest knows them."""
    reading = getattr(frame, "attrs", {}).get("reading", {})
    stated = {"id_column": id_column, "time_column": time_column}
    return {name: reading.get(name) if value is None else value for name, value in stated.items()}


def read_forecast(
    owner: str,
    predicted: Any,
    id: Any,
    variate: Any,
    columns: dict[str, Any],
    history: Any = None,
) -> ReadForecast:
    """Read what ``predict`` returned; how the times of a history are written says how its are."""
    if isinstance(predicted, pd.Series):
        like = axis_of(history, predicted.name, columns)
        label, content = _labelled_series(owner, predicted, id, None, columns, like)
        steps = content.iloc[:, 0]
        after = predicted.attrs.get("extrapolated_after")
        rolled = np.arange(len(steps)) >= (len(steps) if after is None else after)
        name = "value" if predicted.name is None else predicted.name
        return ReadForecast(label, name, steps.index, steps.to_numpy(), {}, rolled)
    held = _held(owner, predicted, columns)
    name = chosen_one(owner, "variate", _variates(held), variate)
    beside = {
        label: f"point_{str(label).removeprefix(f'{name}_')}"
        for label in held
        if (match := BESIDE.fullmatch(str(label))) and match[1] == str(name)
    }
    like = axis_of(history, name, columns)
    label, whole = _labelled_series(owner, predicted, id, [name, *beside], columns, like)
    # Under a name that no column of a backtest has.
    forecasts = Forecasts.of(whole.rename(columns={name: "point", **beside}))["point"]
    rolled = np.zeros(len(whole), dtype=bool)
    if _marks_rolled(predicted):
        # The same steps of every series.
        rolled = predicted["extrapolated"].to_numpy(dtype=bool)[: len(whole)]
    return ReadForecast(label, name, whole.index, forecasts.point, forecasts.intervals, rolled)


def chosen_panels(
    owner: str, predicted: Any, ids: Any, variates: Any, n: int, columns: dict[str, Any]
) -> tuple[list[tuple[Any, Any]], int]:
    """Return the id and the variate of each panel, ``n`` at most, and how many there are."""
    if isinstance(predicted, pd.Series):
        names = [predicted.name]
        read = read_rows(predicted, target=None, **columns)
    else:
        names = _several(owner, "variate", _variates(_held(owner, predicted, columns)), variates)
        read = read_rows(predicted, target=names, **columns)
    if not len(read.ids) or not names:
        raise DataError(f"{owner}: the forecast is empty; pass what predict returned")
    chosen = _several(owner, "ids", list(read.ids), ids)
    panels = list(itertools.islice(itertools.product(chosen, names), n))
    return panels, len(read.ids) * len(names)


def only_series(
    owner: str, frame: Any, ids: list[Any], target: Any, columns: dict[str, Any]
) -> Any:
    """Return the rows of a frame that belong to some of its series."""
    rows = read_rows(frame, target=None if isinstance(frame, pd.Series) else target, **columns)
    if not rows.form.has_ids:
        return frame
    for id in ids:
        chosen_one(owner, "the id of a forecast", list(rows.ids), id)
    return frame[np.isin(rows.codes, rows.ids.get_indexer(pd.Index(ids, tupleize_cols=False)))]


def _several(owner: str, word: str, held: list[Any], names: Any) -> list[Any]:
    """Return all that are asked for, or all there are."""
    if names is None:
        return held
    names = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if not names:
        raise ParameterError(f"{owner}: {word} must name one at least, got {names!r}")
    return [chosen_one(owner, word, held, one) for one in names]


def _held(owner: str, predicted: Any, columns: dict[str, Any]) -> list[Any]:
    """Return the columns of a forecast that hold numbers of it."""
    if not isinstance(predicted, pd.DataFrame):
        raise DataError(
            f"{owner}: the forecast must be what predict returned, got {type(predicted).__name__}"
        )
    ids = key_columns(columns["id_column"])
    others = {*ids, columns["time_column"], "unique_id", "ds", "status"}
    if _marks_rolled(predicted):
        others.add("extrapolated")
    return [name for name in predicted.columns if name not in others]


def _marks_rolled(predicted: pd.DataFrame) -> bool:
    """Whether a column says which steps are beyond the horizon, rather than is a variate."""
    column = predicted.get("extrapolated")
    return column is not None and pd.api.types.is_bool_dtype(column.dtype)


def _variates(held: list[Any]) -> list[Any]:
    return [one for one in held if not _is_beside(one, held)]


def _is_beside(name: Any, held: list[Any]) -> bool:
    """Whether a column is a quantile or the end of an interval of another one."""
    match = BESIDE.fullmatch(str(name))
    return match is not None and match[1] in map(str, held)


def axis_of(history: Any, name: Any, columns: dict[str, Any]) -> TimeAxis | None:
    """Return how the times of a history are written, None where there is none."""
    if history is None:
        return None
    target = None if isinstance(history, pd.Series) else name
    return read_times(read_rows(history, target=target, **columns).times).axis


def one_series(
    owner: str,
    frame: Any,
    id: Any,
    target: Any,
    columns: dict[str, Any],
    like: TimeAxis | None = None,
) -> pd.DataFrame:
    """Return the rows of one series by time."""
    return _labelled_series(owner, frame, id, target, columns, like)[1]


def _labelled_series(
    owner: str,
    frame: Any,
    id: Any,
    target: Any,
    columns: dict[str, Any],
    like: TimeAxis | None = None,
) -> tuple[Any, pd.DataFrame]:
    """Return the id of one series, None where the data name none, and its rows by time."""
    rows = read_rows(frame, target=target, **columns)
    if rows.form.squeeze and rows.form.kind == "wide":
        chosen = rows.ids[0]
    else:
        chosen = chosen_one(owner, "id", list(rows.ids), id)
    inside = rows.codes == rows.ids.get_loc(chosen)
    content = pd.DataFrame(rows.values[inside], columns=rows.variates)
    # What a few rows leave open, all of them may say.
    content = content.set_index(placeable(rows.times, like)[inside]).sort_index()
    return chosen if rows.form.has_ids else None, content


def one_tested(
    owner: str, tested: pd.DataFrame, id: Any, variate: Any, like: TimeAxis | None = None
) -> pd.DataFrame:
    """Return the rows of a backtest that belong to one variate of one series."""
    lacking = {"id", "cutoff", "time", "step", "y"} - set(getattr(tested, "columns", ()))
    if lacking:
        raise DataError(
            f"{owner}: tested must be a frame of tsar.evaluation.backtest, it has no column "
            f"{sorted(lacking)[0]!r}"
        )
    times = pd.concat([tested["cutoff"], tested["time"]])
    placed = placeable(pd.Index(times, dtype=times.dtype), like)
    tested = tested.assign(cutoff=placed[: len(tested)], time=placed[len(tested) :])
    # Ids may be tuples, which pandas takes for several values.
    codes, labels = pd.factorize(tested["id"], use_na_sentinel=False)
    held = list(labels)
    rows = tested[codes == held.index(chosen_one(owner, "id", held, id))]
    if "variate" in rows:
        one = chosen_one(owner, "variate", list(rows["variate"].unique()), variate)
        rows = rows[rows["variate"] == one]
    return rows.reset_index(drop=True)


def chosen_models(owner: str, rows: pd.DataFrame, model: Any) -> dict[str, Forecasts]:
    forecasts = Forecasts.of(rows)
    if model is None:
        return forecasts
    names = [model] if isinstance(model, str) else list(model)
    for name in names:
        check_choice(owner, "model", name, forecasts)
    return {name: forecasts[name] for name in names}


def chosen_one(owner: str, word: str, held: list[Any], name: Any) -> Any:
    """Return what is asked for, or the only one there is."""
    if name is None and len(held) == 1:
        return held[0]
    if name is None or name not in held:
        raise ParameterError(f"{owner}: {word} must be one of {listed(held)}, got {name!r}")
    return name


def listed(names: Any) -> str:
    shown = [repr(name) for name in names]
    return ", ".join([*shown[:NAMES_SHOWN], "..."] if len(shown) > NAMES_SHOWN else shown)
