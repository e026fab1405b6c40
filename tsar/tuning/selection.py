"""Which lags and covariates a forecast needs: Sequential Attention on a linear model."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view
from pandas.tseries.offsets import BaseOffset
from sklearn.base import BaseEstimator
from torch import Tensor

from tsar.data.panel import Panel
from tsar.exceptions import DataError, DataWarning, ParameterError, warn
from tsar.params.arguments import Frame, column_labels
from tsar.params.constraints import Interval, check_parameters
from tsar.tuning.attention import NOTHING, Pick, sequential_attention

__all__ = ["InputSelector"]

ROWS_AT_A_TIME = 8192


class _Input(NamedTuple):
    """A role, the name of a column and a lag."""

    role: str
    name: Any
    lag: int


@dataclass(kw_only=True, eq=False, repr=False)
class InputSelector(BaseEstimator):
    """Rank lags and covariates by what they add to a linear forecast of the next step.

    The inputs are the lags 1 to ``context_length`` of the target itself and of past covariates,
    and 0 to ``context_length`` of future ones; 0 is the step that is forecast. They are chosen
    one after the other by :func:`sequential_attention`, so that of two inputs that say the same
    only one is high in the ranking.

    All series and variates share the ranking and the weights of the model; each of them, and
    each covariate in each series, is brought to mean 0 and deviation 1 first.

    Parameters
    ----------
    n_selected : int, default 5
        How many inputs to choose.
    context_length : int, default 24
        The longest lag.
    past_covariates : label, sequence or None, default None
        Numeric columns known up to the forecast origin.
    future_covariates : label, sequence or None, default None
        Numeric columns known over the horizon as well.
    alpha : float, default 100.0
        Penalty of squared weights of inputs that are not chosen, beside a mean squared error in
        units of the target's variance. The larger, the nearer to orthogonal matching pursuit;
        with 0.1 and less, inputs share the attention where several are about as good.
    n_steps : int, default 50
        Gradient steps for each choice.
    freq, id_column, time_column, target
        As forecasters have them.
    gaps : {"raise", "mask", "zero"}, default "raise"
        Whether missing rows are an error, or are read as missing values or as zeros.
    random_state : int, default 0
        Seed of the logits that training begins with.

    Attributes
    ----------
    ranking_ : DataFrame
        A row for each choice, the first one first: ``rank`` from 1, ``role`` ("history", "past" or
        "future"), ``input`` (the column; None for the history of several variates), ``lag`` in
        steps, ``score`` (attention when it was chosen, in [0, 1]) and ``r2`` (share of the
        variance in ``df`` that it and those before account for).
    selected_ : dict of str to tuple
        ``lags`` of the target, increasing, and the chosen columns as ``past_covariates`` and
        ``future_covariates``: parameters of a forecaster by these names.
    n_inputs_ : int
        How many inputs there were to choose from.
    n_rows_ : int
        How many rows they were judged by.

    Notes
    -----
    A row with a missing value among its inputs, or whose target is missing, is left out. A series
    whose target never moves is left out, too.

    ``r2`` is that of the rows that were fitted, and never falls: whether a choice makes forecasts
    better is for a backtest to say. The time grows with the cube of the number of inputs.

    Examples
    --------
    >>> import tsar
    >>> from tsar.tuning import InputSelector
    >>> sea = tsar.load_dataset("elnino")
    >>> selector = InputSelector(n_selected=3, context_length=24).fit(sea)
    >>> lags = selector.selected_["lags"]
    >>> tsar.AutoReg(lags=lags, horizon=12).fit(sea).predict().shape
    (12, 1)
    """

    n_selected: Annotated[int, Interval(1)] = 5
    context_length: Annotated[int, Interval(1)] = 24
    past_covariates: str | int | Sequence[str | int] | None = None
    future_covariates: str | int | Sequence[str | int] | None = None
    alpha: Annotated[float, Interval(0, open_low=True)] = 100.0
    n_steps: Annotated[int, Interval(1)] = 50
    freq: str | int | BaseOffset | datetime.timedelta | np.timedelta64 | None = None
    gaps: Literal["raise", "mask", "zero"] = "raise"
    id_column: str | int | Sequence[str | int] | None = None
    time_column: str | int | None = None
    target: str | int | Sequence[str | int] | None = None
    random_state: Annotated[int, Interval(0)] = 0

    def fit(self, df: Frame, y: None = None) -> Self:
        """Rank the inputs.

        Parameters
        ----------
        df : DataFrame or Series
            In any form that forecasters take.
        y : None
            Not used; scikit-learn's tools pass it.

        Returns
        -------
        self

        Raises
        ------
        DataError
            The frame is no panel, a covariate is not numeric, an input never moves, or too few
            rows are complete.
        ParameterError
            A parameter is outside its constraint, or there are fewer inputs than ``n_selected``.
        """
        check_parameters(self)
        past = column_labels(self.past_covariates)
        future = column_labels(self.future_covariates)
        n_inputs = self.context_length * (1 + len(past) + len(future)) + len(future)
        if self.n_selected > n_inputs:
            raise ParameterError(
                f"InputSelector: n_selected must be at most the number of inputs, {n_inputs} with "
                f"context_length={self.context_length}, {len(past)} past and {len(future)} future "
                f"covariates, got {self.n_selected}; choose fewer, or pass a longer context_length"
            )
        panel = Panel.from_frame(
            df,
            freq=self.freq,
            gaps=self.gaps,
            id_column=self.id_column,
            time_column=self.time_column,
            target=self.target,
            past_covariates=past,
            future_covariates=future,
        )
        inputs = self._inputs(panel)
        correlations, self.n_rows_ = self._correlations(panel, inputs)
        picks = sequential_attention(
            correlations[:-1, :-1],
            correlations[:-1, -1],
            self.n_selected,
            alpha=self.alpha,
            n_steps=self.n_steps,
            seed=self.random_state,
        )
        if len(picks) < self.n_selected:
            warn(
                f"InputSelector: n_selected={self.n_selected}, but after {len(picks)} inputs no "
                f"other adds anything; the ranking ends there",
                DataWarning,
            )
        self.n_inputs_ = n_inputs
        self._keep(picks, inputs)
        return self

    def _keep(self, picks: list[Pick], inputs: list[_Input]) -> None:
        """Set what the choices are known by."""
        self.ranking_ = pd.DataFrame(
            [
                (rank, *inputs[pick.place], pick.score, pick.r2)
                for rank, pick in enumerate(picks, start=1)
            ],
            columns=["rank", "role", "input", "lag", "score", "r2"],
        )
        chosen = [inputs[pick.place] for pick in picks]
        self.selected_ = {"lags": tuple(sorted(i.lag for i in chosen if i.role == "history"))}
        for role in ("past", "future"):
            columns = dict.fromkeys(i.name for i in chosen if i.role == role)
            self.selected_[f"{role}_covariates"] = tuple(columns)

    def _inputs(self, panel: Panel) -> list[_Input]:
        """List what there is to choose from, in the order of the columns of the regression."""
        name = panel.variates[0] if panel.n_variates == 1 else None
        lags = range(1, self.context_length + 1)
        return [
            *(_Input("history", name, lag) for lag in lags),
            *(_Input("past", column, lag) for column in panel.past for lag in lags),
            *(_Input("future", column, lag) for column in panel.future for lag in (0, *lags)),
        ]

    def _correlations(self, panel: Panel, inputs: list[_Input]) -> tuple[Tensor, int]:
        """Return the correlations of all inputs and, last, the target, and the rows they are of."""
        moments = np.zeros((len(inputs) + 2, len(inputs) + 2))
        for x in self._rows(panel):
            x = x[np.isfinite(x).all(axis=1)]
            x = np.column_stack([np.ones(len(x)), x])
            moments += x.T @ x
        n_rows = int(moments[0, 0])
        if n_rows < self.n_selected + 2:
            raise DataError(
                f"InputSelector: {self.n_selected} choices need at least {self.n_selected + 2} "
                f"complete rows, each after {self.context_length} rows of its series, got "
                f"{n_rows}; pass longer series, a shorter context_length, or fill missing values"
            )
        means = moments[0, 1:] / n_rows
        covariances = moments[1:, 1:] / n_rows - np.outer(means, means)
        variances = covariances.diagonal()
        still = [place for place, variance in enumerate(variances) if variance < NOTHING]
        if still:
            columns = dict.fromkeys(
                repr(inputs[place].name) if place < len(inputs) else "the target" for place in still
            )
            raise DataError(
                f"InputSelector: {', '.join(columns)} never moves in the {n_rows} rows that are "
                f"complete, and cannot be ranked; leave such columns out"
            )
        scale = np.sqrt(variances)
        return torch.from_numpy(covariances / np.outer(scale, scale)), n_rows

    def _rows(self, panel: Panel) -> Iterator[np.ndarray]:
        """Yield float64 arrays (n, n_inputs + 1) of inputs and, last, the target."""
        coding = panel.coding(panel.offsets[1:])
        for column in (*coding.past, *coding.future):
            if column.categories is not None:
                raise DataError(
                    f"InputSelector: covariate {column.name!r} holds categories, and must be "
                    f"numeric; pass a column of 0 and 1 for each category, as pandas.get_dummies "
                    f"makes them"
                )
        size = self.context_length + 1
        for begin, end in zip(panel.offsets, panel.offsets[1:], strict=False):
            if end - begin < size:
                continue
            # Lags 0 to context_length of each row, views all of them.
            past, future = (
                [
                    sliding_window_view(_standardised(columns[name][begin:end]), size)[:, ::-1]
                    for name in columns
                ]
                for columns in (panel.past, panel.future)
            )
            for values in panel.values[begin:end].T:
                own = sliding_window_view(_standardised(values), size)[:, ::-1]
                if not np.nanmax(np.abs(own), initial=0.0) > 0:
                    continue
                parts = [own[:, 1:], *(view[:, 1:] for view in past), *future, own[:, :1]]
                for first in range(0, len(own), ROWS_AT_A_TIME):
                    yield np.hstack([part[first : first + ROWS_AT_A_TIME] for part in parts])


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return values of mean 0 and deviation 1, all 0 where they never move."""
    values = values.astype(np.float64)
    seen = values[np.isfinite(values)]
    if not len(seen):
        return values
    deviation, largest = seen.std(), np.abs(seen).max()
    moved = values - seen.mean()
    return moved * 0.0 if deviation <= NOTHING * largest else moved / deviation
