"""Split series into a moving average and what is left."""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SeriesDecomposition", "moving_average"]


def moving_average(x: Tensor, kernel: int) -> Tensor:
    """Centred moving average along time, both ends padded with the edge value.

    Parameters
    ----------
    x : Tensor of shape (B, L, C)
    kernel : int
        Odd number of steps to average.

    Returns
    -------
    Tensor of shape (B, L, C)
    """
    half = (kernel - 1) // 2
    padded = F.pad(x.transpose(1, 2), (half, half), mode="replicate")  # (B, C, L + kernel - 1)
    return F.avg_pool1d(padded, kernel, stride=1).transpose(1, 2)


class SeriesDecomposition(nn.Module):
    """Trend (moving average) and remainder of a series.

    Parameters
    ----------
    kernel : int, default 25
        Odd width of the moving average.

    References
    ----------
    Wu et al., "Autoformer", NeurIPS 2021, eq. 1; Zeng et al., "Are
    transformers effective for time series forecasting?", AAAI 2023.
    """

    def __init__(self, kernel: int = 25) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (remainder, trend) of a tensor (B, L, C); they sum to it."""
        trend = moving_average(x, self.kernel)
        return x - trend, trend
