"""Losses that count observed steps only, and the output module each of them needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.distributions import DISTRIBUTIONS, Distribution
from tsar.forecasting.outputs.output import Output, PointOutput, QuantileOutput, SampleOutput
from tsar.params.constraints import Interval, check_choice, check_value
from tsar.params.objects import Storable
from tsar.params.registry import Registry, check_subclass_of

__all__ = [
    "LOSSES",
    "DecayingMAELoss",
    "FunctionLoss",
    "HuberLoss",
    "LikelihoodLoss",
    "Loss",
    "MAELoss",
    "MSELoss",
    "QuantileLoss",
    "SampleLoss",
    "distribution_of",
    "make_loss",
]


class Loss(Storable, ABC):
    """Mean of an error over the observed entries of a forecast."""

    # Whether it compares in original units, and so needs to know the scale of each window. Series
    # are then scaled without being moved.
    needs_scale: bool = False

    kind: ClassVar[str] = "loss"

    @classmethod
    def known_classes(cls) -> Mapping[str, Any]:
        named = {name: made for name, made in LOSSES.items() if isinstance(made, type)}
        return {**named, "likelihood": LikelihoodLoss}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __call__(
        self,
        forecast: Tensor,
        target: Tensor,
        observed: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Return the mean error, 0 where nothing was observed.

        Parameters
        ----------
        forecast : Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        target : Tensor of shape (B, H, C)
        observed : bool Tensor of shape (B, H, C), optional
            True where the target was measured; everywhere by default.
        scale : Tensor of shape (B, C), optional
            Original units per scaled unit, for a loss that ``needs_scale``; 1 by default.

        Returns
        -------
        Tensor of shape ()
        """
        total, count = self.total(forecast, target, observed, scale)
        return total / count.clamp(min=1)

    def total(
        self,
        forecast: Tensor,
        target: Tensor,
        observed: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of the errors and how many entries it counts, each of shape ()."""
        errors = self.scaled_errors(forecast.to(target.dtype), target, scale)
        if observed is None:
            return errors.sum(), torch.tensor(errors.numel(), device=errors.device)
        return (errors * observed).sum(), observed.sum()

    def scaled_errors(self, forecast: Tensor, target: Tensor, scale: Tensor | None) -> Tensor:
        """Return one error per entry of ``target``, given the scale of each window."""
        return self.errors(forecast, target)

    @abstractmethod
    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        """Return one error per entry of ``target``."""

    def point(self, forecast: Tensor) -> Tensor:
        """Return the point forecast (B, H, C) inside a forecast."""
        return forecast

    def make_output(self) -> Output:
        """Build the last module of a network trained with this loss."""
        return PointOutput()


class MSELoss(Loss):
    """Squared error."""

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        return (forecast - target).square()


class MAELoss(Loss):
    """Absolute error."""

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        return (forecast - target).abs()


class DecayingMAELoss(Loss):
    """Absolute error divided by the root of the step, counted from 1: near steps count more.

    References
    ----------
    Wang et al., "CARD: channel aligned robust blend transformer for time series forecasting",
    ICLR 2024, section 3.
    """

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        steps = torch.arange(1, target.shape[1] + 1, dtype=target.dtype, device=target.device)
        return (forecast - target).abs() * steps.rsqrt()[:, None]


@dataclass(frozen=True)
class HuberLoss(Loss):
    """Half the squared error up to some error, and a straight line beyond it.

    Parameters
    ----------
    delta : float, default 1.0
        Where the line begins; it is its slope as well. Above 0.

    Raises
    ------
    ParameterError
        If it is not.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        check_value("HuberLoss", "delta", self.delta, Annotated[float, Interval(0, open_low=True)])

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(forecast, target, reduction="none", delta=self.delta)


class QuantileLoss(Loss):
    """Pinball error, averaged over the levels.

    Parameters
    ----------
    levels : sequence of float
        Increasing, each inside (0, 1), with 0.5 among them.

    References
    ----------
    Koenker and Bassett, "Regression quantiles", Econometrica 46, 1978.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(float(level) for level in levels)
        self.make_output()  # raises for levels it cannot give

    def __repr__(self) -> str:
        return f"QuantileLoss({list(self.levels)})"

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        levels = torch.tensor(self.levels, dtype=target.dtype, device=target.device)
        above = target.unsqueeze(-1) - forecast  # (B, H, C, Q)
        return torch.maximum(levels * above, (levels - 1) * above).mean(dim=-1)

    def point(self, forecast: Tensor) -> Tensor:
        return forecast[..., self.levels.index(0.5)]

    def make_output(self) -> Output:
        return QuantileOutput(self.levels)


class LikelihoodLoss(Loss):
    """Negative logarithm of the likelihood under the distribution that is forecast.

    Parameters
    ----------
    distribution : Distribution
        See :mod:`tsar.forecasting.outputs.distributions`.
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self.output = distribution.make_output()
        self.needs_scale = distribution.counts

    def __repr__(self) -> str:
        return f"LikelihoodLoss({type(self.distribution).__name__}())"

    def scaled_errors(self, forecast: Tensor, target: Tensor, scale: Tensor | None) -> Tensor:
        if scale is None:
            return self.errors(forecast, target)
        # A series of zeros has no scale of its own, and is not scaled.
        units = torch.where(scale > 0, scale, 1.0)[:, None]
        return -self.distribution.log_prob(forecast, target, units)

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        return -self.distribution.log_prob(forecast, target)

    def point(self, forecast: Tensor) -> Tensor:
        return self.output.point(forecast)

    def make_output(self) -> Output:
        return self.distribution.make_output()


class SampleLoss(Loss):
    """Continuous ranked probability score of samples.

    ``mean |x_i - y| - mean |x_i - x_j| / 2`` over all pairs, a sample with itself among them.

    Parameters
    ----------
    n_samples : int

    References
    ----------
    Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", Journal of
    the American Statistical Association 102, 2007, section 4.2.
    """

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples

    def __repr__(self) -> str:
        return f"SampleLoss({self.n_samples})"

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        ordered, n_samples = forecast.sort(dim=-1).values, forecast.shape[-1]
        # In their order, sample k of n is added 2 k - n + 1 times in the differences of all pairs.
        times = 2 * torch.arange(n_samples, device=forecast.device) - n_samples + 1
        apart = (ordered * times).sum(dim=-1) / n_samples**2
        return (forecast - target.unsqueeze(-1)).abs().mean(dim=-1) - apart

    def point(self, forecast: Tensor) -> Tensor:
        return self.make_output().point(forecast)

    def make_output(self) -> Output:
        return SampleOutput(self.n_samples)


class FunctionLoss(Loss):
    """An error given by a function.

    Parameters
    ----------
    function : callable
        Takes a point forecast and the truth, Tensors of shape (B, H, C) in scaled units, and
        returns one error per entry, a Tensor of the same shape.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def __repr__(self) -> str:
        return f"FunctionLoss({getattr(self.function, '__qualname__', self.function)})"

    def errors(self, forecast: Tensor, target: Tensor) -> Tensor:
        try:
            errors = self.function(forecast, target)
        except TypeError as error:
            raise ParameterError(
                f"loss must be a function of forecast and target, got {self!r}: {error}"
            ) from error
        if not isinstance(errors, Tensor) or errors.shape != target.shape:
            shape = tuple(errors.shape) if isinstance(errors, Tensor) else type(errors).__name__
            raise ParameterError(
                f"loss must return one error per entry, a Tensor of shape {tuple(target.shape)}, "
                f"got {shape}; leave the mean to the training, with torch's own losses by "
                f"reduction='none'"
            )
        if forecast.requires_grad and not errors.requires_grad:
            raise ParameterError(
                f"loss must be differentiable in the forecast, got {self!r}, whose errors have no "
                f"gradient; leave out detach() and no_grad()"
            )
        return errors


def _likelihood(distribution: type[Distribution]) -> LikelihoodLoss:
    return LikelihoodLoss(distribution())


# What makes a loss by name, "quantile" with levels and all others without an argument.
LOSSES: Registry[Callable[..., Loss]] = Registry(
    "loss",
    "tsar.losses",
    {
        "mse": MSELoss,
        "mae": MAELoss,
        "decaying_mae": DecayingMAELoss,
        "huber": HuberLoss,
        "quantile": QuantileLoss,
        **{name: partial(_likelihood, cls) for name, cls in DISTRIBUTIONS.items()},
    },
    check_subclass_of(Loss, "a loss", "tsar.forecasting.outputs.losses"),
)


def make_loss(
    loss: str | Loss | Callable[[Tensor, Tensor], Tensor], quantiles: Sequence[float] | None = None
) -> Loss:
    """Build the loss of that name, or take the one that is given.

    Parameters
    ----------
    loss : str, Loss or callable
        One of :data:`LOSSES`, or an object. A function
        is one of forecast and truth, see :class:`FunctionLoss`.
    quantiles : sequence of float, optional
        The levels of the quantile loss; the other losses have none.

    Raises
    ------
    ParameterError
        If there is none of that name, or levels are missing or out of place.
    """
    if not isinstance(loss, str):
        return _given(loss, quantiles)
    check_choice("make_loss", "loss", loss, LOSSES)
    if loss == "quantile":
        if quantiles is None:
            raise ParameterError("make_loss: loss='quantile' needs quantiles, got None")
        return QuantileLoss(quantiles)
    _no_quantiles(loss, quantiles)
    return LOSSES[loss]()


def _given(loss: object, quantiles: Sequence[float] | None) -> Loss:
    if isinstance(loss, type):
        raise ParameterError(
            f"make_loss: loss must be an object, got the class {loss.__name__}; call it, as in "
            f"{loss.__name__}()"
        )
    if isinstance(loss, QuantileLoss):
        if quantiles is not None and tuple(map(float, quantiles)) != loss.levels:
            raise ParameterError(
                f"make_loss: quantiles must be those of the loss, {list(loss.levels)}, got "
                f"{list(quantiles)}; leave them out"
            )
        return loss
    _no_quantiles(loss, quantiles)
    if isinstance(loss, Loss):
        return loss
    if not callable(loss):
        raise ParameterError(
            f"make_loss: loss must be one of {', '.join(map(repr, LOSSES))}, a Loss, or a function "
            f"of forecast and target that returns one error per entry, got {loss!r}"
        )
    return FunctionLoss(loss)


def _no_quantiles(loss: object, quantiles: Sequence[float] | None) -> None:
    if quantiles is not None:
        raise ParameterError(
            f"make_loss: quantiles need loss='quantile', got loss={loss!r}; "
            "change the loss or drop the quantiles"
        )


def distribution_of(loss: object) -> Distribution | None:
    """Return the distribution whose parameters a network forecasts with a loss, if it does.

    Parameters
    ----------
    loss : str, Loss or callable
    """
    if isinstance(loss, LikelihoodLoss):
        return loss.distribution
    if isinstance(loss, str) and loss in DISTRIBUTIONS:
        return DISTRIBUTIONS[loss]()
    return None
