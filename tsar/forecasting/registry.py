"""Forecasters by name.

The names are those of ``tsar.forecasting.__all__``, and of forecasters that other packages
bring: a model added there can be named on the command line and in a recipe without another
entry anywhere.
"""

from typing import Any

from tsar import forecasting
from tsar.forecasting.base import Forecaster
from tsar.params.constraints import check_choice
from tsar.params.registry import Registry, check_subclass_of

__all__ = ["FORECASTERS", "forecaster_class", "forecaster_names"]


FORECASTERS: Registry[type[Forecaster]] = Registry(
    "forecaster",
    "tsar.forecasters",
    {name: getattr(forecasting, name) for name in forecasting.__all__},
    check_subclass_of(Forecaster, "a forecaster", "tsar"),
)


def forecaster_names() -> list[str]:
    """List the forecasters by name."""
    return sorted(FORECASTERS)


def forecaster_class(name: str) -> type[Any]:
    """Return the class of a forecaster.

    Parameters
    ----------
    name : str
        One of :func:`forecaster_names`.

    Raises
    ------
    ParameterError
        If there is no such forecaster; it suggests the nearest name.
    """
    check_choice("tsar", "model", name, forecaster_names())
    return FORECASTERS[name]
