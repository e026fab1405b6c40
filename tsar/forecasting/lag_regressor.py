"""A regression of scikit-learn on lags, one for all series.

Dimension letters: S series, B windows, L context steps, H horizon, C variates, Q quantiles,
N rows of the regression, n numbers in a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import has_fit_parameter
from torch import Tensor

from tsar.data.covariates import CovariateCoding
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import Inputs, Windows
from tsar.estimator.base import Estimator
from tsar.exceptions import DataError, ParameterError, PersistenceError
from tsar.forecasting.base import ForecasterRecord
from tsar.forecasting.boosted_trees import BoostedTrees
from tsar.forecasting.covariate_columns import CovariateColumns
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.lag_features import LagFeatures, LagFeaturesRecord
from tsar.forecasting.outputs.predictive import PointForecasts, Predictive, QuantileForecasts
from tsar.params.arguments import Frame, SampleWeight
from tsar.params.constraints import Interval
from tsar.params.records import LONGEST

__all__ = ["LagRegressor"]

Positive = Annotated[int, Interval(1, LONGEST)]
Share = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]

# Lags where there is no season, and the most of them.
FEWEST_LAGS, MOST_LAGS = 7, 24
# How many of its cycles a series has at least for one that is not the first.
CYCLES_NEEDED = 5
# Values that are held at a time while windows become rows.
BLOCK_VALUES = 4_000_000
# Forecasts by which an estimator that is passed again is told from another one.
PROBED = 8


class LagRegressorRecord(ForecasterRecord):
    """What JSON holds of what a regression on lags learned."""

    features: LagFeaturesRecord


@dataclass(kw_only=True, eq=False, repr=False)
class LagRegressor(CovariateColumns):
    """A regression of scikit-learn on lags, rolling statistics, calendar and covariates.

    One regression is fitted to all series and variates. A row of it is a step of a window: the
    last values of the series, the values of the same phase in earlier seasons, mean and deviation
    of the last season and the change of the mean, the calendar of the step, known covariates of the
    step and of the one a season before, the latest past covariates, and static ones. Values
    are centred and divided by the deviation of the window, so that series of any size go
    together and new ones are forecast like fitted ones; what is regressed is the difference to the
    value a season before (without a season, to the last value), so that trees can follow a trend.
    A missing value is read as the mean of its window, and is no row by itself.

    Parameters
    ----------
    estimator : regressor or None, default None
        Any regressor of scikit-learn's kind; None takes ``HistGradientBoostingRegressor`` with the
        absolute error. An object is not saved with the model: pass the fitted one again,
        ``tsar.load(folder, estimator=model.estimators_[0])``.
    strategy : {"direct", "recursive"}, default "direct"
        Whether the regression forecasts every step from what is observed (the number of the step is
        one of its columns), or the next step only, so that further steps read the forecasts
        before them.
    lags : int, sequence of int or None, default None
        How many of the last values are read, or which, 1 the latest; None takes those of a
        season, 7 at least and 24 at most.
    season_length : int, sequence of int or None, default None
        Steps in a season, or in each of several, 1 for none; None takes the first two of
        ``cycles_`` (24 and 168 for hours), the second where a series has five of it.
    quantiles : sequence of float or None, default None
        Levels in (0, 1) to forecast, by a regression for each and the median with the quantile
        loss; an estimator needs the parameter ``quantile`` for it. Of any other one,
        :meth:`calibrate` gives quantiles and intervals.
    max_rows : int, default 100000
        Rows of the regression; of more, so many are drawn at random.
    calendar_features : bool, default True
        Whether hour, weekday, day of month and day of year of the step are read.
    random_state : int or None, default None
        Seed of the rows that are drawn, and of the default estimator.

    Attributes
    ----------
    estimators_ : tuple
        The fitted regressors, one for each of the quantiles; of the default one its trees.
    season_length_ : tuple of int
        The seasons.

    References
    ----------
    Bontempi, Ben Taieb and Le Borgne, "Machine learning strategies for time series forecasting",
    2013, sections 3 and 4. Januschowski et al., "Forecasting with trees", International Journal of
    Forecasting 38 (2022).

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.LagRegressor(horizon=3, random_state=0).fit(sea).predict().shape
    (3, 1)
    """

    _dtype = torch.float64
    learned_record: ClassVar[Any] = LagRegressorRecord
    references: ClassVar[frozenset[str]] = frozenset({"estimator"})
    other_groups: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("max_rows", "random_state"), "training"),
        "calendar_features": "data",
    }

    estimator: Any | None = None
    strategy: Literal["direct", "recursive"] = "direct"
    lags: Positive | Sequence[Positive] | None = None
    season_length: Positive | Sequence[Positive] | None = None
    quantiles: Sequence[Share] | None = None
    max_rows: Positive = 100_000
    calendar_features: bool = True
    random_state: Annotated[int, Interval(0, 2**32 - 1)] | None = None

    # ----------------------------------------------------------- parameters

    def _check_consistency(self) -> None:
        super()._check_consistency()
        for name in ("lags", "season_length", "quantiles"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and (not value or len(set(value)) < len(value)):
                raise ParameterError(
                    f"LagRegressor: {name} must have entries that differ, got {value!r}; name each "
                    f"once, or leave it None"
                )
        if self.estimator is None:
            return
        is_object = not isinstance(self.estimator, type)
        if not (
            is_object and hasattr(self.estimator, "fit") and hasattr(self.estimator, "predict")
        ):
            raise ParameterError(
                f"LagRegressor: estimator must be a regressor with fit and predict, got "
                f"{self.estimator!r}; pass an object such as Ridge()"
            )
        if self.quantiles is not None and "quantile" not in self.estimator.get_params():
            raise ParameterError(
                f"LagRegressor: quantiles={self.quantiles!r} needs an estimator with the parameter "
                f"'quantile', got {self.estimator!r}; leave quantiles=None and call calibrate"
            )

    @property
    def _levels(self) -> list[float] | None:
        """The levels of quantiles in their order, the median among them."""
        return None if self.quantiles is None else sorted({0.5, *map(float, self.quantiles)})

    @property
    def expected_predictive(self) -> Predictive:
        return PointForecasts() if self._levels is None else QuantileForecasts(self._levels)

    @property
    def _standardises(self) -> bool:
        return False

    @property
    def takes_new_variates(self) -> bool:
        # Whatever the column, a row of the regression is the same.
        return True

    # ------------------------------------------------------------------ fit

    def fit(self, df: Frame, y: None = None, *, sample_weight: SampleWeight = None) -> Self:
        """Fit the regression to all series of a frame.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long or MultiIndex frame, or a Series; see the user guide.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : array-like of shape (rows of df,), dict, "equal_series" or None
            How much the error at each row counts: a number per row, a dict with one per id, or so
            that every series counts the same, however long it is. A row of weight 0 is read as
            history and not learned from.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A parameter is outside its constraint, or the estimator takes no weights.
        DataError
            The frame has faults: one error names all of them.
        """
        return self._fit(df, y, go_on=False, weight=sample_weight)

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        weighted = panel.weight is not None
        if weighted and not has_fit_parameter(self._unfitted(0), "sample_weight"):
            raise ParameterError(
                f"LagRegressor: sample_weight needs an estimator whose fit takes it, got "
                f"{self.estimator!r}; leave it out, or pass another one"
            )
        stop = panel.offsets[1:]
        panel, coding = self._coded(panel, stop)
        features = self._features(panel)
        generator = np.random.default_rng(self.random_state)
        x, target, weight = self._training_rows(panel, coding, features, generator)
        seed = int(generator.integers(2**31))
        options = {"sample_weight": weight} if weighted else {}
        fitted = []
        for level in self._levels or (None,):
            regressor = self._unfitted(seed, level)
            regressor.fit(x, target, **options)
            fitted.append(BoostedTrees.of(regressor) if self.estimator is None else regressor)
        self._lag_features, self.estimators_ = features, tuple(fitted)
        self.season_length_ = features.seasons
        measured = Scaling.measure(panel.values, panel.offsets, stop)
        # A series without any observation is forecast at the level of the others.
        pooled = measured.pooled()
        pooled = replace(pooled, scale=np.ones_like(pooled.scale))
        return Learned(measured.without_change(), pooled, features.context_rows, coding)

    def _features(self, panel: Panel) -> LagFeatures:
        """Choose lags and seasons by the calendar and the length of the series."""
        longest = int(panel.lengths.max())
        if self.season_length is None:
            first, *others = panel.frequency.cycles[:2] or (1,)
            seasons = [panel.season_length] if panel.season_length == first else []
            seasons += [cycle for cycle in others if longest >= CYCLES_NEEDED * cycle]
        elif isinstance(self.season_length, Sequence):
            seasons = [int(length) for length in self.season_length]
        else:
            seasons = [int(self.season_length)]
        seasons = sorted(season for season in seasons if season > 1)
        if isinstance(self.lags, Sequence):
            lags = sorted(int(lag) for lag in self.lags)
        else:
            usual = min(max(seasons[0] if seasons else 0, FEWEST_LAGS), MOST_LAGS)
            lags = list(range(1, int(self.lags or usual) + 1))
        return LagFeatures(tuple(lags), tuple(seasons))

    def _training_rows(
        self,
        panel: Panel,
        coding: CovariateCoding,
        features: LagFeatures,
        generator: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows (N, n), what is regressed on them (N,), and their weights (N,)."""
        steps = self._steps_at_once
        length, ends = features.context_rows, panel.offsets[1:]
        identity = Scaling.identity(panel.n_series, panel.n_variates)
        series = self._tensors(panel, identity, torch.device("cpu"), coding)
        if panel.weight is not None:
            series = replace(series, weight=torch.from_numpy(panel.weight)[:, None])
        # Half of a short series is history, so that short ones are learned from as well.
        shortest = np.maximum(np.minimum(length, panel.lengths // 2), 1)
        windows = Windows(series, panel.offsets[:-1] + shortest, ends - 1, length, steps)
        share = self.max_rows / max(len(windows) * panel.n_variates * steps, 1)
        parts = []
        for numbers in torch.arange(len(windows)).split(self._windows_at_once(features, panel)):
            drawn = generator.random((len(numbers), panel.n_variates, steps)) < share
            some = torch.from_numpy(drawn.any(axis=(1, 2)))
            if not some.any():
                continue
            batch = windows.batch(numbers[some])
            rows = features.rows(batch.inputs, steps, coding)
            values = batch.target.numpy().transpose(0, 2, 1)
            weight = np.ones(values.shape)
            if batch.observed is not None:
                weight = batch.observed.numpy().transpose(0, 2, 1).astype(np.float64)
            # A constant history says how large a change is by itself only where there is none.
            level, scale = rows.level[..., None], rows.scale[..., None]
            used = drawn[some.numpy()] & (weight > 0) & ((scale > 0) | (values == level))
            parts.append((rows.x[used], rows.scaled(values)[used], weight[used]))
        if not sum(len(target) for _, target, _ in parts):
            raise DataError(
                "LagRegressor: no value has a history to be forecast from; pass series of two "
                "observed rows at least, or weigh later ones"
            )
        x, target, weight = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return x, target, weight

    @property
    def _steps_at_once(self) -> int:
        return 1 if self.strategy == "recursive" else int(self.horizon)

    def _windows_at_once(self, features: LagFeatures, panel: Panel) -> int:
        """Return how many windows become rows at a time."""
        values = features.context_rows + self._steps_at_once * (len(features.lags) + 20)
        return max(BLOCK_VALUES // (values * panel.n_variates), 1)

    def _unfitted(self, seed: int, level: float | None = None) -> Any:
        """Return a regressor for a quantile, or for the point forecast."""
        if self.estimator is None:
            from sklearn.ensemble import HistGradientBoostingRegressor

            regressor = HistGradientBoostingRegressor(
                loss="absolute_error", early_stopping=False, random_state=seed
            )
        else:
            regressor = clone(self.estimator)
        if level is not None:
            parameters = regressor.get_params()
            loss = {"loss": "quantile"} if "loss" in parameters else {}
            regressor.set_params(quantile=level, **loss)
        return regressor

    # -------------------------------------------------------------- predict

    def _forecast_batch(self, inputs: Inputs) -> Tensor:
        steps = self.as_fitted._steps_at_once  # noqa: SLF001  (this class)
        if steps == self.horizon_:
            return self._forecast_steps(inputs, steps)
        parts = []
        for _ in range(self.horizon_):
            parts.append(self._forecast_steps(inputs, 1))
            inputs = _moved_on(inputs, self.predictive.fed_back(parts[-1]))
        return torch.cat(parts, dim=1)

    def _forecast_steps(self, inputs: Inputs, steps: int) -> Tensor:
        """Forecast the steps after the windows: (B, steps, C), or (B, steps, C, Q)."""
        rows = self._lag_features.rows(inputs, steps, self.learned_.coding)
        x = rows.x.reshape(-1, rows.x.shape[-1])
        columns = [np.asarray(one.predict(x), dtype=np.float64) for one in self.estimators_]
        # Quantiles that were estimated one by one may have changed places.
        regressed = np.sort(np.stack(columns, axis=-1), axis=-1)
        values = rows.restored(regressed.reshape(*rows.reference.shape, -1))
        forecast = torch.from_numpy(values.transpose(0, 2, 1, 3))
        return forecast if len(self.estimators_) > 1 else forecast[..., 0]

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        features = self._lag_features
        record["features"] = {"lags": list(features.lags), "seasons": list(features.seasons)}
        arrays: dict[str, np.ndarray] = {}
        if isinstance(self.estimators_[0], BoostedTrees):
            for place, trees in enumerate(self.estimators_):
                own = trees.to_arrays()
                arrays |= {f"{place}.{name}": array for name, array in own.items()}
        elif len(self.estimators_) > 1:
            raise PersistenceError(
                "save: quantiles of an estimator of your own are several regressors, which are not "
                "saved and could not be passed again; leave estimator=None, or quantiles=None and "
                "call calibrate"
            )
        else:
            arrays["probe"] = self._probe(self.estimators_[0])
        tensors |= {f"lag.{name}": torch.from_numpy(array) for name, array in arrays.items()}
        return record, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        held = record["features"]
        features = LagFeatures(tuple(held["lags"]), tuple(held["seasons"]))
        if not features.lags or features.context_rows != self.context_rows:
            raise PersistenceError(
                f"load: lags and seasons do not go with the {self.context_rows} rows that are read"
            )
        arrays = {
            name.removeprefix("lag."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith("lag.")
        }
        self._lag_features, self.season_length_ = features, features.seasons
        if self.estimator is not None:
            self.estimators_ = (self.estimator,)
            self._check_same(arrays.get("probe"))
            return
        n_columns = features.n_columns(self.learned_.coding)
        self.estimators_ = tuple(
            BoostedTrees.from_arrays(
                {
                    name.removeprefix(f"{place}."): array
                    for name, array in arrays.items()
                    if name.startswith(f"{place}.")
                },
                n_columns,
            )
            for place in range(len(self._levels or (None,)))
        )

    def _probe(self, regressor: Any) -> np.ndarray:
        """Return what a regressor makes of some rows, which tells it from others."""
        shape = (PROBED, self._lag_features.n_columns(self.learned_.coding))
        rows = np.random.default_rng(0).normal(size=shape)
        return np.asarray(regressor.predict(rows), dtype=np.float64)

    def _check_same(self, probe: np.ndarray | None) -> None:
        """Raise a PersistenceError if what was passed is not the regressor of the fit."""
        try:
            own = self._probe(self.estimator)
            same, why = probe is not None and np.allclose(own, probe), ""
        except (NotFittedError, ValueError, TypeError, AttributeError) as error:
            same, why = False, f": {error}"
        if not same:
            raise PersistenceError(
                f"load: estimator is not the one that the model was fitted with{why}; keep the "
                f"fitted one, and pass it: tsar.load(folder, estimator=model.estimators_[0])"
            )


def _moved_on(inputs: Inputs, forecast: Tensor) -> Inputs:
    """Return windows a step later, in which a forecast (B, 1, C) counts as observed."""
    observed = inputs.observed
    if observed is not None:
        seen = torch.ones_like(forecast, dtype=torch.bool)
        observed = torch.cat([observed, seen], dim=1)[:, 1:]

    def later(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[:, 1:]

    return replace(
        inputs,
        target=torch.cat([inputs.target, forecast], dim=1)[:, 1:],
        observed=observed,
        future=later(inputs.future),
        calendar=later(inputs.calendar),
    )
