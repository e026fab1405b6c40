"""Attention by a Gaussian kernel in place of a softmax, through a few landmarks."""

import torch
from torch import Tensor

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.ops.stretches import stretch_means
from tsar.core.position import Rotary
from tsar.exceptions import ParameterError

__all__ = ["LandmarkAttention", "newton_inverse"]

# Of landmarks that lie together the kernel has no inverse.
_RIDGE = 0.01


def newton_inverse(matrix: Tensor, n_steps: int = 25) -> Tensor:
    """Return the inverse of symmetric positive matrices (..., m, m), by products only.

    The gradient is that of the inverse, whatever steps led to it: the last of them alone is
    differentiated, at which the inverse is a fixed point.

    References
    ----------
    Lu et al., "SOFT: softmax-free transformer with linear complexity", NeurIPS 2021, algorithm 2;
    Ben-Israel and Cohen, "On iterative computation of generalized inverses and associated
    projections", SIAM Journal on Numerical Analysis 3, 1966.
    """
    with torch.no_grad():
        norm = matrix.abs().sum(dim=-1).amax(dim=-1)[..., None, None]
        inverse = 2 * matrix / norm.square()
        for _ in range(n_steps):
            inverse = 2 * inverse - inverse @ matrix @ inverse
    return 2 * inverse - inverse @ matrix @ inverse


class LandmarkAttention(Mixer):
    """``K(x, l) (K(l, l) + r)^-1 K(l, x) v`` with ``K(a, b) = exp(-|a - b|^2 / (2 sqrt(E)))``.

    Queries are the keys, and ``r = .01`` keeps the inverse within what products reach. The
    landmarks are means of the keys over equal stretches of tokens, or they themselves where there
    are no more than landmarks, which makes it ``K(x, x) v``.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    n_landmarks : int, default 32
    rotary : bool, default False
        Whether keys are turned by their positions.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or there is no landmark.

    References
    ----------
    Lu et al., "SOFT: softmax-free transformer with linear complexity", NeurIPS 2021, section 3.
    """

    formula = "K(x, l) K(l, l)^-1 K(l, x) v, K Gaussian, l means of tokens"
    cost = "L m D + m^3"

    def __init__(
        self, d_model: int, n_heads: int, *, n_landmarks: int = 32, rotary: bool = False
    ) -> None:
        super().__init__()
        width = head_width("LandmarkAttention", d_model, n_heads)
        if n_landmarks < 1:
            raise ParameterError(
                f"LandmarkAttention: n_landmarks must be at least 1, got {n_landmarks}"
            )
        self.n_heads = n_heads
        self.n_landmarks = n_landmarks
        self.scale = 0.5 * width**-0.5
        self.key_value = Linear(d_model, 2 * d_model)
        self.rotary = Rotary(width) if rotary else None
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        key, value = split_heads(self.key_value(x), self.n_heads, 2)  # (B, N, L, E)
        if self.rotary is not None:
            key = self.rotary(key, range(x.shape[1]))
        mean, there = stretch_means(x, self.n_landmarks, mask)
        # An inverse by products of half the digits is none.
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            weights = (mean if mask is None else mean[:, None]).to(wide)
            mixed = self._mixed(key.to(wide), value.to(wide), weights, there, mask)
        return self.output(join_heads(mixed).to(x.dtype))

    def _mixed(
        self, key: Tensor, value: Tensor, mean: Tensor, there: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Mix values (B, N, L, E) through means of the keys, with weights (..., m, L)."""
        landmarks = mean @ key
        across, within = self._kernel(key, landmarks), self._kernel(landmarks, landmarks)
        if mean.shape[-2] == key.shape[2]:
            # Every token is a landmark, and the inverse cancels.
            return (across if mask is None else across * mask[:, None, None]) @ value
        itself = torch.eye(within.shape[-1], dtype=within.dtype, device=within.device)
        if mask is not None:
            across = across * (mask[:, None, :, None] & there[:, None, None])
            # A landmark of nothing stands by itself.
            pairs = there[:, None, :, None] & there[:, None, None]
            within = torch.where(pairs, within, itself)
        return across @ (newton_inverse(within + _RIDGE * itself) @ (across.mT @ value))

    def _kernel(self, one: Tensor, other: Tensor) -> Tensor:
        squares = one.square().sum(dim=-1)[..., None] + other.square().sum(dim=-1)[..., None, :]
        return (-self.scale * (squares - 2 * one @ other.mT).clamp_min(0)).exp()
