"""The feed-forward part of a block: every token by itself, found by name."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.ops.feedforward import feedforward
from tsar.core.tracing import is_traced
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice

__all__ = [
    "MLP",
    "MLPS",
    "GatedMLP",
    "MixtureOfExperts",
    "Route",
    "imbalance",
    "make_mlp",
    "recorded_routes",
]


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


class Route(NamedTuple):
    """Where the tokens of one pass went.

    Parameters
    ----------
    probabilities : Tensor of shape (tokens, experts)
        Softmax of the scores, with gradient.
    chosen : int64 Tensor of shape (tokens, top_k)
        The experts that each token went through, the one with the largest score first.
    """

    probabilities: Tensor
    chosen: Tensor


class MixtureOfExperts(nn.Module):
    """Several maps, of which every token goes through a few.

    Those with the largest scores are mixed by the softmax of the scores. Nothing keeps all tokens
    from going to the same ones but a loss: :func:`imbalance` of what :func:`recorded_routes` holds.

    Parameters
    ----------
    d_model, d_ff : int
        Width of the tokens and of the hidden layer of an expert.
    n_experts : int, default 4
    top_k : int, default 2
        Experts that a token goes through.
    d_shared : int, optional
        Hidden width of one more expert that every token goes through, times the sigmoid of a score
        of its own; None for none.
    expert : {"gelu", "swiglu"}, default "gelu"
        What an expert is: an :class:`MLP` or a :class:`GatedMLP`.
    softmax_over : {"chosen", "all"}, default "chosen"
        Scores of which experts the softmax is taken of. Over all of them, the weights of those
        that are chosen add up to less than 1.
    dropout : float, default 0.0
        Of the hidden layers.
    bias : bool, default True
        Whether the maps of the experts have biases; the scores have none.

    Raises
    ------
    ParameterError
        If there are fewer experts than a token goes through, or no such kind of them.

    Attributes
    ----------
    routes : list of Route or None
        Where :func:`recorded_routes` collects.

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
        d_shared: int | None = None,
        expert: str = "gelu",
        softmax_over: Literal["chosen", "all"] = "chosen",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ParameterError(
                f"MixtureOfExperts: top_k must be between 1 and n_experts={n_experts}, got {top_k}"
            )
        check_choice("MixtureOfExperts", "expert", expert, _EXPERTS)
        check_choice("MixtureOfExperts", "softmax_over", softmax_over, ("chosen", "all"))
        kind = _EXPERTS[expert]
        self.top_k = top_k
        self.softmax_over = softmax_over
        self.router = Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(
            kind(d_model, d_ff, dropout=dropout, bias=bias) for _ in range(n_experts)
        )
        self.shared: nn.Module | None = None
        if d_shared is not None:
            self.shared = kind(d_model, d_shared, dropout=dropout, bias=bias)
            self.shared_gate = Linear(d_model, 1, bias=False)
        self.routes: list[Route] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., D) to tokens of the same shape."""
        tokens = x.flatten(0, -2)
        scores = self.router(tokens)  # (tokens, experts)
        probabilities = scores.softmax(dim=-1)
        largest, chosen = scores.topk(self.top_k, dim=-1)
        of_all = self.softmax_over == "all"
        weights = probabilities.gather(-1, chosen) if of_all else largest.softmax(dim=-1)
        if self.routes is not None:
            self.routes.append(Route(probabilities, chosen))
        mixed = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            goes = chosen == index  # (tokens, top_k)
            if is_traced():  # how many tokens an expert gets cannot be written down
                mixed = mixed + expert(tokens) * (weights * goes).sum(1, keepdim=True)
                continue
            rows, rank = goes.nonzero(as_tuple=True)
            output = expert(tokens[rows]) * weights[rows, rank, None]
            mixed = mixed.index_add(0, rows, output.to(mixed.dtype))
        if self.shared is not None:
            mixed = mixed + self.shared_gate(tokens).sigmoid() * self.shared(tokens)
        return mixed.view_as(x)


def imbalance(routes: Sequence[Route], weight: Tensor | None = None) -> Tensor:
    """Return how unevenly tokens went to experts, eq. 4 of Fedus et al. without its factor.

    It is the number of experts times the sum over them of the share of tokens and the mean
    probability, both over the tokens of all passes together: 1 where they are even.

    Parameters
    ----------
    routes : sequence of Route
        Of as many tokens each, to one number of experts.
    weight : Tensor of shape (tokens,), optional
        How much each token of a pass counts; all alike by default.

    Returns
    -------
    Tensor of shape ()
        With a gradient. An objective adds a small multiple of it to its loss, 0.01 in the paper.
    """
    probabilities = torch.cat([route.probabilities for route in routes])
    n_experts = probabilities.shape[1]
    went = torch.cat([F.one_hot(route.chosen, n_experts) for route in routes])
    shares = went.to(probabilities.dtype).mean(dim=1)  # (passes * tokens, experts)
    if weight is None:
        return n_experts * (shares.mean(dim=0) * probabilities.mean(dim=0)).sum()
    weight = weight.to(probabilities.dtype).repeat(len(routes))
    weight = weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    return n_experts * ((weight @ shares) * (weight @ probabilities)).sum()


@contextlib.contextmanager
def recorded_routes(network: nn.Module) -> Iterator[list[Route]]:
    """Collect where tokens go, for every pass inside of a ``with`` block.

    Parameters
    ----------
    network : nn.Module

    Yields
    ------
    list of Route
        One for each pass through each :class:`MixtureOfExperts`, in the order of the passes.
    """
    mixtures = [part for part in network.modules() if isinstance(part, MixtureOfExperts)]
    routes: list[Route] = []
    for mixture in mixtures:
        mixture.routes = routes
    try:
        yield routes
    finally:
        for mixture in mixtures:
            mixture.routes = None


# What an expert may be.
_EXPERTS: dict[str, type[MLP] | type[GatedMLP]] = {"gelu": MLP, "swiglu": GatedMLP}

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
