"""What forecasters that are made of others share with them."""

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone

from tsar.data.calendar import CALENDARS
from tsar.data.matching import in_order
from tsar.data.panel import Panel
from tsar.forecasting.base import Forecaster

__all__ = ["ROLES", "SHARED", "as_read_by", "coded_for", "configured", "read_for", "rows_in"]

# What the members have in common with the whole.
SHARED = ("horizon", "freq", "gaps", "id_column", "time_column", "target")
ROLES = ("past_covariates", "future_covariates", "static_covariates")


def configured(member: Forecaster, whole: Forecaster) -> Forecaster:
    """Return a fresh member with what it shares with the whole."""
    fresh: Forecaster = clone(member)
    return fresh.set_params(**{name: getattr(whole, name) for name in SHARED})


def as_read_by(member: Forecaster, panel: Panel) -> Panel:
    """Return a panel with the covariates of one member alone, not yet coded."""
    roles = member.roles

    def columns(role: str) -> dict[Any, np.ndarray]:
        held = getattr(panel, role)
        return {name: held[name] for name in roles.get(f"{role}_covariates", [])}

    kind = roles.get("calendar")
    calendar = None if kind is None else CALENDARS[kind].read(panel.axis.times(panel.stamps()))
    return replace(
        panel,
        past=columns("past"),
        future=columns("future"),
        static=columns("static"),
        calendar=calendar,
        calendar_kind=kind,
    )


def coded_for(member: Forecaster, panel: Panel) -> Panel:
    """Return a panel as a fitted member forecasts from it, variates in its order."""
    part = read_for(member, panel)
    coding = member.learned_.coding
    return part.coded(coding) if coding else part


def read_for(member: Forecaster, panel: Panel) -> Panel:
    """Return a panel as a fitted member reads it, variates in its order, not yet coded."""
    return in_order(as_read_by(member.as_fitted, panel), member.end_.variates)


def rows_in(part: Panel, panel: Panel, owners: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return rows of a panel as rows of a member's part of it.

    They are counted from the ends of the series: of the fitted ones, a member may keep another
    number of rows.

    Parameters
    ----------
    part, panel : Panel
        Of the same series.
    owners, rows : int64 arrays of shape (W,)
        Series, and rows of ``panel``.
    """
    counted: np.ndarray = part.offsets[owners + 1] - (panel.offsets[owners + 1] - rows)
    return counted
