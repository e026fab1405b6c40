"""DLinear: one linear map of the trend and one of the remainder."""

from torch import Tensor, nn

from tsar.core.decomposition import SeriesDecomposition
from tsar.data.windows import Inputs

__all__ = ["DLinearNetwork"]


class DLinearNetwork(nn.Module):
    """Split the history into trend and remainder, map each linearly, add both.

    All variates share the two maps.

    Parameters
    ----------
    context_length, horizon : int
    output : nn.Module
        Has ``n_outputs`` and maps (raw, location, scale) to the forecast; see
        :mod:`tsar.core.output`.
    kernel : int, default 25
        Odd width of the moving average that is the trend.

    References
    ----------
    Zeng et al., "Are transformers effective for time series forecasting?",
    AAAI 2023, section 4.
    """

    def __init__(
        self, *, context_length: int, horizon: int, output: nn.Module, kernel: int = 25
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.decomposition = SeriesDecomposition(kernel)
        self.remainder = nn.Linear(context_length, horizon * output.n_outputs)
        self.trend = nn.Linear(context_length, horizon * output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        batch, _, n_variates = inputs.target.shape
        remainder, trend = self.decomposition(inputs.target)
        raw = self.remainder(remainder.transpose(1, 2)) + self.trend(trend.transpose(1, 2))
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, 0.0, 1.0)
