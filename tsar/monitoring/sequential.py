"""Sequential tests that may be looked at after every run, with a known rate of false alarms.

Both bet against what they test: evidence grows by a factor of mean at most 1 as long as nothing
has changed, so that it rarely becomes large.
"""

import bisect
import math

import numpy as np

from tsar.exceptions import ParameterError

__all__ = ["CoverageTest", "ErrorTest"]

# How much of what can be lost is bet, from careful to bold.
FRACTIONS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
# Exponents of bets on small p-values, from bold to careful.
EXPONENTS = np.array([0.1, 0.2, 0.4, 0.6, 0.8])


def _check_rate(owner: str, name: str, rate: float) -> float:
    if not 0 < rate < 1:
        raise ParameterError(f"{owner}: {name} must be in (0, 1), got {rate!r}; such as 0.01")
    return float(rate)


class CoverageTest:
    """Test, run by run, that intervals cover as many percent as they say.

    Parameters
    ----------
    level : float
        The percentage that the intervals are to cover.
    alarm_rate : float, default 0.01
        The probability of a false alarm at any time, however long the test goes on.
    tolerance : float, default 0.05
        By how much the share that is covered may differ in the long run without being a drift.

    Attributes
    ----------
    evidence : float
        The mean of what all bets have made of 1.
    n_runs : int
        Runs so far.
    alarm_at : int or None
        The run, from 0, at which the evidence reached ``1 / alarm_rate`` first.

    Raises
    ------
    ParameterError
        An argument is outside its bounds.

    Notes
    -----
    Each bet multiplies its capital by ``1 + b * (covered - limit)`` at each run, half of them on
    more than ``level`` plus the tolerance, half on less than it minus the tolerance. While the
    expected share, given all runs before, lies between these, no bet gains in expectation, and
    by Ville's inequality the capital ever reaches ``1 / alarm_rate`` with probability
    ``alarm_rate`` at most. The steps and series of a run may depend on each other in any way.

    References
    ----------
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of
    the Royal Statistical Society B 86 (2024); Ville, "Étude critique de la notion de collectif",
    1939.

    Examples
    --------
    >>> from tsar.monitoring import CoverageTest
    >>> test = CoverageTest(90)
    >>> for covered in [0.9] * 20 + [0.5] * 20:
    ...     test.update(covered)
    >>> test.alarm_at
    32
    """

    def __init__(self, level: float, alarm_rate: float = 0.01, tolerance: float = 0.05) -> None:
        if not 0 < level < 100:
            raise ParameterError(f"CoverageTest: level must be in (0, 100), got {level!r}")
        if not 0 <= tolerance < 1:
            raise ParameterError(f"CoverageTest: tolerance must be in [0, 1), got {tolerance!r}")
        self.level = float(level)
        self.alarm_rate = _check_rate("CoverageTest", "alarm_rate", alarm_rate)
        low, high = max(level / 100 - tolerance, 0.0), min(level / 100 + tolerance, 1.0)
        # A side that the tolerance leaves no room on has no bets.
        bets = [(low, -FRACTIONS / (1 - low))] if low > 0 else []
        bets += [(high, FRACTIONS / high)] if high < 1 else []
        self._limits = np.concatenate([np.full(len(bet), limit) for limit, bet in bets])
        self._bets = np.concatenate([bet for _, bet in bets])
        self._log_capital = np.zeros(len(self._bets))
        self.n_runs = 0
        self.alarm_at: int | None = None

    @property
    def evidence(self) -> float:
        return float(np.exp(self._log_capital).mean())

    def update(self, covered: float) -> None:
        """Take the share of the values of a run that the intervals covered.

        Parameters
        ----------
        covered : float
            In [0, 1].
        """
        if not 0 <= covered <= 1:
            raise ParameterError(f"CoverageTest: covered must be in [0, 1], got {covered!r}")
        self._log_capital += np.log1p(self._bets * (covered - self._limits))
        if self.alarm_at is None and self.evidence >= 1 / self.alarm_rate:
            self.alarm_at = self.n_runs
        self.n_runs += 1


class ErrorTest:
    """Test, run by run, that errors are not larger than they were.

    Parameters
    ----------
    alarm_rate : float, default 0.01
        False alarms come ``1 / alarm_rate`` runs after the begin on average, or later.
    random_state : int, default 0
        Seed of the draws that break ties of errors.

    Attributes
    ----------
    evidence : float
        That errors grew at some run so far.
    n_runs : int
        Runs so far.
    alarm_at : int or None
        The run, from 0, at which the evidence reached ``1 / alarm_rate`` first.

    Raises
    ------
    ParameterError
        An argument is outside its bounds.

    Notes
    -----
    The rank of an error among all so far is a p-value, uniform and independent of those before
    as long as errors are exchangeable. Bets ``e * p ** (e - 1)`` on small ones have mean 1. Their
    products from every possible begin of a change are added up, the Shiryaev-Roberts procedure:
    ``evidence = (1 + evidence) * bet``, averaged over the exponents e. Where nothing changes, its
    mean after n runs is n, so that it takes ``1 / alarm_rate`` runs on average, at least, to
    reach that value.

    References
    ----------
    Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change
    detection", New England Journal of Statistics in Data Science 2 (2024); Vovk, Nouretdinov and
    Gammerman, "Testing exchangeability on-line", ICML 2003.

    Examples
    --------
    >>> from tsar.monitoring import ErrorTest
    >>> test = ErrorTest()
    >>> for error in [1.0, 0.9, 1.1, 0.8, 1.2] * 6 + [2.0] * 5:
    ...     test.update(error)
    >>> test.alarm_at >= 30
    True
    """

    def __init__(self, alarm_rate: float = 0.01, random_state: int = 0) -> None:
        self.alarm_rate = _check_rate("ErrorTest", "alarm_rate", alarm_rate)
        self._generator = np.random.default_rng(random_state)
        self._ordered: list[float] = []
        self._sums = np.zeros(len(EXPONENTS))
        self.n_runs = 0
        self.alarm_at: int | None = None

    @property
    def evidence(self) -> float:
        return float(self._sums.mean())

    def update(self, error: float) -> None:
        """Take the error of a run.

        Parameters
        ----------
        error : float
            Finite; in one unit for all runs.
        """
        if not math.isfinite(error):
            raise ParameterError(f"ErrorTest: error must be a finite number, got {error!r}")
        bisect.insort(self._ordered, error)
        n_above = len(self._ordered) - bisect.bisect_right(self._ordered, error)
        n_same = len(self._ordered) - n_above - bisect.bisect_left(self._ordered, error)
        # In (0, 1]: a p-value of 0 would settle everything.
        p_value = (n_above + (1 - self._generator.random()) * n_same) / len(self._ordered)
        self._sums = (1 + self._sums) * EXPONENTS * p_value ** (EXPONENTS - 1)
        if self.alarm_at is None and self.evidence >= 1 / self.alarm_rate:
            self.alarm_at = self.n_runs
        self.n_runs += 1
