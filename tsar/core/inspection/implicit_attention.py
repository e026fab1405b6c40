"""The matrix by which a recurrence mixes its tokens, as if it were attention.

Letters: B batch, N heads, L tokens, E channels.
"""

from functools import singledispatch

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.mixers import LinearAttention, Mamba, Mixer
from tsar.core.ops.causal_conv import causal_conv
from tsar.exceptions import ParameterError

__all__ = ["implicit_attention"]


@singledispatch
def implicit_attention(mixer: Mixer, x: Tensor) -> Tensor:
    """Return the matrix from the values of all tokens to what the mixer reads of them.

    Parameters
    ----------
    mixer : Mamba or LinearAttention
    x : Tensor of shape (B, L, D)
        The tokens that the mixer is given; of those its matrix is made.

    Returns
    -------
    Tensor of shape (B, E, L, L) or (B, N, L, L)
        For each channel of a state space, or for each head: lower triangular, row t being what
        token t takes of each. Those of a state space may be negative, and hold the way around it;
        those of linear attention sum to 1.

    Raises
    ------
    ParameterError
        The mixer has no such matrix here.

    References
    ----------
    Ali, Zimerman and Wolf, "The hidden attention of Mamba models", arXiv:2403.01590, eqs. 10 to
    12; Katharopoulos et al., "Transformers are RNNs", ICML 2020, eq. 4.
    """
    raise ParameterError(
        f"implicit_attention: there is no matrix of a {type(mixer).__name__}; use Mamba or "
        f"LinearAttention, or recorded(network, 'attention') where there is a softmax"
    )


@implicit_attention.register
def _(mixer: Mamba, x: Tensor) -> Tensor:
    value, _ = mixer.input(x).chunk(2, dim=-1)
    value = F.silu(causal_conv(value, mixer.conv_weight, mixer.conv_bias)[0])
    step, b, c = mixer.select(value).split(mixer.sizes, dim=-1)
    step = F.softplus(mixer.step_size(step))  # (B, L, E)
    since = step.cumsum(dim=1).transpose(1, 2)  # (B, E, L)
    apart = since[..., :, None] - since[..., None, :]
    length = x.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    matrix = x.new_zeros(apart.shape)
    for state, rates in enumerate((-mixer.log_decay.exp()).unbind(1)):  # (E,) each
        # Masked before the exponential, which would overflow above the diagonal.
        left = (apart * rates[:, None, None]).masked_fill(~lower, -torch.inf).exp()
        matrix = matrix + left * (c[:, :, state, None] * b[:, None, :, state])[:, None]
    matrix = matrix * step.transpose(1, 2)[:, :, None]
    return matrix + torch.diag_embed(mixer.skip[:, None].expand(-1, length))


@implicit_attention.register
def _(mixer: LinearAttention, x: Tensor) -> Tensor:
    heads = mixer.query_key_value(x).unflatten(2, (3, mixer.n_heads, -1))
    query, key, _ = (part.transpose(1, 2) for part in heads.unbind(2))
    scores = ((F.elu(query) + 1) @ (F.elu(key) + 1).mT).tril()
    return scores / scores.sum(dim=-1, keepdim=True)
