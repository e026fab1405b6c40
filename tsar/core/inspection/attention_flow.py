"""How much of each input token reaches a token after several layers of attention.

Letters: B batch, N heads, L tokens.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from tsar.exceptions import ParameterError

__all__ = ["attention_flow", "attention_rollout"]

# Half of a block's output is what it was given: the residual.
_RESIDUAL = 0.5


def attention_rollout(weights: Sequence[Tensor]) -> Tensor:
    """Multiply the attention of all layers, each mixed evenly with the residual beside it.

    Parameters
    ----------
    weights : sequence of Tensor of shape (B, N, L, L)
        Of each layer, the first one first, as :func:`~tsar.core.inspection.recorded` gives them.

    Returns
    -------
    Tensor of shape (B, L, L)
        In row t, the shares of the input tokens in token t of the last layer, which sum to 1.

    Raises
    ------
    ParameterError
        There is no layer, or their shapes differ.

    References
    ----------
    Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020, section 3.
    """
    layers = _with_residual("attention_rollout", weights)
    rolled = layers[0]
    for layer in layers[1:]:
        rolled = layer @ rolled
    return rolled


def attention_flow(weights: Sequence[Tensor], token: int = -1) -> Tensor:
    """Return how much can flow from a token of the last layer to each token of the input.

    The layers are a network of pipes as wide as the attention weights, each mixed evenly with the
    residual beside it; the answer is the maximum flow. Unlike a rollout it does not assume that
    what one token takes is spread evenly. It takes a search for every pair: use it on short
    sequences.

    Parameters
    ----------
    weights : sequence of Tensor of shape (B, N, L, L)
        Of each layer, the first one first.
    token : int, default -1
        Which token of the last layer.

    Returns
    -------
    float64 Tensor of shape (B, L)

    Raises
    ------
    ParameterError
        There is no layer, or their shapes differ.

    References
    ----------
    Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020, section 3.
    """
    layers = [layer.double() for layer in _with_residual("attention_flow", weights)]
    batch, length, _ = layers[0].shape
    top = range(length)[token]
    flows = [
        [_maximum_flow([layer[row] for layer in layers], top, source) for source in range(length)]
        for row in range(batch)
    ]
    return torch.tensor(flows, dtype=torch.float64)


def _with_residual(owner: str, weights: Sequence[Tensor]) -> list[Tensor]:
    if not len(weights) or any(layer.shape != weights[0].shape for layer in weights):
        raise ParameterError(
            f"{owner}: weights must be one tensor (B, N, L, L) for each layer, all of one shape, "
            f"got {[tuple(layer.shape) for layer in weights]}"
        )
    length = weights[0].shape[-1]
    itself = torch.eye(length, dtype=weights[0].dtype, device=weights[0].device)
    return [(1 - _RESIDUAL) * layer.mean(dim=1) + _RESIDUAL * itself for layer in weights]


def _maximum_flow(layers: list[Tensor], top: int, bottom: int) -> float:
    """Fill the shortest way that is still open until there is none (Edmonds and Karp).

    Node ``layer * L + token``; the last layer is the source's.
    """
    length, n_layers = len(layers[0]), len(layers)
    room: list[dict[int, float]] = [{} for _ in range((n_layers + 1) * length)]
    for number, layer in enumerate(layers):
        for upper, row in enumerate(layer.tolist()):
            for lower, width in enumerate(row):
                if width > 0:
                    above, below = (number + 1) * length + upper, number * length + lower
                    room[above][below] = width
                    room[below].setdefault(above, 0.0)
    source, total = n_layers * length + top, 0.0
    while True:
        came_from = {source: source}
        waiting = deque([source])
        while waiting and bottom not in came_from:
            here = waiting.popleft()
            for there, width in room[here].items():
                if width > 1e-12 and there not in came_from:
                    came_from[there] = here
                    waiting.append(there)
        if bottom not in came_from:
            return total
        way = [bottom]
        while way[-1] != source:
            way.append(came_from[way[-1]])
        steps = list(zip(way[1:], way, strict=False))
        amount = min(room[here][there] for here, there in steps)
        for here, there in steps:
            room[here][there] -= amount
            room[there][here] += amount
        total += amount
