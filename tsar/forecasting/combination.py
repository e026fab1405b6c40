"""Forecasters that combine those of others: what an ensemble and a selection share.

Dimension letters: M members, S series, W windows, H horizon, C variates.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsar.data.codec import check_array
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.estimator.base import Estimator
from tsar.exceptions import (
    InterruptedWarning,
    ParameterError,
    PersistenceError,
    each_warning_once,
    own_warnings,
)
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.members import as_read_by, coded_for, configured, read_for, rows_in

__all__ = ["Combination"]


@dataclass(kw_only=True, eq=False, repr=False)
class Combination(Forecaster):
    """A forecaster that combines what others forecast.

    Attributes
    ----------
    models_ : dict of str to forecaster
        The fitted members.
    weights_ : DataFrame of shape (n_models, n_variates) or None
        Weights by member and variate; None for the median.
    """

    # The parameter that holds the members, and what stands in for it where it is None.
    _held_in: ClassVar[str] = "models"

    @abstractmethod
    def _default_members(self) -> Mapping[str, Forecaster]:
        """Return the members where none are given."""

    # ----------------------------------------------------------- parameters

    def _named(self) -> dict[str, Any]:
        """Return the members by name, as they were given."""
        members = getattr(self, self._held_in)
        if members is None:
            return dict(self._default_members())
        if isinstance(members, Mapping):
            return dict(members)
        return {type(one).__name__: one for one in members}

    @property
    def _can_hold(self) -> bool:
        return isinstance(getattr(self, self._held_in), Mapping | list | tuple)

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
        if deep and self._can_hold:
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
        # Whatever else was given, fit says.
        members = self._named() if self._can_hold else {}
        for key, value in params.items():
            name, nested, own = key.partition("__")
            if nested and name not in members:
                raise ParameterError(
                    f"{self.name}: {key} names no member, there are "
                    f"{', '.join(members) or 'none'}; pass them as {self._held_in}= first"
                )
            if nested:
                members[name].set_params(**{own: value})
        return self

    @property
    def parts(self) -> Sequence[Estimator]:
        members = self._named().values()
        return [self._configured(one) for one in members if isinstance(one, Forecaster)]

    def _check_consistency(self) -> None:
        super()._check_consistency()
        owner, held_in = self.name, self._held_in
        held = getattr(self, held_in)
        members = self._named()
        if isinstance(held, list | tuple) and len(members) < len(held):
            raise ParameterError(
                f"{owner}: {held_in} must have names of their own, got several of one "
                "class; pass a dict such as {'short': model, 'long': other}"
            )
        if not members:
            raise ParameterError(f"{owner}: {held_in} must be at least one forecaster, got none")
        for name, member in members.items():
            if not isinstance(name, str) or not name or "__" in name:
                raise ParameterError(
                    f"{owner}: names of {held_in} must be strings without '__', got {name!r}"
                )
            if not isinstance(member, Forecaster):
                raise ParameterError(
                    f"{owner}: {held_in} must be forecasters, got {member!r} as {name!r}"
                )

    # ------------------------------------------------------------------ fit

    def _configured(self, member: Forecaster) -> Forecaster:
        """Return a fresh member with what it shares with the whole."""
        return configured(member, self)

    def _learned_from_members(self, panel: Panel, held_out: np.ndarray) -> Learned:
        """Return what is learned besides the members; ``held_out`` rows (S,) were not."""
        members = self.models_.values()
        return Learned(
            Scaling.identity(panel.n_series, panel.n_variates),
            Scaling.identity(1, panel.n_variates),
            max(member.context_rows for member in members),
            whole=any(member.learned_.whole for member in members),
            held_out=held_out,
        )

    def _fitted_member(self, member: Forecaster, panel: Panel) -> Forecaster:
        """Fit a member; an interrupt ends the fit as a whole: others are still to come."""
        fitted = self._configured(member)
        try:
            with own_warnings("error", InterruptedWarning):
                return fitted.fit_panel(as_read_by(fitted, panel), go_on=False)
        except InterruptedWarning:
            raise KeyboardInterrupt from None

    def _remember(self, learned: Learned, end: Panel, horizon: int) -> None:
        # The members keep covariates, coded as they read them.
        plain = replace(end, past={}, future={}, static={}, calendar=None, calendar_kind=None)
        super()._remember(learned, plain, horizon)

    @property
    def in_words(self) -> str:
        if self.weights_ is None:
            return f"{self.name}: the median of {', '.join(self.models_)}"
        means = self.weights_.mean(axis=1).sort_values(ascending=False, kind="stable")
        members = ", ".join(f"{weight:.2f} {name}" for name, weight in means.items())
        return f"{self.name}: {members}"

    @property
    def takes_new_series(self) -> bool:
        return all(member.takes_new_series for member in self.models_.values())

    def moved_on(self, panel: Panel) -> Self:
        moved = super().moved_on(panel)
        moved.models_ = {
            name: member.moved_on(read_for(member, panel)) for name, member in self.models_.items()
        }
        return moved

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
            raise PersistenceError(
                f"load: the members of the {self.name} were fitted on other series"
            )
        if "weights" in tensors:
            shape = (len(members), self.end_.n_variates)
            check_array({"weights": tensors["weights"].numpy()}, "weights", "float64", shape)
            self.weights_ = pd.DataFrame(
                tensors["weights"].numpy(), index=list(self.models_), columns=self.end_.variates
            )
