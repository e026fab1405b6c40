"""Windows over a panel, cut by index arithmetic on the device where training happens.

No window is ever stored: the series lie in one tensor, a window is a number, and a
batch is a gather. The memory of a fit is therefore that of the series, whatever the
context length.

Dimension letters: B windows in a batch, L context steps, H horizon, C variates.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Batch",
    "CovariateTensors",
    "Inputs",
    "SeriesTensors",
    "Windows",
    "number_windows",
    "observed_on_both_sides",
    "training_cutoffs",
]


@dataclass(frozen=True)
class Inputs:
    """What a network sees of a batch of windows.

    Parameters
    ----------
    target : Tensor of shape (B, L, C)
        Scaled history. A missing step carries the last observation forward; it is 0
        where nothing was observed before it.
    observed : bool Tensor of shape (B, L, C) or None
        True where the value was measured; None when all of them were.
    past : Tensor of shape (B, L, n_past) or None
        Covariates known up to the forecast origin.
    future : Tensor of shape (B, L + H, n_future) or None
        Covariates known over the horizon as well.
    static : Tensor of shape (B, n_static) or None
        Covariates that do not change in time.
    calendar : Tensor of shape (B, L + H, n_calendar) or None
        Calendar features of the local clock.
    """

    target: Tensor
    observed: Tensor | None = None
    past: Tensor | None = None
    future: Tensor | None = None
    static: Tensor | None = None
    calendar: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """A batch of windows with the truth to forecast.

    Parameters
    ----------
    inputs : Inputs
        The history of each window.
    target : Tensor of shape (B, H, C)
        Scaled future.
    observed : Tensor of shape (B, H, C) or None
        True where the future was measured; None when all of it was. With weights they are these
        weights, 0 where nothing was measured.
    scale : Tensor of shape (B, C) or None
        Factor that brings an error back to original units; None stands for 1.
    shift : pair of Tensor or None
        What was taken off the history, (B, L, C), and off the future, (B, H, C); None stands
        for nothing.
    weight : Tensor of shape (B, L + H, 1) or None
        How much an error at each step counts, for what is compared in the context.
    series, cutoffs : int64 Tensors of shape (B,) or None
        The series that each window is cut from, and the row of all series at which its future
        begins, for what is compared between windows.
    """

    inputs: Inputs
    target: Tensor
    observed: Tensor | None
    scale: Tensor | None
    shift: tuple[Tensor, Tensor] | None = None
    weight: Tensor | None = None
    series: Tensor | None = None
    cutoffs: Tensor | None = None

    def whole(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Join history and future, for what forecasts steps of the history as well.

        Returns
        -------
        target : Tensor of shape (B, L + H, C)
        observed : Tensor of shape (B, L + H, C) or None
            True, or the weight, where a value was measured.
        shift : Tensor of shape (B, L + H, C) or None
        """
        target = torch.cat([self.inputs.target, self.target], dim=1)
        observed = None
        if self.inputs.observed is not None or self.observed is not None:
            before, later = (
                torch.ones_like(values, dtype=torch.bool) if seen is None else seen
                for values, seen in (
                    (self.inputs.target, self.inputs.observed),
                    (self.target, self.observed),
                )
            )
            if self.weight is not None:
                before = before * self.weight[:, : before.shape[1]]
            observed = torch.cat([before, later], dim=1)
        return target, observed, None if self.shift is None else torch.cat(self.shift, dim=1)


@dataclass(frozen=True)
class CovariateTensors:
    """Coded covariates on a device; known ones reach beyond the end of their series.

    Parameters
    ----------
    past : Tensor of shape (rows, n_past)
    known_ahead : Tensor of shape (rows + S * ahead, n_future + n_calendar)
    known_offsets : int64 Tensor of shape (S + 1,)
        Series s owns the rows ``known_offsets[s]:known_offsets[s + 1]`` of ``known_ahead``.
    static : Tensor of shape (S, n_static)
    n_future : int
        How many of the known columns are future covariates; the others are the calendar.
    """

    past: Tensor
    known_ahead: Tensor
    known_offsets: Tensor
    static: Tensor
    n_future: int

    def gather(
        self, offsets: Tensor, series: Tensor, cutoffs: Tensor, before: int, after: int
    ) -> dict[str, Tensor | None]:
        """Cut the covariates of each window.

        Parameters
        ----------
        offsets : int64 Tensor of shape (S + 1,)
            Row ranges of the series.
        series, cutoffs : int64 Tensors of shape (B,)
            Series of each window, and the row at which its forecast begins.
        before, after : int
            Steps on either side of the cutoff.

        Returns
        -------
        dict
            ``past`` (B, before, n_past), ``future`` and ``calendar`` (B, before + after,
            any), ``static`` (B, n_static); None for what there is none of. Steps outside
            of a series are 0.
        """
        shift = self.known_offsets[series] - offsets[series]
        future_values = _cut(
            self.known_ahead, self.known_offsets, series, cutoffs + shift, before, after
        )
        past = _cut(self.past, offsets, series, cutoffs, before, 0)
        future, calendar = future_values.split(
            [self.n_future, future_values.shape[2] - self.n_future], dim=2
        )
        parts = {"past": past, "future": future, "calendar": calendar}
        gathered: dict[str, Tensor | None] = {
            name: part if part.shape[2] else None for name, part in parts.items()
        }
        gathered["static"] = self.static[series] if self.static.shape[1] else None
        return gathered


