"""What a forecasting network is trained for: its loss, and what it has to say about it."""

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsar.data.windows import Batch, SeriesTensors
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.losses import Loss
from tsar.training.objective import Objective, Terms

__all__ = [
    "Compared",
    "ForecastNetwork",
    "ForecastObjective",
    "compare",
    "measure",
    "penalise",
]


class Compared(NamedTuple):
    """What a training step compares.

    Parameters
    ----------
    forecast : Tensor of shape (B, K, C), or (B, K, C, Q) with several outputs per step
    target : Tensor of shape (B, K, C)
    observed : bool Tensor of shape (B, K, C) or None
        True where the target was measured; None when all of it was.
    scale : Tensor of shape (B, C) or None
        Original units per scaled unit, of the variates that are compared.
    shift : Tensor of shape (B, K, C) or None
        What was taken off both the forecast and the target. An error does not change with it,
        but for one in original units.
    terms : dict of str to pair of Tensor, or None
        Further terms that a training step minimises, by name, each a sum and what it counts; they
        are recorded as ``train_<name>``.
    """

    forecast: Tensor
    target: Tensor
    observed: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    terms: Terms | None = None


class ForecastNetwork(nn.Module):
    """A network that forecasts windows: ``Inputs`` to (B, H, C), or (B, H, C, Q).

    Beside ``forward``, what training asks a network are the methods listed here, with their
    defaults. A network around another one hands on every one of them, so that what a network
    says is heard wherever it is built in.
    """

    def prepare(self, series: SeriesTensors, stop: Tensor) -> None:
        """Find out from the training rows what is to be known before the training: nothing.

        Parameters
        ----------
        series : SeriesTensors
            Scaled series with their covariates.
        stop : int64 Tensor of shape (S,)
            Where the training rows of each series end.
        """

    def measure(self, series: SeriesTensors, stop: Tensor) -> None:
        """Measure what a training step needs to know of all training rows: nothing.

        It is asked for before every training, one that goes on included, whose rows may be
        others. What is measured is no part of what the network learns: it is not saved.

        Parameters
        ----------
        series, stop
            As :meth:`prepare` takes them.
        """

    def compare(self, batch: Batch) -> Compared:
        """Return what a training step compares: by default, the forecast with the future.

        A network that learns from steps of the context as well, by forecasting each of them
        from those before it, or from some of the variates, says so here. Validation compares
        the forecast in any case.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        Compared
            Scale and shift are those of the batch, cut like the target.
        """
        shift = None if batch.shift is None else batch.shift[1]
        forecast = self(batch.inputs)
        return Compared(forecast, batch.target, batch.observed, batch.scale, shift)

    def penalty(self, error: Tensor) -> Tensor | None:
        """Return what a training step minimises beside the error: by default, nothing.

        A network that wants its weights small, sparse or otherwise apart from what they
        forecast says so here; what follows from the batch is one of the ``terms`` that
        :meth:`compare` returns. Neither ``train_loss`` nor validation counts the penalty, which
        is recorded as ``train_penalty``.

        Parameters
        ----------
        error : Tensor of shape ()
            The mean error, without gradient, as a measure of what a weight is worth.

        Returns
        -------
        Tensor of shape () or None
        """
        return None


def compare(network: nn.Module, batch: Batch) -> Compared:
    """Return what a training step compares, see :meth:`ForecastNetwork.compare`.

    Parameters
    ----------
    network : nn.Module
        With or without a method of that name.
    batch : Batch
    """
    return Compared(*_hook(network, "compare")(batch))


def measure(network: nn.Module, series: SeriesTensors, stop: Tensor) -> None:
    """Let a network measure its training rows, see :meth:`ForecastNetwork.measure`.

    Parameters
    ----------
    network : nn.Module
        With or without a method of that name.
    series : SeriesTensors
    stop : int64 Tensor of shape (S,)
    """
    _hook(network, "measure")(series, stop)


def penalise(network: nn.Module, error: Tensor) -> Tensor | None:
    """Return the penalty of a network, see :meth:`ForecastNetwork.penalty`.

    Parameters
    ----------
    network : nn.Module
        With or without a method of that name.
    error : Tensor of shape ()
    """
    penalty: Tensor | None = _hook(network, "penalty")(error.detach())
    return penalty


def _hook(network: nn.Module, name: str) -> Any:
    """Return a method of a network, or the default of one that is none of ours."""
    own = getattr(network, name, None)
    return MethodType(getattr(ForecastNetwork, name), network) if own is None else own


class ForecastObjective(Objective):
    """Let forecasts of windows have a small loss.

    Parameters
    ----------
    error : Loss
    """

    def __init__(self, error: Loss) -> None:
        self.error = error
        self.output = error.make_output()
        # Quantiles have an axis of their own, one alone included.
        one = self.output(torch.zeros(1, 1, 1, self.output.n_outputs), 0.0, 1.0)
        self.has_outputs = one.ndim == 4

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        """Return the loss of what the network compares, its further terms, and its penalty."""
        compared = compare(network, batch)
        total, count = self._total(network, compared, batch)
        terms: Terms = {"loss": (total, count), **(compared.terms or {})}
        penalty = penalise(network, total.detach() / count.clamp(min=1))
        if penalty is not None:
            terms["penalty"] = penalty, count.new_ones(())
        return terms

    def _total(self, network: nn.Module, compared: Compared, batch: Batch) -> tuple[Tensor, Tensor]:
        forecast, target, observed, scale, shift, _ = compared
        needs_scale = self.error.needs_scale
        if needs_scale and scale is None and batch.scale is not None:
            raise ParameterError(
                f"{type(network).__name__}: compare must return the scale of the variates that it "
                f"compares, for a loss in original units; return "
                f"Compared(forecast, target, observed, batch.scale, shift)"
            )
        self._check_shape(network, forecast, target)
        if not needs_scale:
            return self.error.total(forecast, target, observed)
        if shift is not None:
            # The truth, whatever was taken off it, teaches nothing by itself.
            forecast, target = self.output.shift(forecast, shift), (target + shift).detach()
        return self.error.total(forecast, target, observed, scale)

    def _check_shape(self, network: nn.Module, forecast: Tensor, target: Tensor) -> None:
        """Raise a ParameterError for a forecast that would be stretched to the target."""
        several = self.has_outputs
        if forecast.shape[:3] != target.shape or forecast.ndim != 3 + several:
            expected = (*target.shape, self.output.n_outputs) if several else tuple(target.shape)
            raise ParameterError(
                f"{type(network).__name__}: forecasts must have the shape {expected} of windows, "
                f"steps, variates{', outputs' * several}, got {tuple(forecast.shape)}; order the "
                f"axes in forward, and let the output of the spec make the last one"
            )

    def validate(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        """Return the loss of the forecast, and the mean absolute error in original units."""
        forecast = network(batch.inputs)
        self._check_shape(network, forecast, batch.target)
        total, count = self.error.total(forecast, batch.target, batch.observed, batch.scale)
        error = (self.error.point(forecast) - batch.target).abs()
        if batch.scale is not None:
            error = error * batch.scale.unsqueeze(1)
        if batch.observed is not None:
            error = error * batch.observed
        return {"loss": (total, count), "mae": (error.sum(), count)}
