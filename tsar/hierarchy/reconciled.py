"""A forecaster of a whole hierarchy, whose forecasts agree.

Letters: n series, b of them at the bottom, N samples, H horizon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from torch import Tensor

from tsar.data.codec import decode, encode
from tsar.data.forecasts import interval_keys
from tsar.data.frames import ID, TIME
from tsar.data.libraries import PANDAS, FrameLibrary, as_pandas, library_of
from tsar.estimator.base import Estimator
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.ets import ETS
from tsar.forecasting.probabilistic.output_request import read_request, sample
from tsar.hierarchy.projection import NEED_ERRORS, covariance_of, projection
from tsar.hierarchy.reconciling import errors_by_node
from tsar.hierarchy.summing import Hierarchy, aggregate, check_groups, levels_of
from tsar.params.arguments import check_percentages

__all__ = ["Reconciled"]

# Samples that intervals are quantiles of.
N_PATHS = 2000


@dataclass(kw_only=True, eq=False, repr=False)
class Reconciled(Estimator):
    """A model of every series of a hierarchy, with forecasts of sums that are sums of forecasts.

    ``fit`` adds the series of a long frame up by their groups, and fits one clone of the model
    to the series of all levels. ``predict`` forecasts all of them and reconciles what comes
    out; intervals are taken from joint samples, each of which is reconciled.

    Parameters
    ----------
    model : forecaster or None, default None
        Its ``horizon`` and all else are its own, but for the columns; None takes
        :class:`~tsar.ETS`.
    groups : list of column labels, or list of such lists
        The columns that tell series apart, the highest group first: ``["state", "region"]``
        is the total, the states, and the regions of each state. For groups that cross each
        other, a list for each level, see :func:`tsar.hierarchy.aggregate`.
    method : {"mint_shrink", "wls_var", "wls_struct", "ols", "bottom_up"}, default "mint_shrink"
        See :func:`tsar.reconcile`. The errors that the first two need are those of
        ``fitted_values(df, horizon=1)`` of the model.
    time_column, target : label or None, default None
        Columns of the frame; None takes ``ds`` and ``y``.

    Attributes
    ----------
    model_ : forecaster
        The fitted model of all series, with ids such as ``"Victoria/Melbourne"``.
    hierarchy_ : Hierarchy
        The series, the highest level first.
    projection_ : float64 array of shape (b, n)
        From forecasts of all series to reconciled ones at the bottom.

    References
    ----------
    Wickramasuriya, Athanasopoulos and Hyndman, "Optimal forecast reconciliation for
    hierarchical and grouped time series through trace minimization", JASA 114 (2019);
    Panagiotelis, Gamakumara, Athanasopoulos and Hyndman, "Probabilistic forecast
    reconciliation: properties, evaluation and score optimisation", EJOR 306 (2023), who
    reconcile samples.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import tsar
    >>> rng = np.random.default_rng(0)
    >>> parts = [
    ...     pd.DataFrame({"shop": shop, "ds": range(60), "y": rng.normal(10, 1, 60)})
    ...     for shop in ("a", "b")
    ... ]
    >>> sold = pd.concat(parts, ignore_index=True)
    >>> model = tsar.Reconciled(model=tsar.Naive(horizon=2), groups=["shop"]).fit(sold)
    >>> wide = model.predict().pivot(index="ds", columns="shop", values="y")
    >>> bool(np.allclose(wide["total"], wide["a"] + wide["b"]))
    True
    """

    model: Forecaster | None = None
    groups: Sequence[Any] = ()
    method: Literal["mint_shrink", "wls_var", "wls_struct", "ols", "bottom_up"] = "mint_shrink"
    time_column: str | int | None = None
    target: str | int | None = None

    @property
    def parts(self) -> Sequence[Estimator]:
        return () if self.model is None else [self.model]

    def _check_consistency(self) -> None:
        check_groups(self.name, self.groups)
        levels_of(self.name, self.groups)
        if self.model is None:
            return
        declared = [name for names in self.model.roles.values() for name in names or ()]
        if declared:
            raise ParameterError(
                f"{self.name}: the model must have no covariates, which do not add up, got "
                f"{declared[:10]}"
            )

    def fit(self, df: Any, y: None = None) -> Self:
        """Add the series up, fit the model to all of them, and learn how to reconcile.

        Parameters
        ----------
        df : DataFrame
            Long: the group columns, the time and the target; a row for each time of each
            series at the bottom.
        y : None
            Not used; scikit-learn's tools pass it.

        Returns
        -------
        self

        Raises
        ------
        ParameterError, DataError
            A parameter or the frame is not usable.
        """
        if y is not None:
            raise ParameterError(
                f"{self.name}: y must be None, got {type(y).__name__}; the target is part of df"
            )
        self.check()
        time = TIME if self.time_column is None else self.time_column
        target = "y" if self.target is None else self.target
        frame = self._added_up(df, self.groups, time, target)
        columns = check_groups(self.name, self.groups)
        hierarchy = Hierarchy.of(self.name, frame[columns].drop_duplicates())
        model = clone(ETS() if self.model is None else self.model)
        model.set_params(id_column=ID, time_column=time, target=target)
        model.fit(frame.drop(columns=columns))
        errors = None
        if self.method in NEED_ERRORS:
            fitted = model.fitted_values(frame.drop(columns=columns), horizon=1)
            errors = errors_by_node(self.name, fitted, columns, hierarchy)
        covariance = covariance_of(self.name, hierarchy, self.method, errors)
        library = library_of(df, (*columns, time))
        self._keep(model, hierarchy, projection(hierarchy, covariance), library)
        self.remember_parameters()
        return self

    def _keep(
        self, model: Any, hierarchy: Hierarchy, mapped: np.ndarray, library: FrameLibrary
    ) -> None:
        self.model_, self.hierarchy_, self.projection_ = model, hierarchy, mapped
        self._library = library

    def _added_up(self, df: Any, groups: Any, time: Any, target: Any) -> pd.DataFrame:
        try:
            return aggregate(as_pandas(df), groups, time_column=time, target=target)
        except (DataError, ParameterError) as error:
            raise type(error)(str(error).replace("aggregate", self.name, 1)) from None

    @property
    def _target(self) -> Any:
        """The column that was fitted."""
        return self.model_.fitted_parameters_["target"]

    def calibrate(self, df: Any, **options: Any) -> Self:
        """Learn how the model errs at every series, for ``predict(level=)`` and ``samples=``.

        Parameters
        ----------
        df : DataFrame
            In the form of the fitted frame.
        **options
            As :meth:`tsar.Forecaster.calibrate` takes them.

        Returns
        -------
        self
        """
        self.check_fitted()
        self.model_.calibrate(self._series(df), **options)
        return self

    def _series(self, df: Any) -> pd.DataFrame:
        """Return all series of a frame, which have to be the fitted ones."""
        time = self.model_.fitted_parameters_["time_column"]
        frame = self._added_up(df, self.fitted_parameters_["groups"], time, self._target)
        columns = list(self.hierarchy_.labels.columns)
        ids = pd.Index(frame[ID].unique())
        if set(ids) != set(self.hierarchy_.ids):
            differing = sorted(set(ids) ^ set(self.hierarchy_.ids))
            raise DataError(
                f"{self.name}: the series must be the fitted ones, whose sums are known, got "
                f"others or fewer: {differing[:10]}; fit again"
            )
        # In the order of the fit, which that of its labels need not be.
        place = self.hierarchy_.ids.get_indexer(pd.Index(frame[ID]))
        return frame.iloc[np.argsort(place, kind="stable")].drop(columns=columns)

    def predict(
        self,
        horizon: int | None = None,
        df: Any = None,
        *,
        level: float | Sequence[float] | None = None,
        samples: int | None = None,
    ) -> Any:
        """Forecast the steps that follow, of all series.

        Parameters
        ----------
        horizon : int or None
            How many steps; None takes that of the model.
        df : DataFrame, optional
            Later rows of the fitted series to forecast from; None continues those of the fit.
        level : float or sequence of float, optional
            Intervals in percent, in columns ``<target>_lo80`` and ``<target>_hi80``; they need
            :meth:`calibrate`, or a model of a distribution.
        samples : int, optional
            Return so many samples instead, with the number of each in a column ``sample``.

        Returns
        -------
        DataFrame
            Long: the group columns, with ``"total"`` where a series is the sum over one, the
            times, and the forecasts. Sums are those of their parts, in every sample as well;
            ends of intervals do not add up and should not.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            An argument or the frame is not usable.
        """
        self.check_fitted()
        levels = check_percentages(self.name, level)
        if levels and samples is not None:
            raise ParameterError(
                f"{self.name}: samples come in a frame of their own; call predict once with "
                f"samples= and once with level="
            )
        if levels:
            self._check_can_sample(levels)
        series = None if df is None else self._series(df)
        forecast = self.model_.predict(horizon, series, samples=samples)
        groups, model_time = self.hierarchy_.labels, self.model_.fitted_parameters_["time_column"]
        # Series by series, in the order of the fit.
        n_rows = len(forecast) // len(groups)
        labels = groups.loc[groups.index.repeat(n_rows)].set_index(forecast.index)
        written = pd.concat([labels, forecast.drop(columns=ID)], axis=1)
        written.attrs = dict(forecast.attrs)
        values = forecast[self._target].to_numpy().reshape(len(groups), n_rows)
        point = self._agreed(values).reshape(-1)
        written[self._target] = point
        if levels:
            paths = self._paths(series, n_rows)
            for level in levels:
                tails = (50 - level / 2) / 100, (50 + level / 2) / 100
                low, high = np.quantile(paths, tails, axis=1).reshape(2, -1)
                ends = np.minimum(low, point), np.maximum(high, point)
                for key, values in zip(interval_keys(level), ends, strict=True):
                    written[f"{self._target}_{key}"] = values
        if df is None:
            return self._library.restored(written)
        return library_of(df, (*groups, model_time)).restored(written)

    def _check_can_sample(self, levels: list[float]) -> None:
        """Raise a ParameterError unless the model gives samples that show these levels."""
        model = self.model_
        try:
            read_request(model, None, None, N_PATHS)
            if model.calibration_ is not None:
                model.calibration_.check(model.name, levels)
        except ParameterError as error:
            raise ParameterError(
                f"{self.name}: predict(level=...) takes intervals from samples of the model; "
                f"{error}"
            ) from None

    def _agreed(self, forecasts: np.ndarray) -> np.ndarray:
        """Reconcile forecasts (n, any)."""
        return np.asarray(self.hierarchy_.summing @ (self.projection_ @ forecasts))

    def _paths(self, series: Any, horizon: int) -> np.ndarray:
        """Draw samples of all series that agree, (n, N, H)."""
        model = self.model_
        panel = model.end_ if series is None else model.read_new(series)
        owners, rows = np.arange(panel.n_series), panel.offsets[1:]
        drawn = sample(model, N_PATHS, panel, owners, rows, horizon)[..., 0]
        return self._agreed(drawn.reshape(len(drawn), -1)).reshape(drawn.shape)

    # ---------------------------------------------------------- persistence

    @property
    def members(self) -> Mapping[str, Estimator]:
        return {"model": self.model_}

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self.check_fitted()
        labels = self.hierarchy_.labels
        record: dict[str, Any] = {
            "labels": [[encode(name), encode(list(labels[name]))] for name in labels],
            "library": dict(self._library.__dict__),
        }
        return record, {"projection": torch.from_numpy(self.projection_.copy())}

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Any],
    ) -> None:
        labels = {decode(name): decode(values) for name, values in record["labels"]}
        hierarchy = Hierarchy.of(self.name, pd.DataFrame(labels, dtype=object))
        library = FrameLibrary(**record["library"]) if "library" in record else PANDAS
        self._keep(members["model"], hierarchy, tensors["projection"].numpy(), library)
        self.remember_parameters()
