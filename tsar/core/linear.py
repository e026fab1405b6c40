"""A linear map of the last axis."""

from torch import Tensor, nn

from tsar.core.ops.even_products import linear

__all__ = ["Linear"]


class Linear(nn.Linear):
    """A linear map whose forecasts do not depend on what else is in the batch.

    It has the parameters of :class:`torch.nn.Linear` and trains as fast; see
    :mod:`tsar.core.ops.even_products`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_inputs) to (..., n_outputs)."""
        return linear(x, self.weight, self.bias)
