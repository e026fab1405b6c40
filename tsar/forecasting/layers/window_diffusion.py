"""A diffusion over whole windows, context and horizon, and how it forecasts.

Dimension letters: B windows, L context steps, H horizon, C variates, N paths, T steps of a
sequence, K channels of a step: the value and its lags.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.heads.denoiser import TimeEmbedding, noise_like
from tsar.core.heads.diffusion import linear_signal
from tsar.core.heads.self_guidance import Energy, guided_paths, refined_paths
from tsar.core.linear import Linear
from tsar.core.mixers import MIXERS, Bidirectional, Mixer, accepted_options, make_mixer
from tsar.core.position import SinusoidalPosition
from tsar.core.random import Random
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.training.seeding import make_generator

__all__ = ["Guidance", "PathInputs", "PathRequest", "Refinement", "TSDiffNetwork"]

Guidance: TypeAlias = Literal["quantile", "squared"]
# Tokens that gradients are followed through at a time.
TOKENS_AT_ONCE = 32_768
# Of a hundred steps, the one whose noise a refinement puts in.
REFINED_AT = 0.2


@dataclass(frozen=True)
class PathRequest:
    """What paths a network is to draw.

    Parameters
    ----------
    n_samples : int, default 100
    guidance : {"quantile", "squared"} or None, default "quantile"
    scale : float, default 8.0
        Of the guidance.
    n_steps : int or None, default None
        Of the diffusion, that are gone through; None stands for all.
    seed : int, default 0
        The same one gives the same paths of a window, whatever else is drawn.
    """

    n_samples: int = 100
    guidance: Guidance | None = "quantile"
    scale: float = 8.0
    n_steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Refinement:
    """How paths are refined, see :func:`tsar.core.heads.self_guidance.refined_paths`."""

    guidance: Guidance = "quantile"
    n_iterations: int = 20
    step_size: float = 0.01
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class PathInputs(Inputs):
    """Inputs, and what paths are to be drawn for them.

    Parameters
    ----------
    request : PathRequest
    """

    request: PathRequest = PathRequest()


class DiffusionBlock(nn.Module):
    """A mixer of steps that knows how much noise there is, and a gate.

    Parameters
    ----------
    mixer : Mixer
    d_model : int
    dropout : float
    """

    def __init__(self, mixer: Mixer, *, d_model: int, dropout: float) -> None:
        super().__init__()
        self.time = Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.mixer = mixer
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map tokens (R, T, D), given vectors (R, D) of their times."""
        told = x + self.time(time)[:, None]
        mixed = self.dropout.add(told, self.mixer(self.norm(told)))
        return mixed.tanh() * mixed.sigmoid()


