"""Metrics of backtests: per series, per step, per window or on the whole.

Dimension letters: Q quantiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tsar.data.libraries import as_pandas
from tsar.data.matching import id_places
from tsar.data.panel import Panel
from tsar.evaluation.backtesting import BESIDE, KEYS
from tsar.evaluation.joint import energy_losses, variogram_losses
from tsar.evaluation.metrics import relative_errors, symmetric_errors
from tsar.evaluation.probabilistic import pinball, winkler
from tsar.exceptions import DataError, ParameterError
from tsar.params.constraints import check_choice, check_count
from tsar.params.registry import Registry

__all__ = [
    "METRICS",
    "Forecasts",
    "Metric",
    "Table",
    "measure",
    "measure_model",
    "row_losses",
    "series_scales",
]

Floats = NDArray[np.float64]
GROUPS = {"series": ["id", "variate"], "step": ["step"], "window": ["cutoff"]}


@dataclass(frozen=True)
class Forecasts:
    """What a backtest holds of one model.

    Attributes
    ----------
    point : float array of shape (rows,)
    levels : float array of shape (Q,)
        In rising order.
    quantiles : float array of shape (rows, Q)
    intervals : dict of float to pair of float arrays of shape (rows,)
        Both ends by the percentage that is to be covered, also where quantiles give them.
    samples : float array of shape (rows, N)
    windows : int64 array of shape (rows,)
        Which window each row is of, where there are samples.
    """

    point: Floats
    levels: Floats
    quantiles: Floats
    intervals: dict[float, tuple[Floats, Floats]]
    samples: Floats
    windows: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "dict[str, Forecasts]":
        """Find the models of a backtest, by the names of its columns."""
        models: dict[str, dict[str, dict[float, str]]] = {}
        for name in frame.columns:
            match = BESIDE.fullmatch(str(name))
            if match and match[1] in models:
                models[match[1]][match[2]][float(match[3])] = name
            elif name not in KEYS:
                models[name] = {"q": {}, "lo": {}, "hi": {}, "sample": {}}
        return {name: cls._read(frame, name, beside) for name, beside in models.items()}

    def gives(self, metric: str) -> bool:
        """Return whether there is what a metric needs."""
        needs = METRICS[metric].needs
        if needs == "quantiles":
            return len(self.levels) > 0
        if needs == "samples":
            return self.samples.shape[1] > 0
        return needs == "point" or len(self.intervals) > 0

    @classmethod
    def _read(
        cls, frame: pd.DataFrame, name: str, beside: dict[str, dict[float, str]]
    ) -> "Forecasts":
        def values(column: str) -> Floats:
            try:
                return frame[column].to_numpy(np.float64)
            except (TypeError, ValueError):
                raise DataError(
                    f"measure: column {column!r} of the backtest holds no numbers, and is no "
                    f"forecast; drop it"
                ) from None

        levels = sorted(beside["q"])
        quantiles = np.empty((len(frame), len(levels)))
        for place, level in enumerate(levels):
            quantiles[:, place] = values(beside["q"][level])
        intervals = {}
        for place, level in enumerate(levels):
            opposite = [k for k, other in enumerate(levels) if abs(level + other - 1) < 1e-9]
            if level < 0.5 and opposite:
                percentage = round(100 * (1 - 2 * level), 9)
                intervals[percentage] = (quantiles[:, place], quantiles[:, opposite[0]])
        for percentage in beside["lo"].keys() & beside["hi"].keys():
            both = (beside[end][percentage] for end in ("lo", "hi"))
            lower, upper = map(values, both)
            intervals[percentage] = (lower, upper)
        ordered = dict(sorted(intervals.items()))
        columns = [values(column) for _, column in sorted(beside["sample"].items())]
        samples = np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))
        keys = [key for key in ("id", "variate", "cutoff") if columns and key in frame.columns]
        windows = _numbered(frame, keys) if keys else np.zeros(len(frame), dtype=np.int64)
        shares = np.array(levels, dtype=np.float64)
        return cls(values(name), shares, quantiles, ordered, samples, windows)


@dataclass(frozen=True)
class Metric:
    """How a metric follows from the losses of rows.

    Attributes
    ----------
    losses : function
        Maps the truth and :class:`Forecasts` to losses of shape (rows,), or by percentage
        of an interval to such.
    root : bool
        Whether the root of the mean is taken.
    scale : int
        The power of the seasonal change of a series that losses are divided by; with 0
        they are not. Scaled metrics are those of each series, averaged.
    needs : {"point", "quantiles", "intervals", "samples"}
        What a model has to forecast.
    """

    losses: Callable[[Floats, Forecasts], Any]
    root: bool = False
    scale: int = 0
    needs: str = "point"


def _squared(truth: Floats, model: Forecasts) -> Floats:
    return (truth - model.point) ** 2


def _absolute(truth: Floats, model: Forecasts) -> Floats:
    return np.abs(truth - model.point)


def _relative(truth: Floats, model: Forecasts) -> Floats:
    return relative_errors(truth, model.point)


def _symmetric(truth: Floats, model: Forecasts) -> Floats:
    return symmetric_errors(truth, model.point)


def _quantile(truth: Floats, model: Forecasts) -> Floats:
    return np.asarray(pinball(truth[:, None], model.quantiles, model.levels).mean(axis=1))


def _crps(truth: Floats, model: Forecasts) -> Floats:
    return 2 * _quantile(truth, model)


def _coverage(truth: Floats, model: Forecasts) -> dict[float, Floats]:
    return {
        level: np.where(np.isnan(low) | np.isnan(high), np.nan, (truth >= low) & (truth <= high))
        for level, (low, high) in model.intervals.items()
    }


def _width(truth: Floats, model: Forecasts) -> dict[float, Floats]:
    return {level: high - low for level, (low, high) in model.intervals.items()}


def _winkler(truth: Floats, model: Forecasts) -> dict[float, Floats]:
    return {level: winkler(truth, *ends, level) for level, ends in model.intervals.items()}


def _of_windows(losses: Callable[..., Floats]) -> Metric:
    return Metric(lambda truth, model: losses(truth, model.samples, model.windows), needs="samples")


def _check(metric: Any) -> None:
    if not isinstance(metric, Metric):
        raise ParameterError(
            f"register: a metric must be a Metric of tsar.evaluation, got {metric!r}"
        )


_OWN = {
    "mse": Metric(_squared),
    "mae": Metric(_absolute),
    "rmse": Metric(_squared, root=True),
    "mape": Metric(_relative),
    "smape": Metric(_symmetric),
    "mase": Metric(_absolute, scale=1),
    "rmsse": Metric(_squared, root=True, scale=2),
    "owa": Metric(_absolute, scale=1),
    "quantile_loss": Metric(_quantile, needs="quantiles"),
    "scaled_quantile_loss": Metric(_quantile, scale=1, needs="quantiles"),
    "crps": Metric(_crps, needs="quantiles"),
    "coverage": Metric(_coverage, needs="intervals"),
    "interval_width": Metric(_width, needs="intervals"),
    "interval_score": Metric(_winkler, needs="intervals"),
    "energy_score": _of_windows(energy_losses),
    "variogram_score": _of_windows(variogram_losses),
}
# What a backtest has to be asked for, by what a metric needs.
REPAIRS = {
    "quantiles": "quantiles=[0.1, 0.5, 0.9]",
    "intervals": "level=80",
    "samples": "samples=100",
}
METRICS: Registry[Metric] = Registry("metric", "tsar.metrics", _OWN, _check)


def measure(
    backtest: pd.DataFrame,
    metrics: str | Sequence[str] = ("mae", "rmse"),
    *,
    by: str | Sequence[str] | None = None,
    history: Any = None,
    season_length: int | None = None,
    benchmark: str = "SeasonalNaive",
    weights: str | ArrayLike | None = None,
) -> pd.DataFrame:
    """Measure the forecasts of a backtest.

    Parameters
    ----------
    backtest : DataFrame
        What :func:`tsar.evaluation.backtest` returns, of one or several models.
    metrics : str or sequence of str
        Of ``"mse"``, ``"mae"``, ``"rmse"``, ``"mape"``, ``"smape"``, ``"mase"``, ``"rmsse"``,
        ``"owa"``, ``"quantile_loss"``, ``"scaled_quantile_loss"``, ``"crps"`` (from
        quantiles), ``"coverage"``, ``"interval_width"``, ``"interval_score"``, and of samples
        ``"energy_score"`` and ``"variogram_score"``; each is the function of that name.
    by : {"series", "step", "window"}, sequence of them or None
        Measure apart what differs in these; None measures everything together.
    history : DataFrame, Series or Panel, optional
        The data, for the metrics in units of the seasonal changes of each series; rows
        from the first cutoff on are not read. It is read as the models of the backtest read
        it (``backtest.attrs["reading"]``); where that was lost, pass ``Panel.from_frame(df)``.
    season_length : int or None
        Steps in a season, for these metrics; None follows from the frequency of
        ``history``.
    benchmark : str
        The model that ``"owa"`` compares with.
    weights : str, array_like of shape (rows,) or None
        How much each row counts; text names a column.

    Returns
    -------
    DataFrame
        A row for each model and group: ``model``, the columns of the groups, and one for
        each metric. Metrics of intervals have one for each percentage, such as
        ``coverage_80``, also where quantiles give it. NaN where nothing was observed.

    Raises
    ------
    ParameterError
        A metric, group or benchmark is not known.
    DataError
        The frame is no backtest, or lacks what a metric needs.

    Notes
    -----
    Metrics in units of a series are those of each series, averaged; a series whose history
    does not change has none and is left out. All others are means over rows. Scores of samples
    are those of the observed steps of a window, and a window counts by how many these are.

    Examples
    --------
    >>> import tsar
    >>> from tsar.evaluation import backtest, measure
    >>> sea = tsar.load_dataset("elnino")
    >>> tested = backtest(tsar.SeasonalNaive(horizon=12), sea, windows=20)
    >>> measure(tested, ["mae", "mase"], history=sea).round(3)
               model    mae   mase
    0  SeasonalNaive  1.118  0.938
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        check_choice("measure", "metrics", name, METRICS)
    groups = _groups(by)
    whole = next((name for name in names if METRICS[name].needs == "samples"), None)
    if whole is not None and "step" in groups:
        raise ParameterError(
            f"measure: {whole!r} judges all steps of a window together, got by='step'; leave it out"
        )
    models = _models(backtest := as_pandas(backtest))
    keep = [column for group in groups for column in GROUPS[group] if column in backtest.columns]
    if isinstance(weights, str):
        # A column of weights is no model.
        models.pop(weights, None)
    table = Table(backtest, keep, _weights(backtest, weights))
    scales = {
        power: series_scales(backtest, history, season_length, power)
        for power in {METRICS[name].scale for name in names}
    }
    parts = []
    for label in models:
        values = measure_model(label, models, names, table, scales, benchmark)
        content: dict[str, Any] = {"model": label, **table.keys, **values}
        parts.append(pd.DataFrame(content, index=range(table.n_groups)))
    return pd.concat(parts, ignore_index=True)


