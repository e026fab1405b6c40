"""Single steps of series as tokens of a causal decoder with several horizons, as in Time-MoE.

Dimension letters: B windows, L context steps, H horizon, C variates, N series (B * C), D width of
a token, Q outputs per step.
"""

from collections.abc import Collection, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.block import Block, Encoder
from tsar.core.linear import Linear
from tsar.core.mixers import Mixer, SoftmaxAttention, check_causal
from tsar.core.mlp import MixtureOfExperts, imbalance, recorded_routes
from tsar.core.norm import RMSNorm
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.training.objective import Terms

__all__ = ["PointEmbedding", "TimeMoENetwork"]

# Of normalisations and of first weights, in the authors' code.
EPS = 1e-6
INITIAL_DEVIATION = 0.02


class PointEmbedding(nn.Module):
    """Two linear maps of one number, of which one goes through a SiLU, multiplied.

    Parameters
    ----------
    d_model : int
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.gate = Linear(1, d_model, bias=False)
        self.value = Linear(1, d_model, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """Map numbers (N, L) to tokens (N, L, D)."""
        numbers = values.unsqueeze(-1)
        return F.silu(self.gate(numbers)) * self.value(numbers)


class TimeMoENetwork(ForecastNetwork):
    """Steps as tokens of a causal decoder of experts, with a head for each of several horizons.

    Every variate is a series of its own. A window is normalised as a whole (RevIN) and each of its
    steps is a token. A block mixes tokens and lets each go through some experts and one that all
    share. From each token, each head forecasts as many steps as it is long. A forecast takes the
    longest head that is not too long, appends its steps, and goes on from there.

    A step that was not observed is hidden from the others. Training compares all heads at all
    tokens; a step after the end of the window counts nowhere, where the authors count it as 0.
    All maps but those of the embedding begin as theirs do.

    Parameters
    ----------
    horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    mixers : sequence of Mixer
        One per block, each of them causal.
    horizon_lengths : sequence of int
        Steps of each head, increasing from 1.
    d_model, d_ff : int
        Width of a token and of the expert that all share; the others have ``d_ff // top_k``.
    n_experts, top_k : int
        How many there are beside it, and through how many of them a token goes.
    balance_weight : float
        Of the imbalance of experts in training, which is ``top_k`` where they are even.

    References
    ----------
    Shi et al., "Time-MoE: billion-scale time series foundation models with mixture of experts",
    ICLR 2025.
    """

    def __init__(
        self,
        *,
        horizon: int,
        output: Output,
        mixers: Sequence[Mixer],
        horizon_lengths: Sequence[int],
        d_model: int,
        d_ff: int,
        n_experts: int,
        top_k: int,
        balance_weight: float,
    ) -> None:
        super().__init__()
        check_causal("TimeMoENetwork", mixers)
        self.horizon = horizon
        self.horizon_lengths = tuple(horizon_lengths)
        self.balance_weight, self.top_k = balance_weight, top_k
        self.revin = RevIN()
        self.embedding = PointEmbedding(d_model)
        norm = partial(RMSNorm, eps=EPS)
        experts = partial(
            MixtureOfExperts,
            *(d_model, d_ff // top_k),
            n_experts=n_experts,
            top_k=top_k,
            d_shared=d_ff,
            expert="swiglu",
            softmax_over="all",
            bias=False,
        )
        block = partial(Block, d_model=d_model, norm=norm)
        self.encoder = Encoder([block(mixer, experts()) for mixer in mixers], norm(d_model))
        self.heads = nn.ModuleList(
            Linear(d_model, length * output.n_outputs, bias=False) for length in horizon_lengths
        )
        self.output = output
        # The product of two narrow maps is almost the same for a number and its negative, in which
        # small models stay for long: the embedding begins as torch has it. So do other mixers,
        # which depend on how their parameters begin.
        but = [mixer for mixer in mixers if not isinstance(mixer, SoftmaxAttention)]
        self._initialise({part for own in (self.embedding, *but) for part in own.modules()})

    def _initialise(self, but: Collection[nn.Module]) -> None:
        """Draw linear maps from the narrow normal curve of the authors."""
        for part in self.modules():
            if isinstance(part, nn.Linear) and part not in but:
                nn.init.normal_(part.weight, std=INITIAL_DEVIATION)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        x, location, scale = self.revin(inputs.target, inputs.observed)
        raw = self._roll(_series(x), location, scale, self._mask(inputs.observed))
        return self.output(raw, location, scale)

    def _roll(self, values: Tensor, location: Tensor, scale: Tensor, mask: Tensor | None) -> Tensor:
        """Forecast head by head: normalised series (N, L) to raw outputs (B, H, C, Q)."""
        state = self.encoder.init_state(len(values))
        new, parts, left = values, [], self.horizon
        while left:
            if mask is None:
                hidden, state = self.encoder.extend(self.embedding(new), state)
            else:  # a state does not say which of its tokens are hidden
                hidden = self.encoder(self.embedding(values), mask=mask)
            place = self._head(left)
            length = self.horizon_lengths[place]
            raw = self.heads[place](hidden[:, -1]).view(len(location), -1, length, self._n_outputs)
            parts.append(raw.transpose(1, 2))  # (B, length, C, Q)
            point = self.output.point(self.output(parts[-1], location, scale))
            new = _series((point - location) / scale)
            if mask is not None:
                values = torch.cat([values, new], dim=1)
                mask = F.pad(mask, (0, length), value=True)
            left -= length
        return torch.cat(parts, dim=1)

    @property
    def _n_outputs(self) -> int:
        return self.output.n_outputs

    def _head(self, n_steps: int) -> int:
        """Return the place of the longest head of at most so many steps."""
        return max(p for p, length in enumerate(self.horizon_lengths) if length <= n_steps)

    def _mask(self, observed: Tensor | None) -> Tensor | None:
        """Say which tokens may be read: (B, L, C) to (N, L); None for all."""
        if observed is None:
            return None
        seen = _series(observed)
        # A series without any observation is read as it is, to have something to look at.
        return seen | ~seen.any(dim=-1, keepdim=True)

    def compare(self, batch: Batch) -> Compared:
        """Return the forecasts of all heads from all steps of a window, and what came instead.

        Returns
        -------
        Compared
            Of L times the sum of all horizon lengths steps: those of the first head from the
            first step on, then those of the next head. Each head has the same weight in all. The
            term ``balance`` is the imbalance of the experts.
        """
        inputs = batch.inputs
        x, location, scale = self.revin(inputs.target, inputs.observed)
        with recorded_routes(self.encoder) as routes:
            hidden = self.encoder(self.embedding(_series(x)), mask=self._mask(inputs.observed))
        raw = [self._unfolded(head(hidden), len(x)) for head in self.heads]
        target = torch.cat([inputs.target, batch.target], dim=1)
        weight = self._weight(batch)
        shift = None if batch.shift is None else self._ahead(torch.cat(batch.shift, dim=1))
        read = _series(weight[:, : x.shape[1]]).flatten()
        terms: Terms = {}
        if routes:
            balance = self.balance_weight * self.top_k * imbalance(routes, read)
            terms["balance"] = balance, torch.ones_like(balance)
        return Compared(
            self.output(torch.cat(raw, dim=1), location, scale),
            self._ahead(target),
            self._ahead(weight, even=True),
            batch.scale,
            shift,
            terms,
        )

    def _unfolded(self, raw: Tensor, batch: int) -> Tensor:
        """Lay what a head says at every token in a row: (N, L, h * Q) to (B, L * h, C, Q)."""
        by_step = raw.view(
            batch, -1, raw.shape[1], raw.shape[2] // self._n_outputs, self._n_outputs
        )
        return by_step.permute(0, 2, 3, 1, 4).flatten(1, 2)

    def _ahead(self, values: Tensor, *, even: bool = False) -> Tensor:
        """Return the steps after each step of the context, for head after head, 0 after the end.

        (B, L + H, C) to (B, K, C). With ``even``, those of each head add up to L where each is 1.
        """
        n_tokens = values.shape[1] - self.horizon
        parts = []
        for length in self.horizon_lengths:
            padded = F.pad(values[:, 1:], (0, 0, 0, max(length - self.horizon, 0)))
            steps = padded.unfold(1, length, 1)[:, :n_tokens]  # (B, L, C, length)
            if even:
                last = range(values.shape[1] - n_tokens, values.shape[1])
                steps = steps * (n_tokens / sum(min(length, rest) for rest in last))
            parts.append(steps.transpose(2, 3).flatten(1, 2))
        return torch.cat(parts, dim=1)

    def _weight(self, batch: Batch) -> Tensor:
        """Return how much each step of whole windows counts, (B, L + H, C)."""
        inputs = batch.inputs
        before, later = (
            torch.ones_like(values) if seen is None else seen.to(values.dtype).expand_as(values)
            for values, seen in ((inputs.target, inputs.observed), (batch.target, batch.observed))
        )
        if batch.weight is not None:
            before = before * batch.weight[:, : before.shape[1]]
        return torch.cat([before, later], dim=1)


def _series(windows: Tensor) -> Tensor:
    """Take windows (B, L, C) apart into series (B * C, L)."""
    return windows.transpose(1, 2).flatten(0, 1)
