"""What the parameters ``loss`` and ``quantiles`` of a network stand for."""

from collections.abc import Sequence
from typing import Any

from tsar.forecasting.outputs.losses import Loss, QuantileLoss, distribution_of, make_loss
from tsar.forecasting.outputs.predictive import (
    DistributionForecasts,
    PointForecasts,
    Predictive,
    QuantileForecasts,
)

__all__ = ["loss_of", "predictive_of"]

DEFAULT_QUANTILES = (0.1, 0.5, 0.9)


def loss_of(loss: Any, quantiles: Sequence[float] | None) -> Loss:
    """Return the loss of the two parameters; the median is always among quantiles.

    Parameters
    ----------
    loss : str, Loss or callable
    quantiles : sequence of float or None

    Raises
    ------
    ParameterError
        They do not make one.
    """
    if quantiles is None and loss == "quantile":
        quantiles = DEFAULT_QUANTILES
    if quantiles is not None:
        quantiles = sorted({float(level) for level in quantiles} | {0.5})
    return make_loss(loss, quantiles)


def predictive_of(loss: Any, quantiles: Sequence[float] | None) -> Predictive:
    """Return what reads the forecasts of a network that was trained with this loss.

    Parameters
    ----------
    loss, quantiles
        As :func:`loss_of` takes them.
    """
    made = loss_of(loss, quantiles)
    if isinstance(made, QuantileLoss):
        return QuantileForecasts(made.levels)
    distribution = distribution_of(made)
    return PointForecasts() if distribution is None else DistributionForecasts(distribution)
