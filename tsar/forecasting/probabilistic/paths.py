"""Error paths: how the errors of one forecast belong together, over its steps and its series.

Dimension letters: K cutoffs, S series, H steps, C variates, N samples.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from tsar.data.codec import IndexRecord, check_array, decode_index, encode_index
from tsar.exceptions import PersistenceError
from tsar.forecasting.outputs.predictive import series_generator

__all__ = ["ErrorPaths", "PathsRecord", "arranged"]

# Values that are kept, and of how many cutoffs at least: where there are more series, some of
# them stand for the others.
MOST_KEPT, FEWEST_CUTOFFS = 2_000_000, 100


class PathsRecord(TypedDict):
    """What JSON holds of :class:`ErrorPaths`."""

    ids: IndexRecord


@dataclass(frozen=True)
class ErrorPaths:
    """The errors of whole forecasts, by the cutoff that they began at.

    Attributes
    ----------
    ids : Index of shape (S,)
        The series that they are of, all those of the calibration if these are not too many.
    variates : Index of shape (C,)
    errors : float64 array of shape (K, S, H, C)
        Truth less point forecast, in units of each series; NaN at every step where one is
        not known. Cutoffs are in the order of time, and the same for all series.
    """

    ids: pd.Index
    variates: pd.Index
    errors: np.ndarray

    @classmethod
    def of(
        cls,
        ids: pd.Index,
        variates: pd.Index,
        owners: np.ndarray,
        stamps: np.ndarray,
        errors: np.ndarray,
    ) -> "ErrorPaths":
        """Line up the errors of windows by their cutoff.

        Parameters
        ----------
        ids, variates : Index of shape (S,) and (C,)
        owners, stamps : int64 arrays of shape (W,)
            Series and time of the cutoff of each window.
        errors : float64 array of shape (W, H, C)
            In units of each series, NaN where the truth is not known.
        """
        _, n_steps, n_variates = errors.shape
        most = max(MOST_KEPT // (FEWEST_CUTOFFS * n_steps * n_variates), 1)
        chosen = np.unique(np.linspace(0, len(ids) - 1, min(most, len(ids))).astype(np.int64))
        place = np.full(len(ids), -1)
        place[chosen] = np.arange(len(chosen))
        whole = ~np.isnan(errors).any(axis=1)  # (W, C)
        used = whole.any(axis=1) & (place[owners] >= 0)
        times = np.unique(stamps[used])
        most = max(MOST_KEPT // (len(chosen) * n_steps * n_variates), 1)
        if len(times) > most:
            times = times[np.linspace(0, len(times) - 1, most).astype(np.int64)]
            used &= np.isin(stamps, times)
        lined_up = np.full((len(times), len(chosen), n_steps, n_variates), np.nan)
        errors_used = np.where(whole[used][:, None], errors[used], np.nan)
        lined_up[np.searchsorted(times, stamps[used]), place[owners[used]]] = errors_used
        return cls(ids[chosen], variates, lined_up)

    @cached_property
    def ordered(self) -> np.ndarray:
        """The errors of all series in their order, shape (M, H, C); NaN at the end."""
        n_cutoffs, n_series, *steps = self.errors.shape
        return np.sort(self.errors.reshape(n_cutoffs * n_series, *steps), axis=0)

    @property
    def can_sample(self) -> bool:
        """Whether every variate has a path."""
        return bool((~np.isnan(self.errors[:, :, 0])).any(axis=(0, 1)).all())

    def draw(self, ids: pd.Index, variates: pd.Index, n_samples: int, seed: int) -> np.ndarray:
        """Draw errors of forecasts, whole paths of them.

        A sample has the errors that all series made at one cutoff, so that both the steps and
        the series of a sample belong together. A series without a path of that cutoff has
        one of another cutoff, and a series without any has paths of others. What is drawn
        for a series does not depend on which others are asked for.

        Parameters
        ----------
        ids, variates : Index of shape (S,) and (C,)
        n_samples : int
        seed : int

        Returns
        -------
        float64 array of shape (S, N, H, C)
            In units of each series.
        """
        n_cutoffs, _, n_steps, _ = self.errors.shape
        columns, places = self.variates.get_indexer(variates), self.ids.get_indexer(ids)
        whole = ~np.isnan(self.errors[:, :, 0])  # (K, S, C)
        common = np.random.default_rng(seed).integers(0, n_cutoffs, n_samples)
        drawn = np.empty((len(ids), n_samples, n_steps, len(columns)))
        for series, (name, place) in enumerate(zip(ids, places, strict=True)):
            instead = series_generator(seed, name).random(n_samples)
            for number, column in enumerate(columns):
                own = whole[:, place, column] if place >= 0 else np.zeros(n_cutoffs, dtype=bool)
                if own.any():
                    others = np.flatnonzero(own)
                    other = others[(instead * len(others)).astype(np.int64)]
                    cutoffs = np.where(own[common], common, other)
                    drawn[series, :, :, number] = self.errors[cutoffs, place, :, column]
                else:
                    there, of = np.nonzero(whole[:, :, column])
                    one = (instead * len(there)).astype(np.int64)
                    drawn[series, :, :, number] = self.errors[there[one], of[one], :, column]
        return drawn

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what JSON can hold, and arrays by name."""
        return {"ids": encode_index(self.ids)}, {"errors": self.errors}

    @classmethod
    def from_state(
        cls, record: dict[str, Any], arrays: dict[str, np.ndarray], variates: pd.Index
    ) -> "ErrorPaths":
        """Undo :meth:`to_state`, the arrays of a saved model; misfits are a PersistenceError."""
        ids = decode_index(record["ids"])
        shape = (None, len(ids), None, len(variates))
        errors = check_array(arrays, "error_paths.errors", "float64", shape)
        if not (ids.is_unique and errors.shape[0] and errors.shape[2]):
            raise PersistenceError("load: the error paths of the calibration are of no series")
        return cls(ids, variates, errors)


def arranged(
    drawn: np.ndarray, errors: np.ndarray, ids: pd.Index, horizon: int, seed: int
) -> np.ndarray:
    """Give independent samples the order that whole paths of errors have at each step.

    The values of a step stay what they are; which of them come in one sample follows from the
    ranks of the errors. Equal errors, which are one path that was drawn twice, are put in an
    order by chance.

    Parameters
    ----------
    drawn : float64 array of shape (S, N, horizon, C)
    errors : float64 array of shape (S, N, H, C)
        Of at least so many steps.
    ids : Index of shape (S,)
    horizon : int
    seed : int

    Returns
    -------
    float64 array of shape (S, N, horizon, C)

    References
    ----------
    Clark et al., "The Schaake shuffle: a method for reconstructing space-time variability in
    forecasted precipitation and temperature fields", Journal of Hydrometeorology 5 (2004).
    """
    chance = np.stack([series_generator(seed, name).random(errors.shape[1:]) for name in ids])
    order = np.lexsort((chance, errors), axis=1)[:, :, :horizon]
    ordered = np.empty_like(drawn)
    np.put_along_axis(ordered, order, np.sort(drawn, axis=1), axis=1)
    return ordered