def _cut(
    values: Tensor, offsets: Tensor, series: Tensor, cutoffs: Tensor, before: int, after: int
) -> Tensor:
    """Cut rows (B, before + after, n), 0 outside of each series."""
    steps = torch.arange(-before, after, device=values.device)
    if not values.shape[1] or not len(values):
        return values.new_zeros(len(series), len(steps), values.shape[1])
    rows = cutoffs[:, None] + steps
    inside = (rows >= offsets[series][:, None]) & (rows < offsets[series + 1][:, None])
    return values[rows.clamp(0, len(values) - 1)] * inside[..., None]


@dataclass(frozen=True)
class SeriesTensors:
    """Scaled series on a device, one after the other.

    Parameters
    ----------
    values : Tensor of shape (rows, C)
        Carried forward over missing steps, 0 where nothing came before.
    observed : bool Tensor of shape (rows, C) or None
        True where measured; None when everything was.
    offsets : int64 Tensor of shape (S + 1,)
        Series s owns the rows ``offsets[s]:offsets[s + 1]``.
    scale : Tensor of shape (S, C) or None
        Original units per scaled unit, by series.
    covariates : CovariateTensors or None
        What goes with them.
    weight : Tensor of shape (rows, 1) or None
        How much an error at each row counts; None stands for 1.
    """

    values: Tensor
    observed: Tensor | None
    offsets: Tensor
    scale: Tensor | None = None
    covariates: CovariateTensors | None = None
    weight: Tensor | None = None

    def gather(
        self, series: Tensor, cutoffs: Tensor, before: int, after: int, *, inside: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Cut the steps ``[cutoff - before, cutoff + after)`` of each window.

        Parameters
        ----------
        series : int64 Tensor of shape (B,)
            Which series each window is cut from.
        cutoffs : int64 Tensor of shape (B,)
            Rows of ``values`` at which the forecast begins.
        before, after : int
            Steps to cut on either side of the cutoff.
        inside : bool, default False
            Whether no window reaches over the ends of its series, as far as is known: to find
            it out, the processor waits for the device.

        Returns
        -------
        values : Tensor of shape (B, before + after, C)
            0 outside the series.
        observed : bool Tensor of the same shape or None
            False outside the series; None when every step was observed.
        """
        start = self.offsets[series].unsqueeze(1)
        end = self.offsets[series + 1].unsqueeze(1)
        steps = torch.arange(-before, after, device=self.values.device)
        rows = cutoffs.unsqueeze(1) + steps
        if inside or bool(((rows[:, :1] >= start) & (rows[:, -1:] < end)).all()):
            observed = None if self.observed is None else self.observed[rows]
            return self.values[rows], observed
        within = ((rows >= start) & (rows < end)).unsqueeze(-1)
        rows = rows.clamp(min=0, max=max(len(self.values) - 1, 0))
        if len(self.values) == 0:
            shape = (*rows.shape, self.values.shape[1])
            return self.values.new_zeros(shape), within.expand(shape)
        values = self.values[rows] * within
        observed = within if self.observed is None else self.observed[rows] & within
        return values, observed.expand(values.shape)

    def gather_covariates(
        self, series: Tensor, cutoffs: Tensor, before: int, after: int
    ) -> dict[str, Tensor | None]:
        """Cut the covariates of each window, see :meth:`CovariateTensors.gather`."""
        if self.covariates is None:
            return {}
        return self.covariates.gather(self.offsets, series, cutoffs, before, after)

    def gather_weight(
        self, series: Tensor, cutoffs: Tensor, before: int, after: int
    ) -> Tensor | None:
        """Cut the weights (B, before + after, 1) of each window, 0 outside of its series."""
        if self.weight is None:
            return None
        return _cut(self.weight, self.offsets, series, cutoffs, before, after)


class Windows:
    """Every (context, future) pair that a set of series offers, counted and not stored.

    Parameters
    ----------
    series : SeriesTensors
        The series, on the training device.
    first, last : int64 arrays of shape (S,)
        First and last cutoff row of each series (absolute rows, both included); a
        series whose ``last`` is below its ``first`` gives no window.
    context_length, horizon : int
        Steps before and after a cutoff.
    """

    def __init__(
        self,
        series: SeriesTensors,
        first: np.ndarray,
        last: np.ndarray,
        context_length: int,
        horizon: int,
    ) -> None:
        counts = np.maximum(last - first + 1, 0)
        keep = np.flatnonzero(counts)
        self.series = series
        self.context_length = context_length
        self.horizon = horizon
        device = series.values.device
        self._owner = torch.from_numpy(keep).to(device)
        self._first = torch.from_numpy(np.asarray(first, dtype=np.int64)[keep]).to(device)
        ends = np.cumsum(counts[keep], dtype=np.int64)
        self._ends = torch.from_numpy(ends).to(device)
        self._begins = self._ends - torch.from_numpy(counts[keep].astype(np.int64)).to(device)
        self._length = int(ends[-1]) if len(ends) else 0
        begins, stops = (
            series.offsets[:-1].cpu().numpy()[keep],
            series.offsets[1:].cpu().numpy()[keep],
        )
        self._inside = bool(
            (first[keep] - context_length >= begins).all() and (last[keep] + horizon <= stops).all()
        )

    def __len__(self) -> int:
        return self._length

    def batch(self, index: Tensor) -> Batch:
        """Cut the windows with the given numbers.

        Parameters
        ----------
        index : int Tensor of shape (B,)
            Numbers in ``[0, len(self))``; windows are numbered series by series, in
            the order of time.

        Returns
        -------
        Batch
            Tensors on the device of the series.
        """
        index = index.to(self._ends.device, torch.int64)
        place = torch.searchsorted(self._ends, index, right=True)
        cutoffs = self._first[place] + index - self._begins[place]
        owner = self._owner[place]
        values, observed = self.series.gather(
            owner, cutoffs, self.context_length, self.horizon, inside=self._inside
        )
        history, future = values.split([self.context_length, self.horizon], dim=1)
        seen = truth = None
        if observed is not None:
            seen, truth = observed.split([self.context_length, self.horizon], dim=1)
        scale = None if self.series.scale is None else self.series.scale[owner]
        covariates = self.series.gather_covariates(
            owner, cutoffs, self.context_length, self.horizon
        )
        weight = self.series.gather_weight(owner, cutoffs, self.context_length, self.horizon)
        if weight is not None:
            counted = weight[:, self.context_length :].expand_as(future)
            truth = counted if truth is None else counted * truth
        inputs = Inputs(history, seen, **covariates)
        return Batch(inputs, future, truth, scale, weight=weight, series=owner, cutoffs=cutoffs)


def number_windows(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the windows of each series from 0 on.

    Parameters
    ----------
    counts : int array of shape (S,)
        Windows of each series, W in all.

    Returns
    -------
    owners, numbers : int64 arrays of shape (W,)
        Series of each window, and which of its windows it is.
    """
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)


