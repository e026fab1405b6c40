"""Series to pre-train on, all of them drawn: a stream that is the same for the same seed.

A series is built of parts: seasons of one or two cycles of the calendar, a trend, noise, level
shifts, outliers. Others are drawn from Gaussian processes by the spectrum of a sum of kernels, walk
at random, count rare events, or are mixtures of two. No data are read, so that nothing a model is
measured on can have been seen.

Dimension letters: N series, T rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

__all__ = ["CALENDARS", "SyntheticBatch", "draw_batch", "draw_series", "stream"]

# The two cycles of a calendar in rows, the longer one the same where there is none, and how often
# each is drawn: hours, half hours, quarters of an hour, ten minutes, days with and without a year,
# business days, weeks, months, quarters, years.
CALENDARS: dict[tuple[int, int], float] = {
    (24, 168): 0.30,
    (48, 336): 0.05,
    (96, 96): 0.04,
    (144, 144): 0.02,
    (7, 365): 0.11,
    (7, 7): 0.11,
    (5, 5): 0.06,
    (52, 52): 0.09,
    (12, 12): 0.11,
    (4, 4): 0.05,
    (1, 1): 0.06,
}
# Rows of history, and how often.
CONTEXTS: dict[int, float] = {64: 0.14, 128: 0.2, 256: 0.2, 512: 0.18, 1024: 0.28}
# Rows to forecast, and how often.
HORIZONS: dict[int, float] = {16: 0.2, 48: 0.35, 96: 0.3, 192: 0.15}
# Rows before the first that is returned, in which what starts from zero settles.
SETTLING = 128


@dataclass(frozen=True)
class SyntheticBatch:
    """Series of one calendar.

    Parameters
    ----------
    values : float32 array of shape (N, context + horizon)
        NaN where not observed; the rows before the first of a shorter series are not.
    cycles : pair of int
        Rows in the shorter and the longer cycle.
    context : int
        Rows of history.
    """

    values: np.ndarray
    cycles: tuple[int, int]
    context: int


def stream(seed: int, n_series: int, start: int = 0) -> Iterator[SyntheticBatch]:
    """Yield batches without end.

    Parameters
    ----------
    seed : int
        Every batch has a generator of its own, made of it and of the number of the batch.
    n_series : int
        N
    start : int, default 0
        Number of the first batch, so that a stream can be gone on with.

    Yields
    ------
    SyntheticBatch
    """
    number = start
    while True:
        yield draw_batch(np.random.default_rng([seed, number]), n_series)
        number += 1


def draw_batch(rng: np.random.Generator, n_series: int) -> SyntheticBatch:
    """Draw a calendar, lengths of context and horizon, and series with gaps of every kind."""
    calendars, lengths = list(CALENDARS), list(CONTEXTS)
    cycles = calendars[rng.choice(len(calendars), p=list(CALENDARS.values()))]
    # Fewer rows than two cycles say nothing of a season.
    enough = np.array([length >= 2 * cycles[0] for length in lengths])
    weights = np.where(enough, list(CONTEXTS.values()), 0.0)
    context = lengths[rng.choice(len(lengths), p=weights / weights.sum())]
    horizon = int(rng.choice(list(HORIZONS), p=list(HORIZONS.values())))
    values = draw_series(rng, n_series, context + horizon, cycles)
    _leave_out(rng, values[:, :context], 2 * cycles[0])
    return SyntheticBatch(values.astype(np.float32), cycles, context)


def draw_series(
    rng: np.random.Generator, n_series: int, n_rows: int, cycles: tuple[int, int]
) -> np.ndarray:
    """Draw complete series.

    Parameters
    ----------
    rng : Generator
    n_series, n_rows : int
        N and T.
    cycles : pair of int
        Rows in the shorter and the longer cycle.

    Returns
    -------
    float64 array of shape (N, T)
    """
    families = (_of_parts, _of_kernels, _walks, _counts)
    family = rng.choice(len(families), size=n_series, p=[0.62, 0.16, 0.11, 0.11])
    values = np.empty((n_series, n_rows))
    for number, draw in enumerate(families):
        members = np.flatnonzero(family == number)
        if len(members):
            values[members] = draw(rng, len(members), n_rows, cycles)
    # Mixtures, of a series with another one of any family.
    mixed = _some(rng, n_series, 0.15)
    share = rng.uniform(0.1, 0.9, (n_series, 1))
    blended = share * _standardized(values) + (1 - share) * _standardized(values[::-1])
    return np.where(mixed[:, None], blended, values)


# ------------------------------------------------------------------ families


def _of_parts(rng: np.random.Generator, n: int, t: int, cycles: tuple[int, int]) -> np.ndarray:
    """Season, trend and noise, added or multiplied, with shifts and outliers."""
    strength = np.where(_some(rng, n, 0.88), rng.lognormal(0.5, 0.9, n), 0.0)[:, None]
    season = strength * _season(rng, n, t, cycles)
    trend = rng.lognormal(-0.5, 1.0, (n, 1)) * _trend(rng, n, t)
    noise = rng.lognormal(-1.5, 1.1, (n, 1)) * _noise(rng, n, t)
    # The noise of some grows with their season.
    uneven = np.where(_some(rng, n, 0.3), rng.uniform(0.2, 0.8, n), 0.0)[:, None]
    noise *= np.exp(uneven * np.clip(_standardized(season), -2, 2))
    # And for some it comes and goes.
    restless = np.where(_some(rng, n, 0.2), rng.uniform(0.3, 0.9, n), 0.0)[:, None]
    noise *= np.exp(restless * _smooth(rng, n, t))
    values = season + trend + noise + _shifts(rng, n, t)
    kind = rng.choice(4, size=n, p=[0.5, 0.25, 0.15, 0.1])[:, None]
    scaled = values / (1e-9 + values.std(axis=1, keepdims=True))
    grown = np.exp(rng.uniform(0.1, 0.9, (n, 1)) * np.clip(scaled, -6, 6))
    # Cut off at a floor, as sunshine at night, or at a ceiling.
    floor = np.quantile(values, rng.uniform(0.0, 0.6), axis=1, keepdims=True)
    ceiling = np.quantile(values, rng.uniform(0.7, 1.0), axis=1, keepdims=True)
    values = np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3],
        [values, grown, np.maximum(values, floor), np.minimum(values, ceiling)],
    )
    values += _outliers(rng, n, t) * values.std(axis=1, keepdims=True)
    # Some are measured in few units.
    unit = np.where(_some(rng, n, 0.1), rng.uniform(0.02, 0.5, n), 0.0)[:, None]
    unit = unit * values.std(axis=1, keepdims=True)
    return np.where(unit > 0, np.round(values / np.where(unit > 0, unit, 1.0)) * unit, values)


def _of_kernels(rng: np.random.Generator, n: int, t: int, cycles: tuple[int, int]) -> np.ndarray:
    """Gaussian processes of a sum of kernels, by the sum of their spectra.

    Rational kernels of any roughness, and for each cycle a periodic one that is forgotten slowly:
    its spectrum is a comb of narrow peaks.
    """
    length = 2 * t
    frequency = np.fft.rfftfreq(length)[None]
    width = 1.0 / length
    power = np.zeros((n, frequency.shape[1]))
    for _ in range(2):
        scale = np.exp(rng.uniform(np.log(2), np.log(2 * t), (n, 1)))
        rough = rng.uniform(0.8, 3.0, (n, 1))
        power += _share(
            rng.lognormal(0, 1, (n, 1)), (1 + (2 * np.pi * frequency * scale) ** 2) ** -rough
        )
    stray = np.exp(rng.uniform(np.log(3), np.log(max(t / 3, 4)), n))
    for period, chance in ((cycles[0], 0.8), (cycles[1], 0.7), (stray, 0.15)):
        period = np.broadcast_to(np.asarray(period, dtype=float), n)[:, None]
        blur = width * np.exp(rng.uniform(-1.0, 1.5, (n, 1)))
        decay = rng.uniform(0.3, 2.5, (n, 1))
        peaks = np.zeros_like(power)
        for harmonic in range(1, 7):
            peaks += harmonic**-decay / (1 + ((frequency - harmonic / period) / blur) ** 2)
        there = _some(rng, n, chance)[:, None] & (period > 1)
        power += np.where(there, _share(rng.lognormal(0.8, 1, (n, 1)), peaks), 0.0)
    power += _share(rng.lognormal(-2, 1.2, (n, 1)), np.ones_like(power))
    drawn = rng.standard_normal((2, *power.shape))
    values = np.fft.irfft((drawn[0] + 1j * drawn[1]) * np.sqrt(power), length)[:, :t]
    return values + rng.lognormal(-1.5, 1.0, (n, 1)) * _trend(rng, n, t)


def _walks(rng: np.random.Generator, n: int, t: int, cycles: tuple[int, int]) -> np.ndarray:
    """Random walks, some with a drift, heavy tails, restless times, and a faint season."""
    steps = _heavy(rng, n, t) * np.exp(rng.uniform(0, 0.7, (n, 1)) * _smooth(rng, n, t))
    steps += np.where(_some(rng, n, 0.3), rng.normal(0, 0.15, n), 0.0)[:, None]
    walk = np.cumsum(steps, axis=1)
    # Some turn back to a level.
    back = np.where(_some(rng, n, 0.3), rng.uniform(0.5, 0.995, n), 0.0)[:, None]
    walk = np.where(back > 0, _autoregressive(rng, n, t, back), walk)
    faint = np.where(_some(rng, n, 0.3), rng.lognormal(0.0, 0.7, n), 0.0)[:, None]
    noise = np.where(_some(rng, n, 0.3), rng.lognormal(-0.5, 0.7, n), 0.0)[:, None]
    return walk + faint * _season(rng, n, t, cycles) + noise * rng.standard_normal((n, t))


def _counts(rng: np.random.Generator, n: int, t: int, cycles: tuple[int, int]) -> np.ndarray:
    """Counts, from several a row down to few in a context, with times of nothing at all."""
    level = rng.uniform(-2.5, 3.0, (n, 1))
    rate = level + rng.uniform(0, 0.8, (n, 1)) * _season(rng, n, t, cycles)
    rate += rng.uniform(0, 0.7, (n, 1)) * _trend(rng, n, t)
    rate = np.exp(np.clip(rate, -6, 6))
    spread = rng.uniform(0.5, 5.0, (n, 1))
    rate = np.where(_some(rng, n, 0.5)[:, None], rng.gamma(spread, rate / spread, (n, t)), rate)
    counts = rng.poisson(rate).astype(float)
    off = _some(rng, n, 0.2)[:, None] & (_smooth(rng, n, t) > 1.0)
    return np.where(off, 0.0, counts)


# --------------------------------------------------------------------- parts


def _season(rng: np.random.Generator, n: int, t: int, cycles: tuple[int, int]) -> np.ndarray:
    """Templates that repeat, the days of a longer cycle unlike each other, of standard size."""
    short, long = cycles
    rows = np.arange(t)[None] + rng.integers(0, long, (n, 1))
    series = np.arange(n)[:, None]
    phase = rows % short
    first = _template(rng, n, short)
    season = first[series, phase]
    if long > short and long % short == 0:
        n_days = long // short
        day = rows // short % n_days
        resting = np.where(
            _some(rng, n, 0.6)[:, None],
            np.arange(n_days)[None] >= n_days - 2,  # a weekend
            _some(rng, (n, n_days), 0.25),
        )
        second = first + rng.uniform(0, 1.2, (n, 1)) * _template(rng, n, short)
        second *= rng.uniform(0.2, 1.2, (n, 1))
        second += rng.normal(0, 1.2, (n, 1))
        unlike = _some(rng, n, 0.85)[:, None]
        chosen = resting[series, day] & unlike
        season = np.where(chosen, second[series, phase], season)
        by_day = rng.normal(0, 1, (n, n_days)) * rng.choice([0.0, 0.2, 0.5, 1.0], (n, 1))
        # Some longer cycles are of any shape.
        whole = np.where(_some(rng, n, 0.35), rng.uniform(0.2, 2.0, n), 0.0)[:, None]
        season = season + by_day[series, day] + whole * _template(rng, n, long)[series, rows % long]
    elif long > short:
        weekly = np.where(_some(rng, n, 0.7), rng.lognormal(-0.6, 0.8, n), 0.0)[:, None]
        yearly = _template(rng, n, long, smooth=True)[series, rows % long]
        season = weekly * season + rng.lognormal(-0.3, 0.8, (n, 1)) * yearly
    # From cycle to cycle some are larger and smaller.
    n_cycles = t // short + 2
    size = _autoregressive(rng, n, n_cycles, rng.uniform(0, 0.97, (n, 1)))
    varying = np.where(_some(rng, n, 0.5), rng.uniform(0.02, 0.3, n), 0.0)[:, None]
    season = season * np.exp(varying * size)[series, (rows - rows[:, :1]) // short]
    return season / (1e-9 + season.std(axis=1, keepdims=True)) * (short > 1)


def _template(rng: np.random.Generator, n: int, period: int, smooth: bool = False) -> np.ndarray:
    """Draw one cycle each, shape (N, period): waves, hours of work, spikes, or any shape."""
    phase = np.arange(period)[None]
    waves = np.zeros((n, period))
    decay = rng.uniform(0.5, 2.5, (n, 1))
    for harmonic in range(1, min(7, period // 2 + 1)):
        angle = 2 * np.pi * (harmonic * phase / period + rng.uniform(0, 1, (n, 1)))
        waves += rng.normal(0, 1, (n, 1)) * harmonic**-decay * np.sin(angle)
    if smooth:
        return _standardized(waves)
    begin, share = rng.integers(0, period, (n, 1)), rng.uniform(0.1, 0.7, (n, 1))
    work = ((phase - begin) % period < share * period).astype(float)
    work = uniform_filter1d(work, max(period // 12, 1), axis=1, mode="wrap")
    any_shape = rng.standard_normal((n, period))
    spikes = rng.exponential(1.0, (n, period)) * _some(rng, (n, period), 0.15)
    kind = rng.choice(5, size=n, p=[0.45, 0.2, 0.15, 0.08, 0.12])[:, None]
    return _standardized(
        np.select(
            [kind == 0, kind == 1, kind == 2, kind == 3],
            [waves, work, any_shape, spikes],
            _standardized(waves) + _standardized(work),
        )
    )


def _trend(rng: np.random.Generator, n: int, t: int) -> np.ndarray:
    """Draw nothing, lines, broken lines, random walks and smooth curves, of standard size."""
    line = np.linspace(-1, 1, t)[None] * rng.choice([-1.0, 1.0], (n, 1))
    breaks = _some(rng, (n, t), 3.0 / t) * rng.normal(0, 1, (n, t))
    broken = np.cumsum(np.cumsum(breaks, axis=1) + rng.normal(0, 1, (n, 1)), axis=1)
    walk = np.cumsum(rng.standard_normal((n, t)), axis=1)
    kind = rng.choice(5, size=n, p=[0.3, 0.15, 0.15, 0.25, 0.15])[:, None]
    trend = np.select(
        [kind == 1, kind == 2, kind == 3, kind == 4],
        [line, broken, walk, _smooth(rng, n, t)],
        0.0,
    )
    return _standardized(trend)


def _noise(rng: np.random.Generator, n: int, t: int) -> np.ndarray:
    """Draw white, heavy-tailed and autoregressive noise, of standard size."""
    kind = rng.choice(3, size=n, p=[0.35, 0.2, 0.45])[:, None]
    related = _autoregressive(rng, n, t, rng.uniform(-0.4, 0.99, (n, 1)))
    return np.select(
        [kind == 0, kind == 1], [rng.standard_normal((n, t)), _heavy(rng, n, t)], related
    )


def _autoregressive(rng: np.random.Generator, n: int, t: int, root: np.ndarray) -> np.ndarray:
    """Draw autoregressions of order one with a root (N, 1) below 1, of standard size."""
    length = t + SETTLING
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(length))[None]
    shocks = np.fft.rfft(rng.standard_normal((n, length)))
    # Filtered in a circle, whose beginning is left out.
    values = np.fft.irfft(shocks / (1 - root * turn), length)[:, SETTLING:]
    return values * np.sqrt(1 - root**2)


def _smooth(rng: np.random.Generator, n: int, t: int) -> np.ndarray:
    """Draw slow curves, of standard size."""
    width = int(np.clip(t * rng.uniform(0.02, 0.3), 2, t))
    white = rng.standard_normal((n, t + 2 * width))
    for _ in range(2):
        white = uniform_filter1d(white, width, axis=1)
    return _standardized(white[:, width : width + t])


def _heavy(rng: np.random.Generator, n: int, t: int) -> np.ndarray:
    """Draw Student's t of three degrees of freedom, of standard size and not beyond twelve."""
    return np.clip(rng.standard_t(3, (n, t)) / np.sqrt(3), -12, 12)


