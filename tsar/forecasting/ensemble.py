"""A forecast combined from those of several forecasters.

Dimension letters: M members, S series, W windows, H horizon, C variates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsar.data.codec import check_array
from tsar.data.matching import without_end
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import number_windows
from tsar.estimator.base import Estimator
from tsar.exceptions import (
    DataError,
    DataWarning,
    InterruptedWarning,
    ParameterError,
    PersistenceError,
    each_warning_once,
    own_warnings,
    warn,
)
from tsar.forecasting.autoreg import AutoReg
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.members import ROLES, as_read_by, coded_for, configured, rows_in
from tsar.forecasting.naive import SeasonalNaive
from tsar.forecasting.theta import Theta
from tsar.params.constraints import Interval

__all__ = ["Ensemble", "inverse_error_weights", "stacking_weights"]

# How much a sum other than one costs in the least squares problem of stacking.
SUM_PRICE = 1e3


def inverse_error_weights(forecasts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return weights in inverse proportion to the mean absolute errors; they sum to one.

    Parameters
    ----------
    forecasts : float array of shape (n, M)
    truth : float array of shape (n,)

    Returns
    -------
    float64 array of shape (M,)
    """
    errors = np.abs(forecasts - truth[:, None]).mean(axis=0)
    # Members without any error share everything.
    weights = (errors == 0).astype(np.float64) if (errors == 0).any() else 1.0 / errors
    return weights / weights.sum()


