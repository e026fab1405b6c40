"""Which drafted tokens may stay: rules that leave the distribution of the text as it is."""

import torch
from torch import Tensor

from tsar.core.sampling import draw

__all__ = ["residual", "verify", "verify_candidates"]


def residual(target: Tensor, proposed: Tensor) -> Tensor:
    """Return what is drawn from after a refusal: ``max(p - q, 0)``, divided by its sum.

    Parameters
    ----------
    target, proposed : float64 Tensor of shape (V,)
        p and q.
    """
    left = (target - proposed).clamp(min=0)
    return left / left.sum()


def verify(
    target: Tensor,
    drafted: list[int],
    proposed: Tensor | None,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Keep the first of the drafted tokens, and draw the one after them.

    A token x is kept with probability ``min(1, p(x) / q(x))``. In place of the first that is not,
    one is drawn from the :func:`residual`; if all are kept, one more from p. So every token is
    distributed as p says, whatever q is.

    Parameters
    ----------
    target : float64 Tensor of shape (k + 1, V)
        p, what tokens are to be drawn with, after each of the k drafted ones and before them.
    drafted : list of k int
    proposed : float64 Tensor of shape (k, V), optional
        q, what each was drawn with; None where each was certain.
    generator : torch.Generator, optional

    Returns
    -------
    list of int
        Between one and k + 1 tokens.

    References
    ----------
    Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding", ICML
    2023, algorithm 1.
    """
    places = torch.arange(len(drafted))
    ahead = target[places, drafted]
    odds = (ahead if proposed is None else ahead / proposed[places, drafted]).tolist()
    chances = torch.rand(len(drafted), generator=generator, dtype=torch.float64).tolist()
    for place, token in enumerate(drafted):
        if chances[place] >= odds[place]:
            certain = _shares_of(token, target[place], proposed, place)
            return [*drafted[:place], int(draw(residual(target[place], certain), generator))]
    return [*drafted, int(draw(target[-1], generator))]


def verify_candidates(
    target: Tensor,
    drafted: list[list[int]],
    proposed: Tensor | None,
    generator: torch.Generator | None = None,
) -> tuple[int, list[int]]:
    """Keep the first tokens of one of several drafts, and draw the one after them.

    At each place the drafts that agree with the text so far are candidates, drawn independently of
    each other. In turn one of them is kept with probability ``min(1, p(x) / (rho q(x)))``, where
    ``rho`` is such that the kept tokens are just ``min(rho q, p)``; after the last refusal one is
    drawn from what is left of p. With a single draft that is :func:`verify`.

    Parameters
    ----------
    target : float64 Tensor of shape (K, k + 1, V)
        p after the tokens of each draft, and before them.
    drafted : list of K lists of k int
    proposed : float64 Tensor of shape (K, k, V), optional
        q, what each was drawn with; None where each was certain. It is the same wherever drafts
        agree in what is before.
    generator : torch.Generator, optional

    Returns
    -------
    draft : int
        One that begins with all of the tokens but the last.
    tokens : list of int
        Between one and k + 1.

    References
    ----------
    Sun et al., "SpecTr: fast speculative decoding via optimal transport", NeurIPS 2023, section 4
    and algorithm 2 (k-SEQ).
    """
    alive, tokens = list(range(len(drafted))), list[int]()
    for place in range(len(drafted[0])):
        first = alive[0]
        p = target[first, place]
        q = _shares_of(
            drafted[first][place], p, None if proposed is None else proposed[first], place
        )
        rho = _balance(p, q, len(alive))
        accepted = None
        for draft in alive:
            token = drafted[draft][place]
            chance = float(torch.rand((), generator=generator, dtype=torch.float64))
            if chance < float(p[token] / (rho * q[token])):
                accepted = token
                break
        if accepted is None:
            left = (p - rho * q).clamp(min=0)
            return first, [*tokens, int(draw(left / left.sum(), generator))]
        tokens.append(accepted)
        alive = [draft for draft in alive if drafted[draft][place] == accepted]
    return alive[0], [*tokens, int(draw(target[alive[0], -1], generator))]


def _shares_of(token: int, like: Tensor, proposed: Tensor | None, place: int) -> Tensor:
    if proposed is not None:
        return proposed[place]
    certain = torch.zeros_like(like)
    certain[token] = 1.0
    return certain


def _balance(p: Tensor, q: Tensor, n_candidates: int) -> float:
    """Return rho: with it as much is kept in ``n_candidates`` turns as ``min(rho q, p)`` has.

    One candidate is kept with probability ``beta = sum of min(q, p / rho)``, so that it is the
    root of ``1 - (1 - beta) ** n = rho beta``, between 1 and n.
    """
    low, high = 1.0, float(n_candidates)
    if n_candidates == 1:
        return 1.0
    for _ in range(60):
        rho = (low + high) / 2
        beta = float(torch.minimum(q, p / rho).sum())
        if 1 - (1 - beta) ** n_candidates > rho * beta:
            low = rho
        else:
            high = rho
    return high
