"""What a network has to know of the data, and what it is trained on."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsar.data.covariates import CovariateCoding
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import SeriesTensors, Windows
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.outputs.output import Output
from tsar.training.checkpoint import digest

__all__ = ["NetworkSpec", "TrainingData", "digest_of_series", "spec_of"]


@dataclass(frozen=True)
class NetworkSpec:
    """What ``fit`` found out that a network has to know.

    Parameters
    ----------
    context_length, horizon : int
        Steps in and out.
    n_variates : int
        Variates of the data.
    output : Output
        Last module, which follows from the loss; see :mod:`tsar.forecasting.outputs.output`.
    covariates : CovariateSpec
        The covariates of the data.
    """

    context_length: int
    horizon: int
    n_variates: int
    output: Output
    covariates: CovariateSpec = CovariateSpec()


def spec_of(coding: CovariateCoding) -> CovariateSpec:
    """Return what a network has to know of coded covariates."""
    past, future, static = (
        tuple(column.n_categories for column in columns)
        for columns in (coding.past, coding.future, coding.static)
    )
    return CovariateSpec(past, future, static, coding.n_calendar)


class TrainingData(NamedTuple):
    """A panel, made ready to train a network on.

    Parameters
    ----------
    series : SeriesTensors
    training : Windows
    validation : Windows or None
    held_out : int64 array of shape (S,)
        How many rows at the end of each series are for validation.
    stop : int64 array of shape (S,)
        Where the training rows of each series end.
    coding : CovariateCoding
    remembered, pooled : Scaling
        Of every series, and of one without any history.
    """

    series: SeriesTensors
    training: Windows
    validation: Windows | None
    held_out: np.ndarray
    stop: np.ndarray
    coding: CovariateCoding
    remembered: Scaling
    pooled: Scaling

    @property
    def stop_rows(self) -> Tensor:
        """``stop`` on the device of the series."""
        return torch.from_numpy(self.stop).to(self.series.values.device)

    def digest(self, panel: Panel) -> str:
        """Return a digest of the variates and of all numbers that a network is trained on."""
        content = f"{digest_of_series(self.series, self.held_out)} {list(panel.variates)!r}"
        return hashlib.sha256(content.encode()).hexdigest()


def digest_of_series(series: SeriesTensors, held_out: np.ndarray) -> str:
    """Return a digest of all numbers of series, and of how many rows of each are held out."""
    tensors: list[Tensor | None] = [series.values, series.observed, series.offsets]
    tensors += [series.scale, torch.from_numpy(held_out)]
    if series.covariates is not None:
        covariates = series.covariates
        tensors += [covariates.past, covariates.known_ahead, covariates.static]
    if series.weight is not None:
        tensors.append(series.weight)
    return digest(tensors)
