"""Forecasters that read a window of one length and give a horizon of one length.

Dimension letters: S series, W windows, B windows in a batch, L context steps, H horizon,
C variates, K numbers per step, N samples.
"""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsar.data.covariates import CovariateCoding, covariate_tensors
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling, series_tensors
from tsar.data.windows import CovariateTensors, Inputs, SeriesTensors
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.rolling import roll_windows, sample_paths, steps_covering
from tsar.forecasting.fitted.windowed import after_fitted as join_fitted
from tsar.forecasting.fitted.windowed import are_ends, window_histories
from tsar.forecasting.outputs.predictive import series_generator
from tsar.training.threads import settle_number

__all__ = ["SeriesWindows", "WindowForecaster"]


@dataclass(frozen=True)
class SeriesWindows:
    """Windows of series on a device, and how they were scaled.

    Parameters
    ----------
    tensors : SeriesTensors
    series, cutoffs : int64 arrays of shape (W,)
        Series of each window, and the row of ``tensors`` at which its forecast begins.
    scaling : Scaling
        Of each window.
    ids : Index of shape (W,)
        Of the series of each window.
    """

    tensors: SeriesTensors
    series: np.ndarray
    cutoffs: np.ndarray
    scaling: Scaling
    ids: pd.Index


@dataclass(kw_only=True, eq=False, repr=False)
class WindowForecaster(Forecaster):
    """A forecaster that maps batches of windows to ``horizon_`` steps.

    A subclass gives :meth:`_forecast_batch`, and says whether series are standardised.
    """

    _dtype: ClassVar[torch.dtype] = torch.float32

    @property
    @abstractmethod
    def _standardises(self) -> bool:
        """Whether series are standardised before the model reads them."""

    @abstractmethod
    def _forecast_batch(self, inputs: Inputs) -> Tensor:
        """Forecast ``horizon_`` steps: (B, H, C), or (B, H, C, K) with K numbers per step."""

    @contextlib.contextmanager
    def _forecasting(self, n_windows: int) -> Iterator[Callable[[Inputs], Tensor]]:
        """Yield what forecasts batches of so many windows in all, ready to do so."""
        yield self._forecast_batch

    @property
    def _forecast_device(self) -> torch.device:
        return torch.device("cpu")

    # -------------------------------------------------------------- scaling

    def _measure(self, panel: Panel, stop: np.ndarray) -> Scaling:
        """Return the scaling of the rows ``offsets[s]:stop[s]``, NaN where none is observed."""
        measured = Scaling.measure(panel.values, panel.offsets, stop)
        return measured if self._standardises else measured.without_change()

    def _scaling_of(self, panel: Panel) -> Scaling:
        """Return the statistics of every series of a panel.

        A fitted series keeps those of its training part, another one brings its own; one
        without any observation takes those of the fitted panel on the whole.
        """
        if panel is self.end_:
            return self.learned_.scaling.filled(self.learned_.pooled)
        scaling = self.learned_.scaling_of(panel, self.end_)
        if not np.isnan(scaling.mean).any():
            return scaling
        measured = self.as_fitted._measure(panel, panel.offsets[1:])  # noqa: SLF001  (this class)
        scaling = scaling.filled(measured)
        return scaling.filled(self.learned_.pooled_of(panel, self.end_))

    def _scaling_moved_on(self, whole: Panel) -> Scaling:
        # A series that was constant or unknown is measured, as it is where it is given anew.
        held = self.learned_.scaling_of(whole, self.end_)
        measured = self.as_fitted._measure(whole, whole.offsets[1:])  # noqa: SLF001  (this class)
        return held.filled(measured)

    def _tensors(
        self,
        panel: Panel,
        scaling: Scaling,
        device: torch.device,
        coding: CovariateCoding,
        ahead: int = 0,
        known_ahead: Mapping[Any, np.ndarray] | None = None,
    ) -> SeriesTensors:
        """Put a panel on a device, its known covariates for ``ahead`` steps after its end."""
        with self.named_errors():
            tensors = series_tensors(panel.values, panel.offsets, scaling, device, self._dtype)
            if not coding:
                return tensors
            assert panel.covariates is not None, "panels with covariates are coded"
            after = panel.known_ahead(coding, dict(known_ahead or {}), ahead)
            covariates = covariate_tensors(
                panel.covariates, panel.offsets, after, device, self._dtype
            )
        return replace(tensors, covariates=covariates)

    # ------------------------------------------------------------ the route

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
        settle_number()
        if after_fitted:
            panel, rows = join_fitted(panel, owners, rows, self.end_)
        reach = steps_covering(horizon, self.horizon_)
        return Forecasts.gathered(
            [
                (places, self._forecast_scaled(windows, horizon, levels, samples))
                for places, windows in self._scaled(panel, owners, rows, reach, known_ahead)
            ]
        )

    def _scaled(
        self,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        ahead: int,
        known_ahead: Mapping[Any, np.ndarray] | None,
    ) -> Iterator[tuple[np.ndarray, SeriesWindows]]:
        """Yield which windows, and these scaled, with covariates known ``ahead`` steps.

        A series that was fitted is scaled by the statistics of the fit. Any other one, and one
        that was constant in the fit, is scaled window by window by its rows before the cutoff.
        """
        coding, device = self.learned_.coding, self._forecast_device
        if are_ends(panel, owners, rows):
            scaling = self._scaling_of(panel)
            of_fit = panel if panel is self.end_ else self.learned_.rows_read(panel)
            tensors = self._tensors(of_fit, scaling, device, coding, ahead, known_ahead)
            yield owners, SeriesWindows(tensors, owners, of_fit.offsets[1:], scaling, panel.ids)
            return
        assert not known_ahead, "only the ends of series have a future of their own"
        fitted = self.learned_.scaling_of(panel, self.end_)
        settled = ~np.isnan(fitted.mean).any(axis=1)[owners]
        # The other series become zeros here, which nothing reads.
        nothing = Scaling(np.zeros_like(fitted.mean), np.full_like(fitted.scale, np.inf))
        scaling = fitted.filled(nothing)
        tensors = self._tensors(panel, scaling, device, coding, ahead)
        if settled.any():
            places, series = np.flatnonzero(settled), owners[settled]
            yield (
                places,
                SeriesWindows(
                    tensors, series, rows[settled], scaling.take(series), panel.ids[series]
                ),
            )
        for places, histories in window_histories(panel, owners, rows, np.flatnonzero(~settled)):
            scaling, of_fit = self._scaling_of(histories), self.learned_.rows_read(histories)
            apart = self._tensors(of_fit, scaling, device, coding)
            if tensors.covariates is not None:
                apart = _with_known(
                    apart, of_fit, tensors.covariates, owners[places], rows[places], panel.offsets
                )
            each = np.arange(len(places))
            yield places, SeriesWindows(apart, each, of_fit.offsets[1:], scaling, histories.ids)

    def _forecast_scaled(
        self, windows: SeriesWindows, horizon: int, levels: Sequence[float], samples: int | None
    ) -> Forecasts:
        """Let the network read scaled windows, and bring what it says to original units."""
        with self._forecasting(len(windows.series) * (samples or 1)) as forecast_batch:
            scaled = roll_windows(
                forecast_batch,
                self.predictive.fed_back,
                windows.tensors,
                windows.series,
                windows.cutoffs,
                context_length=self.context_rows,
                step=self.horizon_,
                horizon=horizon,
            )
            paths = None
            if samples is not None:
                paths = self._draw(forecast_batch, windows, horizon, samples)
        return self._restored(scaled, windows.scaling, levels, paths)

    def _restored(
        self,
        scaled: np.ndarray,
        scaling: Scaling,
        levels: Sequence[float],
        paths: np.ndarray | None = None,
    ) -> Forecasts:
        """Bring forecasts (W, H, C) or (W, H, C, K) to original units; paths are there."""
        predictive = self.predictive
        restored = predictive.restore(scaled, scaling)
        return Forecasts(
            self.in_range(predictive.point(restored)),
            {level: self.in_range(predictive.quantile(restored, level)) for level in levels},
            None if paths is None else self.in_range(paths),
        )

    def _draw(
        self,
        forecast_batch: Callable[[Inputs], Tensor],
        windows: SeriesWindows,
        horizon: int,
        n_samples: int,
    ) -> np.ndarray:
        """Draw paths (W, N, horizon, C), in original units.

        Every window has a generator of its own, which follows from the seed of the fit and the
        id of the series. Up to the fitted horizon the steps of a path are independent, given
        the history; beyond it, every path continues what was drawn for it.
        """
        scaling = windows.scaling
        divisor = np.where(scaling.scale > 0, scaling.scale, 1.0)

        def scale(drawn: np.ndarray, number: int) -> np.ndarray:
            return np.asarray((drawn - scaling.mean[number]) / divisor[number])

        return sample_paths(
            forecast_batch,
            self._make_draw(windows),
            scale,
            windows.tensors,
            windows.series,
            windows.cutoffs,
            n_samples=n_samples,
            context_length=self.context_rows,
            step=self.horizon_,
            horizon=horizon,
        )

    def _make_draw(self, windows: SeriesWindows) -> Callable[[np.ndarray, int], np.ndarray]:
        """Return what draws (N, H, C), in original units, from forecasts of a window."""
        predictive, scaling = self.predictive, windows.scaling
        generators = [series_generator(self.sampling_seed, name) for name in windows.ids]

        def draw(forecast: np.ndarray, number: int) -> np.ndarray:
            n_paths, n_steps = forecast.shape[:2]
            flat = forecast.reshape(1, n_paths * n_steps, *forecast.shape[2:])
            restored = predictive.restore(flat, scaling.take(np.array([number])))
            return predictive.sample(restored.reshape(forecast.shape), generators[number])

        return draw


def _with_known(
    apart: SeriesTensors,
    histories: Panel,
    values_ahead: CovariateTensors,
    owners: np.ndarray,
    rows: np.ndarray,
    offsets: np.ndarray,
) -> SeriesTensors:
    """Let known covariates go on after each history as they do in the panel it is from."""
    assert histories.covariates is not None, "there are covariates"
    ends = values_ahead.known_offsets.cpu().numpy()
    steps = np.arange(ends[1] - ends[0] - (offsets[1] - offsets[0]))
    after = (rows - offsets[owners] + ends[owners])[:, None] + steps
    covariates = covariate_tensors(
        histories.covariates,
        histories.offsets,
        values_ahead.known_ahead.cpu().numpy()[after],
        values_ahead.known_ahead.device,
        values_ahead.known_ahead.dtype,
    )
    return replace(apart, covariates=covariates)
