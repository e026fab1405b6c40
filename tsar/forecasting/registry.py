"""Forecasters by name.

The names are those of ``tsar.forecasting.__all__``: a model added there can be named on
the command line and in a recipe without another entry anywhere.
"""

from typing import Any

from tsar import forecasting
from tsar.params.constraints import check_choice

__all__ = ["forecaster_class", "forecaster_names"]


def forecaster_names() -> list[str]:
    """List the forecasters by name."""
    return sorted(forecasting.__all__)


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
    cls: type[Any] = getattr(forecasting, name)
    return cls
