"""Exponential smoothing whose trend and season are chosen by the data, series by series."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tsar.forecasting.ets import ETSModel
from tsar.forecasting.local import LocalForecaster
from tsar.forecasting.local_models import LocalModel, rounded

__all__ = ["AutoETS"]

# Trend and damping of the forms that are compared, each with and without a season.
TRENDS: tuple[tuple[str | None, bool], ...] = ((None, False), ("add", False), ("add", True))


@dataclass(frozen=True)
class AutoETSModel(LocalModel):
    """The form of exponential smoothing with the least corrected Akaike criterion.

    Its parameters are the number of the form among :attr:`forms`, and those of the form.

    Parameters
    ----------
    season_length : int
    """

    season_length: int

    @property
    def chosen_freely(self) -> bool:
        """Which form it is, the data say."""
        return True

    @property
    def forms(self) -> tuple[ETSModel, ...]:
        """What is compared; those with a season last."""
        seasons = ((None, 1), ("add", self.season_length))
        return tuple(
            ETSModel(trend, damped, seasonal, length)
            for seasonal, length in seasons[: 1 + (self.season_length > 1)]
            for trend, damped in TRENDS
        )

    def form_of(self, parameters: np.ndarray) -> ETSModel:
        """Return the form that was chosen."""
        return self.forms[int(parameters[0])]

    def needed(self, n_covariates: int) -> int:
        """Return what the smallest form needs."""
        return self.forms[0].needed(0)

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Estimate all forms that the rows carry, see :class:`LocalModel`."""
        y = rounded(y)
        best, least = None, np.inf
        for place, form in enumerate(self.forms):
            n_rows, n_parameters = len(y), form.additive.n_parameters
            if n_rows < max(form.needed(0), n_parameters + 2):
                continue
            smoothed = form.additive.estimate(y)
            # n log(SSE / n) is what of twice the negative log-likelihood differs between forms.
            fit = n_rows * np.log(max(smoothed.squares, np.finfo(float).tiny) / n_rows)
            criterion = fit + 2 * n_parameters * n_rows / (n_rows - n_parameters - 1)
            if criterion < least:
                least, best = criterion, (place, smoothed)
        if best is None:
            raise ValueError(f"{len(y)} rows carry no form")
        place, smoothed = best
        parameters = np.concatenate([[place], smoothed.weights, smoothed.states])
        return parameters, np.empty(0), smoothed.converged

    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Forecast with the form that was chosen, see :class:`LocalModel`."""
        form = self.form_of(parameters)
        return form.forecast(parameters[1:], effects, y, x, cutoffs, horizon)


@dataclass(kw_only=True, eq=False, repr=False)
class AutoETS(LocalForecaster):
    """Exponential smoothing whose trend and season are chosen for each series and variate.

    Six forms are estimated: without a trend, with one, with a damped one, each with and without a
    season, all of them additive. The least AICc decides. A season that grows with the level is
    one of the logarithms: ``TransformedTarget(model=AutoETS(), transform="log")``.

    Attributes
    ----------
    forms_ : DataFrame
        A row for each series and variate, with the columns ``id``, ``variate`` and ``form``, which
        is written as usual: "AAdN" has additive errors, a damped trend and no season. It is empty
        where nothing was estimated.

    References
    ----------
    Hyndman, Koehler, Snyder and Grose, "A state space framework for automatic forecasting using
    exponential smoothing methods", International Journal of Forecasting 18 (2002); the criterion of
    Hyndman, Koehler, Ord and Snyder, "Forecasting with exponential smoothing", 2008, section 7.2.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")[-240:]
    >>> model = tsar.AutoETS(horizon=3).fit(sea)
    >>> model.predict().shape
    (3, 1)
    >>> model.forms_["form"].tolist()
    ['ANA']
    """

    def _make_model(self, season_length: int) -> AutoETSModel:
        return AutoETSModel(season_length)

    @property
    def forms_(self) -> pd.DataFrame:
        """Which form was chosen for each series and variate."""
        model = self._make_model(self.season_length_)
        forms = [
            str(model.form_of(one.parameters)) if len(one.parameters) else ""
            for one in self._estimates.grid
        ]
        return self.status_[["id", "variate"]].assign(form=forms)