def training_cutoffs(
    offsets: np.ndarray, context_length: int, horizon: int, validation_rows: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Divide the cutoffs of every series into a training and a validation range.

    The last ``validation_rows`` rows of a series are its validation tail: validation
    windows forecast inside the tail (their contexts reach back over its border),
    training windows end before it. A series shorter than ``context_length + horizon``
    gives one training window whose context is incomplete, so that it still trains; as its
    horizon may reach past its end, it must have no validation tail.

    Parameters
    ----------
    offsets : int64 array of shape (S + 1,)
        Row ranges of the series.
    context_length, horizon : int
        Steps before and after a cutoff.
    validation_rows : int64 array of shape (S,)
        Rows of each validation tail, 0 for none.

    Returns
    -------
    training, validation : pair of arrays (first, last) of shape (S,)
        Absolute cutoff rows, both included; ``last < first`` where there are none.
    """
    start, end = offsets[:-1], offsets[1:] - validation_rows
    length = end - start
    # A full context where the series has one; otherwise the longest context that leaves
    # a whole horizon, and for the very short at least half of the rows as context.
    shortest = np.maximum(np.maximum(length - horizon, length // 2), 1)
    first = start + np.minimum(context_length, shortest)
    last = np.where(length >= context_length + horizon, end - horizon, first)
    last = np.where(length >= 2, last, first - 1)
    validation_first = end
    validation_last = np.where(validation_rows > 0, offsets[1:] - horizon, end - 1)
    return (first, last), (validation_first, validation_last)


def observed_on_both_sides(values: np.ndarray, offsets: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """Return which series have observations both before and in their tail, shape (S,)."""
    observed = ~np.isnan(values).all(axis=1)
    if observed.all():
        return np.ones(len(tail), dtype=bool)
    count = np.concatenate([[0], np.cumsum(observed)])
    border = offsets[1:] - tail
    before = count[border] > count[offsets[:-1]]
    return np.asarray(before & (count[offsets[1:]] > count[border]))
