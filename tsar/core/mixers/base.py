"""The protocol of token mixers."""

from typing import Any

import torch
from torch import Tensor, nn

from tsar.exceptions import ParameterError

__all__ = ["CarryingMixer", "Mixer", "RecurrentMixer", "check_token_mask", "refuse_memory"]


class Mixer(nn.Module):
    """Mixes along the token axis: (B, L, D) to (B, L, D).

    A causal mixer also reads a sequence piece by piece: ``extend`` over any cutting of it gives
    what ``forward`` gives for the whole. A subclass gives ``forward``, and ``init_state`` and
    ``extend`` if it can.

    Attributes
    ----------
    causal : bool
        Whether a token depends on itself and earlier tokens only.
    no_decay : tuple of str
        Names of parameters, as ``named_parameters`` of this module has them, that weight decay
        leaves alone; see :func:`tsar.core.decay.no_decay_names` for those that need not be named.
    takes_levels : bool
        Whether ``forward`` takes ``positions`` and ``extend`` takes ``levels``, see
        :class:`~tsar.core.mixers.SoftmaxAttention`. A mixer that does not goes through the tokens
        of a level in their order.
    knows_order : bool
        Whether a mixer that sees all tokens can tell in which order they are, by itself or by
        turning them by their positions.
    formula, cost : str
        What becomes of token ``t``, and how the time of a pass grows with the length L and the
        width D, in a line each, for tables of mixers.
    """

    causal: bool = False
    no_decay: tuple[str, ...] = ()
    takes_levels: bool = False
    knows_order: bool = True
    formula: str = ""
    cost: str = ""

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix all tokens at once.

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        mask : bool Tensor, optional
            True where a token may be attended to: (B, L), (B, L, L) or
            broadcastable; of the tokens of the memory where there is one.
        memory : Tensor of shape (B, M, D), optional
            Other tokens to read from, in place of ``x`` itself.

        Returns
        -------
        Tensor of shape (B, L, D)

        Raises
        ------
        ParameterError
            If there is a memory and the mixer reads none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def init_state(self, batch: int) -> Any:
        """Return the state before the first token of ``batch`` sequences."""
        raise NotImplementedError(f"{type(self).__name__} does not work piece by piece")

    def extend(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix more tokens, given the state after those before them.

        There is no mask: tokens that are not there are left out. What a causal mixer gives for
        a sequence is what its ``forward`` gives with padding masked behind it.

        Parameters
        ----------
        x : Tensor of shape (B, T, D)
        state : nested tuples
            From ``init_state``, or of the piece before. It stays as it is, and may be extended
            again.

        Returns
        -------
        y : Tensor of shape (B, T, D)
        state : nested tuples
            After the last of these tokens.
        """
        raise NotImplementedError(f"{type(self).__name__} does not work piece by piece")

    def extend_each(self, x: Tensor, state: Any) -> tuple[Tensor, tuple[Any, ...]]:
        """Mix more tokens, and return the state after each of them.

        Whoever is not sure of the tokens extends by all of them at once and goes on from the
        state after the last that was right; see :func:`tsar.core.state.rewind`.

        Parameters
        ----------
        x : Tensor of shape (B, T, D)
        state : nested tuples
            As in :meth:`extend`.

        Returns
        -------
        y : Tensor of shape (B, T, D)
        states : tuple of T states
        """
        outputs, states = [x[:, :0]], []
        for x_t in x.split(1, dim=1):
            if x_t.shape[1]:  # no tokens are split into one piece of none
                y_t, state = self.extend(x_t, state)
                outputs.append(y_t)
                states.append(state)
        return torch.cat(outputs, dim=1), tuple(states)

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix one more token (B, D): ``extend`` by a single one."""
        y, state = self.extend(x_t[:, None], state)
        return y[:, 0], state


class CarryingMixer(Mixer):
    """A mixer that hands something to the mixer of the next layer.

    Only :class:`~tsar.core.block.Encoder` knows of this; to all others it is a mixer.
    """

    def mix(
        self,
        x: Tensor,
        carry: Any,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Mix, given what the layer before has handed on.

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        carry : object
            None in the first layer.
        mask : bool Tensor, optional
            As in :meth:`Mixer.forward`.

        Returns
        -------
        y : Tensor of shape (B, L, D)
        carry : object
            For the next layer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mix")


class RecurrentMixer(Mixer):
    """A mixer that goes through the tokens in their order, with a state of fixed size.

    A subclass gives ``init_state`` and ``scan``.
    """

    causal = True

    def scan(self, x: Tensor, mask: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """Mix tokens, given the state before them.

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        mask : bool Tensor of shape (B, L), optional
            A token that is masked adds nothing to the state.
        state : nested tuples or None
            None before the first token.

        Returns
        -------
        y : Tensor of shape (B, L, D)
        state : nested tuples
            After the last token.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scan")

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
        return self.without_state(x, mask)

    def without_state(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Mix tokens (B, L, D) as :meth:`scan` does, for whom the state after them is nothing."""
        return self.scan(x, mask, None)[0]

    def extend(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix more tokens (B, T, D)."""
        return self.scan(x, None, state) if x.shape[1] else (x, state)


def refuse_memory(mixer: Mixer, memory: Tensor | None) -> None:
    """Raise an error if there is a memory, for a mixer that reads none.

    Raises
    ------
    ParameterError
        If there is one.
    """
    if memory is not None:
        raise ParameterError(
            f"{type(mixer).__name__}: cannot read a memory, only its own tokens; use "
            f"SoftmaxAttention or AutoCorrelation"
        )


def check_token_mask(mixer: Mixer, mask: Tensor | None, x: Tensor) -> None:
    """Raise an error unless a mask says of each token whether it is there, and no more.

    Parameters
    ----------
    mixer : Mixer
        One that cannot hide a token from some of the others only.
    mask : bool Tensor or None
    x : Tensor of shape (B, L, D)

    Raises
    ------
    ParameterError
        If it has another shape than (B, L).
    """
    if mask is not None and mask.shape != x.shape[:2]:
        raise ParameterError(
            f"{type(mixer).__name__}: mask must have the shape {tuple(x.shape[:2])}, one entry per "
            f"token, got {tuple(mask.shape)}; a token cannot be hidden from some of the others "
            f"only, which SoftmaxAttention can do"
        )
