"""Random masks over tokens, and what a masked network says of the likelihood."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.sampling import uniform

__all__ = [
    "masked_losses",
    "random_block_masks",
    "random_masks",
    "stratified",
    "uniform_counts",
]


def stratified(n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw numbers in [0, 1), one from each n-th of it: even by itself, and evener together.

    Returns
    -------
    float64 Tensor of shape (n,)

    References
    ----------
    Kingma et al., "Variational diffusion models", NeurIPS 2021, appendix I.1.
    """
    first = uniform(torch.Size([1]), generator, device)
    return (first + torch.arange(n, device=device) / n) % 1


def uniform_counts(
    n: int, n_tokens: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Draw how many tokens to mask, from 1 to all of them, int64 of shape (n,)."""
    return (stratified(n, generator, device) * n_tokens).long().clamp(max=n_tokens - 1) + 1


def random_masks(counts: Tensor, n_tokens: int, generator: torch.Generator | None) -> Tensor:
    """Draw masks (B, L) of so many tokens (B,) each, every set of them as likely as another."""
    keys = uniform(torch.Size([len(counts), n_tokens]), generator, counts.device)
    return keys.argsort(dim=1).argsort(dim=1) < counts[:, None]


def random_block_masks(
    maskable: Tensor, block_size: int, n: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw masks block by block: any number of tokens of each, and every set of so many alike.

    Parameters
    ----------
    maskable : bool Tensor of shape (L,)
        Which tokens may be masked.
    block_size : int
        The last block may be shorter.
    n : int
        How many masks.
    generator : torch.Generator, optional

    Returns
    -------
    masks : bool Tensor of shape (n, L)
    weights : float64 Tensor of shape (n, L)
        Of the losses of masked tokens: how many of the block may be masked, for each that is. The
        weighted sum is on average the loss of drawing a block one by one in a random order.
    """
    length, device = len(maskable), maskable.device
    short = -length % block_size
    by_block = F.pad(maskable, (0, short)).unflatten(0, (-1, block_size))  # (K, P)
    sizes = by_block.sum(dim=1)
    shares = uniform(torch.Size([n, len(sizes)]), generator, device)
    counts = (shares * sizes).long().clamp(max=sizes - 1) + 1  # 0 where there are none
    keys = uniform(torch.Size([n, *by_block.shape]), generator, device).masked_fill(~by_block, 2.0)
    masks = (keys.argsort(dim=2).argsort(dim=2) < counts[..., None]) & by_block
    weights = (sizes.double() / counts.clamp_min(1))[..., None].expand_as(masks)
    return masks.flatten(1)[:, :length], weights.flatten(1)[:, :length]


def masked_losses(
    network: Callable[[Tensor], Tensor], ids: Tensor, masks: Tensor, mask_token: int
) -> Tensor:
    """Return minus the log-probability of every masked token given those that are not.

    With ``l`` of ``L`` tokens masked, ``l`` uniform from 1 to L and the set of them uniform,
    ``L / l`` times the sum of a row is on average the loss of drawing the tokens one by one in an
    order that is drawn, too: no less than minus the log-likelihood of the row.

    Parameters
    ----------
    network : callable
        Takes tokens (B, L) and returns logits (B, L, V).
    ids : int64 Tensor of shape (B, L)
    masks : bool Tensor of shape (B, L)
        True where a token is masked.
    mask_token : int

    Returns
    -------
    Tensor of shape (B, L)
        In nats; 0 where nothing is masked.

    References
    ----------
    Hoogeboom et al., "Autoregressive diffusion models", ICLR 2022, equations 3 to 5; Sahoo et
    al., "Simple and effective masked diffusion language models", NeurIPS 2024, section 3.
    """
    logits = network(ids.masked_fill(masks, mask_token))
    losses = F.cross_entropy(logits[masks], ids[masks], reduction="none")
    return losses.new_zeros(ids.shape).masked_scatter(masks, losses)
