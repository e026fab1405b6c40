"""An encoder of patches that forecasts by mending the seasonal naive.

Dimension letters: B windows, L context steps, H horizon, P steps of a patch, T patches of the
context, U patches of the horizon, D width, Q quantiles.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.block import Block, Encoder
from tsar.core.linear import Linear
from tsar.core.mixers import make_mixer
from tsar.core.mlp import make_mlp
from tsar.core.norm import make_norm
from tsar.data.windows import Inputs
from tsar.forecasting.layers.cycle_features import (
    N_STATISTICS,
    N_WAYS,
    ScaledHistory,
    lagged,
    ways_on,
)
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import QuantileOutput

__all__ = ["LEVELS", "CyclePatchForecaster", "CyclePatchNetwork"]

# Steps that are forecast at once.
LONGEST_HORIZON = 192
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# Before the softplus, the distance of neighbouring quantiles that training begins with.
FIRST_WIDTH = -1.0
# Ways differ by many units: what counts them moves so much more slowly than the other weights.
SLOWER = 0.1


class CyclePatchNetwork(nn.Module):
    """Forecast quantiles of series of any calendar.

    A history is scaled by what the seasonal naive misses and cut into patches, which are the tokens
    of a transformer. The patches to forecast are tokens as well: each is told what simple
    forecasts (:func:`~tsar.forecasting.layers.cycle_features.ways_on`) say of its steps, and reads
    the history but no other one, so that a forecast does not depend on the horizon. Out come, for
    every step, by how much each of the simple forecasts counts, and quantiles about their sum.
    Before any training the median is the seasonal naive.

    Parameters
    ----------
    patch_length : int, default 16
    d_model, n_heads, d_ff, n_layers : int, default 96, 3, 192 and 4
        Width of a token, heads, hidden width of the gated map of a token, blocks.
    levels : sequence of float
        Of the quantiles, increasing, 0.5 in the middle.
    """

    def __init__(
        self,
        *,
        patch_length: int = 16,
        d_model: int = 96,
        n_heads: int = 3,
        d_ff: int = 192,
        n_layers: int = 4,
        levels: Sequence[float] = LEVELS,
    ) -> None:
        super().__init__()
        self.patch_length = patch_length
        self.output = QuantileOutput(levels)
        self.levels = self.output.levels
        self.embed_history = Linear(4 * patch_length + 4 + N_STATISTICS, d_model)
        self.embed_ahead = Linear(patch_length * (N_WAYS + 1) + 1 + N_STATISTICS, d_model)
        self.encoder = Encoder(
            [
                Block(
                    make_mixer("attention", d_model, n_heads=n_heads, rotary=True, bias=False),
                    make_mlp("swiglu", d_model, d_ff, bias=False),
                    d_model=d_model,
                    norm="rms",
                )
                for _ in range(n_layers)
            ],
            final_norm=make_norm("rms", d_model),
        )
        self.head = Linear(d_model, patch_length * (N_WAYS + len(self.levels)))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            widths = self.head.bias.view(patch_length, -1)[:, N_WAYS:]
            widths[:, [number for number, level in enumerate(levels) if level != 0.5]] = FIRST_WIDTH

    def forward(
        self, history: Tensor, observed: Tensor, cycles: tuple[int, int], horizon: int
    ) -> Tensor:
        """Forecast.

        Parameters
        ----------
        history : Tensor of shape (B, L)
            In any units.
        observed : bool Tensor of shape (B, L)
        cycles : pair of int
            Steps in the shorter and the longer cycle of the calendar, the same twice where there
            is one, and 1 where there is none.
        horizon : int
            H

        Returns
        -------
        Tensor of shape (B, H, Q)
            Quantiles in the units and the precision of the history.
        """
        scaled = ScaledHistory.of(history, observed, cycles[0])
        return scaled.restore(self.forecast_scaled(scaled, cycles, horizon))

    def forecast_scaled(
        self, history: ScaledHistory, cycles: tuple[int, int], horizon: int
    ) -> Tensor:
        """Forecast quantiles (B, H, Q) in the units of a scaled history."""
        n_ahead = -(-horizon // self.patch_length)
        simple = ways_on(history, cycles, n_ahead * self.patch_length)
        before, attended = self._history_tokens(history, simple.statistics, cycles)
        after = self._ahead_tokens(simple.naive, simple.ways, simple.statistics)
        n_before = before.shape[1]
        own = torch.eye(n_before + n_ahead, dtype=torch.bool, device=before.device)
        own[:, :n_before] = False
        mask = F.pad(attended, (0, n_ahead))[:, None] | own
        tokens = self.encoder(torch.cat([before, after], dim=1), mask=mask)
        numbers = self.head(tokens[:, n_before:]).unflatten(2, (self.patch_length, -1))
        weights, about = numbers.flatten(1, 2).split([N_WAYS, len(self.levels)], dim=2)
        middle = simple.naive + SLOWER * (weights * simple.ways).sum(2)
        return self.output(about[:, :, None], middle[:, :, None], 1.0)[:, :horizon, 0]

    def _history_tokens(
        self, history: ScaledHistory, statistics: Tensor, cycles: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T, D), and which of them hold an observation, (B, T)."""
        values, seen = history.values, history.seen
        parts = [values, seen]
        for cycle in cycles:
            earlier, both = lagged(values, seen, cycle)
            parts.append((values - earlier) * both)
        fill = -values.shape[1] % self.patch_length
        folded = F.pad(torch.stack(parts, dim=1), (fill, 0)).unflatten(2, (-1, self.patch_length))
        n_tokens = folded.shape[2]
        numbers = torch.asinh(folded.transpose(1, 2).flatten(2))  # (B, T, 4 P)
        begins = torch.arange(-n_tokens, 0, device=values.device) * self.patch_length
        angles = [2 * torch.pi * (begins % cycle) / cycle for cycle in cycles]
        phases = torch.stack([part for angle in angles for part in (angle.sin(), angle.cos())], 1)
        told = [
            numbers,
            phases.expand(len(values), -1, -1),
            statistics[:, None].expand(-1, n_tokens, -1),
        ]
        return self.embed_history(torch.cat(told, dim=2)), folded[:, 1].amax(2) > 0

    def _ahead_tokens(self, naive: Tensor, ways: Tensor, statistics: Tensor) -> Tensor:
        numbers = torch.asinh(torch.cat([naive[:, :, None], ways], dim=2))
        numbers = numbers.unflatten(1, (-1, self.patch_length)).flatten(2)
        n_tokens = numbers.shape[1]
        begins = torch.arange(n_tokens, device=naive.device) * self.patch_length
        told = [
            numbers,
            torch.log1p(begins.float())[None, :, None].expand(len(naive), -1, -1),
            statistics[:, None].expand(-1, n_tokens, -1),
        ]
        return self.embed_ahead(torch.cat(told, dim=2))