def measure_model(
    label: str,
    models: "dict[str, Forecasts]",
    metrics: Sequence[str],
    table: "Table",
    scales: dict[int, Floats | None],
    benchmark: str,
) -> dict[str, Floats]:
    """Measure one model of a backtest in all groups of a table.

    Parameters
    ----------
    label : str
        Its name.
    models : dict of str to Forecasts
        All models, for the metrics that compare two.
    metrics : sequence of str
    table : Table
    scales : dict of int to float array of shape (rows,) or None
        What :func:`series_scales` returns, by power.
    benchmark : str
        The model that is compared with.

    Returns
    -------
    dict of str to float array of shape (groups,)
        By column, see :func:`measure`.
    """
    content: dict[str, Floats] = {}
    for name in metrics:
        metric = METRICS[name]
        if name == "owa":
            against = _named(models, benchmark)
            content[name] = _owa(table, models[label], against, scales[metric.scale])
            continue
        for key, losses in row_losses(name, table.truth, label, models[label]).items():
            content[key] = table.mean(losses, metric.root, scales[metric.scale])
    return content


def row_losses(name: str, truth: Floats, label: str, model: Forecasts) -> dict[str, Floats]:
    """Return the losses of every row, by the name of the column they are averaged to.

    Parameters
    ----------
    name : str
        Of a metric.
    truth : float array of shape (rows,)
    label : str
        Name of the model, for messages.
    model : Forecasts

    Returns
    -------
    dict of str to float array of shape (rows,)
        Several where the metric is one of intervals.

    Raises
    ------
    DataError
        The model has no quantiles, and the metric needs some.
    """
    metric = METRICS[name]
    if not model.gives(name):
        raise DataError(
            f"measure: {name!r} needs {metric.needs} of {label}, the backtest has none; ask for "
            f"them by backtest(..., {REPAIRS[metric.needs]})"
        )
    losses = metric.losses(truth, model)
    if not isinstance(losses, dict):
        return {name: losses}
    return {f"{name}_{level:.12g}": values for level, values in losses.items()}


