"""The manifest of a fit: on which data, when, by which versions and how long it took.

Dimension letters: S series, C variates, B bins.
"""

import datetime
import functools
import importlib.metadata
import platform
import time
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, NotRequired, Self, TypedDict

import numpy as np

from tsar.data.digest import data_digest
from tsar.data.panel import Panel
from tsar.exceptions import PersistenceError
from tsar.params.constraints import Interval
from tsar.params.records import Count

__all__ = ["BinsRecord", "ManifestRecord", "ReferenceBins", "RunManifest"]

# Ten bins of a tenth of the values each.
SHARES = np.arange(1, 10) / 10
# Rows that the bins of a longer panel are made from, drawn at random: evenly spaced ones could all
# be of one hour of the day.
SAMPLED = 100_000
PACKAGES = ("tsar", "torch", "numpy", "pandas", "scikit-learn", "statsmodels")

Share = Annotated[float, Interval(0, 1)]


class BinsRecord(TypedDict):
    """A :class:`ReferenceBins` as JSON."""

    edges: list[Annotated[float, Interval()]]
    shares: list[Share]


class ManifestRecord(TypedDict):
    """A :class:`RunManifest` as JSON."""

    fingerprint: str
    rows: Count
    series: Count
    variates: Count
    observed: Count
    begins: str
    ends: str
    step: str
    held_out_rows: Count
    fitted_at: str
    seconds: Annotated[float, Interval(0)]
    versions: dict[str, str]
    reference: list[BinsRecord]
    continued_from: NotRequired[str | None]
    updated_at: NotRequired[str | None]
    updated_rows: NotRequired[Count]
    updated_to: NotRequired[str | None]


@dataclass(frozen=True)
class ReferenceBins:
    """How the values of a variate were distributed, over all series.

    Attributes
    ----------
    edges : tuple of float
        B - 1 borders between bins, increasing; a value on a border is in the bin below it.
    shares : tuple of float
        B shares of the values, whose sum is 1.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """Divide values at their deciles.

        Parameters
        ----------
        values : float array of shape (n,)
            NaN where not observed.
        """
        if len(values) > SAMPLED:
            values = values[np.random.default_rng(0).integers(0, len(values), SAMPLED)]
        ordered = np.sort(values)
        ordered = ordered[: len(ordered) - int(np.isnan(ordered).sum())].astype(np.float64)
        if not len(ordered):
            return cls((), (1.0,))
        places = np.ceil(SHARES * len(ordered)).astype(np.int64) - 1
        edges = np.unique(ordered[places])
        # Above the largest value there is nothing to compare with.
        edges = edges[edges < ordered[-1]]
        below = np.searchsorted(ordered, edges, side="right") / len(ordered)
        shares = np.diff(np.concatenate([[0.0], below, [1.0]]))
        return cls(tuple(edges.tolist()), tuple(shares.tolist()))

    def shares_of(self, values: np.ndarray) -> np.ndarray:
        """Return the shares (B,) of other values in the same bins, NaN left out."""
        observed = values[~np.isnan(values)]
        places = np.searchsorted(np.asarray(self.edges), observed, side="left")
        counts = np.bincount(places, minlength=len(self.shares))
        return np.asarray(counts / max(len(observed), 1))


@dataclass(frozen=True)
class RunManifest:
    """Which data a model was fitted on, when, by which versions, and how long it took.

    Attributes
    ----------
    fingerprint : str
        Of the data, see :func:`tsar.data.digest.data_digest`: the same for the same series,
        whatever the order of their rows and the kind of frame.
    rows, series, variates : int
        How many there were.
    observed : int
        Values that were not missing.
    begins, ends : str
        First and last time of any series, as the data write times.
    step : str
        The frequency.
    held_out_rows : int
        Rows at the ends of the series that were held out of the training.
    fitted_at : str
        When the fit ended, in UTC.
    seconds : float
        How long it took.
    versions : dict of str to str
        Of tsar, Python and the libraries that compute.
    reference : tuple of ReferenceBins
        The distribution of each variate.
    continued_from : str or None
        The fingerprint of the data of the fit before, where the training went on from it.
    updated_at : str or None
        When :meth:`tsar.Forecaster.update` was last called, in UTC.
    updated_rows : int
        Rows that it appended in all.
    updated_to : str or None
        The last time of any series after it.
    """

    fingerprint: str
    rows: int
    series: int
    variates: int
    observed: int
    begins: str
    ends: str
    step: str
    held_out_rows: int
    fitted_at: str
    seconds: float
    versions: dict[str, str]
    reference: tuple[ReferenceBins, ...]
    continued_from: str | None = None
    updated_at: str | None = None
    updated_rows: int = 0
    updated_to: str | None = None

    @classmethod
    def of(
        cls, panel: Panel, held_out: np.ndarray, began: float, continued: "RunManifest | None"
    ) -> Self:
        """Make the manifest of a fit that has just ended.

        Parameters
        ----------
        panel : Panel
            What was fitted, its covariates not yet coded.
        held_out : int64 array of shape (S,)
            Rows at the end of each series that were held out.
        began : float
            When it began, by ``time.perf_counter``.
        continued : RunManifest or None
            That of the fit that was gone on with.
        """
        return cls(
            fingerprint=data_digest(panel),
            rows=len(panel.values),
            series=panel.n_series,
            variates=panel.n_variates,
            observed=int(panel.values.size - np.isnan(panel.values).sum()),
            begins=panel.axis.show(int(panel.first.min())),
            ends=panel.axis.show(int(panel.last.max())),
            step=panel.frequency.name,
            held_out_rows=int(held_out.sum()),
            fitted_at=_now(),
            versions=_versions(),
            reference=tuple(map(ReferenceBins.of, panel.values.T)),
            continued_from=None if continued is None else continued.fingerprint,
            seconds=round(time.perf_counter() - began, 3),
        )

    def updated(self, n_rows: int, end: Panel) -> Self:
        """Return the manifest after so many rows were appended, up to an end."""
        last = end.axis.show(int(end.last.max()))
        n_all = self.updated_rows + n_rows
        return replace(self, updated_at=_now(), updated_rows=n_all, updated_to=last)

    def to_state(self) -> dict[str, Any]:
        """Return the manifest as JSON."""
        record = asdict(self)
        record["reference"] = [
            {"edges": list(one.edges), "shares": list(one.shares)} for one in self.reference
        ]
        return record

    @classmethod
    def from_state(cls, record: dict[str, Any], n_variates: int) -> Self:
        """Undo :meth:`to_state`, for a model of so many variates.

        Raises
        ------
        PersistenceError
            The distributions are not those of these variates.
        """
        bins = record["reference"]
        if len(bins) != n_variates or any(
            len(one["shares"]) != len(one["edges"]) + 1 for one in bins
        ):
            raise PersistenceError(
                f"load: the manifest of the fit has distributions of {len(bins)} variates that do "
                f"not fit the {n_variates} of the model"
            )
        reference = tuple(ReferenceBins(tuple(one["edges"]), tuple(one["shares"])) for one in bins)
        return cls(**{**record, "reference": reference})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    # A checkout that lies on the path, and was not installed.
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
