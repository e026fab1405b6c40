"""Every check can fail: for each there is a forecaster that breaks what it is about."""

import copy
import inspect
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar import checks
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.network import NetworkForecaster


@dataclass(kw_only=True, eq=False, repr=False)
class Plain(tsar.SeasonalNaive):
    """The last season, moved by what is set behind the back of the parameters."""

    def _forecast_batch(self, inputs):
        return super()._forecast_batch(inputs) + getattr(self, "moved_", 0.0)


class AltersParameters(Plain):
    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.gaps = "".join(list(self.gaps))


AltersParameters.__init__.__signature__ = inspect.signature(Plain)


class ClonesFitted(Plain):
    def __sklearn_clone__(self):
        return copy.deepcopy(self)


class RemembersFits(Plain):
    def fit(self, df, y=None):
        self.moved_ = getattr(self, "moved_", -1.0) + 1.0
        return super().fit(df)


class SeedsTheWorld(Plain):
    def fit(self, df, y=None):
        np.random.seed(len(df))
        return super().fit(df)


class PicklesBadly(Plain):
    def __setstate__(self, state):
        super().__setstate__(state)
        self.moved_ = 1.0


class LoadsBadly(Plain):
    def restore_learned_state(self, record, tensors, members):
        super().restore_learned_state(record, tensors, members)
        self.moved_ = 1.0


class Talks(Plain):
    def fit(self, df, y=None):
        print("fitting")
        return super().fit(df)


class ForecastsLess(Plain):
    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs)[:-1]


class ScoresNothing(Plain):
    def score(self, df, y=None):
        return float("nan")


class LosesTheIndex(Plain):
    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs).reset_index(drop=True)


class LosesTheZone(Plain):
    def predict(self, *args, **kwargs):
        found = super().predict(*args, **kwargs)
        return found.tz_localize(None) if isinstance(found.index, pd.DatetimeIndex) else found


class DependsOnTheHorizon(Plain):
    def predict(self, horizon=None, df=None, future=None, **kwargs):
        return super().predict(horizon, df, future, **kwargs) + (horizon or 0)


class HasUnits(Plain):
    def _forecast_batch(self, inputs):
        return super()._forecast_batch(inputs) + 1.0


class Grows(Plain):
    def _forecast_batch(self, inputs):
        return super()._forecast_batch(inputs) * 1.001


class CannotMiss(Plain):
    def _forecast_batch(self, inputs):
        found = super()._forecast_batch(inputs)
        return found if inputs.observed is None else found * float("nan")


class FlagsNothing(Plain):
    def predict(self, *args, **kwargs):
        found = super().predict(*args, **kwargs)
        found.attrs["short_history"] = []
        return found


class LooksAhead(Plain):
    def forecast_windows(self, df, cutoffs, horizon=None):
        return super().forecast_windows(df, cutoffs, horizon) + df.to_numpy()[-1].mean()


class DependsOnTheBatch(Plain):
    def forecast_windows(self, df, cutoffs, horizon=None):
        return super().forecast_windows(df, cutoffs, horizon) + 0.01 * len(cutoffs)


class SortsColumns(Plain):
    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs).sort_index(axis=1)


class HasTwoRoutes(Plain):
    def predict(self, horizon=None, df=None, future=None, **kwargs):
        found = super().predict(horizon, df, future, **kwargs)
        return found if df is None else found.assign(y=found["y"] + 0.1)


class SwapsIntervals(Plain):
    def predict(self, *args, level=None, **kwargs):
        found = super().predict(*args, level=level, **kwargs)
        if level is not None:
            found[["a_lo80", "a_hi80"]] = found[["a_hi80", "a_lo80"]].to_numpy()
        return found


class TakesInfinity(Plain):
    def fit(self, df, y=None):
        return super().fit(df.replace(np.inf, 0.0) if isinstance(df, pd.DataFrame) else df, y)


class KeepsTheWorst(tsar.NLinear):
    def fit(self, df, y=None):
        super().fit(df, y)
        self.best_epoch_ = 1 + int(np.argmax(self.history_["val_loss"]))
        return self


class ContinuesAnew(tsar.NLinear):
    def partial_fit(self, df, y=None):
        return self.fit(df)


class CrossesQuantiles(tsar.NLinear):
    def predict(self, *args, quantiles=None, **kwargs):
        found = super().predict(*args, quantiles=quantiles, **kwargs)
        if quantiles is not None:
            found[["a_q0.05", "a_q0.9"]] = found[["a_q0.9", "a_q0.05"]].to_numpy()
        return found


class LearnsNothing(tsar.NLinear):
    def fit(self, df, y=None):
        super().fit(df, y)
        self.history_["train_loss"] = [1.0] * self.n_epochs_
        return self


class IgnoresCovariates(tsar.NLinear):
    def _covariates_beside(self, covariates):
        return CovariateSpec()


class CannotMamba(tsar.PatchTST):
    def _forecast_batch(self, inputs):
        found = super()._forecast_batch(inputs)
        return found * float("nan") if self.mixer == "mamba" else found


BROKEN = {
    "check_parameters_are_stored": AltersParameters,
    "check_clone": ClonesFitted,
    "check_refit_equals_fresh_fit": RemembersFits,
    "check_seed": SeedsTheWorld,
    "check_pickle": PicklesBadly,
    "check_save_load": LoadsBadly,
    "check_silence": Talks,
    "check_pipeline": ForecastsLess,
    "check_grid_search": ScoresNothing,
    "check_forms": LosesTheIndex,
    "check_time_zone": LosesTheZone,
    "check_horizon": DependsOnTheHorizon,
    "check_scale": HasUnits,
    "check_constant_series": Grows,
    "check_missing_values": CannotMiss,
    "check_short_series": FlagsNothing,
    "check_no_look_ahead": LooksAhead,
    "check_batches": DependsOnTheBatch,
    "check_variates": SortsColumns,
    "check_one_route": HasTwoRoutes,
    "check_intervals": SwapsIntervals,
    "check_saved_ids": LoadsBadly,
    "check_bad_input": TakesInfinity,
    "check_early_stopping": KeepsTheWorst,
    "check_continued_training": ContinuesAnew,
    "check_quantiles": CrossesQuantiles,
    "check_learning": LearnsNothing,
    "check_future_covariate": IgnoresCovariates,
    "check_mixers": CannotMamba,
}


def test_there_is_one_for_every_check():
    every = [checks.small_forecaster(cls) for cls in (tsar.NLinear, tsar.PatchTST)]
    names = {check.__name__ for model in every for _, check in checks.checks_for(model)}
    assert names == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_fails_where_its_promise_is_broken(name):
    cls = BROKEN[name]
    sound = next(
        base for base in cls.__mro__ if base is Plain or base in (tsar.NLinear, tsar.PatchTST)
    )
    for broken in (False, True):
        estimator = checks.small_forecaster(cls if broken else sound)
        check = next(one for _, one in checks.checks_for(estimator) if one.__name__ == name)
        if broken:
            with pytest.raises(AssertionError):
                check(estimator)
        elif not issubclass(cls, NetworkForecaster):
            check(estimator)
