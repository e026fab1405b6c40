"""A forecast combined from those of several forecasters.

Dimension letters: M members, S series, W windows, H horizon, C variates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.exceptions import (
    DataError,
    DataWarning,
    ParameterError,
    PersistenceError,
    each_warning_once,
    warn,
)
from tsar.forecasting.autoreg import AutoReg
from tsar.forecasting.base import Forecaster
from tsar.forecasting.combination import Combination
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.held_out import HeldOutWindows
from tsar.forecasting.member_weights import (
    inverse_error_weights,
    selection_weights,
    stacking_weights,
)
from tsar.forecasting.members import ROLES
from tsar.forecasting.naive import SeasonalNaive
from tsar.forecasting.theta import Theta
from tsar.params.constraints import Interval

__all__ = ["Ensemble"]

LEARNED_WEIGHTS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "backtest": inverse_error_weights,
    "stacking": stacking_weights,
    "selection": selection_weights,
}


@dataclass(kw_only=True, eq=False, repr=False)
class Ensemble(Combination):
    """A forecast combined from those of several forecasters.

    ``fit`` fits a clone of each. They share the ensemble's ``horizon``, ``freq``, ``gaps`` and
    columns; everything else is their own, covariates included, and can be set through the
    ensemble as ``<name>__<parameter>``.

    Parameters
    ----------
    models : list or dict of forecasters, or None, default None
        The members. In a list they are named after their classes, in a dict by its keys. None
        takes :class:`SeasonalNaive`, :class:`AutoReg` and :class:`Theta`.
    weights : {"mean", "median", "backtest", "stacking", "selection"}, default "mean"
        Equal weights; the median of the forecasts; weights in inverse proportion to the
        mean absolute errors of forecasts of the last windows; those that would have
        combined these forecasts best (non-negative least squares, one in sum); or those of
        an ensemble selection with replacement by mean absolute error. For the last
        three every member is first fitted on the rows before these windows, and then on all.
    windows : int, default 5
        How many horizons at the end of each series the weights are learned from, where that
        leaves half of the series.

    Attributes
    ----------
    models_ : dict of str to forecaster
        The fitted members.
    weights_ : DataFrame of shape (n_models, n_variates) or None
        Weights by member and variate; None for the median.

    References
    ----------
    Bates and Granger, "The combination of forecasts", Operational Research Quarterly 20
    (1969); Breiman, "Stacked regressions", Machine Learning 24 (1996);
    Caruana et al., "Ensemble selection from libraries of models", ICML 2004.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> members = [tsar.SeasonalNaive(), tsar.AutoReg(), tsar.Theta()]
    >>> model = tsar.Ensemble(models=members, weights="stacking", horizon=12).fit(sea)
    >>> model.predict().shape
    (12, 1)
    >>> model.set_params(Theta__seasonal=None).fit(sea).weights_.sum().round(6).tolist()
    [1.0]
    """

    models: Sequence[Forecaster] | dict | None = None
    weights: Literal["mean", "median", "backtest", "stacking", "selection"] = "mean"
    windows: Annotated[int, Interval(1)] = 5

    def _default_members(self) -> Mapping[str, Forecaster]:
        return {type(one).__name__: one for one in (SeasonalNaive(), AutoReg(), Theta())}

    def _check_consistency(self) -> None:
        super()._check_consistency()
        declared: dict[Any, str] = {}
        for member in self._named().values():
            for role in ROLES:
                for column in member.roles.get(role, []):
                    if declared.setdefault(column, role) != role:
                        raise ParameterError(
                            f"Ensemble: {column!r} must have one role, got {role} of "
                            f"{type(member).__name__} and {declared[column]} of another member"
                        )

    @property
    def roles(self) -> dict[str, Any]:
        members = self._named().values()
        return {
            role: list(dict.fromkeys(name for one in members for name in one.roles.get(role, [])))
            for role in ROLES
        }

    # ------------------------------------------------------------------ fit

    @each_warning_once()
    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        weights = self._learn_weights(panel)
        self.models_ = self._fitted_members(panel)
        self.weights_ = weights
        return self._learned_from_members(panel, self._held_out_by_all(panel))

    def _held_out_by_all(self, panel: Panel) -> np.ndarray:
        """Return how many rows at the end of each series nothing was learned from, (S,)."""
        held_out = [one.learned_.held_out for one in self.models_.values() if one.is_trained]
        # Learned weights have seen the last rows.
        if not held_out or self.weights not in ("mean", "median"):
            return np.zeros(panel.n_series, dtype=np.int64)
        return np.minimum.reduce(held_out)

    def _fitted_members(self, panel: Panel) -> dict[str, Forecaster]:
        return {name: self._fitted_member(one, panel) for name, one in self._named().items()}

    def _learn_weights(self, panel: Panel) -> pd.DataFrame | None:
        """Return the weights of the members (rows) by variate (columns)."""
        if self.weights == "median":
            return None
        names, n_variates = list(self._named()), panel.n_variates
        weights = np.full((len(names), n_variates), 1.0 / len(names))
        if self.weights != "mean" and len(names) > 1:
            horizon = int(self.horizon)
            counts = np.minimum(int(self.windows), panel.lengths // (2 * horizon))
            if counts.any():
                weights = self._held_out_weights(panel, counts * horizon)
            else:
                warn(
                    f"Ensemble: weights={self.weights!r} needs a series of {2 * horizon} rows, the "
                    f"longest has {panel.lengths.max()}; all members have the same weight",
                    DataWarning,
                )
        return pd.DataFrame(weights, index=names, columns=panel.variates)

    def _held_out_weights(self, panel: Panel, held_out: np.ndarray) -> np.ndarray:
        """Learn weights (M, C) from the last ``held_out`` rows of each series."""
        windows = HeldOutWindows.of(panel, held_out, int(self.horizon))
        before = windows.before
        try:
            members = self._fitted_members(before)
        except DataError as error:
            raise DataError(
                f"Ensemble: weights={self.weights!r} holds out {held_out.max()} rows to learn the "
                f"weights from, and the rest is too little: {error}; choose fewer windows, or "
                f"weights='mean'",
                error.faults,
            ) from None
        # A series counts by how its errors compare with its own movement.
        scaling = Scaling.measure(before.values, before.offsets, before.offsets[1:])
        truth, *several = (
            windows.scaled(values, scaling)
            for values in (windows.truth, *map(windows.forecasts_of, members.values()))
        )
        forecasts = np.stack(several, axis=-1)
        learn = LEARNED_WEIGHTS[str(self.weights)]
        weights = np.full((panel.n_variates, len(members)), 1.0 / len(members))
        for variate in range(panel.n_variates):
            seen = ~np.isnan(truth[:, :, variate])
            if seen.any():
                weights[variate] = learn(forecasts[:, :, variate][seen], truth[:, :, variate][seen])
        return weights.T

    # ------------------------------------------------------------ persistence

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Any],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        if (self.weights_ is None) != (self.weights == "median"):
            raise PersistenceError(f"load: weights={self.weights!r} and the saved ones disagree")
