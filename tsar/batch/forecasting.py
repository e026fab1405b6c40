"""Forecasts of whole files."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar.batch.block import Block, BlockForecaster
from tsar.batch.choosing import (
    check_counts,
    check_no_status,
    check_shard,
    check_wanted,
    chosen_model,
    is_fitted,
    listed,
    used_columns,
)
from tsar.batch.engines.choosing import engine_called
from tsar.batch.engines.engine import Engine
from tsar.batch.parts import Parts, write_json
from tsar.batch.paths import Paths
from tsar.batch.preparing import Preparation, read_events
from tsar.batch.remote_files import with_remote_files
from tsar.batch.report import STATUS, Report, report_of
from tsar.batch.source import Source, open_source, share_of_series
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.longtable import End
from tsar.data.tables import TableFile, write_table
from tsar.exceptions import (
    ParameterError,
    TsarError,
    each_warning_once,
)
from tsar.forecasting.base import Forecaster
from tsar.persistence import load

__all__ = ["forecast"]


@each_warning_once()
@with_remote_files
def forecast(
    source: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Forecaster | None = None,
    horizon: int | None = None,
    out: str | os.PathLike[str] | None = None,
    future: str | os.PathLike[str] | None = None,
    quantiles: Sequence[float] | None = None,
    level: float | Sequence[float] | None = None,
    id_column: str | Sequence[str] | None = None,
    time_column: str | Sequence[str] | None = None,
    time_format: str | None = None,
    file_format: FileFormat | None = None,
    target: Sequence[str] | None = None,
    duplicates: str = "raise",
    gaps: str | None = None,
    ended: str = "forecast",
    ended_after: int = 1,
    trailing: str = "keep",
    events: str | os.PathLike[str] | pd.DataFrame | None = None,
    country_holidays: str | None = None,
    params: Mapping[str, Any] | None = None,
    fit_rows: int | None = 1_000_000,
    block_rows: int = 1_000_000,
    report: str | os.PathLike[str] | None = None,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    engine: str = "local",
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Forecast what comes after every series of a file.

    A file with ids is read a block of series at a time, so that it may be larger than the
    memory. No series is lost: those that cannot be forecast are set aside before the model
    sees them, and their rows of the output hold no values and a ``status`` that says why.
    A file without ids is one series, whose faults are errors.

    Parameters
    ----------
    source : path or address
        CSV or Parquet, long: a row per series and time. A file of more than ``block_rows``
        rows has to have the rows of a series together; smaller ones may have any order.
    model : str, path, Forecaster or None
        A name such as ``"PatchTST"``, a forecaster that is not fitted, a fitted one, or a
        folder given to ``save``. What is not fitted is fitted on the file. None takes
        ``AutoForecaster(preset="fast")``, and the report says what it chose.
    horizon : int or None
        Steps to forecast; None takes that of the model.
    out : path, address or None
        CSV or Parquet, by its ending; it appears whole or not at all. None returns the
        forecast with the report, in memory.
    future : path or None
        File of future covariates; it is read at once.
    quantiles, level
        As :meth:`Forecaster.predict` takes them. A model that is fitted here, and has no
        intervals of the levels by itself, is calibrated on what it is fitted on, as
        ``calibrate(refit=True)`` does.
    id_column : str, sequence of str or None
        None finds ``unique_id``. Several columns are one id, and the forecast has these columns.
    time_column : str, sequence of str or None
        None finds ``ds`` or the column that holds times. Where the time stands in several
        columns, such as ``["date", "clock"]``, these are read as one, called ``"date clock"``,
        and the forecast has these columns.
    time_format : str or None
        How times are written, if that can be read in two ways.
    file_format : FileFormat or None
        How the files are written otherwise, as far as it is not to be found: separator,
        decimal mark, thousands, header. The report says in ``reading`` what was found.
    target : sequence of str or None
        Columns to forecast; None takes ``y`` where there are ids, else every column that
        is no covariate.
    duplicates, gaps, ended, ended_after, trailing
        What becomes of doubled and missing rows, of series that ended, and of rows without a
        target at the end, as :func:`tsar.tidy` takes them. ``gaps=None`` takes that of the
        model. Series that are skipped because they ended have no rows in the output.
    events : path, DataFrame or None
        A table of events, and
    country_holidays : str or None
        a country whose holidays are columns as well, of the history and of the steps to
        forecast: see :func:`tsar.add_events`. The model reads them as future covariates.
        A file of events is written as the data are.
    params : mapping or None
        Parameters for a model that is named.
    fit_rows : int or None
        Rows to fit on at most: of a longer file whole series, chosen evenly over it. None
        fits on all, in memory.
    block_rows : int
        Rows that are read and forecast at a time.
    report : path or None
        JSON file for the report.
    resume : bool
        Whether to go on with the finished blocks of a run that was stopped. They lie in a
        folder beside ``out`` until it is written.
    shard : pair of int or None
        ``(2, 4)`` forecasts the second of four parts of the series, in their order, so that
        several processes or machines share a file. The outputs of all parts, one after the
        other, are that of a single run to the bit.
    engine : {"local", "ray", "dask", "spark"}
        What shares the blocks: this process alone, or Ray, Dask or Spark, which take the extra
        of the same name. They work on the cluster of the current session, else on one that
        the environment names, else on one of this machine, which ends with the call. The
        forecast is that of a single process with one thread to the bit.
    on_progress : callable or None
        Called with the number of finished series and of all, after each block.

    Returns
    -------
    Report

    Raises
    ------
    DataError
        The file is missing, damaged or not in order; the output cannot be written; or no
        series can be forecast.
    ParameterError
        An argument is not usable, or a run that was stopped was another one.
    MissingExtraError
        The library of the engine is not installed.
    EngineError
        Its cluster cannot be reached, or has ended; finished blocks are there for ``resume``.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsar.batch import forecast
    >>> days = pd.date_range("2024-01-01", periods=30).astype(str)
    >>> shops = [pd.DataFrame({"unique_id": shop, "ds": days, "y": 1.0}) for shop in "ab"]
    >>> pd.concat(shops).to_csv("shops.csv", index=False)
    >>> done = forecast("shops.csv", model="SeasonalNaive", horizon=7, out="forecast.csv")
    >>> done.n_series, done.n_failed
    (2, 0)
    """
    begun = time.perf_counter()
    if not isinstance(source, str | os.PathLike):
        raise ParameterError(
            f"batch: source must be the path of a file, got a {type(source).__name__}; frames of "
            f"Ray, Dask and Spark are for tsar.batch.forecast_partitioned"
        )
    paths = Paths.of(source, out, future, report, resume)
    paths.remove_unfinished()
    check_counts(block_rows=block_rows, fit_rows=fit_rows)
    chosen_engine = engine_called(engine)
    own = Roles(id_column, time_column)
    chosen = chosen_model(model, params, horizon, own.id_column, own.time_name, target)
    check_wanted(chosen, horizon, quantiles, level)
    if shard is not None:
        check_shard(shard, chosen)
    stated = (file_format or FileFormat()).settled(time_format)
    preparation = Preparation.of(
        "batch",
        duplicates=duplicates,
        gaps=gaps,
        ended=ended,
        ended_after=ended_after,
        trailing=trailing,
        events=_read_if_path(events, chosen.id_column, stated),
        country_holidays=country_holidays,
    )
    times = own.time_column or chosen.time_column
    roles = Roles(chosen.id_column, times, used_columns(chosen, preparation.names))
    file = open_source(paths.source, roles, stated, rows_at_once=block_rows)
    _check_columns(file, chosen, shard)
    if not is_fitted(chosen):
        chosen.set_params(id_column=file.id_column, time_column=file.time_column)
        if chosen.target is None:
            chosen.set_params(target=file.table.targets)
    preparation.let_read(chosen)
    read, future_table = [file.table.described()], None
    if paths.future is not None:
        future_table, said = _read_future(paths.future, file.table, stated)
        read.append(said)
    run = _Run(
        file=file,
        blocks=BlockForecaster(
            model=chosen,
            id_column=file.id_column,
            time_column=file.time_column,
            n_series=len(file.counts),
            written=file.table.written,
            horizon=horizon,
            outputs={"quantiles": quantiles, "level": level},
            future=future_table,
            preparation=preparation.with_quarantine(file.series is not None),
        ),
        engine=chosen_engine,
        fit_rows=fit_rows,
        block_rows=block_rows,
        shard=shard,
        on_progress=on_progress or (lambda done, n_series: None),
    )
    result = run.one_series(paths) if file.series is None else run.all_series(paths)
    result.seconds = time.perf_counter() - begun
    result.unused = list(file.table.unused)
    result.reading = "\n".join(read)
    if paths.report is not None:
        write_json(result.to_json(), paths.report)
    return result


