"""The masked loop: reveal some of the masked tokens in every pass, until all are."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tsar.core.sampling import Sampler, uniform
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice

__all__ = ["ORDERS", "cosine_counts", "even_counts", "unmask", "unmask_vectors"]

ORDERS = ("random", "confidence")


@torch.no_grad()
def unmask(
    network: Callable[[Tensor], Tensor],
    ids: Tensor,
    *,
    mask_token: int,
    sampler: Sampler,
    generator: torch.Generator | None = None,
    reveal: int | Sequence[int] = 1,
    order: str = "random",
    threshold: float | None = None,
) -> Iterator[Tensor]:
    """Draw the masked tokens, some in every pass.

    One in a random place per pass is an exact draw from a network that was trained on random
    masks (the first-hitting sampler: it goes from one change of the reverse process to the next).
    Tokens of one pass are drawn as if they were independent, so several are faster and less exact.

    Parameters
    ----------
    network : callable
        Takes tokens (B, L) and returns logits (B, L, V).
    ids : int64 Tensor of shape (B, L)
        Tokens other than the mask stay as they are.
    mask_token : int
        It is never drawn.
    sampler : Sampler
    generator : torch.Generator, optional
    reveal : int or sequence of int, default 1
        How many tokens of every row are revealed in each pass, or in one pass after the other;
        see :func:`cosine_counts`.
    order : {"random", "confidence"}, default "random"
        Which ones: any, or those that were drawn with the largest probability, temperature and
        filters left aside.
    threshold : float, optional
        Of the confident ones, all whose probability is above this are revealed as well.

    Yields
    ------
    int64 Tensor of shape (B, L)
        The tokens after each pass.

    Raises
    ------
    ParameterError
        If ``reveal`` leaves tokens masked, there is no such order, or a threshold for a random
        one.

    References
    ----------
    Zheng et al., "Masked diffusion models are secretly time-agnostic masked models and exploit
    inaccurate categorical sampling", ICLR 2025, section 4; Chang et al., "MaskGIT: masked
    generative image transformer", CVPR 2022, section 3.2.
    """
    check_choice("unmask", "order", order, ORDERS)
    if threshold is not None and order != "confidence":
        raise ParameterError("unmask: threshold is about confidence; pass order='confidence'")
    n_masked = int((ids == mask_token).sum(dim=1).max()) if ids.numel() else 0
    for n_tokens in _counts(reveal, n_masked):
        masked = ids == mask_token
        if not masked.any():
            return
        logits = network(ids)
        if mask_token < logits.shape[-1]:
            logits = logits.index_fill(-1, torch.tensor(mask_token, device=ids.device), -torch.inf)
        ids = ids.clone()
        if order == "random":
            keys = uniform(ids.shape, generator, ids.device)
            chosen = _largest(keys, masked, n_tokens)
            ids[chosen] = sampler.draw(logits[chosen], generator)
        else:
            drawn = sampler.draw(logits[masked], generator)
            plain = Sampler().probabilities(logits[masked])
            confidence = torch.zeros(ids.shape, dtype=plain.dtype, device=ids.device)
            confidence[masked] = plain.gather(1, drawn[:, None])[:, 0]
            chosen = _largest(confidence, masked, n_tokens)
            if threshold is not None:
                chosen |= masked & (confidence > threshold)
            ids[chosen] = drawn[chosen[masked]]
        yield ids


@torch.no_grad()
def unmask_vectors(
    network: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    masked: Tensor,
    draw: Callable[[Tensor, int], Tensor],
    *,
    generator: torch.Generator | None = None,
    reveal: Sequence[int],
) -> Iterator[Tensor]:
    """Draw masked vectors in a random order, some in every pass.

    Parameters
    ----------
    network : callable
        Takes vectors (B, L, E) and which of them are masked, (B, L), and returns features (G, B, L,
        D): of one kind, or with the condition and without.
    x : Tensor of shape (B, L, E)
        What is not masked stays as it is.
    masked : bool Tensor of shape (B, L)
    draw : callable
        Takes features (G, N, D) and how many vectors of a row are drawn so far, and returns N
        vectors.
    generator : torch.Generator, optional
    reveal : sequence of int
        How many vectors of every row are drawn in one pass after the other; see
        :func:`cosine_counts`.

    Yields
    ------
    Tensor of shape (B, L, E)
        The vectors after each pass.

    Raises
    ------
    ParameterError
        If ``reveal`` leaves vectors masked.

    References
    ----------
    Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024,
    section 3.4.
    """
    n_masked = int(masked.sum(dim=1).max()) if masked.numel() else 0
    n_drawn = 0
    for n_vectors in _counts(reveal, n_masked):
        if not masked.any():
            return
        features = network(x, masked)
        keys = uniform(masked.shape, generator, x.device)
        chosen = _largest(keys, masked, n_vectors)
        x = x.clone()
        x[chosen] = draw(features[:, chosen], n_drawn).to(x.dtype)
        masked, n_drawn = masked & ~chosen, n_drawn + n_vectors
        yield x


def _counts(reveal: int | Sequence[int], n_masked: int) -> Sequence[int]:
    counts = [reveal] * n_masked if isinstance(reveal, int) else list(reveal)
    if any(n_tokens < 1 for n_tokens in counts):
        raise ParameterError(f"unmask: reveal must be at least 1 in every pass, got {reveal}")
    if sum(counts) < n_masked:
        raise ParameterError(
            f"unmask: reveal must be as many as there are masked tokens in all, {n_masked}, got "
            f"{sum(counts)}"
        )
    return counts


def _largest(keys: Tensor, masked: Tensor, n_tokens: int) -> Tensor:
    """Mark the masked tokens with the largest keys, so many in each row (B, L)."""
    order = keys.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return masked & (rank < n_tokens)


def even_counts(n_tokens: int, n_passes: int) -> list[int]:
    """Return how many of the tokens to reveal in each pass, as evenly as can be."""
    n_passes = min(n_passes, n_tokens)
    return [n_tokens * (k + 1) // n_passes - n_tokens * k // n_passes for k in range(n_passes)]


def cosine_counts(n_tokens: int, n_passes: int) -> list[int]:
    """Return how many of the tokens to reveal in each pass: few at first, many at the end.

    After pass i of I, ``floor(n_tokens cos(pi/2 i/I))`` are still masked; one fewer than before
    at least, and none after the last. There are no passes without anything to reveal.

    References
    ----------
    Chang et al., "MaskGIT: masked generative image transformer", CVPR 2022, section 3.3.
    """
    counts, left = [], n_tokens
    for k in range(1, n_passes + 1):
        if left == 0:
            break
        stay = 0 if k == n_passes else math.floor(n_tokens * math.cos(math.pi / 2 * k / n_passes))
        stay = min(stay, left - 1)
        counts.append(left - stay)
        left = stay
    return counts
