"""NLinear: one linear map of the history, relative to its last value."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tsar.core.linear import Linear
from tsar.data.windows import Inputs
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output

__all__ = ["NLinear", "NLinearNetwork"]


class NLinearNetwork(ForecastNetwork):
    """Subtract the last value, map linearly, add it back.

    All variates share the map. The last value is the last observed one where
    the end of a window is missing.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.

    References
    ----------
    Zeng et al., "Are transformers effective for time series forecasting?",
    AAAI 2023, section 4.
    """

    def __init__(self, *, context_length: int, horizon: int, output: Output) -> None:
        super().__init__()
        self.horizon = horizon
        self.linear = Linear(context_length, horizon * output.n_outputs)
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


@dataclass(kw_only=True, eq=False, repr=False)
class NLinear(NetworkForecaster):
    """NLinear: a linear map of the history relative to its last value.

    One map is shared by all variates and series. It is the model to beat: on the
    published long-horizon tables few transformers do so by much.

    References
    ----------
    Zeng et al., "Are transformers effective for time series forecasting?", AAAI 2023,
    section 4.

    Examples
    --------
    >>> import tsar
    >>> co2 = tsar.load_dataset("co2")
    >>> model = tsar.NLinear(context_length=104, horizon=26, max_epochs=2, random_state=0)
    >>> model.fit(co2).predict(horizon=3).shape
    (3, 1)
    """

    _untuned_rate: ClassVar[float] = 1e-2

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return NLinearNetwork(
            context_length=spec.context_length, horizon=spec.horizon, output=spec.output
        )
