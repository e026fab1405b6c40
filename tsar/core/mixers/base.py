"""The protocol of token mixers."""

from typing import Any

from torch import Tensor, nn

__all__ = ["Mixer"]


class Mixer(nn.Module):
    """Mixes along the token axis: (B, L, D) to (B, L, D).

    A causal mixer also works one token at a time, and its ``step`` agrees with
    its ``forward``. A subclass gives ``forward``, or ``mix`` if it hands
    something from layer to layer.

    Attributes
    ----------
    causal : bool
        Whether a token depends on itself and earlier tokens only.
    """

    causal: bool = False

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Mix all tokens at once.

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        mask : bool Tensor, optional
            True where a token may be attended to: (B, L), (B, L, L) or
            broadcastable.

        Returns
        -------
        Tensor of shape (B, L, D)
        """
        return self.mix(x, mask=mask)[0]

    def mix(
        self, x: Tensor, *, mask: Tensor | None = None, carry: Any = None
    ) -> tuple[Tensor, Any]:
        """Mix, taking what the same mixer of the previous layer hands on.

        Returns
        -------
        y : Tensor of shape (B, L, D)
        carry : object
            For the next layer; None for mixers that hand nothing on.
        """
        return self(x, mask=mask), None

    def init_state(self, batch: int) -> Any:
        """Return the state before the first token of ``batch`` sequences."""
        raise NotImplementedError(f"{type(self).__name__} does not work step by step")

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix one more token (B, D), given the state after the tokens before it."""
        raise NotImplementedError(f"{type(self).__name__} does not work step by step")
