"""What can be read off a history when the cycles of its calendar are told: references and shifts.

Dimension letters: B windows, L context steps, H horizon, K references or shifts.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["N_SHIFTS", "N_STATISTICS", "N_WAYS", "ScaledHistory", "WaysOn", "lagged", "ways_on"]

# Of the standard deviation, what the seasonal naive misses counts as at least so much.
SMALLEST_SHARE = 0.1
# A scale as small beside the values is what rounding leaves of a constant.
ROUNDING = 1e-12
# Of how many of the last cycles means are taken, beside that of all of them.
CYCLE_MEANS = (1, 2, 4, 8)
# Over how many of the last steps a history is compared with itself, beside the shorter cycle.
RECENT = (1, 4)
# Parts of the history, counted from its end, that lines are fitted to.
SLOPES = (1.0, 0.25)
# References are mixed by this power of what they missed; one that cannot be judged missed FAR.
SHARPNESS, FAR = -4.0, 1e3
# Added to what was missed before its logarithm or power is taken.
SMALL = 0.01

N_LEVELS = 3
N_REFERENCES = 2 * (len(CYCLE_MEANS) + 1) + N_LEVELS
N_SHIFTS = 5 * (len(RECENT) + 1)
N_LINES = 1 + 2 * len(SLOPES)
# The seasonal naive is what the others are compared with; the mix of references is one more.
N_WAYS = N_REFERENCES - 1 + 1 + N_SHIFTS + N_LINES
N_STATISTICS = 13


class ScaledHistory(NamedTuple):
    """Histories about their level, in units of what the seasonal naive misses.

    Parameters
    ----------
    values : Tensor of shape (B, L)
        0 where not observed.
    seen : Tensor of shape (B, L)
        1 where observed, otherwise 0.
    level, scale : Tensor of shape (B, 1)
        Of the precision of the history; the scale of a constant is 0.
    spread : Tensor of shape (B, 1)
        Standard deviation of the values.
    """

    values: Tensor
    seen: Tensor
    level: Tensor
    scale: Tensor
    spread: Tensor

    @classmethod
    def of(cls, history: Tensor, observed: Tensor, season: int) -> "ScaledHistory":
        """Scale histories (B, L), a bool mask telling what of them was observed.

        The level is the mean of the last cycle of ``season`` steps that was observed, the scale
        the mean absolute difference of steps that are a season apart, and at least a tenth of the
        standard deviation.
        """
        seen = observed.to(history.dtype)
        values = torch.where(observed, history, 0.0)
        recent = seen * (seen.flip(1).cumsum(1).flip(1) <= season)
        level = _mean(values, recent)
        centred = (values - level) * seen
        mean = _mean(centred, seen)
        spread = (_mean(((centred - mean) * seen) ** 2, seen)).sqrt()
        before, both = lagged(centred, seen, season)
        missed = torch.where(
            both.sum(1, keepdim=True) > 0, _mean((centred - before).abs(), both), spread
        )
        scale = torch.maximum(missed, SMALLEST_SHARE * spread)
        scale = torch.where(spread > ROUNDING * (level.abs() + mean.abs()), scale, 0.0)
        divisor = torch.where(scale > 0, scale, 1.0)
        values = torch.where(scale > 0, centred / divisor, 0.0)
        return cls(values.float(), seen.float(), level, scale, (spread / divisor).float())

    def restore(self, scaled: Tensor) -> Tensor:
        """Bring forecasts (B, ...) back to the units of the history."""
        shape = (-1,) + (1,) * (scaled.ndim - 1)
        return scaled.to(self.scale.dtype) * self.scale.view(shape) + self.level.view(shape)


class WaysOn(NamedTuple):
    """Simple forecasts, and what is known of how good they are.

    Parameters
    ----------
    naive : Tensor of shape (B, H)
        The last cycle again.
    ways : Tensor of shape (B, H, N_WAYS)
        By what others differ from it: means of the last cycles, shorter and longer ones, and
        shifts of the level and lines that may be added.
    statistics : Tensor of shape (B, N_STATISTICS)
        Of the history: how far steps and cycles are apart, and how many of them there are.
    """

    naive: Tensor
    ways: Tensor
    statistics: Tensor


def lagged(values: Tensor, seen: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Return values (B, L) of ``lag`` steps before, and 1 where both were observed."""
    n_steps = values.shape[1]
    keep = max(n_steps - lag, 0)
    shift = n_steps - keep
    return F.pad(values[:, :keep], (shift, 0)), F.pad(seen[:, :keep], (shift, 0)) * seen