class TSDiffNetwork(ForecastNetwork, Random):
    """A network that says what in a window is noise, and by which windows are drawn.

    Every variate is a sequence of its own. It is normalised by what was observed of its context
    (RevIN); the horizon is a part of it that was not observed.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`; one of samples.
    lags : sequence of int, default ()
        Beside each value, those so many steps before. A sequence is shorter by the largest.
    d_model, n_layers : int, default 64 and 3
    dropout : float, default 0.0
        Of what a mixer adds.
    n_steps : int, default 100
        Of the diffusion.
    mixer : str, default "structured_state_space"
        One of :data:`tsar.core.mixers.MIXERS`; two of it where it looks back only.
    **options
        Options of the mixer; those that it does not have are left out.

    References
    ----------
    Kollovieh et al., "Predict, refine, synthesize: self-guiding diffusion models for probabilistic
    time series forecasting", NeurIPS 2023.
    """

    signal: Tensor

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        lags: Sequence[int] = (),
        d_model: int = 64,
        n_layers: int = 3,
        dropout: float = 0.0,
        n_steps: int = 100,
        mixer: str = "structured_state_space",
        **options: Any,
    ) -> None:
        super().__init__()
        self.horizon, self.lags = horizon, (0, *lags)
        self.length = context_length + horizon - max(self.lags)
        self.revin = RevIN()
        self.enter = Linear(len(self.lags), d_model)
        # Mixers that see the steps in no order are told it.
        ordered = MIXERS[mixer].knows_order
        self.position = nn.Identity() if ordered else SinusoidalPosition(self.length, d_model)
        self.time = nn.Sequential(TimeEmbedding(d_model), nn.SiLU())
        options = accepted_options(mixer, **options)

        def make() -> Mixer:
            one = make_mixer(mixer, d_model, **options)
            if not MIXERS[mixer].causal:
                return one
            return Bidirectional(one, make_mixer(mixer, d_model, **options))

        self.blocks = nn.ModuleList(
            DiffusionBlock(make(), d_model=d_model, dropout=dropout) for _ in range(n_layers)
        )
        # After a block, one way goes to the next, and one goes out.
        self.onwards = nn.ModuleList(Linear(d_model, d_model) for _ in range(n_layers - 1))
        self.outwards = nn.ModuleList(Linear(d_model, d_model) for _ in range(n_layers))
        self.leave = nn.Sequential(
            Linear(d_model, d_model), nn.ReLU(), Linear(d_model, len(self.lags))
        )
        self.register_buffer("signal", linear_signal(n_steps), persistent=False)
        self.output = output

    def said(self, noisy: Tensor, time: Tensor) -> Tensor:
        """Return what noise is in sequences (R, T, K), given the numbers of their times (R,)."""
        tokens = self.position(self.enter(noisy).relu())
        told = self.time((time / len(self.signal)).to(noisy.dtype))
        total: Tensor | float = 0.0
        for number, (block, outwards) in enumerate(zip(self.blocks, self.outwards, strict=True)):
            gated = block(tokens, told)
            total = total + outwards(gated)
            if number < len(self.onwards):
                tokens = tokens + self.onwards[number](gated)
        noise: Tensor = self.leave(total) + noisy
        return noise

    # ------------------------------------------------------------------ training

    def compare(self, batch: Batch) -> Compared:
        """Put noise into whole windows, and return what is said of it, the noise, and weights.

        Both are of shape (B, T, C * K).
        """
        context, observed = batch.inputs.target, batch.inputs.observed
        x, location, scale = self.revin(context, observed)
        whole = torch.cat([x, (batch.target - location) / scale], dim=1)
        weight = None
        if observed is not None or batch.observed is not None or batch.weight is not None:
            before = x.new_ones(()).expand_as(x) if observed is None else observed.to(x.dtype)
            if batch.weight is not None:
                before = before * batch.weight[:, : x.shape[1]]
            after = x.new_ones(()).expand_as(batch.target)
            after = after if batch.observed is None else batch.observed.to(x.dtype)
            weight = self._channels(torch.cat([before, after], dim=1))
        clean = self._channels(whole)  # (B, C, T, K)
        n_windows, n_variates = clean.shape[:2]
        place = clean.device if self.generator is None else self.generator.device
        shape = (n_windows * n_variates,)
        time = torch.randint(len(self.signal), shape, generator=self.generator, device=place)
        time, rows = time.to(clean.device), clean.flatten(0, 1)
        share = self.signal[time][:, None, None].to(rows.dtype)
        noise = noise_like(rows, self.generator)
        said = self.said(share.sqrt() * rows + (1 - share).sqrt() * noise, time)

        def laid(part: Tensor) -> Tensor:
            return part.unflatten(0, (n_windows, n_variates)).transpose(1, 2).flatten(2)

        seen = None if weight is None else laid(weight.flatten(0, 1))
        return Compared(laid(said), laid(noise), seen)

    def _channels(self, whole: Tensor) -> Tensor:
        """Lay lags beside values (B, L + H, C): sequences (B, C, T, K)."""
        end = whole.shape[1]
        parts = [whole[:, end - self.length - lag : end - lag] for lag in self.lags]
        return torch.stack(parts, dim=-1).transpose(1, 2)

    # --------------------------------------------------------------- forecasting

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: paths (B, H, C, N).

        Parameters
        ----------
        inputs : Inputs or PathInputs
            ``target`` of shape (B, L, C), and ``observed`` where values are missing.
        """
        request = inputs.request if isinstance(inputs, PathInputs) else PathRequest()
        # What follows gradients takes no tensors that were made without.
        with torch.inference_mode(False), torch.no_grad():
            x, location, scale = self.revin(inputs.target.clone(), _cloned(inputs.observed))
            observed = _cloned(inputs.observed)
            seen = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
            target, counts = self._with_horizon(x, seen, x.new_zeros(()), False)
            # Windows that are alike have the same paths. Batches are filled up with such.
            both, place = torch.stack([target, counts]).unique(dim=1, return_inverse=True)
            paths = self._drawn(both[0], both[1] > 0, request)[place]
            return self.output(paths.permute(0, 3, 1, 2), location, scale)

    def _drawn(self, target: Tensor, counts: Tensor, request: PathRequest) -> Tensor:
        """Draw horizons (B, C, N, H), given sequences (B, C, T, K) and which entries count."""
        levels = _levels(request.n_samples, target)

        def drawn(part: _Part) -> Tensor:
            # An odd path more: products round the rows of whole tiles alike.
            n_paths = part.n_samples + part.n_samples % 2
            own = levels[part.samples]
            own = torch.cat([own, own[-1:].expand(n_paths - len(own), -1, -1)])
            here = target[part.windows, part.variates, None]
            energy = Energy(
                here,
                counts[part.windows, part.variates, None],
                own if request.guidance == "quantile" else None,
            )
            paths = guided_paths(
                self._say,
                self.signal,
                lambda: part.noise(n_paths, here),
                energy=None if request.guidance is None else energy,
                scale=request.scale,
                n_steps=request.n_steps,
            )
            return paths[:, :, : part.n_samples]

        return self._by_parts(drawn, target.shape[:2], request.n_samples, request.seed)

    def refine(
        self, context: Tensor, observed: Tensor | None, paths: Tensor, how: Refinement
    ) -> Tensor:
        """Refine paths (B, N, H, C) of windows (B, L, C); those of a step come in their order."""
        x, location, scale = self.revin(context, observed)
        seen = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        moved = ((paths - location[:, None]) / scale[:, None]).sort(dim=1).values
        n_samples = paths.shape[1]
        place = round(REFINED_AT * (len(self.signal) - 1))
        share, levels = float(self.signal[place]), _levels(n_samples, x)
        each = [self._with_horizon(x, seen, moved[:, path], True) for path in range(n_samples)]
        whole, counts = (torch.stack(part, dim=2) for part in zip(*each, strict=True))

        def better(part: _Part) -> Tensor:
            mine = whole[part.windows, part.variates, part.samples]
            return refined_paths(
                self._say,
                share,
                place,
                mine,
                lambda: part.noise(part.n_samples, mine),
                energy=Energy(
                    mine,
                    counts[part.windows, part.variates, part.samples],
                    levels[part.samples] if how.guidance == "quantile" else None,
                ),
                n_iterations=how.n_iterations,
                step_size=how.step_size,
                temperature=how.temperature,
            )

        refined = self._by_parts(better, whole.shape[:2], n_samples, how.seed)
        return refined.permute(0, 2, 3, 1) * scale[:, None] + location[:, None]

    def _with_horizon(
        self, x: Tensor, seen: Tensor, horizon: Tensor, horizon_counts: bool
    ) -> tuple[Tensor, Tensor]:
        """Let a horizon follow contexts (B, L, C): sequences and what counts, (B, C, T, K)."""
        after = horizon.expand(len(x), self.horizon, x.shape[2])
        counts = torch.full(after.shape, horizon_counts, device=x.device)
        return (
            self._channels(torch.cat([x, after], dim=1)),
            self._channels(torch.cat([seen, counts], dim=1)),
        )

    def _by_parts(
        self,
        function: Callable[["_Part"], Tensor],
        shape: Sequence[int],
        n_samples: int,
        seed: int,
    ) -> Tensor:
        """Put together the horizons of what a function returns of parts: (B, C, N, H).

        Which paths are drawn together follows from their number alone, each window is by itself,
        and the noise of a path is that of its number and its variate, so that it is the same in
        any company.
        """
        n_windows, n_variates = shape
        n_paths = min(max(TOKENS_AT_ONCE // self.length // 2 * 2, 2), n_samples)
        n_columns = max(TOKENS_AT_ONCE // (self.length * n_paths), 1)
        horizons = self.signal.new_empty(n_windows, n_variates, n_samples, self.horizon)
        for samples in _slices(n_samples, n_paths):
            for variates in _slices(n_variates, n_columns):
                for windows in _slices(n_windows, 1):
                    part = _Part(windows, variates, samples, seed)
                    horizon = function(part)[..., -self.horizon :, 0]
                    horizons[windows, variates, samples] = horizon
        return horizons

    def _say(self, sequences: Tensor, place: int) -> Tensor:
        """Say what noise is in sequences (B, C, N, T, K)."""
        rows = sequences.flatten(0, 2)
        said = self.said(rows, torch.full((len(rows),), place, device=rows.device))
        return said.view(sequences.shape)


class _Part:
    """Windows, variates and paths that are drawn at once, and their noise.

    Parameters
    ----------
    windows, variates, samples : slice
    seed : int
    """

    def __init__(self, windows: slice, variates: slice, samples: slice, seed: int) -> None:
        self.windows, self.variates, self.samples = windows, variates, samples
        self.n_samples = samples.stop - samples.start
        self.generators = [
            make_generator(_mixed(seed, variate, samples.start))
            for variate in range(variates.start, variates.stop)
        ]

    def noise(self, n_paths: int, like: Tensor) -> Tensor:
        """Draw normal numbers (B, C, n_paths, T, K), the same ones for all windows."""
        empty = like.new_empty(n_paths, *like.shape[-2:])
        drawn = [noise_like(empty, generator) for generator in self.generators]
        return torch.stack(drawn).expand(len(like), -1, -1, -1, -1)


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _slices(total: int, size: int) -> Iterator[slice]:
    for begin in range(0, total, size):
        yield slice(begin, min(begin + size, total))


def _levels(n_samples: int, like: Tensor) -> Tensor:
    """Return the level i / (n + 1) of each path, (N, 1, 1)."""
    levels = torch.arange(1, n_samples + 1, dtype=like.dtype, device=like.device)
    return levels[:, None, None] / (n_samples + 1)


def _cloned(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.clone()
