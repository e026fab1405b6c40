"""The residual block and the stack of blocks: the only place where residuals are added."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.mixers.base import Mixer
from tsar.core.norm import make_norm

__all__ = ["Block", "Encoder"]


class Block(nn.Module):
    """A mixer along tokens, then a map of every token, each with a residual.

    Before the branch (``pre_norm``)::

        x = x + drop(mix(norm(x)))
        x = x + drop(mlp(norm(x)))

    after the sum (post-norm)::

        x = norm(x + drop(mix(x)))
        x = norm(x + drop(mlp(x)))

    Parameters
    ----------
    mixer : Mixer
    mlp : nn.Module
        Maps (B, L, D) to (B, L, D).
    d_model : int
    norm : {"layer", "batch", "rms"} or function, default "layer"
        A function builds the module from ``d_model``.
    pre_norm : bool, default True
    dropout : float, default 0.0
        Of both branches.
    mixer_dropout : float, optional
        Of the mixer's branch, where it differs.
    """

    def __init__(
        self,
        mixer: Mixer,
        mlp: nn.Module,
        *,
        d_model: int,
        norm: str | Callable[[int], nn.Module] = "layer",
        pre_norm: bool = True,
        dropout: float = 0.0,
        mixer_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.mixer = mixer
        self.mixer_norm = _norm(norm, d_model)
        self.mixer_dropout = Dropout(dropout if mixer_dropout is None else mixer_dropout)
        self.mlp = mlp
        self.mlp_norm = _norm(norm, d_model)
        self.mlp_dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, carry: Any = None
    ) -> tuple[Tensor, Any]:
        """Return the tokens (B, L, D) and what the mixer hands to the next block."""
        if self.pre_norm:
            mixed, carry = self.mixer.mix(self.mixer_norm(x), mask=mask, carry=carry)
            x = self.mixer_dropout.add(x, mixed)
            return self.mlp_dropout.add(x, self.mlp(self.mlp_norm(x))), carry
        mixed, carry = self.mixer.mix(x, mask=mask, carry=carry)
        x = self.mixer_norm(self.mixer_dropout.add(x, mixed))
        return self.mlp_norm(self.mlp_dropout.add(x, self.mlp(x))), carry


def _norm(norm: str | Callable[[int], nn.Module], d_model: int) -> nn.Module:
    return make_norm(norm, d_model) if isinstance(norm, str) else norm(d_model)


class Encoder(nn.Module):
    """Blocks one after the other; what a mixer hands on goes to the next block.

    Parameters
    ----------
    blocks : iterable of Block
    final_norm : nn.Module, optional
        Applied to the tokens at the end; pre-norm stacks need one.
    """

    def __init__(self, blocks: Iterable[Block], final_norm: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = final_norm

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Encode tokens (B, L, D); ``mask`` as in :class:`~tsar.core.mixers.Mixer`."""
        carry = None
        for block in self.blocks:
            x, carry = block(x, mask=mask, carry=carry)
        return x if self.final_norm is None else self.final_norm(x)
