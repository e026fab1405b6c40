"""TSDiff: a diffusion over windows that learns no forecast, and is guided to one by the history."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.mixers import MIXERS, check_heads
from tsar.core.random import set_generator
from tsar.data.forecasts import sample_frame
from tsar.data.libraries import as_pandas
from tsar.data.matching import in_order
from tsar.data.panel import Panel
from tsar.data.windows import Inputs
from tsar.estimator.trained import TrainedEstimator
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.fitted.rolling import sample_paths
from tsar.forecasting.layers.window_diffusion import (
    Guidance,
    PathInputs,
    PathRequest,
    Refinement,
    TSDiffNetwork,
)
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.losses import Loss, MSELoss, SampleLoss
from tsar.forecasting.outputs.objective import compare
from tsar.forecasting.outputs.predictive import Predictive, SampleForecasts, series_generator
from tsar.forecasting.window_forecaster import SeriesWindows
from tsar.params.arguments import Frame
from tsar.params.constraints import Interval, check_choice
from tsar.training.objective import Objective, Terms

__all__ = ["TSDiff"]

Positive = Annotated[int, Interval(1)]
GUIDANCES = ("quantile", "squared")
# Steps of the diffusion that a forecast goes through where none are named.
SAMPLING_STEPS = 20


class NoiseObjective(Objective):
    """Let what a network says of the noise in windows have a small squared error."""

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        """Return the error of what is said; all noise is from the generator."""
        set_generator(network, generator)
        said, noise, weight, *_ = compare(network, batch)
        return {"loss": MSELoss().total(said, noise, weight)}


@dataclass(kw_only=True, eq=False, repr=False)
class TSDiff(NetworkForecaster):
    """TSDiff: a diffusion over whole windows, guided by the history when it forecasts.

    The network never learns to forecast: it learns what windows look like. A forecast draws windows
    whose context is pulled to what was observed, so that missing values need no care, and its
    paths have steps that belong together. A path takes ``n_sampling_steps`` passes, as many
    again with gradients, and one way back: seconds of the default for each series and
    variate, where other networks take milliseconds. :meth:`refine` makes the samples of
    another forecaster likelier instead. Each variate is a series of its own.

    Forecasts are the quantiles of ``n_samples`` paths, the point forecast their median; there is no
    ``loss`` to choose. Windows that are forecast together have the same noise.

    Parameters
    ----------
    lags : sequence of int, default ()
        Beside each value, the network reads those so many steps before, below
        ``context_length``. The authors have twelve multiples of the horizon.
    d_model, n_layers : int, default 64 and 3
        Width of a step, layers.
    d_state : int, default 128
        Numbers that a state space remembers per feature.
    dropout : float, default 0.0
        Of what a layer adds.
    n_steps : int, default 100
        Of the diffusion; the noise of a step grows from 1e-4 to 0.1, more where there are fewer.
    mixer : str, default "structured_state_space"
        What mixes steps, from both ends; one of ``tsar.core.mixers.MIXERS``. It is a diagonal
        state space for each direction, in place of the authors' bidirectional S4.
    n_heads : int, default 4
        Heads of a mixer that has some.
    guidance : {"quantile", "squared"} or None, default "quantile"
        What pulls to the history: the pinball error, of the i-th of n paths at the level
        i / (n + 1), the squared error, or nothing, for windows of any kind on the level of the
        context. The squared error pulls the more the further off.
    guidance_scale : float, default 8.0
        How much, in variances of a step; the authors have from 1 to 8 of the quantile. No step goes
        beyond where the error would be 0 if it fell on as it begins to fall.
    n_samples : int, default 32
        Paths of a forecast.
    n_sampling_steps : int or None, default None
        How many of the steps of the diffusion a forecast goes through, evenly spread, at most
        ``n_steps``: its time is in proportion. None takes 20, or all of fewer.

    References
    ----------
    Kollovieh et al., "Predict, refine, synthesize: self-guiding diffusion models for probabilistic
    time series forecasting", NeurIPS 2023. Windows are normalised by mean and deviation here, by
    the mean of absolute values there.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.TSDiff(
    ...     context_length=24, horizon=6, d_model=8, n_steps=5, n_samples=4, max_epochs=2,
    ...     random_state=0,
    ... )
    >>> model.fit(sea).predict(horizon=3, quantiles=[0.1, 0.9]).shape
    (3, 3)
    """

    lags: Sequence[Positive] = ()
    d_model: Positive = 64
    n_layers: Positive = 3
    d_state: Annotated[int, Interval(2)] = 128
    dropout: Annotated[float, Interval(0, 1, open_high=True)] = 0.0
    n_steps: Annotated[int, Interval(2)] = 100
    mixer: str = "structured_state_space"
    n_heads: Positive = 4
    guidance: Literal["quantile", "squared"] | None = "quantile"
    guidance_scale: Annotated[float, Interval(0)] = 8.0
    n_samples: Positive = 32
    n_sampling_steps: Positive | None = None

    _in_one_pass: ClassVar[bool] = False

    # No parameters here: noise has one loss, and forecasts are paths.
    loss: ClassVar[str] = "samples"  # type: ignore[misc]
    quantiles: ClassVar[None] = None  # type: ignore[misc]
    references: ClassVar[frozenset[str]] = TrainedEstimator.references

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice("TSDiff", "mixer", self.mixer, MIXERS)
        check_heads("TSDiff", self.mixer, d_model=self.d_model, n_heads=self.n_heads)
        context = self.context_length
        if self.lags and context is not None and max(self.lags) >= context:
            raise ParameterError(
                f"TSDiff: lags must be below context_length={self.context_length}, got "
                f"{max(self.lags)}; leave it out, or raise context_length"
            )
        if self.n_sampling_steps is not None and self.n_sampling_steps > self.n_steps:
            raise ParameterError(
                f"TSDiff: n_sampling_steps must be at most n_steps={self.n_steps}, got "
                f"{self.n_sampling_steps}; lower it, or raise n_steps before fit"
            )

    @property
    def _shortest_context(self) -> int:
        return 1 + max(self.lags or (0,))

    def resolve_loss(self) -> Loss:
        return SampleLoss(self.n_samples)

    def _objective(self, loss: Loss) -> Objective:
        return NoiseObjective()

    @property
    def lets_gradients_through(self) -> bool:
        # Paths are drawn, each from noise.
        return False

    @property
    def expected_predictive(self) -> Predictive:
        return SampleForecasts()

    @property
    def predictive(self) -> Predictive:
        return SampleForecasts()

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        names = ("lags", "d_model", "n_layers", "dropout", "n_steps", "mixer", "d_state", "n_heads")
        return TSDiffNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            **{name: getattr(self, name) for name in names},
        )

    def guided(
        self,
        guidance: Guidance | None,
        *,
        guidance_scale: float | None = None,
        n_samples: int | None = None,
        n_sampling_steps: int | None = None,
    ) -> Self:
        """Return the fitted forecaster with another guidance; the network is shared.

        Parameters
        ----------
        guidance : {"quantile", "squared"} or None
        guidance_scale : float, optional
            As fitted by default.
        n_samples, n_sampling_steps : int, optional
            As fitted by default.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError
            One of them is outside its constraint.
        """
        self.check_fitted()
        other = copy.copy(self)
        changes = {
            "guidance_scale": guidance_scale,
            "n_samples": n_samples,
            "n_sampling_steps": n_sampling_steps,
        }
        named: dict[str, Any] = {"guidance": guidance}
        named |= {name: value for name, value in changes.items() if value is not None}
        other.__dict__.update(named)
        other.check()
        other.fitted_parameters_ = {**self.fitted_parameters_, **named}
        return other

    def _request(self, **changed: Any) -> PathRequest:
        how = self.fitted_parameters_
        request = {
            "n_samples": how["n_samples"],
            "guidance": how["guidance"],
            "scale": how["guidance_scale"],
            "n_steps": how["n_sampling_steps"] or min(SAMPLING_STEPS, how["n_steps"]),
            "seed": self.sampling_seed,
        }
        return PathRequest(**{**request, **changed})

    def _forecast_batch(self, inputs: Inputs, request: PathRequest | None = None) -> Tensor:
        parts = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
        forecast: Tensor = self.module_(PathInputs(**parts, request=request or self._request()))
        return forecast

    def _draw(
        self, forecast_batch: Any, windows: SeriesWindows, horizon: int, n_samples: int
    ) -> np.ndarray:
        """Draw paths whose steps belong together; each series has noise of its own."""
        drawn = [
            self._draw_window(windows, number, horizon, n_samples)
            for number in range(len(windows.series))
        ]
        return np.concatenate(drawn)

    def _draw_window(
        self, windows: SeriesWindows, number: int, horizon: int, n_samples: int
    ) -> np.ndarray:
        """Draw paths (1, N, horizon, C) of one window."""
        mean, scale = windows.scaling.mean[number], windows.scaling.scale[number]
        divisor = np.where(scale > 0, scale, 1.0)
        own = series_generator(self.sampling_seed, windows.ids[number])
        request = self._request(n_samples=n_samples, seed=int(own.integers(2**32)))

        def forecast_batch(inputs: Inputs) -> Tensor:
            return self._forecast_batch(inputs, request)

        def draw(forecast: np.ndarray, _: int) -> np.ndarray:
            # Path i goes on from its own history alone.
            own = np.stack([one[..., path] for path, one in enumerate(forecast)])
            return np.asarray(own * scale + mean)

        def scaled(path: np.ndarray, _: int) -> np.ndarray:
            return np.asarray((path - mean) / divisor)

        here = slice(number, number + 1)
        return sample_paths(
            forecast_batch,
            draw,
            scaled,
            windows.tensors,
            windows.series[here],
            windows.cutoffs[here],
            n_samples=n_samples,
            context_length=self.context_rows,
            step=self.horizon_,
            horizon=horizon,
        )

    def refine(
        self,
        samples: Frame,
        df: Frame | None = None,
        *,
        guidance: Guidance = "quantile",
        n_iterations: int = 20,
        step_size: float = 0.01,
        temperature: float = 0.0,
    ) -> Any:
        """Make the samples of another forecaster likelier, near what it said.

        The samples of each step are put in order. Together with the history they go down the
        gradient of the error of denoising, at a fifth of the way, and of the distance to where they
        were; the i-th of n at the level i / (n + 1) of the pinball error.

        Parameters
        ----------
        samples : DataFrame
            As ``predict(samples=...)`` of another forecaster gives them for the same series, of
            ``horizon`` steps.
        df : DataFrame or Series, optional
            The series, as :meth:`predict` takes them; None stands for the fitted ones.
        guidance : {"quantile", "squared"}, default "quantile"
            The distance.
        n_iterations : int, default 20
        step_size : float, default 0.01
            Above 0.
        temperature : float, default 0.0
            Noise of each step: 0 for plain descent, 1 for Langevin dynamics.

        Returns
        -------
        DataFrame
            In the form of ``samples``.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            An argument or a frame is not usable, or the model was fitted with covariates.
        """
        self.check_fitted()
        check_choice("TSDiff.refine", "guidance", guidance, GUIDANCES)
        how = _refinement(guidance, n_iterations, step_size, temperature, self.sampling_seed)
        network = self.module_
        if not isinstance(network, TSDiffNetwork):
            raise ParameterError(
                "TSDiff: refine needs a model without covariates, got one that was fitted with "
                "some; fit without them"
            )
        panel = self.end_ if df is None else self.read_new(df)
        variates, panel = panel.variates, in_order(panel, self.end_.variates)
        paths = _paths_of(as_pandas(samples), panel, self.horizon_)
        refined = np.empty_like(paths)
        ends = np.arange(panel.n_series), panel.offsets[1:]
        for places, windows in self._scaled(panel, *ends, self.horizon_, {}):
            mean = windows.scaling.mean[:, None, None]
            scale = np.where(windows.scaling.scale > 0, windows.scaling.scale, 1.0)[:, None, None]
            tensors = windows.tensors
            device, dtype = tensors.values.device, tensors.values.dtype
            series, rows = (
                torch.from_numpy(np.asarray(part, dtype=np.int64)).to(device)
                for part in (windows.series, windows.cutoffs)
            )
            context, seen = tensors.gather(series, rows, self.context_rows, 0)
            scaled = torch.from_numpy((paths[places] - mean) / scale).to(device, dtype)
            moved = network.refine(context, seen, scaled, how).cpu().double().numpy()
            refined[places] = self.in_range(moved * scale + mean)
        order = panel.variates.get_indexer(variates)
        with self.named_errors():
            written = sample_frame(panel, variates, refined[..., order], self.horizon_)
        return panel.form.library.restored(written)


def _refinement(
    guidance: Guidance, n_iterations: Any, step_size: Any, temperature: Any, seed: int
) -> Refinement:
    """Return how to refine, or raise a ParameterError."""
    whole = isinstance(n_iterations, int) and not isinstance(n_iterations, bool)
    if not whole or n_iterations < 1:
        raise ParameterError(
            f"TSDiff.refine: n_iterations must be an integer from 1 on, got {n_iterations!r}"
        )
    if not (np.isfinite(step_size) and step_size > 0):
        raise ParameterError(f"TSDiff.refine: step_size must be above 0, got {step_size!r}")
    if not (np.isfinite(temperature) and temperature >= 0):
        raise ParameterError(f"TSDiff.refine: temperature must be at least 0, got {temperature!r}")
    return Refinement(guidance, n_iterations, float(step_size), float(temperature), seed)


def _paths_of(samples: Any, panel: Panel, horizon: int) -> np.ndarray:
    """Return the numbers of a frame of samples, (S, N, H, C)."""
    names = list(panel.variates)
    if not hasattr(samples, "columns") or not {"sample", *names} <= set(samples.columns):
        raise DataError(
            f"TSDiff.refine: samples must be a frame with the columns 'sample' and {names}, got "
            f"{list(getattr(samples, 'columns', [])) or type(samples).__name__}; pass what "
            f"predict(samples=...) returns"
        )
    n_samples = int(samples["sample"].max()) + 1 if len(samples) else 0
    shape = (panel.n_series, n_samples, horizon, len(names))
    numbers = np.tile(np.repeat(np.arange(n_samples), horizon), panel.n_series)
    if not n_samples or not np.array_equal(samples["sample"].to_numpy(), numbers):
        raise DataError(
            f"TSDiff.refine: samples must hold the {horizon} steps of every sample of "
            f"{panel.n_series} series one after the other, got {len(samples)} rows in another "
            f"order; pass what predict(samples=...) returns"
        )
    paths = samples[names].to_numpy(dtype=np.float64).reshape(shape)
    if not np.isfinite(paths).all():
        raise DataError(
            "TSDiff.refine: samples must be finite, got missing or infinite values; leave these out"
        )
    return paths
