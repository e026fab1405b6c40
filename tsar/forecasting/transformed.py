"""A forecaster that works on transformed values.

Dimension letters: S series, W windows, H horizon, C variates.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import Tensor

from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.estimator.base import Estimator
from tsar.exceptions import DataError, ParameterError, PersistenceError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.members import ROLES, as_read_by, coded_for, configured, read_for, rows_in
from tsar.forecasting.naive import SeasonalNaive
from tsar.forecasting.outputs.predictive import Predictive

__all__ = ["TransformedTarget"]

Array: TypeAlias = np.ndarray


class Transform(NamedTuple):
    """An increasing function and its inverse.

    Parameters
    ----------
    forward, backward : callable
        From arrays to arrays.
    lowest : float
        Where the function begins.
    includes_lowest : bool
        Whether it is defined there.
    """

    forward: Callable[[Array], Array]
    backward: Callable[[Array], Array]
    lowest: float = -np.inf
    includes_lowest: bool = True


def _squared(values: Array) -> Array:
    """Undo the root; below zero there is nothing."""
    return np.square(np.maximum(values, 0.0))


# How far a transformer may be from one that increases and is undone.
CLOSE = 1e-4

TRANSFORMS: dict[str, Transform] = {
    "log": Transform(np.log, np.exp, 0.0, False),
    "log1p": Transform(np.log1p, np.expm1, -1.0, False),
    "sqrt": Transform(np.sqrt, _squared, 0.0),
    "asinh": Transform(np.arcsinh, np.sinh),
}


@dataclass(kw_only=True, eq=False, repr=False)
class TransformedTarget(Forecaster):
    """A forecaster that learns and forecasts transformed values.

    ``fit`` fits a clone of the model to ``transform(y)``; what it forecasts is transformed back:
    the point forecast, quantiles and samples. ``calibrate`` learns from errors of the transformed
    values, so that its intervals are wide where the data are large, and stay where the function
    is defined. An increasing function moves quantiles as it moves
    values, so the median stays the median; a mean of the transformed values becomes something
    like a median, below the mean where the function bends down as a logarithm does. Covariates
    stay as they are. ``horizon``, ``freq``, ``gaps`` and columns are those of this estimator.

    Parameters
    ----------
    model : forecaster or None, default None
        What forecasts; None takes :class:`SeasonalNaive`.
    transform : {"log1p", "log", "sqrt", "asinh"} or transformer, default "asinh"
        By name ("asinh" is a logarithm of large values of either sign), or an object of
        scikit-learn's kind, such as ``PowerTransformer()``, that leaves NaN alone and increases.
        It is fitted on all rows, a column for each variate. An object is not saved with the
        model: pass the fitted one again, ``tsar.load(folder, transform=model.transformer_)``.

    Attributes
    ----------
    model_ : forecaster
        Fitted on transformed values.
    transformer_ : object or None
        The fitted transformer; None with the name of a function.

    References
    ----------
    Box and Cox, "An analysis of transformations", Journal of the Royal Statistical Society B 26
    (1964).

    Examples
    --------
    >>> import tsar
    >>> co2 = tsar.load_dataset("co2")
    >>> model = tsar.TransformedTarget(model=tsar.SeasonalNaive(), transform="log", horizon=12)
    >>> model.fit(co2).predict().shape
    (12, 1)
    """

    model: Forecaster | None = None
    transform: Literal["log1p", "log", "sqrt", "asinh"] | Any = "asinh"

    references: ClassVar[frozenset[str]] = frozenset({"transform"})

    # ----------------------------------------------------------- parameters

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if not isinstance(self.model, Forecaster | None):
            raise ParameterError(
                f"TransformedTarget: model must be a forecaster, got {self.model!r}"
            )
        named = isinstance(self.transform, str)
        if named and self.transform not in TRANSFORMS:
            raise ParameterError(
                f"TransformedTarget: transform must be one of {', '.join(map(repr, TRANSFORMS))} "
                f"or a transformer, got {self.transform!r}"
            )
        needed = ("fit", "transform", "inverse_transform")
        is_object = not isinstance(self.transform, type)
        if not named and not all(is_object and hasattr(self.transform, one) for one in needed):
            raise ParameterError(
                f"TransformedTarget: transform must have the methods {', '.join(needed)}, got "
                f"{self.transform!r}; pass an object such as PowerTransformer(), or a name"
            )
        for inside in _all_of(self._configured()):
            if getattr(inside, "output_range", None) is not None:
                raise ParameterError(
                    f"TransformedTarget: the {inside.name} must have no output_range, which would "
                    f"limit transformed values, got {inside.output_range!r}; give it to "
                    f"TransformedTarget, in the units of the data"
                )

    def _configured(self) -> Forecaster:
        """Return a fresh model with what it shares with this estimator."""
        return configured(SeasonalNaive() if self.model is None else self.model, self)

    @property
    def parts(self) -> Sequence[Estimator]:
        return [self._configured()]

    @property
    def roles(self) -> dict[str, Any]:
        own = {} if self.model is None else self.model.roles
        return {role: own.get(role, []) for role in ROLES}

    @property
    def expected_predictive(self) -> Predictive:
        return self._configured().expected_predictive

    # ------------------------------------------------------------------ fit

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        model = self._configured()
        transformer = None
        if not isinstance(self.transform, str):
            transformer = _fitted(self.transform, panel)
        part = replace(panel, values=self._forward(panel, self.transform, transformer))
        model.fit_panel(as_read_by(model, part), go_on=False)
        self.model_, self.transformer_ = model, transformer
        return Learned(
            Scaling.identity(panel.n_series, panel.n_variates),
            Scaling.identity(1, panel.n_variates),
            model.context_rows,
            whole=model.learned_.whole,
            held_out=model.learned_.held_out,
        )

    def _remember(self, learned: Learned, end: Panel, horizon: int) -> None:
        # The model keeps covariates, coded as it reads them.
        plain = replace(end, past={}, future={}, static={}, calendar=None, calendar_kind=None)
        super()._remember(learned, plain, horizon)

    @property
    def takes_new_series(self) -> bool:
        return self.model_.takes_new_series

    def moved_on(self, panel: Panel) -> Self:
        moved = super().moved_on(panel)
        transform = self.fitted_parameters_["transform"]
        values = self._forward(panel, transform, self.transformer_)
        moved.model_ = self.model_.moved_on(read_for(self.model_, replace(panel, values=values)))
        return moved

    def _forward(self, panel: Panel, transform: Any, transformer: Any) -> Array:
        """Transform the values of a panel."""
        if transformer is None:
            _check_domain(panel, transform)
            return TRANSFORMS[transform].forward(panel.values)
        return _transformed(transformer, panel.values)

    def to_error_scale(self, values: Array) -> Array:
        """Transform values (..., C): errors are alike where the model forecasts."""
        if self.transformer_ is None:
            return TRANSFORMS[self.fitted_parameters_["transform"]].forward(values)
        return _transformed(self.transformer_, values.reshape(-1, values.shape[-1])).reshape(
            values.shape
        )

    def from_error_scale(self, values: Array) -> Array:
        return self._backward(values)

    def _backward(self, values: Array) -> Array:
        """Transform values (..., C) back."""
        if self.transformer_ is None:
            return TRANSFORMS[self.fitted_parameters_["transform"]].backward(values)
        flat = values.reshape(-1, values.shape[-1])
        return np.asarray(self.transformer_.inverse_transform(flat)).reshape(values.shape)

    # -------------------------------------------------------------- predict

    @property
    def is_trained(self) -> bool:
        return self.model_.is_trained

    @property
    def forecasts_variates_alone(self) -> bool:
        return self.model_.forecasts_variates_alone

    @property
    def takes_new_variates(self) -> bool:
        return self.transformer_ is None and self.model_.takes_new_variates

    @property
    def future_names(self) -> list[Any]:
        return self.model_.future_names

    def forecast(
        self,
        panel: Panel,
        owners: Array,
        rows: Array,
        horizon: int,
        known_ahead: Mapping[Any, Array] | None = None,
        levels: Sequence[float] = (),
        samples: int | None = None,
        *,
        after_fitted: bool = False,
    ) -> Forecasts:
        model = self.model_
        if panel is self.end_:
            part = model.end_
        else:
            transform = self.fitted_parameters_["transform"]
            values = self._forward(panel, transform, self.transformer_)
            part = coded_for(model, replace(panel, values=values))
        own_rows = rows_in(part, panel, owners, rows)
        forecasts = model.forecast(
            part, owners, own_rows, horizon, known_ahead, levels, samples, after_fitted=after_fitted
        )
        return forecasts.mapped(lambda values: self.in_range(self._backward(values)))

    # ------------------------------------------------------------ persistence

    @property
    def members(self) -> Mapping[str, Forecaster]:
        return {"model": self.model_}

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Any],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        self.model_ = members["model"]
        self.transformer_ = None if isinstance(self.transform, str) else self.transform
        self._check_same_transform()

    def _check_same_transform(self) -> None:
        """Raise a PersistenceError if what was passed is not the transform of the fit."""
        try:
            values = self._forward(self.end_, self.transform, self.transformer_)
        except (DataError, NotFittedError) as error:
            values, why = np.zeros(0), f": {error}"
        else:
            why = ""
        # What the model keeps of the end of each series was transformed in the fit.
        held = self.model_.end_
        counts = np.minimum(self.end_.lengths, held.lengths)
        same = values.shape == self.end_.values.shape and all(
            np.allclose(values[own - n : own], held.values[its - n : its], equal_nan=True)
            for own, its, n in zip(self.end_.offsets[1:], held.offsets[1:], counts, strict=True)
        )
        if not same:
            raise PersistenceError(
                f"load: transform is not the one that the model was fitted with{why}; keep the "
                f"fitted one, and pass it: tsar.load(folder, transform=model.transformer_)"
            )


def _all_of(model: Any) -> Iterator[Any]:
    """Yield a model and all that it is made of."""
    yield model
    for part in model.parts:
        yield from _all_of(part)


def _transformed(transformer: Any, values: Array) -> Array:
    """Transform values (n, C)."""
    try:
        transformed = np.asarray(transformer.transform(values), dtype=np.float64)
    except NotFittedError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError(
            f"TransformedTarget: transform={transformer!r} cannot transform the data: {error}; "
            f"choose another one, or change the data"
        ) from error
    if transformed.shape != values.shape:
        raise DataError(
            f"TransformedTarget: transform={transformer!r} must give a column for each variate, "
            f"shape {values.shape}, got {transformed.shape}; choose another one"
        )
    return transformed


def _fitted(transform: Any, panel: Panel) -> Any:
    """Return a clone of a transformer, fitted; it has to increase and to have an inverse."""
    values = panel.values
    try:
        transformer = clone(transform, safe=False).fit(values)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"TransformedTarget: transform={transform!r} cannot be fitted: {error}; choose "
            f"another one, or change the data"
        ) from error
    transformed = _transformed(transformer, values)
    if not np.array_equal(np.isnan(transformed), np.isnan(values)):
        raise DataError(
            f"TransformedTarget: transform={transform!r} must make numbers of numbers and leave "
            f"NaN alone; choose one that is defined for all of the data"
        )
    # Each variate from its lowest value to its highest.
    ordered = np.sort(values, axis=0)
    after = _transformed(transformer, ordered)
    back = np.asarray(transformer.inverse_transform(after), dtype=np.float64)
    for name, seen, its, again in zip(panel.variates, ordered.T, after.T, back.T, strict=True):
        observed = ~np.isnan(seen)
        seen, its, again = seen[observed], its[observed], again[observed]
        # Some compute in float32.
        if len(seen) and (np.diff(its) < -CLOSE * np.ptp(its)).any():
            raise DataError(
                f"TransformedTarget: transform={transform!r} must increase, and does not in "
                f"{name!r}, where quantiles would change places; choose one that does"
            )
        # Some move the values at the ends to a limit.
        if len(seen) and not np.median(np.abs(again - seen)) <= CLOSE * np.abs(seen).max():
            raise DataError(
                f"TransformedTarget: inverse_transform of transform={transform!r} must undo it, "
                f"and does not in {name!r}: {seen[0]:g} to {seen[-1]:g} come back as "
                f"{again[0]:g} to {again[-1]:g}; give it its inverse"
            )
    return transformer


def _check_domain(panel: Panel, name: str) -> None:
    """Refuse values that a function is not defined for."""
    transform = TRANSFORMS[name]
    inside = panel.values >= transform.lowest
    if not transform.includes_lowest:
        inside &= panel.values != transform.lowest
    rows, variates = np.nonzero(~inside & ~np.isnan(panel.values))
    if len(rows):
        series = int(np.searchsorted(panel.offsets, rows[0], side="right")) - 1
        where = "" if panel.n_series == 1 else f" of series {panel.ids[series]!r}"
        least = "at least" if transform.includes_lowest else "above"
        raise DataError(
            f"TransformedTarget: transform={name!r} needs values {least} {transform.lowest:g}, got "
            f"{panel.values[rows[0], variates[0]]:g} in {panel.variates[variates[0]]!r}{where} "
            f"({len(rows)} such values); choose 'asinh', or shift the data"
        )
