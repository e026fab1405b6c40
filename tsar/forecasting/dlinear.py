"""DLinear: one linear map of the trend and one of the remainder."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from tsar.core.linear import Linear
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.decomposition import WIDEST, SeriesDecomposition
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval

__all__ = ["DLinear", "DLinearNetwork"]


class DLinearNetwork(ForecastNetwork):
    """Split the history into trend and remainder, map each linearly, add both.

    All variates share the two maps.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    kernel : int, default 25
        Odd width of the moving average that is the trend.

    References
    ----------
    Zeng et al., "Are transformers effective for time series forecasting?",
    AAAI 2023, section 4.
    """

    def __init__(
        self, *, context_length: int, horizon: int, output: Output, kernel: int = 25
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.decomposition = SeriesDecomposition(kernel)
        self.remainder = Linear(context_length, horizon * output.n_outputs)
        self.trend = Linear(context_length, horizon * output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        batch, _, n_variates = inputs.target.shape
        remainder, trend = self.decomposition(inputs.target)
        raw = self.remainder(remainder.transpose(1, 2)) + self.trend(trend.transpose(1, 2))
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, 0.0, 1.0)


@dataclass(kw_only=True, eq=False, repr=False)
class DLinear(NetworkForecaster):
    """DLinear: a linear map of the trend and one of the remainder, added up.

    Both maps are shared by all variates and series.

    Parameters
    ----------
    kernel : int, default 25
        Odd width of the moving average that is the trend.

    References
    ----------
    Zeng et al., "Are transformers effective for time series forecasting?", AAAI 2023,
    section 4.

    Examples
    --------
    >>> import tsar
    >>> co2 = tsar.load_dataset("co2")
    >>> model = tsar.DLinear(context_length=104, horizon=26, max_epochs=2, random_state=0)
    >>> model.fit(co2).predict(horizon=3).shape
    (3, 1)
    """

    kernel: Annotated[int, Interval(1, WIDEST)] = 25

    _untuned_rate: ClassVar[float] = 1e-2

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.kernel % 2 == 0:
            raise ParameterError(
                f"DLinear: kernel must be odd so that the average is centred, got {self.kernel}; "
                f"take {self.kernel + 1}"
            )

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return DLinearNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            kernel=self.kernel,
        )
