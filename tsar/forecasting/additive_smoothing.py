"""Exponential smoothing in which everything is added, estimated as a linear filter.

The one-step errors are a filter of the series without what its first states alone would make of
it, and these states enter linearly:

    e = P(L) / Q(L) (y - D x)

with L the lag operator, x the states before the first row and D what each of them adds to each row
(1, the damped slope, the phase of the season). For any smoothing parameters the best states are
therefore a least squares problem, and only these parameters, four at most, have to be searched for,
with an exact gradient.

Dimension letters: n rows, m steps of a season, k states, K weights.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["AdditiveSmoothing", "Smoothed"]

# Between which the shares and the damping are searched: Hyndman et al. (2008), section 2.7.
SHARE, DAMPING = (1e-4, 1.0 - 1e-4), (0.8, 0.98)
# Where the search may begin: shares of level, slope and season, and damping. There are several
# optima; the best of these places, and the second, led to the best one that was seen.
STARTS = tuple(
    itertools.product((0.02, 0.1, 0.3, 0.6, 0.9), (0.02, 0.2, 0.8), (0.02, 0.3), (0.95,))
)
N_SEARCHES = 2
# Errors of this share of the series are rounding: no other weights fit better.
PERFECT = 1e-13


class Smoothed(NamedTuple):
    """What was estimated.

    Parameters
    ----------
    weights : float64 array of shape (K,)
        The smoothing parameters of level, slope and season, and the damping, those that there are.
    states : float64 array of shape (k,)
        Before the first row: level, slope, season with its latest value first.
    squares : float
        Sum of the squared one-step errors.
    converged : bool
    """

    weights: np.ndarray
    states: np.ndarray
    squares: float
    converged: bool


class _Parts(NamedTuple):
    """Polynomials of the lag operator L, of one length, and L times each of them.

    Parameters
    ----------
    whole : float64 array
        1 - L^m.
    phases : float64 array
        L + ... + L^m.
    season : float64 array
        L^m.
    whole_later, phases_later, season_later : float64 arrays
    """

    whole: np.ndarray
    phases: np.ndarray
    season: np.ndarray
    whole_later: np.ndarray
    phases_later: np.ndarray
    season_later: np.ndarray


class _Fit(NamedTuple):
    """Errors (n,) of a series, what was filtered (n,), and the states (k,) before it."""

    errors: np.ndarray
    rest: np.ndarray
    states: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class AdditiveSmoothing:
    """Exponential smoothing with additive errors, trend and season.

        y_t = l_{t-1} + phi b_{t-1} + s_{t-m} + e_t
        l_t = l_{t-1} + phi b_{t-1} + alpha e_t
        b_t = phi b_{t-1} + beta e_t
        s_t = s_{t-m} + gamma e_t

    Parameters
    ----------
    trend, damped : bool
        Whether there is a slope, and whether it fades; else phi is 1.
    season_length : int
        m, 1 where there is no season.

    References
    ----------
    Hyndman, Koehler, Ord and Snyder, "Forecasting with exponential smoothing", 2008, table 2.2.
    Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems
    whose variables separate", SIAM Journal on Numerical Analysis 10 (1973).
    """

    trend: bool
    damped: bool
    season_length: int = 1

    @property
    def seasonal(self) -> bool:
        """Whether there is a season."""
        return self.season_length > 1

    @property
    def n_weights(self) -> int:
        """K, the damping among them."""
        return 1 + self.trend + self.seasonal + self.damped

    @property
    def n_parameters(self) -> int:
        """How many numbers are estimated, the variance of the errors among them.

        Level and season share a constant: of their m + 1 states m are free.
        """
        return self.n_weights + self.season_length + self.trend + 1

    def estimate(self, y: np.ndarray, states: np.ndarray | None = None) -> Smoothed:
        """Minimise the sum of the squared errors, which maximises the likelihood.

        Parameters
        ----------
        y : float64 array of shape (n,)
        states : float64 array of shape (k,), optional
            Those before the first row; None estimates them as well.
        """
        from scipy.optimize import minimize

        present = np.array([True, self.trend, self.seasonal, self.damped])
        starts = np.unique(np.array(STARTS)[:, present], axis=0)
        squares = [_squares(self._fit(self._weights(start), y, states)) for start in starts]
        order = np.argsort(squares, kind="stable")
        shares, converged = starts[order[0]], True
        if squares[order[0]] > PERFECT**2 * float(y @ y):
            bounds = np.array([SHARE, SHARE, SHARE, DAMPING])[present]
            searches = [
                minimize(
                    self._objective,
                    starts[place],
                    args=(y, states),
                    jac=True,
                    method="L-BFGS-B",
                    bounds=bounds,
                )
                for place in order[:N_SEARCHES]
            ]
            best = min(searches, key=lambda search: float(search.fun))
            shares, converged = best.x, bool(best.success)
        weights = self._weights(shares)
        fit = self._fit(weights, y, states)
        return Smoothed(weights, fit.states, _squares(fit), converged)

    def errors(self, y: np.ndarray, weights: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Return the one-step errors (n,) of a series, by what :class:`Smoothed` holds."""
        return self._fit(weights, y, states).errors

    def _weights(self, shares: np.ndarray) -> np.ndarray:
        """Return weights (K,): the slope has a share of the level's, the season of what is left."""
        weights = np.array(shares)
        if self.trend:
            weights[1] *= shares[0]
        if self.seasonal:
            weights[1 + self.trend] *= 1.0 - shares[0]
        return weights

    def _objective(
        self, shares: np.ndarray, y: np.ndarray, states: np.ndarray | None
    ) -> tuple[float, np.ndarray]:
        """Return half of the logarithm of the squared errors, and its gradient by the shares."""
        fit = self._fit(self._weights(shares), y, states)
        squares = _squares(fit)
        # The best states are where the errors do not depend on them, to first order.
        by_weight = self._sensitivities(fit) @ fit.errors / squares
        gradient = by_weight.copy()
        if self.trend:
            gradient[0] += shares[1] * by_weight[1]
            gradient[1] = shares[0] * by_weight[1]
        if self.seasonal:
            season = 1 + self.trend
            gradient[0] -= shares[season] * by_weight[season]
            gradient[season] = (1.0 - shares[0]) * by_weight[season]
        return 0.5 * np.log(squares), gradient

    # --------------------------------------------------------------- filter

    @functools.cached_property
    def _parts(self) -> _Parts:
        """The polynomials that P and Q are made of, after their common factor is taken out.

        With a season the level's unit root 1 - L is part of 1 - L^m; what is left of that is the
        sum of the phases.
        """
        m = self.season_length
        whole, phases, later = np.zeros((3, m + 2 + self.trend))
        whole[[0, m]], phases[1 : m + 1], later[m] = [1.0, -1.0], 1.0, 1.0
        return _Parts(whole, phases, later, *(np.roll(part, 1) for part in (whole, phases, later)))

    def _damping(self, weights: np.ndarray) -> float:
        return float(weights[-1]) if self.damped else 1.0

    def _filter(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return P, Q and the derivatives of Q by the weights, without that by the damping."""
        parts, damping = self._parts, self._damping(weights)
        # A slope is a factor 1 - phi L of what does not move it.
        decay = damping if self.trend else 0.0
        above = parts.whole - decay * parts.whole_later
        by = [parts.phases - decay * parts.phases_later]
        if self.trend:
            by.append(damping * parts.phases)
        if self.seasonal:
            by.append(parts.season - decay * parts.season_later)
        below = above + sum(weight * part for weight, part in zip(weights, by, strict=False))
        return above, below, by

    def _fit(self, weights: np.ndarray, y: np.ndarray, states: np.ndarray | None) -> _Fit:
        """Filter a series, with the best states where none are passed."""
        from scipy.signal import lfilter

        above, below, _ = self._filter(weights)
        design = self._design(len(y), self._damping(weights))
        if states is None:
            # The phases are one train of impulses, begun later and later.
            first, *slope, plain = lfilter(above, below, [*design.T[:: self.season_length], y])
            effects = np.zeros_like(design)
            for phase in range(self.season_length):
                effects[phase:, phase] = first[: len(y) - phase]
            if self.trend:
                effects[:, -1] = slope[0]
            numbers = np.linalg.solve(effects.T @ effects, effects.T @ plain)
            states = self._as_states(numbers)
        rest = y - design @ self._as_numbers(states)
        return _Fit(lfilter(above, below, rest), rest, states, weights)

    def _sensitivities(self, fit: _Fit) -> np.ndarray:
        """Return the derivatives of the errors by the weights, shape (K, n)."""
        from scipy.signal import lfilter

        above, below, by = self._filter(fit.weights)
        n_rows, parts = len(fit.rest), self._parts
        if not self.damped:
            errors = lfilter([1.0], below, fit.errors)
            return np.stack([-np.convolve(errors, part)[:n_rows] for part in by])
        steps = np.arange(1.0, n_rows + 1)
        slope = np.cumsum(steps * fit.weights[-1] ** (steps - 1.0))
        errors, rest, slope = lfilter([1.0], below, [fit.errors, fit.rest, slope])
        rows = [-np.convolve(errors, part)[:n_rows] for part in by]
        below_by = -parts.whole_later + fit.weights[1] * parts.phases
        below_by = below_by - fit.weights[0] * parts.phases_later
        if self.seasonal:
            below_by = below_by - fit.weights[2] * parts.season_later
        by_damping = np.convolve(errors, -below_by) - np.convolve(rest, parts.whole_later)
        by_damping = by_damping - fit.states[1] * np.convolve(slope, above)
        return np.stack([*rows, by_damping[:n_rows]])

    def _design(self, n_rows: int, damping: float) -> np.ndarray:
        """Return what a unit of each number adds to each row: the phases, then the slope."""
        rows = np.arange(n_rows)
        design = np.zeros((n_rows, self.season_length + self.trend))
        design[rows, rows % self.season_length] = 1.0
        if self.trend:
            design[:, -1] = np.cumsum(damping ** (rows + 1.0))
        return design

    def _as_states(self, numbers: np.ndarray) -> np.ndarray:
        """Return level, slope and season, of phases and slope; the season adds up to 0."""
        phases = numbers[: self.season_length]
        season = (phases - phases.mean())[::-1] if self.seasonal else np.empty(0)
        return np.concatenate([[phases.mean()], numbers[self.season_length :], season])

    def _as_numbers(self, states: np.ndarray) -> np.ndarray:
        """Undo :meth:`_as_states`."""
        slope, season = states[1 : 1 + self.trend], states[1 + self.trend :]
        phases = states[0] + (season[::-1] if self.seasonal else np.zeros(1))
        return np.concatenate([phases, slope])


def _squares(fit: _Fit) -> float:
    return float(fit.errors @ fit.errors)