def _shifts(rng: np.random.Generator, n: int, t: int) -> np.ndarray:
    """Draw level shifts, of some series."""
    jumps = _some(rng, (n, t), 2.0 / t) * rng.normal(0, 1.5, (n, t))
    return np.where(_some(rng, n, 0.2)[:, None], np.cumsum(jumps, axis=1), 0.0)


def _outliers(rng: np.random.Generator, n: int, t: int) -> np.ndarray:
    """Draw single rows that stand out, of some series."""
    there = _some(rng, (n, t), 0.005) & _some(rng, n, 0.2)[:, None]
    return there * rng.normal(0, 4, (n, t))


def _leave_out(rng: np.random.Generator, history: np.ndarray, shortest: int) -> None:
    """Write NaN over the beginnings of short series, and over single rows and stretches."""
    n, length = history.shape
    rows = np.arange(length)[None]
    begin = (rng.uniform(0, 1, n) * _some(rng, n, 0.4) * max(length - shortest, 0)).astype(int)
    single = _some(rng, n, 0.1)[:, None] & _some(rng, (n, length), 0.1)
    left = rng.integers(0, length, (n, 1))
    stretch = _some(rng, n, 0.05)[:, None] & (rows >= left) & (rows < left + length // 8)
    # A history has some rows at the least.
    missing = (rows < begin[:, None]) | ((single | stretch) & (rows < length - 4))
    history[missing] = np.nan


# ------------------------------------------------------------------ numerals


def _some(rng: np.random.Generator, shape: int | tuple[int, ...], chance: float) -> np.ndarray:
    return rng.random(shape) < chance


def _share(weight: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Let a spectrum sum to a weight."""
    return weight * power / power.sum(axis=1, keepdims=True)


def _standardized(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / (1e-9 + centred.std(axis=1, keepdims=True))
