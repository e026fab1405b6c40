"""A closer look at a fitted forecaster: many windows, its score, its fit, and what moves it."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from tsar.data.libraries import library_of
from tsar.forecasting.fitted.contract import FittedForecaster
from tsar.forecasting.fitted.explanation import explain
from tsar.forecasting.fitted.windowed import fitted_values, forecast_windows, score
from tsar.training.learned_masks import LearnedMask

__all__ = ["Inspection"]


class Inspection(FittedForecaster):
    """What a fitted forecaster can be asked about itself."""

    def forecast_windows(
        self, df: Any, cutoffs: Sequence[int] | np.ndarray, horizon: int | None = None
    ) -> np.ndarray:
        """Forecast many windows of one wide frame in batched passes.

        Parameters
        ----------
        df : DataFrame or Series
            One series with the fitted variates.
        cutoffs : int array of shape (n_windows,)
            Row at which each forecast begins; the model reads the rows before it.
        horizon : int or None
            Steps to forecast; None takes the fitted one.

        Returns
        -------
        float64 array of shape (n_windows, horizon, n_variates)
            Point forecasts in original units, variates in the order of ``df``. Future
            covariates beyond the end of ``df`` keep their last value.

        Raises
        ------
        DataError
            ``df`` holds several series, or a cutoff lies outside of it.
        """
        self.check_fitted()
        return forecast_windows(self, df, cutoffs, self.resolve_horizon(horizon))

    def score(self, df: Any, y: None = None) -> float:
        """Return the negative mean absolute error over a frame, in original units.

        Rows of ``df`` that follow the fitted series are forecast from it; series that do
        not are forecast from their own first rows. The origin moves by one horizon at a
        time, so that every row is forecast once.

        Parameters
        ----------
        df : DataFrame or Series
            The truth, in any form.
        y : None
            Not used.

        Returns
        -------
        float
            Never positive; larger is better, as scikit-learn's searches expect.
        """
        self.check_fitted()
        return score(self, df)

    def fitted_values(self, df: Any, horizon: int | None = None) -> Any:
        """Forecast every row of a frame from every cutoff before it, for residuals.

        Rows that the model was fitted on are forecast as well, better than new ones would
        be: for an honest error use :func:`tsar.evaluation.backtest`.

        Parameters
        ----------
        df : DataFrame or Series
            In any form, with the fitted variates; the fitted rows, or any others.
        horizon : int or None
            Steps to forecast from each cutoff, 1 for the plain residuals; None takes the
            fitted ``horizon``.

        Returns
        -------
        DataFrame
            One row for each series, variate, time and step that had enough history: a full
            context in ``df``, or the fitted series before it. The columns are those of a
            backtest: ``id``, ``variate`` (where there are several), ``cutoff``, ``time``,
            ``step``, ``y`` (NaN where it was not observed) and ``forecast``. In the library of
            ``df``.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            An argument or the frame is not usable, or no series has rows beyond its history.

        Examples
        --------
        >>> import tsar
        >>> sea = tsar.load_dataset("elnino")
        >>> model = tsar.SeasonalNaive(horizon=12).fit(sea)
        >>> fitted = model.fitted_values(sea, horizon=1)
        >>> len(sea) - len(fitted)
        12
        """
        self.check_fitted()
        fitted = fitted_values(self, df, self.resolve_horizon(horizon))
        return library_of(df, ()).restored(fitted)

    def explain(
        self,
        df: Any,
        horizon: int | None = None,
        *,
        method: Literal["occlusion", "learned_mask", "gradients"] | LearnedMask = "occlusion",
        windows: int = 20,
        verbose: int = 0,
    ) -> pd.DataFrame:
        """Say how much each input moves the forecast.

        With "occlusion" one input after the other is hidden: the values of a number are replaced
        by their mean, those of a category by the most frequent one, the history of a variate by
        its own mean, and features of the calendar by zeros. What the forecast then changes by is
        the importance of the input. With "learned_mask" all inputs are masked together, value by
        value, as far as the forecast stays what it is; how many values are still shown is the
        importance of an input. With "gradients" each step of the forecast is divided among the
        inputs, by integrated gradients on the way from the means. Nothing is fitted again.

        Parameters
        ----------
        df : DataFrame or Series
            In any form, with the fitted variates and covariates.
        horizon : int or None
            Steps to forecast; None takes the fitted ``horizon``.
        method : {"occlusion", "learned_mask", "gradients"} or LearnedMask, default "occlusion"
            Masks are learned by gradients through a trained network, for each cutoff and
            variate by hundreds of passes; :class:`tsar.training.LearnedMask` says how. Gradients
            are integrated by captum (``pip install 'tsar[explain]'``) in 50 passes for each
            variate and step of the horizon. What either hides is replaced by the mean of the
            series, or by that of a covariate where it was fitted. Nothing lies between two
            categories: these are never hidden in part, and not listed.
        windows : int, default 20
            How many cutoffs of each series to look at, evenly spread over its rows.
        verbose : int
            1 shows a progress bar of the inputs.

        Returns
        -------
        DataFrame
            For each series and variate a row for each input, the one that moves it most
            first: ``id``, ``variate`` (where there are several), ``role`` ("history", "past",
            "future", "static" or "calendar"), ``input`` (a column of ``df``), ``importance``
            (mean absolute change of the point forecast, in original units; by gradients, that
            part of it which is due to the input; by masks, the mean
            number of values that are shown), ``share`` (of the importance of all inputs
            together) and ``mae_increase`` (by how much the mean absolute error grows without the
            input; by masks, without the values that are shown of it). Where a variate is
            forecast from its own history only, the histories of the others are not listed.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            An argument or the frame is not usable, no series is long enough for a context and
            the horizon, or the forecaster lets no gradients through.
        MissingExtraError
            The method is "gradients" and captum is not installed.

        Notes
        -----
        Inputs that say the same can stand in for each other, and each of them then looks less
        important than both are. Importance is what the model makes of an input, which is
        no proof of a cause. A mask that is learned shows one of two such inputs.

        The price of a mask is weighed against the squared change of the forecast, in units of
        what hiding everything changes. With ``mask_weight=1``, showing everything costs as much
        as hiding everything.

        Gradients are complete: what the inputs have of a step of the forecast adds up to what it
        differs by from the forecast of the means. Of a linear model, importance is that of
        occlusion by the same means.

        References
        ----------
        Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014,
        section 4.2, who hide parts of images; Enguehard, "Learning perturbations to explain time
        series predictions", ICML 2023, who learns masks; Sundararajan et al., "Axiomatic
        attribution for deep networks", ICML 2017, who integrate gradients.
        """
        self.check_fitted()
        return explain(self, df, self.resolve_horizon(horizon), method, windows, verbose)
