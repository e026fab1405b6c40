"""Forecasters with a decoder that begins with the end of the history."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from tsar.core.mixers import MIXERS, Mixer, check_heads
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.params.constraints import Interval, check_choice

__all__ = ["StartTokenForecaster"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


@dataclass(kw_only=True, eq=False, repr=False)
class StartTokenForecaster(NetworkForecaster):
    """A forecaster that encodes steps, and decodes the last of them and the horizon at once.

    The variates of a frame are read together: columns of a wide or MultiIndex frame, or the
    ``target`` columns of a long one.

    Future and static covariates are marks of a step beside the calendar, past ones are read with
    the history. The effect of future covariates at their own step is, besides, taken off the
    history and added to the forecast.

    Parameters
    ----------
    calendar_features : bool, default True
        Read the hour, weekday, day of the month and day of the year of every step.
    label_length : int or None, default None
        Steps of history that the decoder begins with; None takes half of the context.
    mixer : str
        What mixes the steps of the history, and those of the decoder, one of
        ``tsar.core.mixers.MIXERS``.
    d_model, n_heads, d_ff : int, default 512, 8 and 2048
        Width of a token, heads, width of the feed-forward parts.
    n_layers, n_decoder_layers : int, default 2 and 1
        Layers of the encoder and of the decoder.
    dropout : float, default 0.05
        After the embeddings, inside the feed-forward parts and on the branches.
    """

    calendar_features: bool = True
    label_length: Positive | None = None
    mixer: str = "attention"
    d_model: Positive = 512
    n_heads: Positive = 8
    d_ff: Positive = 2048
    n_layers: Positive = 2
    n_decoder_layers: Positive = 1
    dropout: Share = 0.05

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False
    # Whatever mixes the encoder, the decoder reads the history by this one.
    _reading_mixer: ClassVar[type[Mixer]]

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice(self.name, "mixer", self.mixer, MIXERS)
        context = self.context_length
        if self.label_length is not None and context is not None and self.label_length > context:
            raise ParameterError(
                f"{self.name}: label_length must be at most context_length="
                f"{self.context_length}, got {self.label_length}"
            )
        check_heads(self.name, self._reading_mixer, d_model=self.d_model, n_heads=self.n_heads)

    @property
    def _shortest_context(self) -> int:
        return self.label_length or 1

    def _covariates_beside(self, covariates: CovariateSpec) -> CovariateSpec:
        return CovariateSpec(future=covariates.future)

    def _network_options(self, spec: NetworkSpec) -> dict[str, Any]:
        """Return what every network of this kind is built with."""
        return {
            "context_length": spec.context_length,
            "horizon": spec.horizon,
            "n_variates": spec.n_variates,
            "output": spec.output,
            "covariates": spec.covariates,
            **{
                name: getattr(self, name)
                for name in (
                    *("label_length", "mixer", "d_model", "n_heads", "d_ff"),
                    *("n_layers", "n_decoder_layers", "dropout"),
                )
            },
        }
