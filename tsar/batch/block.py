"""Blocks of series, each of which becomes a table of forecasts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from tsar.batch.choosing import listed
from tsar.batch.empty_rows import empty_rows
from tsar.batch.preparing import Preparation, Prepared
from tsar.batch.report import ENDED, FALLBACK, OK, SHORT, STATUS
from tsar.data.faults import as_python
from tsar.data.forecasts import plain_label
from tsar.data.frames import TARGET
from tsar.data.idcolumns import factorized, key_columns, labels_of
from tsar.data.libraries import as_pandas
from tsar.data.longtable import End
from tsar.data.quarantine import Bad, all_bad, set_aside
from tsar.exceptions import DataWarning, InterruptedWarning, own_warnings
from tsar.forecasting.base import Forecaster
from tsar.forecasting.probabilistic.output_request import ensure_intervals

__all__ = ["Block", "BlockForecaster"]


@dataclass(frozen=True)
class Block:
    """Some series of a file, whole.

    Attributes
    ----------
    frame : DataFrame
        Their rows.
    series : Index
        Their ids, in the order of the output.
    """

    frame: pd.DataFrame
    series: pd.Index


@dataclass
class BlockForecaster:
    """Fits a model on rows of series, and forecasts blocks of them, none of which is lost.

    A block is forecast without a look at the others, so that several processes may share them,
    each with a copy of this.

    Parameters
    ----------
    model : Forecaster
    id_column : label or list of labels
    time_column : label
    n_series : int
        Series of all blocks: when all of them are bad, that is an error.
    written : callable
        Takes a forecast, and returns it as it is to be written.
    horizon : int or None
        Steps to forecast; None takes that of the model.
    outputs : mapping
        ``quantiles`` and ``level``.
    future : DataFrame or None
        Future covariates.
    preparation : Preparation
        What is done to rows before they are read.
    end : End or None
        The last time of all blocks, where it matters.
    """

    model: Forecaster
    id_column: Any
    time_column: Any
    n_series: int
    written: Callable[[pd.DataFrame], pd.DataFrame]
    horizon: int | None
    outputs: Mapping[str, Any]
    future: pd.DataFrame | None
    preparation: Preparation
    end: End | None = None

    def __post_init__(self) -> None:
        self._form: pd.DataFrame | None = None

    def __call__(self, block: Block) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Forecast a block of series.

        Returns
        -------
        table : DataFrame
            A row for each step of each series, with its status.
        facts : dict
            What became of the series, for the report.

        Raises
        ------
        DataError
            The block holds all series, and all of them are bad.
        """
        model, frame, id_column = self.model, block.frame, self.id_column
        results: list[Any] = []

        def attempt(rows: pd.DataFrame) -> None:
            results[:] = [
                model.predict(horizon=self.horizon, df=rows, future=ready.future, **self.outputs)
            ]

        ready = self.prepared(frame)
        good, bad = self._parted(ready, attempt)
        begins: dict[str, int] = {}
        short: list[Any] = []
        replaced: dict[Any, str] = {}
        if len(good):
            (result,) = results
            short = list(result.attrs["short_history"])
            # A short history says as much.
            replaced = {
                name: why for name, why in result.attrs["fallback"].items() if name not in short
            }
            result.attrs = {}
            status = _status(labels_of(result, id_column), short, replaced)
            form = result.iloc[:0]
            counted = result[self.time_column].iloc[:: self.steps].value_counts()
            begins = {str(time): int(count) for time, count in counted.items()}
            tables = [result.assign(**{STATUS: status})]
        else:
            if len(bad) == self.n_series:
                raise all_bad(bad)
            form = self.form(frame)
            tables = []
        failed = {name: why for name, why in bad.items() if why[0] != ENDED}
        if failed:
            named = id_column, self.time_column
            # Events do not matter for the times of rows.
            rows = frame.assign(**dict.fromkeys(self.preparation.names, 0))
            tables.append(empty_rows(model, rows, failed, *named, form, self.steps))
        elif not tables:
            tables.append(form.assign(**{STATUS: pd.Series(dtype=object)}))
        whole = tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
        place = block.series.get_indexer(pd.Index(labels_of(whole, id_column), tupleize_cols=False))
        whole = whole.iloc[np.argsort(place, kind="stable")]
        facts = {
            "bad": [[as_python(name), *why] for name, why in bad.items()],
            "short": [as_python(name) for name in short],
            "fallback": [[as_python(name), why] for name, why in replaced.items()],
            "begins": begins,
            "notes": [list(map(as_python, row)) for row in ready.notes.itertuples(index=False)],
        }
        return self.written(whole), facts

    @property
    def steps(self) -> int:
        """Rows of each series."""
        return int(self.horizon or self.model.horizon_)

    def prepared(self, frame: pd.DataFrame) -> Prepared:
        """Return rows that are fit to be read, with the events that are known ahead."""
        if not self.preparation.changes_rows:
            return Prepared(frame, self.future)
        return self.preparation.prepared(frame, self.model, self.horizon, self.future, self.end)

    def fit_good_series(self, frame: pd.DataFrame) -> tuple[int, int]:
        """Fit the model on the good series of a frame; return how many these are, and their rows.

        Raises
        ------
        DataError
            All series are bad.
        """
        ready, reader = self.prepared(frame), clone(self.model)

        def readable(rows: pd.DataFrame) -> None:
            reader.read(rows, freq=reader.freq)
            reader.check_future(rows, ready.future, self.horizon)

        good, bad = self._parted(ready, readable)
        if not len(good):
            raise all_bad(bad)
        self.fit(good)
        return int(labels_of(good, self.id_column).nunique()), len(good)

    def fit(self, frame: pd.DataFrame) -> None:
        """Fit the model on rows that can be read, and calibrate it if intervals take that."""
        # An unfinished model is no basis for a file that looks finished.
        with own_warnings("error", InterruptedWarning):
            try:
                self.model.fit(frame)
            except InterruptedWarning:
                raise KeyboardInterrupt from None
        ensure_intervals(self.model, frame, self.outputs["level"], self.steps)

    def form(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a forecast without rows, with ids of the types that they have in a frame."""
        if self._form is None:
            names = self.model.future_names
            with own_warnings("ignore", DataWarning):
                # What is known of the future does not matter for the form.
                # A model may have been fitted on a frame of another library than pandas.
                ahead = as_pandas(self.model.make_future_frame(self.steps))
                future = ahead.assign(**dict.fromkeys(names, 0.0)) if names else None
                result = as_pandas(self.model.predict(self.horizon, future=future, **self.outputs))
            result.attrs = {}
            self._form = result.iloc[:0]
        ids = key_columns(self.id_column)
        return self._form.astype({name: frame[name].dtype for name in ids})

    def _parted(
        self, ready: Prepared, check: Callable[[pd.DataFrame], Any]
    ) -> tuple[pd.DataFrame, Bad]:
        """Part the good series from the bad ones."""
        targets = listed(self.model.target) or [TARGET]
        good, bad = set_aside(ready.frame, self.id_column, targets, check)
        return good, ready.bad | bad


def _status(ids: pd.Series, short: list[Any], replaced: Mapping[Any, str]) -> np.ndarray:
    """Return what became of the series of each row."""
    if not short and not replaced:
        return np.full(len(ids), OK)
    distinct, codes = factorized(ids)
    named = {name: FALLBACK for name in replaced} | {name: SHORT for name in short}
    status = [named.get(plain_label(one), OK) for one in distinct]
    return np.array(status)[codes]
