"""The rows of a file made fit to be read, with the events that are known ahead."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from tsar.data.events import add_events, event_names
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.frames import ID
from tsar.data.frequency import Frequency
from tsar.data.future import make_future_frame
from tsar.data.longtable import Columns, End
from tsar.data.panel import Panel
from tsar.data.quarantine import Bad
from tsar.data.tables import parse_times, read_table
from tsar.data.tidying import NOTES, Policies, tidied
from tsar.data.timeaxis import TimeAxis
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.base import Forecaster
from tsar.params.arguments import column_labels

__all__ = ["Preparation", "Prepared", "read_events"]


def read_events(path: Path, id_column: Any, stated: FileFormat) -> pd.DataFrame:
    """Read a file of events, which is written as the data are.

    Parameters
    ----------
    path : pathlib.Path
    id_column : str or None
        That of the data; None is ``unique_id``.
    stated : FileFormat
        How the data are written. Days that are not written in the format of their times are
        read by themselves: those of hourly data have no hours.
    """
    roles = Roles(ID if id_column is None else id_column, "date", {"events": ("end", "name")})
    # Its columns have names, even where those of the data have none.
    events = read_table(path, roles, replace(stated, header=None))
    for name in ("date", "end"):
        if stated.time_format is not None and name in events:
            with contextlib.suppress(DataError):
                events = parse_times(events, name, stated.time_format)
    return events


@dataclass(frozen=True)
class Prepared:
    """Rows that are fit to be read.

    Attributes
    ----------
    frame : DataFrame
    future : DataFrame or None
        What is known of the steps to forecast.
    bad : dict
        Kind and reason by id, of the series that were left out.
    notes : DataFrame
        What was done, see :class:`tsar.data.tidying.Tidied`.
    end : End or None
        The last time of the series that are left; None where it was not asked for.
    """

    frame: pd.DataFrame
    future: pd.DataFrame | None
    bad: Bad = field(default_factory=dict)
    notes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=NOTES))
    end: End | None = None


@dataclass(frozen=True)
class Preparation:
    """What is done to the rows of a file before a forecaster reads them.

    Parameters
    ----------
    policies : Policies
        See :func:`tsar.tidy`.
    gaps : str or None
        That of the policies if it was asked for; None is that of the forecaster.
    events : DataFrame or None
        See :func:`tsar.add_events`.
    country_holidays : str or None
    """

    policies: Policies = Policies()
    gaps: str | None = None
    events: pd.DataFrame | None = None
    country_holidays: str | None = None

    @classmethod
    def of(
        cls,
        owner: str,
        *,
        duplicates: str = "raise",
        gaps: str | None = None,
        ended: str = "forecast",
        ended_after: int = 1,
        trailing: str = "keep",
        on_error: str = "raise",
        events: pd.DataFrame | None = None,
        country_holidays: str | None = None,
    ) -> "Preparation":
        """Check what is asked for."""
        # What is missing between rows is the affair of the forecaster, unless it is said here.
        policies = Policies(duplicates, gaps or "mask", ended, ended_after, trailing, on_error)
        policies.check(owner)
        return cls(policies, gaps, events, country_holidays)

    @property
    def names(self) -> list[str]:
        """The columns that are added to the file."""
        return event_names(self.events, self.country_holidays)

    @property
    def changes_rows(self) -> bool:
        return self.policies.change_rows or self.gaps is not None or bool(self.names)

    @property
    def without_end(self) -> "Preparation":
        """The same, with series forecast from wherever they end, and without events."""
        policies = replace(self.policies, ended="forecast", ended_after=1)
        return Preparation(policies, self.gaps)

    def with_quarantine(self, wanted: bool) -> "Preparation":
        """Return the same, with bad series left out, or an error."""
        return replace(
            self, policies=replace(self.policies, on_error="quarantine" if wanted else "raise")
        )

    def described(self) -> str:
        """Tell it from others."""
        events = None if self.events is None else pd.util.hash_pandas_object(self.events).sum()
        return repr((self.policies, self.gaps, events, self.country_holidays))

    def let_read(self, model: Forecaster) -> None:
        """Let a forecaster read the columns that are added.

        Raises
        ------
        ParameterError
            It takes no future covariates, or was fitted without these.
        """
        if not self.names:
            return
        if model.__sklearn_is_fitted__():
            lacking = [name for name in self.names if name not in model.future_names]
            if lacking:
                raise ParameterError(
                    f"{model.name} was fitted without the future covariate {lacking[0]!r} of "
                    f"events= or country_holidays=; leave them out, or fit it with them"
                )
            return
        if "future_covariates" not in model.get_params(deep=False):
            raise ParameterError(
                f"{model.name} takes no future covariates, which events are; choose another "
                f"model, such as ARIMA or a network, or leave events and country_holidays out"
            )
        covariates = column_labels(cast(Any, model).future_covariates)
        new = [name for name in self.names if name not in covariates]
        model.set_params(future_covariates=[*covariates, *new])

    def prepared(
        self,
        frame: pd.DataFrame,
        model: Forecaster,
        horizon: int | None,
        future: pd.DataFrame | None = None,
        end: End | None = None,
    ) -> Prepared:
        """Do it.

        Parameters
        ----------
        frame : DataFrame
            Some series of the file, or all.
        model : Forecaster
            What reads them: fitted, or with its parameters set.
        horizon : int or None
            Steps to forecast; None takes that of the model.
        future : DataFrame, optional
            Future covariates that are known.
        end : End, optional
            The last time of the file, where the frame is a part of it.

        Raises
        ------
        DataError
            The frame has faults for which there is no policy, see ``on_error``.
        """
        reader = _Reader.of(model)
        gaps = self.gaps or reader.columns_gaps
        policies = replace(self.policies, gaps=gaps)
        policies.check("batch")

        def check(rows: Any, usable: pd.DataFrame | None, axis: TimeAxis) -> None:
            reader.panel(rows, gaps, axis)

        clean = tidied(frame, reader.columns, policies, check, future, end)
        status = zip(*(clean.status[name] for name in ("id", "status", "reason")), strict=True)
        bad: Bad = {name: (str(kind), str(reason)) for name, kind, reason in status}
        rows, ahead = clean.frame, clean.future
        if not len(rows):
            return Prepared(rows, ahead, bad, clean.notes)
        panel = reader.panel(rows, gaps, None)
        if self.names:
            rows, ahead = self._with_events(rows, ahead, panel, int(horizon or model.horizon))
        last = End(int(panel.last.max()), panel.axis)
        return Prepared(rows, ahead, bad, clean.notes, last)

    def _with_events(
        self, rows: pd.DataFrame, ahead: pd.DataFrame | None, panel: Panel, horizon: int
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Add events to the history, and to what is known of the steps after it."""
        form = panel.form
        time = None if form.kind == "wide" else form.time_name
        named: dict[str, Any] = {
            "country_holidays": self.country_holidays,
            "id_column": form.id_name,
            "time_column": time,
            "freq": panel.frequency,
            "like": panel.axis,
        }
        if ahead is None:
            ahead = make_future_frame(panel, [], horizon)
        return add_events(rows, self.events, **named), add_events(ahead, self.events, **named)


@dataclass(frozen=True)
class _Reader:
    """How a forecaster reads a frame, the columns that are still to be added left out."""

    columns: Columns
    columns_gaps: str

    @classmethod
    def of(cls, model: Forecaster) -> "_Reader":
        fitted = model.__sklearn_is_fitted__()
        read = model.as_fitted if fitted else model
        freq: Frequency | Any = read.freq
        if fitted and model.end_.axis.kind != "period":
            freq = model.end_.frequency
        like = model.end_.axis if fitted else None
        columns = Columns(read.id_column, read.time_column, read.target, freq, like)
        return cls(columns, read.gaps)

    def panel(self, rows: Any, gaps: Any, axis: TimeAxis | None) -> Panel:
        return replace(self.columns, like=axis or self.columns.like).panel(rows, gaps)
