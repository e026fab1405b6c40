"""Losses by window and series, and what they are when these are drawn again.

Dimension letters: T windows, S series, M models, R resamples.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsar.evaluation.measuring import METRICS, Forecasts, row_losses
from tsar.evaluation.significance import stationary_bootstrap

__all__ = ["Cells"]

Floats = NDArray[np.float64]
# Products of resamples and series held at a time.
HELD_VALUES = 10_000_000


@dataclass(frozen=True)
class Cells:
    """Losses summed by window and series.

    Attributes
    ----------
    sums : dict of str to float array of shape (T, S)
        By model; those left out that lack a forecast.
    counts : float array of shape (T, S)
        Observed rows.
    series : Index of shape (S,)
    root, scaled : bool
        Whether the metric is the root of a mean, and whether series are averaged.
    """

    sums: dict[str, Floats]
    counts: Floats
    series: pd.Index
    root: bool
    scaled: bool

    @classmethod
    def of(cls, tested: pd.DataFrame, metric: str, scale: Floats | None, horizon: int) -> "Cells":
        """Sum the losses of a backtest, whose rows are in the order it writes them."""
        keys = [name for name in ("id", "variate") if name in tested.columns]
        blocks = tested[keys].iloc[::horizon]
        owner = blocks.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
        distinct = blocks.drop_duplicates()
        series = pd.MultiIndex.from_frame(distinct) if len(keys) > 1 else pd.Index(distinct["id"])
        counts = np.bincount(owner)
        # The last windows of all series are the same one.
        number = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        number += counts.max() - counts[owner]
        shape = (int(counts.max()), len(counts))
        cell = np.repeat(number * shape[1] + owner, horizon)
        truth = tested["y"].to_numpy(np.float64)
        used = ~np.isnan(truth)
        if scale is not None:
            used &= scale > 0

        def total(values: Floats) -> Floats:
            summed = np.bincount(cell[used], weights=values[used], minlength=shape[0] * shape[1])
            return np.asarray(summed.reshape(shape), dtype=np.float64)

        sums = {}
        for name, model in Forecasts.of(tested).items():
            if not model.gives(metric):
                continue
            (losses,) = row_losses(metric, truth, name, model).values()
            if np.isnan(losses[used]).any():
                # A missing forecast has no mean, and nothing can be said of it.
                continue
            sums[name] = total(losses if scale is None else losses / np.where(used, scale, 1.0))
        root, scaled = METRICS[metric].root, scale is not None
        return cls(sums, total(np.ones(len(truth))), series, root, scaled)

    def by_window(self) -> pd.DataFrame:
        """Return the mean loss of each window, those without truth left out, (T, M)."""
        seen = self.counts.sum(axis=1)
        means = {name: values.sum(axis=1)[seen > 0] for name, values in self.sums.items()}
        return pd.DataFrame(means, index=range(int((seen > 0).sum()))).div(seen[seen > 0], axis=0)

    def by_series(self) -> pd.DataFrame:
        """Return the mean loss of each series, those without truth left out, (S, M)."""
        seen = self.counts.sum(axis=0)
        means = {name: values.sum(axis=0)[seen > 0] for name, values in self.sums.items()}
        index = self.series[seen > 0]
        return pd.DataFrame(means, index=index).div(seen[seen > 0], axis=0)

    def resampled(
        self, n_resamples: int, overlap: int, random_state: int | None
    ) -> dict[str, Floats]:
        """Return the metric of windows and series that are drawn again and again, (R,) each.

        Windows are drawn in stretches, which keep their order, and series one by one; all
        models get the same draws (the pigeonhole bootstrap of Owen, "The pigeonhole
        bootstrap", Annals of Applied Statistics 1(2), 2007). Of a single window or series
        there is nothing to draw.
        """
        n_windows, n_series = self.counts.shape
        if n_windows * n_series < 2 or not self.sums or not self.counts.any():
            return {}
        generator = np.random.default_rng(random_state)
        size = max(HELD_VALUES // max(n_series, n_windows), 1)
        parts: dict[str, list[Floats]] = {name: [] for name in self.sums}
        for begin in range(0, n_resamples, size):
            n_drawn = min(size, n_resamples - begin)
            length = max(overlap, n_windows ** (1 / 3))
            rows = stationary_bootstrap(n_windows, length, n_drawn, generator)
            windows = _counted(rows, n_windows)
            series = _counted(generator.integers(0, n_series, (n_drawn, n_series)), n_series)
            seen = windows @ self.counts
            # Of windows before the first one of a short series there is nothing to judge.
            some = (seen * series).sum(axis=1) > 0
            for name, sums in self.sums.items():
                parts[name].append(self._metric((windows @ sums)[some], seen[some], series[some]))
        drawn = {name: np.concatenate(values) for name, values in parts.items()}
        return {name: values for name, values in drawn.items() if len(values)}

    def _metric(self, sums: Floats, seen: Floats, series: Floats) -> Floats:
        """Return the metric of sums of losses by resample and series, (R, S)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.scaled:
                each = np.where(seen > 0, sums / seen, 0.0)
                return (each * series).sum(axis=1) / (series * (seen > 0)).sum(axis=1)
            means = (sums * series).sum(axis=1) / (seen * series).sum(axis=1)
        return np.sqrt(means) if self.root else means


def _counted(drawn: np.ndarray, n_values: int) -> Floats:
    """Return how often each value was drawn, by resample."""
    flat = drawn + n_values * np.arange(len(drawn))[:, None]
    counts = np.bincount(flat.ravel(), minlength=len(drawn) * n_values)
    return np.asarray(counts.reshape(len(drawn), n_values), dtype=np.float64)
