"""Forecasting by a fitted network, and what it has inside meanwhile, as arrays.

Dimension letters: S series, V variates that are read by themselves, L tokens.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.inspection.recording import WHATS, recorded
from tsar.data.matching import in_order
from tsar.data.panel import Panel
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.fitted.contract import OpenWindows
from tsar.forecasting.fitted.rolling import (
    ROWS_AT_ONCE,
    roll,
    roll_windows,
    steps_covering,
    windows_at_once,
)
from tsar.forecasting.window_forecaster import WindowForecaster
from tsar.params.constraints import check_choice
from tsar.training.threads import is_crowded, settle_number, working_threads

__all__ = ["NetworkInsight"]

# Windows that gradients go through in one pass, as in Enguehard (ICML 2023): what a network has
# inside stays in memory until they have.
OPEN_AT_ONCE = 100
# So few numbers are forecast by the threads that there are: to change their number takes a tenth
# to a quarter of such a forecast. Beside other work, waiting for each other takes more. The numbers
# are the same either way: no operation on so few adds up the parts of several threads.
FEW_VALUES = 1024


class NetworkInsight(WindowForecaster):
    """A forecaster around a network that can be looked into."""

    module_: nn.Module

    # Whether a forecast is one pass, which rounds few numbers alike with one thread and with two.
    _in_one_pass: ClassVar[bool] = True

    def _forecast_batch(self, inputs: Inputs) -> Tensor:
        forecast: Tensor = self.module_(inputs)
        return forecast

    @contextlib.contextmanager
    def _forecasting(self, n_windows: int) -> Iterator[Callable[[Inputs], Tensor]]:
        n_variates, context = self.end_.n_variates, self.context_rows
        few = self._in_one_pass and n_windows * context * n_variates < FEW_VALUES
        if few and not is_crowded():
            yield self._forecast_batch
            return
        # That of a whole batch, so that a window is forecast alike whatever is beside it.
        n_values = windows_at_once(context, n_variates) * context * n_variates
        with working_threads(self.module_, n_values, self._forecast_device) as threads:

            def forecast_batch(inputs: Inputs) -> Tensor:
                forecast = self._forecast_batch(inputs)
                threads.look()
                return forecast

            yield forecast_batch

    @property
    def lets_gradients_through(self) -> bool:
        return True

    def opened(
        self, panel: Panel, owners: np.ndarray, rows: np.ndarray, horizon: int
    ) -> Iterator[tuple[np.ndarray, OpenWindows]]:
        context, step, point = self.context_rows, self.horizon_, self.predictive.fed_back
        reach = steps_covering(horizon, step)
        settle_number()

        def forecast(inputs: Inputs) -> Tensor:
            return point(roll(self._forecast_batch, point, inputs, step, horizon))

        for places, windows in self._scaled(panel, owners, rows, reach, None):
            device = windows.tensors.values.device
            for part in np.array_split(np.arange(len(places)), -(-len(places) // OPEN_AT_ONCE)):
                series, cutoffs = (
                    torch.from_numpy(np.asarray(which[part], dtype=np.int64)).to(device)
                    for which in (windows.series, windows.cutoffs)
                )
                history, seen = windows.tensors.gather(series, cutoffs, context, 0)
                covariates = windows.tensors.gather_covariates(series, cutoffs, context, reach)
                complete = seen is None or bool(seen.all())
                inputs = Inputs(history, None if complete else seen, **covariates)
                yield places[part], OpenWindows(inputs, forecast, windows.scaling.take(part))

    def inspect(
        self,
        df: Any = None,
        future: Any = None,
        *,
        what: Literal["attention", "embedding"] = "attention",
    ) -> np.ndarray:
        """Return what the network has inside when it forecasts the end of each series.

        Parameters
        ----------
        df : DataFrame or Series, optional
            Series with the fitted variates; None takes the fitted ones.
        future : DataFrame, optional
            Future covariates, as :meth:`predict` takes them.
        what : {"attention", "embedding"}, default "attention"
            The attention weights of every block, or the tokens that come out of the encoder.

        Returns
        -------
        float32 array of shape (S, n_layers, V, n_heads, L, L) or (S, V, L, d_model)
            Of S series, in the order of the frame, and of L tokens. Where tokens are patches or
            steps of each variate by itself (PatchTST), V is the number of variates, in the order
            of ``variates_``; where all variates are read together, V is 1. Tokens that are
            variates (iTransformer, SMamba) come in the order of ``variates_``, and those of the
            calendar and of covariates after them. Weights of a row sum to 1: what the token of
            the row reads of each.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            The frame is not usable, or the network has nothing of the kind.
        """
        self.check_fitted()
        check_choice(self.name, "what", what, WHATS)
        panel = self.end_ if df is None else self.read_new(df)
        panel = in_order(panel, self.end_.variates)
        step = self.horizon_
        known_ahead = self._known(panel, self.future_names, future, step, step)
        arrays: list[Any] = [None] * panel.n_series
        ends = np.arange(panel.n_series), panel.offsets[1:]
        for places, windows in self._scaled(panel, *ends, step, known_ahead):
            for number, place in enumerate(places):
                here = slice(number, number + 1)
                with recorded(self.module_, what) as recordings:
                    roll_windows(
                        self._forecast_batch,
                        self.predictive.fed_back,
                        windows.tensors,
                        windows.series[here],
                        windows.cutoffs[here],
                        context_length=self.context_rows,
                        step=step,
                        horizon=step,
                    )
                # One window stands in several places of its batch.
                arrays[place] = [own[0][: len(own[0]) // ROWS_AT_ONCE].cpu() for own in recordings]
        if not arrays[0]:
            raise ParameterError(
                f"{self.name}: what={what!r} needs a network with an encoder"
                f"{' that attends, such as mixer=' + repr('attention') if what == WHATS[0] else ''}"
                f"; this one has none"
            )
        stacked = np.stack([np.stack([own.float().numpy() for own in one]) for one in arrays])
        return stacked if what == "attention" else stacked[:, 0]