def _check_columns(file: Any, model: Any, shard: tuple[int, int] | None) -> None:
    """Raise an error where a file has no parts, or no room for the column of the status."""
    if file.series is None and shard is not None:
        raise ParameterError("batch: shard is for files of several series; pass id_column=")
    targets = listed(model.target) or listed(file.table.targets)
    if file.series is not None:
        check_no_status((*file.table.roles.keys, *targets))


def _read_if_path(events: Any, id_column: Any, stated: FileFormat) -> Any:
    """Return events, those of a file as the frame that it holds."""
    is_path = isinstance(events, str | os.PathLike)
    return read_events(Path(events), id_column, stated) if is_path else events


def _read_future(path: Path, table: TableFile, stated: FileFormat) -> tuple[pd.DataFrame, str]:
    """Read future covariates, what they leave open as in the data, and say how."""
    default = None if table.csv is None else table.csv.notation
    roles = replace(table.roles, used={"future_covariates": table.roles.covariates})
    frame, future = TableFile.look_at(path, roles, stated, default).read()
    return future.prepared(frame), future.described()


# -------------------------------------------------------------------- the work


@dataclass
class _Run:
    """One call of :func:`forecast`."""

    file: Source
    blocks: BlockForecaster
    engine: Engine
    fit_rows: int | None
    block_rows: int
    shard: tuple[int, int] | None
    on_progress: Callable[[int, int], None]

    @property
    def model(self) -> Forecaster:
        return self.blocks.model

    def one_series(self, paths: Paths) -> Report:
        """Forecast a file without ids; what is wrong with it is an error."""
        (frame,) = self.file.frames([int(self.file.counts[0])], {0})
        ready = self.blocks.prepared(frame)
        frame, future, rows = ready.frame, ready.future, len(ready.frame)
        horizon = self.blocks.horizon
        if is_fitted(self.model):
            fitted_on, data = "", frame
        else:
            self.model.check_future(frame, future, horizon)
            self.blocks.fit(frame)
            fitted_on, data = f"1 series, {rows} rows", None
        result = self.model.predict(horizon, data, future, **self.blocks.outputs)
        self.on_progress(1, 1)
        written = self.blocks.written(result)
        if paths.out is not None:
            write_table(written, paths.out)
        empty = pd.DataFrame(columns=["id", STATUS, "reason"])
        short = bool(result.attrs["short_history"])
        replaced = 0 if short else min(len(result.attrs["fallback"]), 1)
        shown = written if paths.out is None else None
        return Report(
            n_series=1,
            n_failed=0,
            n_short=int(short),
            model=self.model.in_words,
            fitted_on=fitted_on or "before",
            calibrated_on=self._calibrated_on(),
            series=empty,
            seconds=0.0,
            forecast=shown,
            n_fallback=replaced,
            notes=ready.notes,
        )

    def all_series(self, paths: Paths) -> Report:
        """Forecast a file with ids, block by block."""
        series = self.file.series
        assert series is not None, "this file has ids"
        first, stop = self._range(len(series))
        with contextlib.ExitStack() as stack:
            parts = None
            if paths.out is not None:
                run = self._identity(paths)
                parts = stack.enter_context(Parts(paths.out, run, paths.resume))
            return self._all_blocks(series, first, stop, parts)

    def _all_blocks(self, series: pd.Index, first: int, stop: int, parts: Parts | None) -> Report:
        """Forecast some of the series, those in finished parts left out."""
        ranges = self.file.blocks(self.block_rows, first, stop)
        finished = [None if parts is None else parts.facts(n) for n in range(len(ranges))]
        wanted = [number for number, facts in enumerate(finished) if facts is None]
        frames: list[pd.DataFrame] = []
        with contextlib.ExitStack() as stack:
            try:
                # A cluster that cannot be reached is found out before the model is fitted.
                work = stack.enter_context(self.engine.started(len(wanted)))
                self.blocks.end = self._last_time()
                fitted_on = self._prepare(parts, finished)
            except (TsarError, KeyboardInterrupt):
                if parts is not None and not any(finished):
                    parts.remove()
                raise
            done = sum(ranges[n][1] - ranges[n][0] for n, facts in enumerate(finished) if facts)
            self.on_progress(done, stop - first)
            results = work(self.blocks, self._wanted_blocks(series, first, ranges, wanted))
            for number, (table, facts) in zip(wanted, results, strict=True):
                facts["fitted_on"] = fitted_on
                finished[number] = facts
                if parts is None:
                    frames.append(table)
                else:
                    parts.add(number, table, facts)
                begin, end = ranges[number]
                done += end - begin
                self.on_progress(done, stop - first)
        if parts is not None:
            parts.join(len(ranges))
        whole = None
        if parts is None:
            whole = pd.concat(frames, ignore_index=True)
            whole.attrs["reading"] = self.model.as_fitted.reading
        told = (self.model.in_words, fitted_on, self._calibrated_on())
        return report_of(stop - first, *told, finished, whole)

    def _wanted_blocks(
        self, series: pd.Index, first: int, ranges: list[tuple[int, int]], wanted: list[int]
    ) -> Iterator[Block]:
        """Read the blocks that are to be forecast, one after the other."""
        skipped = self.file.blocks(self.block_rows, 0, first)
        sizes = [int(self.file.counts[begin:end].sum()) for begin, end in skipped + ranges]
        frames = self.file.frames(sizes, [len(skipped) + number for number in wanted])
        for number, frame in zip(wanted, frames, strict=True):
            begin, end = ranges[number]
            yield Block(frame, series[begin:end])

    def _range(self, n_series: int) -> tuple[int, int]:
        """Return which series this run forecasts: the first, and the one after the last."""
        number, n_shards = self.shard or (1, 1)
        if n_shards > n_series:
            raise ParameterError(
                f"batch: shard={self.shard} is one part of {n_shards}, but there are {n_series} "
                f"series; make at most so many parts"
            )
        return (number - 1) * n_series // n_shards, number * n_series // n_shards

    def _identity(self, paths: Paths) -> dict[str, Any]:
        """Say what the run is about: with another one, finished parts are of no use."""
        stamps = {}
        for path in (paths.source, paths.future):
            if path is not None:
                stat = path.stat()
                stamps[str(path.absolute())] = [stat.st_size, stat.st_mtime_ns]
        return {
            "files": stamps,
            "horizon": self.blocks.horizon,
            "model": _describe(self.model),
            **{name: repr(value) for name, value in self.blocks.outputs.items()},
            "fit_rows": self.fit_rows,
            "block_rows": self.block_rows,
            "shard": None if self.shard is None else list(self.shard),
            "file_format": repr(self.file.table.stated),
            "preparation": self.blocks.preparation.described(),
        }

    def _last_time(self) -> End | None:
        """Return the last time of the good series of a file that is read in parts."""
        blocks = self.file.blocks(self.block_rows)
        preparation = self.blocks.preparation
        policies = preparation.policies
        ends_matter = policies.ended != "forecast" or policies.ended_after > 1
        if not ends_matter or len(blocks) == 1:
            return None
        sizes = [int(self.file.counts[begin:end].sum()) for begin, end in blocks]
        reading, last = preparation.without_end, None
        for frame in self.file.frames(sizes, range(len(blocks))):
            prepared_end = reading.prepared(frame, self.model, self.blocks.horizon).end
            last = (
                prepared_end if last is None or prepared_end is None else prepared_end.later(last)
            )
        return last

    # ------------------------------------------------------------------ fit

    def _prepare(self, parts: Parts | None, finished: list[Any]) -> str:
        """Fit the model, unless it is; return on what, in words."""
        if is_fitted(self.model):
            return "before"
        if parts is not None and parts.model.is_dir():
            self.blocks.model = load(parts.model)
            fit_records = [facts["fitted_on"] for facts in finished if facts]
            return fit_records[0] if fit_records else "an earlier run"
        counts = self.file.counts
        chosen = share_of_series(counts, self.fit_rows)
        blocks = self.file.blocks(self.block_rows)
        sizes = [int(counts[begin:end].sum()) for begin, end in blocks]
        wanted = [number for number, (begin, end) in enumerate(blocks) if chosen[begin:end].any()]
        taken = []
        for number, rows in zip(wanted, self.file.frames(sizes, wanted), strict=True):
            begin, end = blocks[number]
            taken.append(rows[np.repeat(chosen[begin:end], counts[begin:end])])
        frame = pd.concat(taken, ignore_index=True)
        n_series, n_rows = self.blocks.fit_good_series(frame)
        if parts is not None and len(self.file.blocks(self.block_rows)) > 1:
            self.model.save(parts.model)
        return f"{n_series} of {len(counts)} series, {n_rows} of {int(counts.sum())} rows"

    def _calibrated_on(self) -> str | None:
        """Say how much the intervals are made of."""
        calibration = self.model.calibration_
        if calibration is None or self.blocks.outputs["level"] is None:
            return None
        few, many = int(calibration.counts.min()), int(calibration.counts.max())
        return f"{many} windows" if few == many else f"{few} to {many} windows, by step"


def _describe(model: Forecaster) -> str:
    """Tell a model from others: by its parameters, and by what it has learned."""
    digest = hashlib.sha256(repr(sorted(model.get_params(deep=False).items(), key=str)).encode())
    if is_fitted(model):
        _, tensors = model.learned_state()
        for name in sorted(tensors):
            digest.update(tensors[name].cpu().numpy().tobytes())
    return f"{type(model).__name__} {digest.hexdigest()[:12]}"
