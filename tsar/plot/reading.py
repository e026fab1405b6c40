"""What figures are made of: forecasts, and what backtests hold of one series."""

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
    "listed",
    "names_of",
    "one_series",
    "one_tested",
    "read_forecast",
]

NAMES_SHOWN = 5


class ReadForecast(NamedTuple):
    """The forecast of one variate of one series, and whether steps were rolled forward."""

    name: Any
    times: pd.Index
    point: np.ndarray
    intervals: dict[float, tuple[np.ndarray, np.ndarray]]
    rolled: np.ndarray


def names_of(frame: Any, id_column: Any = None, time_column: Any = None) -> dict[str, Any]:
    """Return the names of columns, as they were given or as a forecast or backtest knows them."""
    known = getattr(frame, "attrs", {}).get("reading", {})
    given = {"id_column": id_column, "time_column": time_column}
    return {name: known.get(name) if value is None else value for name, value in given.items()}


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
        steps = one_series(owner, predicted, id, None, columns, like).iloc[:, 0]
        after = predicted.attrs.get("extrapolated_after")
        rolled = np.arange(len(steps)) >= (len(steps) if after is None else after)
        name = "value" if predicted.name is None else predicted.name
        return ReadForecast(name, steps.index, steps.to_numpy(), {}, rolled)
    if not isinstance(predicted, pd.DataFrame):
        raise DataError(
            f"{owner}: predicted must be what predict returned, got {type(predicted).__name__}"
        )
    ids = key_columns(columns["id_column"])
    others = {*ids, columns["time_column"], "unique_id", "ds", "extrapolated", "status"}
    held = [name for name in predicted.columns if name not in others]
    name = chosen_one(owner, "variate", [one for one in held if not _is_beside(one, held)], variate)
    beside = {
        label: f"point_{str(label).removeprefix(f'{name}_')}"
        for label in held
        if (found := BESIDE.fullmatch(str(label))) and found[1] == str(name)
    }
    like = axis_of(history, name, columns)
    whole = one_series(owner, predicted, id, [name, *beside], columns, like)
    # Under a name that no column of a backtest has.
    forecasts = Forecasts.of(whole.rename(columns={name: "point", **beside}))["point"]
    rolled = np.zeros(len(whole), dtype=bool)
    if "extrapolated" in predicted.columns:
        # The same steps of every series.
        rolled = predicted["extrapolated"].to_numpy(dtype=bool)[: len(whole)]
    return ReadForecast(name, whole.index, forecasts.point, forecasts.intervals, rolled)


def _is_beside(name: Any, held: list[Any]) -> bool:
    """Whether a column is a quantile or the end of an interval of another one."""
    found = BESIDE.fullmatch(str(name))
    return found is not None and found[1] in map(str, held)


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
    rows = read_rows(frame, target=target, **columns)
    if rows.form.squeeze and rows.form.kind == "wide":
        chosen = rows.ids[0]
    else:
        chosen = chosen_one(owner, "id", list(rows.ids), id)
    inside = rows.codes == rows.ids.get_loc(chosen)
    content = pd.DataFrame(rows.values[inside], columns=rows.variates)
    # What a few rows leave open, all of them may say.
    return content.set_index(placeable(rows.times, like)[inside]).sort_index()


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
    found = Forecasts.of(rows)
    if model is None:
        return found
    names = [model] if isinstance(model, str) else list(model)
    for name in names:
        check_choice(owner, "model", name, found)
    return {name: found[name] for name in names}


def chosen_one(owner: str, word: str, held: list[Any], asked: Any) -> Any:
    """Return what is asked for, or the only one there is."""
    if asked is None and len(held) == 1:
        return held[0]
    if asked is None or asked not in held:
        raise ParameterError(f"{owner}: {word} must be one of {listed(held)}, got {asked!r}")
    return asked


def listed(names: Any) -> str:
    shown = [repr(name) for name in names]
    return ", ".join([*shown[:NAMES_SHOWN], "..."] if len(shown) > NAMES_SHOWN else shown)