class CyclePatchForecaster(ForecastNetwork):
    """Forecast every variate of windows by one :class:`CyclePatchNetwork`.

    Parameters
    ----------
    patches : CyclePatchNetwork
    cycles : pair of int
        As the network takes them.
    horizon : int
        Beyond :data:`LONGEST_HORIZON` steps, medians are read as if they had been observed.
    """

    def __init__(self, patches: CyclePatchNetwork, cycles: tuple[int, int], horizon: int) -> None:
        super().__init__()
        self.patches = patches
        self.cycles = cycles
        self.horizon = horizon

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast quantiles (B, H, C, Q)."""
        n_windows, _, n_variates = inputs.target.shape
        history = inputs.target.transpose(1, 2).flatten(0, 1)  # (B C, L)
        observed = torch.ones_like(history, dtype=torch.bool)
        if inputs.observed is not None:
            observed = inputs.observed.transpose(1, 2).flatten(0, 1)
        parts: list[Tensor] = []
        for begin in range(0, self.horizon, LONGEST_HORIZON):
            n_steps = min(self.horizon - begin, LONGEST_HORIZON)
            parts.append(self.patches(history, observed, self.cycles, n_steps))
            steps = self.patches.output.point(parts[-1])
            history = torch.cat([history, steps], dim=1)[:, n_steps:]
            seen = torch.ones_like(steps, dtype=torch.bool)
            observed = torch.cat([observed, seen], dim=1)[:, n_steps:]
        forecast = torch.cat(parts, dim=1)
        return forecast.unflatten(0, (n_windows, n_variates)).transpose(1, 2)
