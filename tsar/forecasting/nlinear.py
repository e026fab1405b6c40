"""NLinear: one linear map of the history, relative to its last value."""

from torch import Tensor, nn

from tsar.data.windows import Inputs

__all__ = ["NLinearNetwork"]


class NLinearNetwork(nn.Module):
    """Subtract the last value, map linearly, add it back.

    All variates share the map. The last value is the last observed one where
    the end of a window is missing.

    Parameters
    ----------
    context_length, horizon : int
    output : nn.Module
        Has ``n_outputs`` and maps (raw, location, scale) to the forecast; see
        :mod:`tsar.core.output`.

    References
    ----------
    Zeng et al., "Are transformers effective for time series forecasting?",
    AAAI 2023, section 4.
    """

    def __init__(self, *, context_length: int, horizon: int, output: nn.Module) -> None:
        super().__init__()
        self.horizon = horizon
        self.linear = nn.Linear(context_length, horizon * output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        batch, _, n_variates = inputs.target.shape
        last = inputs.target[:, -1:]  # (B, 1, C)
        relative = inputs.target - last
        if inputs.observed is not None:
            # Steps before the series began are level with its last value, not far below it.
            relative = relative * inputs.observed.cummax(dim=1).values
        raw = self.linear(relative.transpose(1, 2))  # (B, C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, last, 1.0)
