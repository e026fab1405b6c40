"""How errors fall with the size of what is trained: a power law, and how sure its numbers are.

Dimension letters: R runs, K resamples.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from tsar.exceptions import DataError
from tsar.params.constraints import Interval, check_choice, check_count, check_value

__all__ = ["ScalingLaw", "scaling_law"]

Floats = NDArray[np.float64]
NUMBERS = ("coefficient", "exponent", "floor")
# Where the search for a floor begins, in shares of the lowest loss.
FIRST_FLOORS = (0.0, 0.5, 0.9, 0.99)


@dataclass(frozen=True)
class ScalingLaw:
    """A power law of losses, ``coefficient * size ** -exponent + floor``.

    Attributes
    ----------
    coefficient, exponent, floor : float
        Of the fit; the floor is 0 where none was fitted.
    sizes, losses : float array of shape (R,)
        What it was fitted to.
    samples : float array of shape (K, 3)
        The three numbers for each resample.
    """

    coefficient: float
    exponent: float
    floor: float
    sizes: Floats
    losses: Floats
    samples: Floats

    def predict(self, sizes: ArrayLike) -> Floats:
        """Return the losses that the law gives for sizes, an array of their shape."""
        numbers = np.array([[self.coefficient, self.exponent, self.floor]])
        return _losses(numbers, np.asarray(sizes, np.float64))[0]

    def interval(
        self, number: Literal["coefficient", "exponent", "floor"], *, confidence: float = 0.95
    ) -> tuple[float, float]:
        """Return between which values a number lies in that share of the resamples.

        Parameters
        ----------
        number : {"coefficient", "exponent", "floor"}
        confidence : float, default 0.95
            Inside (0, 1).

        Returns
        -------
        low, high : float

        Raises
        ------
        ParameterError
            There is no such number, or the confidence is no share.
        """
        check_choice("ScalingLaw.interval", "number", number, NUMBERS)
        low, high = np.quantile(
            self.samples[:, NUMBERS.index(number)], _levels("interval", confidence)
        )
        return float(low), float(high)

    def predict_interval(
        self, sizes: ArrayLike, *, confidence: float = 0.95
    ) -> tuple[Floats, Floats]:
        """Return between which values the law lies at sizes in that share of the resamples.

        It is about the law, not about a further run, which scatters around it.

        Parameters
        ----------
        sizes : array_like of shape (S,)
        confidence : float, default 0.95
            Inside (0, 1).

        Returns
        -------
        low, high : float array of shape (S,)

        Raises
        ------
        ParameterError
            The confidence is no share.
        """
        levels = _levels("predict_interval", confidence)
        low, high = np.quantile(
            _losses(self.samples, np.asarray(sizes, np.float64)), levels, axis=0
        )
        return low, high


def scaling_law(
    sizes: ArrayLike,
    losses: ArrayLike,
    *,
    floor: bool = False,
    n_resamples: int = 500,
    random_state: int | None = None,
) -> ScalingLaw:
    r"""Fit a power law to losses of runs of several sizes.

    Without a floor it is a straight line through the logarithms, by least squares, as in the
    paper. With one, :math:`\sum_i (\log L_i - \log(a N_i^{-\alpha} + E))^2` is made small over
    :math:`a`, :math:`\alpha` and :math:`E \ge 0`; a law without a floor promises an error of 0 at
    some size.

    Each resample is a fit to the curve with the residuals of the logarithms drawn anew, widened by
    the degrees of freedom that the fit took.

    Parameters
    ----------
    sizes : array_like of shape (R,)
        Weights, observations or operations of each run, above 0.
    losses : array_like of shape (R,)
        The lowest loss of each run, above 0.
    floor : bool, default False
        Whether there is an error that no size goes below.
    n_resamples : int, default 500
        How often to draw for intervals.
    random_state : int or None
        Seed of the draws.

    Returns
    -------
    ScalingLaw

    Raises
    ------
    DataError, ParameterError
        The two do not fit together, are not above 0, or are too few: 3 runs of 2 different sizes,
        with a floor 4 runs of 3.

    References
    ----------
    Yao et al., "Towards neural scaling laws for time series foundation models", ICLR 2025; B.
    Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, chapter 9.

    Examples
    --------
    >>> from tsar.evaluation import scaling_law
    >>> law = scaling_law([1e3, 1e4, 1e5, 1e6], [0.80, 0.63, 0.50, 0.40], random_state=0)
    >>> print(f"{law.exponent:.3f}")
    0.100
    >>> print("from {:.3f} to {:.3f}".format(*law.interval("exponent")))
    from 0.098 to 0.102
    """
    check_count("scaling_law", "n_resamples", n_resamples)
    size, loss = _checked(sizes, losses, 3 if floor else 2)
    # The middle of the sizes is where the coefficient says least of the exponent.
    middle = float(np.log(size).mean())
    at, logs = np.log(size) - middle, np.log(loss)
    best = _fit_floor(at, logs) if floor else _fit_line(at, logs[None])[0]
    curve = np.log(_losses(best[None], np.exp(at))[0])
    residuals = (logs - curve) - (logs - curve).mean()
    residuals *= np.sqrt(len(logs) / (len(logs) - (3 if floor else 2)))
    generator = np.random.default_rng(random_state)
    drawn = curve + generator.choice(residuals, (n_resamples, len(logs)))
    if floor:
        samples = np.stack([_descend(at, row, best) for row in drawn])
    else:
        samples = _fit_line(at, drawn)
    numbers = np.concatenate([best[None], samples])
    numbers[:, 0] *= np.exp(numbers[:, 1] * middle)
    coefficient, exponent, lowest = numbers[0].tolist()
    return ScalingLaw(coefficient, exponent, lowest, size, loss, numbers[1:])


def _checked(sizes: ArrayLike, losses: ArrayLike, n_numbers: int) -> tuple[Floats, Floats]:
    size, loss = (np.asarray(values, np.float64) for values in (sizes, losses))
    if size.ndim != 1 or size.shape != loss.shape:
        raise DataError(
            f"scaling_law: sizes and losses must be one number each per run, got the shapes "
            f"{size.shape} and {loss.shape}"
        )
    for name, values in (("sizes", size), ("losses", loss)):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            place = int(wrong.argmax())
            raise DataError(
                f"scaling_law: {name} must be finite and above 0, since logarithms are fitted, got "
                f"{values[place]:g} at place {place}; leave failed runs out, and instead of a "
                f"negative log-likelihood take an error"
            )
    n_different = len(np.unique(size))
    if len(size) <= n_numbers or n_different < n_numbers:
        raise DataError(
            f"scaling_law: at least {n_numbers + 1} runs of {n_numbers} different sizes are "
            f"needed, got {len(size)} of {n_different}; train more sizes"
        )
    return size, loss


def _levels(method: str, confidence: float) -> list[float]:
    share = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]
    check_value(f"ScalingLaw.{method}", "confidence", confidence, share)
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def _losses(numbers: Floats, sizes: Floats) -> Floats:
    """Return the losses of laws (K, 3) at sizes: (K, *sizes.shape)."""
    coefficient, exponent, floor = numbers.T.reshape(3, -1, *(1,) * sizes.ndim)
    return np.asarray(coefficient * sizes**-exponent + floor, np.float64)


def _fit_line(at: Floats, logs: Floats) -> Floats:
    """Least squares of rows (K, R) over centred logarithms of sizes: (K, 3) without a floor."""
    slope = logs @ at / (at @ at)
    return np.stack([np.exp(logs.mean(axis=1)), -slope, np.zeros(len(logs))], axis=1)


def _fit_floor(at: Floats, logs: Floats) -> Floats:
    """Search from several floors, and return the numbers (3,) with the smallest error."""
    lowest = np.exp(logs.min())
    fits = []
    for share in FIRST_FLOORS:
        begin = _fit_line(at, np.log(np.exp(logs) - share * lowest)[None])[0]
        fits.append(_descend(at, logs, begin + [0.0, 0.0, share * lowest]))
    errors = [np.square(logs - np.log(_losses(fit[None], np.exp(at))[0])).sum() for fit in fits]
    return fits[int(np.argmin(errors))]


def _descend(at: Floats, logs: Floats, begin: Floats) -> Floats:
    """Improve the numbers (3,) of a law with a floor."""

    def parts(x: Floats) -> tuple[Floats, Floats]:
        falling = np.exp(np.clip(x[0] - x[1] * at, -700.0, 700.0))
        return falling, falling + x[2]

    def residuals(x: Floats) -> Floats:
        return np.asarray(np.log(parts(x)[1]) - logs)

    def slopes(x: Floats) -> Floats:
        falling, whole = parts(x)
        return np.stack([falling / whole, -at * falling / whole, 1 / whole], axis=1)

    first = np.array([np.log(begin[0]), begin[1], max(begin[2], 0.0)])
    bounds = ([-np.inf, -np.inf, 0.0], np.inf)
    scale = [1.0, 1.0, float(np.exp(logs.min()))]
    end = least_squares(
        residuals, first, slopes, bounds=bounds, x_scale=scale, xtol=1e-12, ftol=1e-12, gtol=1e-12
    )
    return np.array([np.exp(end.x[0]), end.x[1], end.x[2]])
