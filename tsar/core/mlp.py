"""The feed-forward part of a block: every token by itself, found by name."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.ops.feedforward import feedforward
from tsar.core.tracing import is_traced
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice

__all__ = ["MLP", "MLPS", "GatedMLP", "MixtureOfExperts", "balancing", "make_mlp"]


class MLP(nn.Module):
    """Two linear maps with a GELU and dropout between them.

    Parameters
    ----------
    d_model, d_ff : int
        Width of the tokens and of the hidden layer.
    dropout : float, default 0.0
        Of the hidden layer.
    bias : bool, default True
        Whether the maps have biases.
    """

    def __init__(self, d_model: int, d_ff: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.expand = Linear(d_model, d_ff, bias=bias)
        self.contract = Linear(d_ff, d_model, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., D) to tokens of the same shape."""
        return feedforward(
            x,
            self.expand.weight,
            self.expand.bias,
            self.contract.weight,
            self.contract.bias,
            dropout=self.dropout,
        )


class GatedMLP(nn.Module):
    """One linear map of the product of two, of which one goes through a SiLU.

    It has half as many weights again as :class:`MLP` of the same hidden width.

    Parameters
    ----------
    d_model, d_ff : int
        Width of the tokens and of the hidden layer.
    dropout : float, default 0.0
        Of the hidden layer.
    bias : bool, default True
        Whether the maps have biases.

    References
    ----------
    Shazeer, "GLU variants improve transformer", arXiv:2002.05202, eq. 6 (SwiGLU).
    """

    def __init__(self, d_model: int, d_ff: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.expand = Linear(d_model, 2 * d_ff, bias=bias)
        self.contract = Linear(d_ff, d_model, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., D) to tokens of the same shape."""
        gate, value = self.expand(x).chunk(2, dim=-1)
        return self.contract(self.dropout(F.silu(gate) * value))


class MixtureOfExperts(nn.Module):
    """Several maps, of which every token goes through a few.

    The experts with the largest scores are mixed by the softmax of those scores. Nothing keeps
    all tokens from going to the same ones but the loss that :func:`balancing` collects.

    Parameters
    ----------
    d_model, d_ff : int
        Width of the tokens and of the hidden layer of an expert.
    n_experts : int, default 4
    top_k : int, default 2
        Experts that a token goes through.
    dropout : float, default 0.0
        Of the hidden layers.
    bias : bool, default True
        Whether the maps of the experts have biases; the scores have none.

    Raises
    ------
    ParameterError
        If there are fewer experts than a token goes through.

    Attributes
    ----------
    losses : list of Tensor or None
        Where :func:`balancing` collects.

    References
    ----------
    Shazeer et al., "Outrageously large neural networks: the sparsely-gated mixture-of-experts
    layer", ICLR 2017; Fedus et al., "Switch transformers", JMLR 23, 2022, section 2.2.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        n_experts: int = 4,
        top_k: int = 2,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ParameterError(
                f"MixtureOfExperts: top_k must be between 1 and n_experts={n_experts}, got {top_k}"
            )
        self.top_k = top_k
        self.router = Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(
            MLP(d_model, d_ff, dropout=dropout, bias=bias) for _ in range(n_experts)
        )
        self.losses: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., D) to tokens of the same shape."""
        tokens = x.flatten(0, -2)
        scores = self.router(tokens)  # (tokens, experts)
        largest, chosen = scores.topk(self.top_k, dim=-1)
        weights = largest.softmax(dim=-1)
        if self.losses is not None:
            self.losses.append(_imbalance(scores.softmax(dim=-1), chosen))
        mixed = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            goes = chosen == index  # (tokens, top_k)
            if is_traced():  # how many tokens an expert gets cannot be written down
                mixed = mixed + expert(tokens) * (weights * goes).sum(1, keepdim=True)
                continue
            rows, rank = goes.nonzero(as_tuple=True)
            output = expert(tokens[rows]) * weights[rows, rank, None]
            mixed = mixed.index_add(0, rows, output.to(mixed.dtype))
        return mixed.view_as(x)


def _imbalance(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """Eq. 4 of Fedus et al. without its factor: 1 where all experts have equally much to do."""
    n_experts = probabilities.shape[1]
    share = F.one_hot(chosen, n_experts).to(probabilities.dtype).mean(dim=(0, 1))
    return n_experts * (share * probabilities.mean(dim=0)).sum()


@contextlib.contextmanager
def balancing(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect how unevenly tokens go to experts, for every pass inside of a ``with`` block.

    An objective adds a small multiple of the sum to its loss, 0.01 in the paper.

    Parameters
    ----------
    network : nn.Module

    Yields
    ------
    list of Tensor
        A number with a gradient for each pass through each :class:`MixtureOfExperts`, in the
        order of the passes: the number of experts times the sum over them of the share of tokens
        and the mean probability. It is 1 where both are even.
    """
    mixtures = [part for part in network.modules() if isinstance(part, MixtureOfExperts)]
    losses: list[Tensor] = []
    for mixture in mixtures:
        mixture.losses = losses
    try:
        yield losses
    finally:
        for mixture in mixtures:
            mixture.losses = None


MLPS: dict[str, type[nn.Module]] = {
    "gelu": MLP,
    "swiglu": GatedMLP,
    "experts": MixtureOfExperts,
}


def make_mlp(name: str, d_model: int, d_ff: int, **options: Any) -> nn.Module:
    """Build the feed-forward part of that name, one of :data:`MLPS`.

    Parameters
    ----------
    name : {"gelu", "swiglu", "experts"}
    d_model, d_ff : int
        Width of the tokens and of the hidden layer.
    **options
        Passed on.

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    check_choice("make_mlp", "mlp", name, MLPS)
    return MLPS[name](d_model, d_ff, **options)