def stacking_weights(forecasts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the weights, none negative and one in sum, of the least squared error.

    Parameters
    ----------
    forecasts : float array of shape (n, M)
    truth : float array of shape (n,)

    Returns
    -------
    float64 array of shape (M,)

    References
    ----------
    Breiman, "Stacked regressions", Machine Learning 24 (1996), section 2; solved by
    ``scipy.optimize.nnls`` with a row that prices a sum other than one.
    """
    from scipy.optimize import nnls

    # With weights that sum to one, a level that all have in common does not matter.
    level = truth.mean()
    matrix, target = forecasts - level, truth - level
    unit = float(np.abs(matrix).max())
    if unit == 0:
        return np.full(matrix.shape[1], 1.0 / matrix.shape[1])
    matrix = np.concatenate([matrix / unit, np.full((1, matrix.shape[1]), SUM_PRICE)])
    weights, _ = nnls(matrix, np.append(target / unit, SUM_PRICE))
    return np.asarray(weights / weights.sum())


@dataclass(kw_only=True, eq=False, repr=False)
class Ensemble(Forecaster):
    """A forecast combined from those of several forecasters.

    ``fit`` fits a clone of each. They share the ensemble's ``horizon``, ``freq``, ``gaps`` and
    columns; everything else is their own, covariates included, and can be set through the
    ensemble as ``<name>__<parameter>``.

    Parameters
    ----------
    models : list or dict of forecasters, or None, default None
        The members. In a list they are named after their classes, in a dict by its keys. None
        takes :class:`SeasonalNaive`, :class:`AutoReg` and :class:`Theta`.
    weights : {"mean", "median", "backtest", "stacking"}, default "mean"
        Equal weights; the median of the forecasts; weights in inverse proportion to the
        mean absolute errors of forecasts of the last windows; or those that would have
        combined these forecasts best (non-negative least squares, one in sum). For the last
        two every member is first fitted on the rows before these windows, and then on all.
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
    (1969); Breiman, "Stacked regressions", Machine Learning 24 (1996).

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
    weights: Literal["mean", "median", "backtest", "stacking"] = "mean"
    windows: Annotated[int, Interval(1)] = 5

    # ----------------------------------------------------------- parameters

    def _named(self) -> dict[str, Any]:
        """Return the members by name, as they were given."""
        if isinstance(self.models, Mapping):
            return dict(self.models)
        members = (SeasonalNaive(), AutoReg(), Theta()) if self.models is None else self.models
        return {type(one).__name__: one for one in members}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, and with ``deep`` those of the members that were given.

        Parameters
        ----------
        deep : bool, default True

        Returns
        -------
        dict
        """
        params: dict[str, Any] = super().get_params(deep=False)
        if deep and isinstance(self.models, Mapping | list | tuple):
            for name, member in self._named().items():
                if isinstance(member, Forecaster):
                    own = member.get_params().items()
                    params |= {f"{name}__{key}": value for key, value in own}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of a member as ``<name>__<parameter>``.

        Parameters
        ----------
        **params

        Returns
        -------
        self
        """
        super().set_params(**{key: value for key, value in params.items() if "__" not in key})
        # Whatever else models= is, fit says.
        can_hold = isinstance(self.models, Mapping | list | tuple)
        members = self._named() if can_hold else {}
        for key, value in params.items():
            name, nested, own = key.partition("__")
            if nested and name not in members:
                raise ParameterError(
                    f"Ensemble: {key} names no member, there are {', '.join(members) or 'none'}; "
                    f"pass them as models= first"
                )
            if nested:
                members[name].set_params(**{own: value})
        return self

    @property
    def parts(self) -> Sequence[Estimator]:
        members = self._named().values()
        return [configured(one, self) for one in members if isinstance(one, Forecaster)]

    def _check_consistency(self) -> None:
        super()._check_consistency()
        members = self._named()
        if isinstance(self.models, list | tuple) and len(members) < len(self.models):
            raise ParameterError(
                "Ensemble: models must have names of their own, got several of one class; pass a "
                "dict such as {'short': model, 'long': other}"
            )
        if not members:
            raise ParameterError("Ensemble: models must be at least one forecaster, got none")
        for name, member in members.items():
            if not isinstance(name, str) or not name or "__" in name:
                raise ParameterError(
                    f"Ensemble: names of models must be strings without '__', got {name!r}"
                )
            if not isinstance(member, Forecaster):
                raise ParameterError(
                    f"Ensemble: models must be forecasters, got {member!r} as {name!r}"
                )
        declared: dict[Any, str] = {}
        for member in members.values():
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
        members = self.models_.values()
        return Learned(
            Scaling.identity(panel.n_series, panel.n_variates),
            Scaling.identity(1, panel.n_variates),
            max(member.context_rows for member in members),
            whole=any(member.learned_.whole for member in members),
            held_out=self._held_out_by_all(panel),
        )

    def _held_out_by_all(self, panel: Panel) -> np.ndarray:
        """Return how many rows at the end of each series nothing was learned from, (S,)."""
        held_out = [one.learned_.held_out for one in self.models_.values() if one.is_trained]
        # Learned weights have seen the last rows.
        if not held_out or self.weights not in ("mean", "median"):
            return np.zeros(panel.n_series, dtype=np.int64)
        return np.minimum.reduce(held_out)

    def _remember(self, learned: Learned, end: Panel, horizon: int) -> None:
        # The members keep covariates, coded as they read them.
        plain = replace(end, past={}, future={}, static={}, calendar=None, calendar_kind=None)
        super()._remember(learned, plain, horizon)

    def _fitted_members(self, panel: Panel) -> dict[str, Forecaster]:
        fitted_members = {}
        try:
            # An interrupt ends the fit as a whole: the other members are still to come.
            with own_warnings("error", InterruptedWarning):
                for name, member in self._named().items():
                    fitted = configured(member, self)
                    fitted_members[name] = fitted.fit_panel(as_read_by(fitted, panel), go_on=False)
        except InterruptedWarning:
            raise KeyboardInterrupt from None
        return fitted_members

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
        before = without_end(panel, held_out)
        try:
            members = self._fitted_members(before)
        except DataError as error:
            raise DataError(
                f"Ensemble: weights={self.weights!r} holds out {held_out.max()} rows to learn the "
                f"weights from, and the rest is too little: {error}; choose fewer windows, or "
                f"weights='mean'",
                error.faults,
            ) from None
        horizon = int(self.horizon)
        counts = held_out // horizon
        owners, numbers = number_windows(counts)
        rows = (panel.offsets[1:] - held_out)[owners] + numbers * horizon
        forecasts = []
        for member in members.values():
            part = coded_for(member, panel)
            forecasts.append(member.forecast(part, owners, rows, horizon).point)
        truth = panel.values[rows[:, None] + np.arange(horizon)]
        # A series counts by how its errors compare with its own movement.
        measured = Scaling.measure(before.values, before.offsets, before.offsets[1:])
        scale = np.where(measured.scale > 0, measured.scale, np.nan)[owners][:, None]
        mean = measured.mean[owners][:, None]
        learn = stacking_weights if self.weights == "stacking" else inverse_error_weights
        weights = np.full((len(members), panel.n_variates), 1.0 / len(members))
        for variate in range(panel.n_variates):
            y, *several = (
                ((values - mean) / scale)[:, :, variate].reshape(-1)
                for values in (truth, *forecasts)
            )
            seen = ~np.isnan(y)
            if seen.any():
                weights[:, variate] = learn(np.stack(several, axis=1)[seen], y[seen])
        return weights

    # -------------------------------------------------------------- predict

    @property
    def forecasts_variates_alone(self) -> bool:
        return all(member.forecasts_variates_alone for member in self.models_.values())

    @property
    def takes_new_variates(self) -> bool:
        return all(member.takes_new_variates for member in self.models_.values())

    @property
    def future_names(self) -> list[Any]:
        names = (name for member in self.models_.values() for name in member.future_names)
        return list(dict.fromkeys(names))

    @each_warning_once()
    def forecast(
        self,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        horizon: int,
        known_ahead: Mapping[Any, np.ndarray] | None = None,
        levels: Sequence[float] = (),
        samples: int | None = None,
        *,
        after_fitted: bool = False,
    ) -> Forecasts:
        forecasts = []
        replaced: dict[tuple[int, int], str] = {}
        for name, member in self.models_.items():
            part = member.end_ if panel is self.end_ else coded_for(member, panel)
            own = {name: known_ahead[name] for name in member.future_names} if known_ahead else None
            own_rows = rows_in(part, panel, owners, rows)
            answer = member.forecast(
                part, owners, own_rows, horizon, own, after_fitted=after_fitted
            )
            forecasts.append(answer.point)
            for place, why in answer.replaced.items():
                replaced.setdefault(place, f"{name}: {why}")
        combined = self.in_range(self._combine(forecasts, panel.variates))
        return Forecasts(combined, replaced=replaced)

    def _combine(self, forecasts: list[np.ndarray], variates: pd.Index) -> np.ndarray:
        """Combine forecasts of shape (any, H, C)."""
        if self.weights_ is None:
            return np.median(np.stack(forecasts), axis=0)
        fitted_weights = self.weights_.to_numpy()
        place = self.weights_.columns.get_indexer(variates)
        # A variate that was not fitted has the weights that the others have on average.
        weights = np.where(
            place >= 0, fitted_weights[:, place], fitted_weights.mean(axis=1, keepdims=True)
        )
        combined = np.zeros_like(forecasts[0])
        for weight, forecast in zip(weights, forecasts, strict=True):
            combined += weight * forecast
        return combined

    # ------------------------------------------------------------ persistence

    @property
    def members(self) -> Mapping[str, Forecaster]:
        return self.models_

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        if self.weights_ is not None:
            tensors["weights"] = torch.from_numpy(self.weights_.to_numpy().copy())
        return record, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Any],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        self.models_ = dict(members)
        self.weights_ = None
        if not members or any(
            member.variates_ != self.variates_ or member.end_.n_series != self.end_.n_series
            for member in members.values()
        ):
            raise PersistenceError("load: the members of the Ensemble were fitted on other series")
        if ("weights" in tensors) != (self.weights != "median"):
            raise PersistenceError(f"load: weights={self.weights!r} and the saved ones disagree")
        if "weights" in tensors:
            shape = (len(members), self.end_.n_variates)
            check_array({"weights": tensors["weights"].numpy()}, "weights", "float64", shape)
            self.weights_ = pd.DataFrame(
                tensors["weights"].numpy(), index=list(self.models_), columns=self.end_.variates
            )
