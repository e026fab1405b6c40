"""Two causal mixers that read a sequence from both ends."""

from torch import Tensor

from tsar.core.mixers.base import Mixer, refuse_memory
from tsar.exceptions import ParameterError

__all__ = ["Bidirectional"]


class Bidirectional(Mixer):
    """The sum of one mixer over the tokens as they are and of another over them reversed.

    Parameters
    ----------
    ahead, back : Mixer
        Causal mixers with parameters of their own; the second reads from the
        end, and what it gives is put back in order.

    Raises
    ------
    ParameterError
        If one of them is not causal.

    References
    ----------
    Wang et al., "Is Mamba effective for time series forecasting?",
    arXiv:2403.11144, section 3.3.
    """

    def __init__(self, ahead: Mixer, back: Mixer) -> None:
        super().__init__()
        for mixer in (ahead, back):
            if not mixer.causal:
                raise ParameterError(
                    f"Bidirectional: {type(mixer).__name__} sees all tokens by itself; "
                    f"pass causal mixers"
                )
        self.ahead = ahead
        self.back = back

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D) in both directions; ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If there is a memory.
        """
        refuse_memory(self, memory)
        reversed_mask = None if mask is None else mask.flip(1)
        return self.ahead(x, mask=mask) + self.back(x.flip(1), mask=reversed_mask).flip(1)
