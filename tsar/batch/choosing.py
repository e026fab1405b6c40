"""The model that forecasts a file, and what can be asked of it."""

import numbers
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sklearn.base import clone

from tsar.batch.report import STATUS
from tsar.data.fileformat import Roles
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.probabilistic.output_request import check_asked, read_request
from tsar.forecasting.registry import FORECASTERS, forecaster_class
from tsar.params.arguments import check_horizon, check_percentages
from tsar.persistence import load
from tsar.remote import address_in

__all__ = [
    "UNNAMED",
    "check_counts",
    "check_no_status",
    "check_shard",
    "check_wanted",
    "chosen_model",
    "is_fitted",
    "listed",
    "used_columns",
]


# What forecasts where no model is named, and how.
UNNAMED, UNNAMED_PARAMETERS = "AutoForecaster", {"preset": "fast"}


def is_fitted(model: Forecaster) -> bool:
    return model.__sklearn_is_fitted__()


def chosen_model(
    model: Any, params: Any, horizon: Any, id_column: Any, time_column: Any, target: Any
) -> Forecaster:
    """Return the model, ready to be fitted or fitted already."""
    own = {"id_column": id_column, "time_column": time_column, "target": target}
    own = {name: value for name, value in own.items() if value is not None}
    if model is None:
        model, params = UNNAMED, {**UNNAMED_PARAMETERS, **(params or {})}
    if isinstance(model, Forecaster) and not is_fitted(model):
        chosen: Forecaster = clone(model).set_params(**own)
    elif isinstance(model, Forecaster):
        chosen = model
    elif isinstance(model, str) and model in FORECASTERS:
        chosen = forecaster_class(model)(**own)
        if horizon is not None:
            chosen.set_params(horizon=check_horizon("batch", horizon))
        return chosen.set_params(**(params or {}))
    elif not isinstance(model, str | os.PathLike):
        raise ParameterError(
            f"batch: model must be a name, a folder or a forecaster, got {model!r}"
        )
    elif address_in(model) is not None or Path(model).is_dir():
        chosen = load(model)
    else:
        # Names with a suggestion, for what is neither a model nor a folder.
        forecaster_class(str(model))
    if params:
        raise ParameterError(
            f"batch: params are for a model that is named, got {sorted(params)} beside a "
            f"{type(chosen).__name__}; set them in it before it is fitted"
        )
    if is_fitted(chosen):
        read = chosen.as_fitted
        # A list of one column is that column.
        fitted = {"id_column": Roles(read.id_column).id_column}
        for name, value in own.items():
            stated = fitted.get(name, getattr(read, name))
            if stated != value:
                raise ParameterError(
                    f"batch: {name} must be {stated!r} as the {read.name} was fitted, got "
                    f"{value!r}; leave it out"
                )
    return chosen


def check_wanted(model: Forecaster, horizon: Any, quantiles: Any, level: Any) -> None:
    """Find out before training what predict would refuse."""
    if horizon is not None:
        check_horizon("batch", horizon)
    check_percentages("batch", level)
    if is_fitted(model):
        try:
            read_request(model, quantiles, level, None)
        except ParameterError as error:
            if level is None or model.calibration_ is not None:
                raise
            raise ParameterError(
                f"{error}, then save it again; a model that is not fitted is calibrated here"
            ) from None
        return
    model.check()
    # Intervals that it does not have come from a calibration.
    check_asked(model.name, model.expected_predictive, None, quantiles, None, None)


def check_shard(shard: Any, model: Forecaster) -> None:
    """Find out whether a part of the series is named, and all parts get the same model."""
    pair = shard if isinstance(shard, tuple | list) and len(shard) == 2 else (0, 0)
    if not all(type(number) is int for number in pair) or not 1 <= pair[0] <= pair[1]:
        raise ParameterError(
            f"batch: shard must be a pair of integers such as (2, 4), the second part of four, "
            f"got {shard!r}"
        )
    if is_fitted(model):
        return
    for name, value in model.get_params().items():
        if name.split("__")[-1] == "random_state" and value is None:
            raise ParameterError(
                f"batch: shard needs a model that is the same for every part, but {name} is None; "
                f"set it to a number, or pass a saved model"
            )


def check_counts(**counts: Any) -> None:
    """Raise a ParameterError unless each is a number of rows, or None."""
    for name, value in counts.items():
        wrong = isinstance(value, bool) or not isinstance(value, numbers.Real)
        if value is not None and (wrong or not value >= 1 or value % 1):
            raise ParameterError(f"batch: {name} must be an integer in [1, inf), got {value!r}")


def check_no_status(names: Iterable[Any]) -> None:
    """Raise a DataError where there is no room for the column of the status."""
    if STATUS in names:
        raise DataError(
            f"{STATUS!r} is the column that says what became of each series, and cannot be an id, "
            f"the time or a target; rename it in the data"
        )


def used_columns(model: Forecaster, added: list[str]) -> dict[str, list[Any]]:
    """Return the columns a model reads beside ids and times, as far as they are named.

    Those that are ``added`` to the file need not be in it.
    """
    roles = {
        role: [name for name in names if name not in added]
        for role, names in model.roles.items()
        if role != "calendar"
    }
    return {"target": listed(model.target), **roles}


def listed(names: Any) -> list[Any]:
    if names is None:
        return []
    return [names] if isinstance(names, str | int) else list(names)
