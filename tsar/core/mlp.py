"""The feed-forward part of a block: every token by itself."""

from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.ops.feedforward import feedforward

__all__ = ["MLP"]


class MLP(nn.Module):
    """Two linear maps with a GELU and dropout between them.

    Parameters
    ----------
    d_model, d_ff : int
        Width of the tokens and of the hidden layer.
    dropout : float, default 0.0
        Of the hidden layer.
    bias : bool, default True
        Whether the maps have biases.
    """

    def __init__(self, d_model: int, d_ff: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.expand = Linear(d_model, d_ff, bias=bias)
        self.contract = Linear(d_ff, d_model, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., D) to tokens of the same shape."""
        return feedforward(
            x,
            self.expand.weight,
            self.expand.bias,
            self.contract.weight,
            self.contract.bias,
            dropout=self.dropout,
        )
