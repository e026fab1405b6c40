"""Intervals and quantiles of every forecaster: what a model itself says, or a calibration.

Dimension letters: S series, H horizon, C variates.
"""

from collections.abc import Sequence
from typing import Any, Self

from tsar.forecasting.fitted.contract import FittedForecaster
from tsar.forecasting.probabilistic.calibrating import calibrate
from tsar.forecasting.probabilistic.calibration import Calibration
from tsar.params.arguments import check_horizon

__all__ = ["Intervals"]


class Intervals(FittedForecaster):
    """The probabilistic part of a forecaster.

    Attributes
    ----------
    calibration_ : Calibration or None
        What :meth:`calibrate` learned; None before it was called.
    """

    calibration_: Calibration | None = None

    def calibrate(
        self,
        df: Any,
        *,
        method: str | None = None,
        level: float | Sequence[float] | None = None,
        horizon: int | None = None,
        refit: bool = False,
    ) -> Self:
        """Learn how a model errs, for ``predict(level=)`` and ``predict(samples=)``.

        The fitted model forecasts, from one cutoff after the other, the rows of ``df`` that
        it was not trained on; nothing is fitted again unless ``refit`` allows it. The frame
        may be the one that was fitted: of that the rows count that were held out for
        validation (``early_stopping``), and all rows for a baseline, which is not trained.
        Rows after the fitted ones and other series count as well. ``fit`` forgets the
        calibration.

        Parameters
        ----------
        df : DataFrame or Series
            In any form, with the fitted variates.
        method : {"split", "cqr", "aci", "pid"} or None, default None
            "split": the point forecast, plus and minus a quantile of the absolute errors of
            the step. "cqr": the outermost quantiles that the model forecasts, moved by what
            covers. "aci" and "pid" go through the errors of each series in the order of
            time, and reach further after misses than after hits: for series whose errors
            change. None takes "cqr" for models that forecast quantiles, else "split".
        level : float or sequence of float, optional
            Levels in percent that are going to be asked for. With "aci" and "pid" there are
            only these, by default 80, 90 and 95; with the others, whether there are enough
            windows for them is found out now.
        horizon : int or None
            Steps to calibrate; None takes the fitted ``horizon``.
        refit : bool, default False
            Whether a copy may be fitted where ``df``, the frame that was fitted, holds too few
            rows that the model was not trained on: without a fifth of the rows of each series,
            less where no context and horizon would be left, at least what the levels take (95
            if none is named), at most half. The intervals are then made of the errors of the
            copy, and the model stays as it is.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError
            An argument is not usable.
        DataError
            The frame has faults, or no row that the model was not trained on.

        Notes
        -----
        Errors of all series are put together, those of each in units of their usual size. A
        level that n windows can show is at most ``100 * n / (n + 1)``. The guarantee of
        "split" and "cqr" is for windows that are alike; "aci" may answer with infinite
        intervals, "pid" never does. Series with fewer than 20 cutoffs, and series that
        ``df`` does not hold, have the intervals of "split" instead of adaptive ones.

        Whichever the method, the errors of whole forecasts are kept as well. A sample is the
        point forecast and the errors that all series made at one cutoff, drawn from all
        cutoffs; of a model that forecasts a distribution, its own samples in the order that
        these errors have. Intervals of single steps and quantiles of samples are not the same
        numbers: the errors of samples are not centred, and those of "split" are put together
        from all series.

        References
        ----------
        Lei et al., "Distribution-free predictive inference for regression", JASA 2018;
        Romano, Patterson and Candès, "Conformalized quantile regression", NeurIPS 2019;
        Gibbs and Candès, "Adaptive conformal inference under distribution shift", NeurIPS
        2021; Angelopoulos, Candès and Tibshirani, "Conformal PID control for time series
        prediction", NeurIPS 2023; Clark et al., "The Schaake shuffle", Journal of
        Hydrometeorology 5 (2004).

        Examples
        --------
        >>> import tsar
        >>> sea = tsar.load_dataset("elnino")
        >>> model = tsar.SeasonalNaive(horizon=12).fit(sea).calibrate(sea)
        >>> model.predict(level=80).columns.tolist()
        ['sea_temperature', 'sea_temperature_lo80', 'sea_temperature_hi80']
        """
        self.check_fitted()
        steps = self.horizon_ if horizon is None else check_horizon(self.name, horizon)
        self.calibration_ = calibrate(self, df, method, level, steps, refit)
        return self