class Table:
    """The rows of a backtest in groups.

    Parameters
    ----------
    frame : DataFrame
        The backtest.
    keep : sequence of str
        Columns that tell the groups apart; without any there is one group.
    weights : float array of shape (rows,) or None
    """

    def __init__(
        self, frame: pd.DataFrame, keep: Sequence[str] = (), weights: Floats | None = None
    ) -> None:
        self.truth = frame["y"].to_numpy(np.float64)
        self.observed = ~np.isnan(self.truth)
        self.weights = np.ones(len(frame)) if weights is None else weights
        series = [name for name in GROUPS["series"] if name in frame.columns]
        self.series = _numbered(frame, series)
        self.keys: dict[str, Any] = {}
        self.codes, self.n_groups = np.zeros(len(frame), dtype=np.int64), 1
        if keep:
            self.codes = _numbered(frame, list(keep))
            firsts = np.unique(self.codes, return_index=True)[1]
            self.keys = {name: frame[name].iloc[firsts].array for name in keep}
            self.n_groups = len(firsts)

    def mean(self, losses: Floats, root: bool = False, scale: Floats | None = None) -> Floats:
        """Average losses by group, those with a scale by series first."""
        used = self.observed & (self.weights > 0)
        if scale is None:
            means, _ = _means(losses[used], self.codes[used], self.weights[used], self.n_groups)
            return np.sqrt(means) if root else means
        used &= scale > 0
        n_series = int(self.series.max()) + 1
        pairs, inverse = np.unique(
            self.codes[used] * n_series + self.series[used], return_inverse=True
        )
        weights = self.weights[used]
        means, total = _means(losses[used] / scale[used], inverse, weights, len(pairs))
        means = np.sqrt(means) if root else means
        # A series counts by the mean weight of its rows.
        counts = np.bincount(inverse, minlength=len(pairs))
        return _means(means, pairs // n_series, total / np.maximum(counts, 1), self.n_groups)[0]


def _numbered(frame: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return the number of the group of each row, in the order of appearance."""
    return np.asarray(frame.groupby(names, sort=False, dropna=False).ngroup(), dtype=np.int64)


def _means(
    values: Floats, codes: np.ndarray, weights: Floats, n_groups: int
) -> tuple[Floats, Floats]:
    """Average by group, NaN where a value is or where there are none; and the sum of weights."""
    total = np.asarray(np.bincount(codes, weights=weights, minlength=n_groups), dtype=np.float64)
    summed = np.bincount(codes, weights=values * weights, minlength=n_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return summed / total, total


def _owa(table: Table, model: Forecasts, benchmark: Forecasts, scale: Floats | None) -> Floats:
    ours, theirs = (
        (
            table.mean(_symmetric(table.truth, one)),
            table.mean(_absolute(table.truth, one), scale=scale),
        )
        for one in (model, benchmark)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((ours[0] / theirs[0] + ours[1] / theirs[1]) / 2)


def _groups(by: str | Sequence[str] | None) -> list[str]:
    groups = [] if by is None else [by] if isinstance(by, str) else list(by)
    for group in groups:
        check_choice("measure", "by", group, GROUPS)
    return groups


def _models(frame: Any) -> dict[str, Forecasts]:
    wanted = [name for name in KEYS if name != "variate"]
    if not isinstance(frame, pd.DataFrame) or any(name not in frame.columns for name in wanted):
        raise DataError(
            f"measure: the first argument must be what backtest returns, a frame with the columns "
            f"{', '.join(wanted)} and one for each model"
        )
    models = Forecasts.of(frame)
    if not models or not len(frame):
        raise DataError("measure: the backtest holds no forecasts")
    return models


def _named(models: dict[str, Forecasts], name: str) -> Forecasts:
    if name not in models:
        raise ParameterError(
            f"measure: 'owa' compares with benchmark={name!r}, the backtest has "
            f"{', '.join(map(repr, models))}; pass one of them, or backtest([..., SeasonalNaive()])"
        )
    return models[name]


def _weights(frame: pd.DataFrame, weights: str | ArrayLike | None) -> Floats:
    if weights is None:
        return np.ones(len(frame))
    if isinstance(weights, str):
        if weights not in frame.columns:
            raise DataError(f"measure: weights={weights!r} is no column of the backtest")
        weights = frame[weights]
    counted = np.asarray(weights, dtype=np.float64)
    if counted.shape != (len(frame),) or not (np.isfinite(counted) & (counted >= 0)).all():
        raise DataError(
            f"measure: weights must be {len(frame)} finite numbers of at least 0, one for each "
            f"row, got shape {counted.shape}"
        )
    return counted


def series_scales(
    frame: pd.DataFrame, history: Any, season_length: int | None, power: int
) -> Floats | None:
    """Return the mean seasonal change before the first cutoff of its series, for every row.

    Parameters
    ----------
    frame : DataFrame
        A backtest.
    history : DataFrame, Series or Panel
        Its data.
    season_length : int or None
        Steps in a season; None follows from the frequency.
    power : int
        Of the changes that are averaged; 0 stands for no scale.

    Returns
    -------
    float64 array of shape (rows,) or None
        NaN where a series has none.
    """
    if not power:
        return None
    if history is None:
        raise DataError(
            "measure: metrics in units of a series need its history; pass history=df, the data of "
            "the backtest"
        )
    panel = history if isinstance(history, Panel) else _read(history, frame)
    season = season_length
    if season is not None:
        check_count("measure", "season_length", season)
    variate = np.zeros(len(frame), dtype=np.int64)
    series = np.zeros(len(frame), dtype=np.int64)
    if panel.ids[0] is not None:
        series = _places(panel.ids, frame["id"], "id")
    if "variate" in frame.columns:
        variate = _places(panel.variates, frame["variate"], "variate")
    stamps = panel.stamps()
    # Where the first forecast of each series begins; nothing after it is a scale.
    first = np.full(panel.n_series, np.iinfo(np.int64).max)
    np.minimum.at(first, series, _cutoff_stamps(frame["cutoff"], panel, stamps))
    owner = np.repeat(np.arange(panel.n_series), panel.lengths)
    before = stamps < first[owner]
    if season is None:
        # By what the models of the first cutoff had seen.
        season = panel.frequency.season_of(int(np.bincount(owner[before], minlength=1).max()))
    later = np.flatnonzero((np.arange(len(owner)) - panel.offsets[owner] >= season) & before)
    values = panel.values.astype(np.float64)
    changes = np.abs(values[later] - values[later - season]) ** power
    seen = ~np.isnan(changes)
    total, count = (np.zeros((panel.n_series, panel.n_variates)) for _ in range(2))
    np.add.at(total, owner[later], np.where(seen, changes, 0.0))
    np.add.at(count, owner[later], seen)
    with np.errstate(invalid="ignore"):
        return np.asarray((total / count)[series, variate])


def _read(history: Any, backtest: pd.DataFrame) -> Panel:
    try:
        return Panel.from_frame(history, **{"gaps": "mask", **backtest.attrs.get("reading", {})})
    except DataError as error:
        raise DataError(
            f"measure: history cannot be read: {error}. Where the backtest does not know the names "
            f"of its columns, history=Panel.from_frame(df, id_column=, time_column=, target=) does"
        ) from None


def _places(labels: pd.Index, column: pd.Series, word: str) -> np.ndarray:
    """Return where the labels of a column are in the history."""
    codes, distinct = pd.factorize(column)
    places = id_places(pd.Index(distinct, tupleize_cols=False), labels)
    if (places < 0).any():
        raise DataError(
            f"measure: history has no {word} {distinct[int(places.argmin())]!r}; pass the data of "
            f"the backtest"
        )
    return places[codes]


def _cutoff_stamps(cutoffs: pd.Series, panel: Panel, stamps: np.ndarray) -> np.ndarray:
    """Return the stamp of each cutoff, and the largest number for one after the history."""
    codes, distinct = pd.factorize(cutoffs)
    unique_stamps = np.unique(stamps)
    written = panel.axis.index(unique_stamps)
    places = written.get_indexer(pd.Index(distinct))
    following = np.append(unique_stamps, np.iinfo(np.int64).max)
    unknown = places < 0
    if unknown.any() and panel.axis.style is None and (distinct[unknown] <= written[-1]).any():
        raise DataError(
            f"measure: history has no row at the cutoff {distinct[int(unknown.argmax())]}; pass "
            f"the data of the backtest"
        )
    return following[places][codes]
