"""Forecasters that read covariates of every role, named by their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tsar.exceptions import ParameterError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.members import ROLES
from tsar.forecasting.window_forecaster import WindowForecaster
from tsar.params.arguments import column_labels

__all__ = ["CovariateColumns", "FutureCovariates", "NamedCovariates"]


@dataclass(kw_only=True, eq=False, repr=False)
class FutureCovariates(Forecaster):
    """A forecaster with columns that explain the others, step by step.

    Parameters
    ----------
    future_covariates : label, sequence or None, default None
        Columns known over the horizon as well; ``predict`` takes them as ``future=``.
    """

    parameter_group: ClassVar[str] = "model"
    other_groups: ClassVar[Mapping[str, str]] = {}

    future_covariates: str | int | Sequence[str | int] | None = None

    @property
    def roles(self) -> dict[str, Any]:
        return {"future_covariates": column_labels(self.future_covariates)}


@dataclass(kw_only=True, eq=False, repr=False)
class NamedCovariates(Forecaster):
    """A forecaster with columns that help to forecast the others.

    Parameters
    ----------
    past_covariates, future_covariates, static_covariates : label, sequence or None
        Columns that help to forecast the others: known up to the forecast origin, known
        over the horizon as well (``predict`` takes them as ``future=``), or constant in
        each series. Numbers are standardised, anything else is a category.
    """

    parameter_group: ClassVar[str] = "data"
    other_groups: ClassVar[Mapping[str, str]] = {}

    past_covariates: str | int | Sequence[str | int] | None = None
    future_covariates: str | int | Sequence[str | int] | None = None
    static_covariates: str | int | Sequence[str | int] | None = None

    @property
    def roles(self) -> dict[str, Any]:
        return {role: column_labels(getattr(self, role)) for role in ROLES}

    def _check_consistency(self) -> None:
        super()._check_consistency()
        declared: dict[Any, str] = {}
        for role in ROLES:
            for name in self.roles[role]:
                if name in declared:
                    raise ParameterError(
                        f"{self.name}: {role} must have names of their own, got {name!r}, which "
                        f"is among {declared[name]}; name it once"
                    )
                declared[name] = role


@dataclass(kw_only=True, eq=False, repr=False)
class CovariateColumns(NamedCovariates, WindowForecaster):
    """A forecaster of windows with such columns, and the calendar among them.

    Parameters
    ----------
    calendar_features : bool, default False
        Whether the hour, weekday, day of month and day of year of the local clock are
        known covariates as well.
    """

    parameter_group: ClassVar[str] = "data"
    other_groups: ClassVar[Mapping[str, str]] = {}

    calendar_features: bool = False

    # Which of tsar.data.calendar.CALENDARS it reads.
    _clock: ClassVar[str] = "features"

    @property
    def roles(self) -> dict[str, Any]:
        return {**super().roles, "calendar": self._clock if self.calendar_features else None}