def ways_on(history: ScaledHistory, cycles: tuple[int, int], horizon: int) -> WaysOn:
    """Forecast in simple ways.

    Parameters
    ----------
    history : ScaledHistory
    cycles : pair of int
        Steps in the shorter and the longer cycle, the same twice where there is one.
    horizon : int
        H

    Returns
    -------
    WaysOn
    """
    values, seen = history.values, history.seen
    n_steps, short = values.shape[1], cycles[0]
    steps = torch.arange(horizon, device=values.device)
    last = _last(values, seen)
    recent = [_recent_mean(values, seen, n) for n in (RECENT[-1], short)]
    references: list[Tensor] = []
    judged: list[_Judged] = []
    for cycle in cycles:
        means = _cycle_means(values, seen, cycle, last)  # (B, K, cycle)
        references.append(means[:, :, steps % cycle])
        before, both = lagged(values, seen, cycle)
        change = (values - before) * both
        # By what steps differ from the mean of their phase, which they are a part of.
        phases = torch.arange(n_steps - 1, -1, -1, device=values.device) % cycle
        from_mean = (values - means[:, -1, cycle - 1 - phases]) * seen
        n_cycles = seen.sum(1, keepdim=True) / cycle
        own_part = n_cycles / (n_cycles - 1).clamp(min=1)
        for place, differences, there, factor in (
            (0, change, both, 1.0),
            (-1, from_mean, seen * (n_cycles >= 2), own_part),
        ):
            missed = factor * _mean(differences.abs(), there)
            shift = torch.stack([_recent_mean(differences, there, n) for n in (*RECENT, short)], 1)
            enough = there.sum(1, keepdim=True) >= cycle
            judged.append(_Judged(references[-1][:, place], shift, missed, enough))
    before, both = lagged(values, seen, max(short // 2, 1))
    drifted = _mean((values - before).abs(), both)
    enough = both.sum(1, keepdim=True) >= short
    levels = torch.stack([last, *recent], dim=1).expand(-1, -1, horizon)
    judged.append(_Judged(levels[:, 0], torch.zeros_like(judged[0].shift), drifted, enough))
    mixed = _mixed(judged)
    shifts = [one.shift for one in judged[:-1]] + [mixed.shift]
    # What is to be added to the last cycle where there is a trend grows by whole cycles.
    ahead = (steps + 1).to(values.dtype)
    cycles_ahead = (steps // short + 1).to(values.dtype)
    lines = [judged[0].shift[:, -1] * cycles_ahead]
    for part in SLOPES:
        slope = _slope(values, seen, part)
        lines += [slope * ahead, slope * short * cycles_ahead]
    naive = references[0][:, 0]
    others = [references[0][:, 1:], references[1], levels, mixed.forecast[:, None]]
    added = [torch.cat(shifts, dim=1).expand(-1, -1, horizon), torch.stack(lines, dim=1)]
    ways = torch.cat([torch.cat(others, dim=1) - naive[:, None], *added], dim=1)
    sizes = [one.missed for one in judged]
    return WaysOn(naive, ways.transpose(1, 2), _statistics(history, cycles, sizes))


class _Judged(NamedTuple):
    """A simple forecast, and how it did on the history.

    Parameters
    ----------
    forecast : Tensor of shape (B, H)
    shift : Tensor of shape (B, len(RECENT) + 1, 1)
        By how much the last steps were above what it would have said, of several numbers of them.
    missed : Tensor of shape (B, 1)
        Mean absolute error.
    enough : bool Tensor of shape (B, 1)
        Whether there was a cycle to judge it by.
    """

    forecast: Tensor
    shift: Tensor
    missed: Tensor
    enough: Tensor


def _mixed(judged: list[_Judged]) -> _Judged:
    """Mix forecasts by what they missed: the best of them has most to say."""
    missed = torch.stack([torch.where(one.enough, one.missed, FAR) for one in judged], dim=1)
    weight = (missed / missed.amin(dim=1, keepdim=True).clamp(min=SMALL)).clamp(min=1) ** SHARPNESS
    weight = weight / weight.sum(dim=1, keepdim=True)  # (B, K, 1)
    forecast = (weight * torch.stack([one.forecast for one in judged], dim=1)).sum(1)
    shift = (weight[..., None] * torch.stack([one.shift for one in judged], dim=1)).sum(1)
    return _Judged(forecast, shift, (weight * missed).sum(1), judged[0].enough)


def _statistics(history: ScaledHistory, cycles: tuple[int, int], sizes: list[Tensor]) -> Tensor:
    values, seen = history.values, history.seen
    before, both = lagged(values, seen, 1)
    change = (values - before) * both
    n_seen = seen.sum(1, keepdim=True)
    same = _mean((change == 0).to(values.dtype), both)
    logs = [torch.log(size + SMALL) for size in (*sizes, _mean(change.abs(), both), history.spread)]
    counts = [torch.log1p(n_seen) - 5, *(torch.log1p(n_seen / cycle) for cycle in cycles)]
    lengths = [torch.full_like(n_seen, cycle).log() for cycle in cycles]
    return torch.cat([*logs, same, *counts, *lengths], dim=1)


def _cycle_means(values: Tensor, seen: Tensor, cycle: int, last: Tensor) -> Tensor:
    """Return means of each phase over the last cycles, (B, K, cycle), the phases in order.

    The first is the last observation of a phase in the last cycle, and the last value where there
    is none; a mean of more that has nothing to go by is the one before it.
    """
    n_cycles = max(-(-values.shape[1] // cycle), max(CYCLE_MEANS))
    fill = n_cycles * cycle - values.shape[1]
    folded = F.pad(values * seen, (fill, 0)).unflatten(1, (n_cycles, cycle))
    there = F.pad(seen, (fill, 0)).unflatten(1, (n_cycles, cycle))
    means: list[Tensor] = []
    before = last.expand(-1, cycle)
    for n in (*CYCLE_MEANS, n_cycles):
        count = there[:, n_cycles - n :].sum(1)
        total = folded[:, n_cycles - n :].sum(1)
        before = torch.where(count > 0, total / count.clamp(min=1), before)
        means.append(before)
    return torch.stack(means, dim=1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return weighted means (B, 1) of values (B, L), 0 where nothing has weight."""
    total = weight.sum(1, keepdim=True)
    return (values * weight).sum(1, keepdim=True) / total.clamp(min=1)


def _recent_mean(values: Tensor, weight: Tensor, n_steps: int) -> Tensor:
    return _mean(values[:, -n_steps:], weight[:, -n_steps:])


def _last(values: Tensor, seen: Tensor) -> Tensor:
    """Return the last observed values (B, 1), 0 where there is none."""
    place = torch.arange(1, values.shape[1] + 1, device=values.device) * seen
    return values.gather(1, place.argmax(1, keepdim=True))


def _slope(values: Tensor, seen: Tensor, part: float) -> Tensor:
    """Return the slope (B, 1) of a line through a part of the end of what was observed."""
    steps = torch.arange(values.shape[1], device=values.device, dtype=values.dtype)[None]
    count = seen.flip(1).cumsum(1).flip(1)
    weight = seen * (count <= (part * count[:, :1]).ceil())
    about = (steps - _mean(steps.expand_as(values), weight)) * weight
    squares = (about**2).sum(1, keepdim=True)
    return (about * values).sum(1, keepdim=True) / squares.clamp(min=1)
