"""AutoTimes: a language model that continues series segment by segment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NotRequired

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.decoder import Decoder
from tsar.core.mixers import accepted_options, causal_mixers, check_heads, make_mixer
from tsar.data.matching import id_places, in_order
from tsar.data.panel import Panel
from tsar.data.windows import Inputs, SeriesTensors
from tsar.estimator.base import Estimator
from tsar.exceptions import (
    DataError,
    MissingExtraError,
    ParameterError,
    PersistenceError,
)
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.fitted.rolling import steps_covering, windows_at_once
from tsar.forecasting.layers.covariates import CovariatePathway
from tsar.forecasting.layers.language_backbone import (
    FittedLanguageModel,
    FrozenBackbone,
    freeze,
    load_backbone,
)
from tsar.forecasting.layers.segment_tokens import AutoTimesNetwork
from tsar.forecasting.network import NetworkForecaster, NetworkRecord, NetworkSpec
from tsar.forecasting.probabilistic.output_request import read_request
from tsar.forecasting.window_forecaster import SeriesWindows
from tsar.params.arguments import Frame, frame_first
from tsar.params.constraints import Interval, check_choice
from tsar.training.device import resolve_device

__all__ = ["AutoTimes"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class AutoTimesRecord(NetworkRecord):
    """What JSON holds of it."""

    language_model: NotRequired[str]


@dataclass(kw_only=True, eq=False, repr=False)
class AutoTimes(NetworkForecaster):
    """AutoTimes: a frozen language model forecasts series, segment by segment.

    A segment of each series takes the place of a word. With ``llm`` given, only the
    embedding of segments, the projection back, and one scale are trained: a small part of
    all weights (``n_trainable_`` of ``n_parameters_``), and the only part that is saved.
    Without, a small causal decoder of this package, trained along with the rest, takes
    the place of the language model: it knows no language, and starts from random weights.

    The authors use LLaMA-7B with ``context_length=672, segment_length=96, batch_size=256,
    learning_rate=5e-4``, ten epochs with a cosine schedule, and linear embeddings; with
    GPT-2 ``hidden_layers=1, d_hidden=512, learning_rate=2e-3`` without timestamps. A window
    has all variates here, one of them there, so their batch is ours times the variates.

    Parameters
    ----------
    segment_length : int, default 24
        Steps in a segment; divides ``context_length``.
    llm : str, nn.Module, fitted language model or None, default None
        A folder or the hub name of a decoder-only model of transformers (GPT-2, LLaMA, OPT,
        Qwen and others), a model object, or any causal module that maps tokens
        (B, P, d_model) and ``mask=`` to the same shape and has an attribute ``d_model``; or a
        fitted :class:`tsar.language.LanguageModel`. An object is frozen (a copy of it, unless
        it is of transformers) and moved to ``device``, and has to be passed to ``tsar.load``
        again.
    llm_precision : {"float32", "bfloat16", "float16"}, default "float32"
        Of the language model's weights, where it is loaded by name.
    hidden_layers : int, default 0
        Hidden layers (tanh) of the embedding and of the projection; 0 is a linear map.
    d_hidden : int, default 256
        Their width.
    d_model, n_heads, d_ff, n_layers : int, default 128, 8, 256 and 3
        Of the decoder that stands in for a language model.
    mixer : str, default "attention"
        What mixes its tokens, one of ``tsar.core.mixers.causal_mixers()``.
    dropout : float, default 0.1
        In that decoder, and after the hidden layers.
    calendar_features : bool, default True
        Whether the embedded time of a segment is added to it.

    Attributes
    ----------
    n_trainable_, n_parameters_ : int
        Weights that are trained, and all of them.

    References
    ----------
    Liu et al., "AutoTimes: autoregressive time series forecasters via large language
    models", NeurIPS 2024, section 3.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.AutoTimes(
    ...     context_length=48, segment_length=12, horizon=12, max_epochs=2, random_state=0
    ... )
    >>> model.fit(sea).predict(horizon=30).shape
    (30, 2)
    """

    segment_length: Positive = 24
    llm: str | nn.Module | FittedLanguageModel | None = None
    llm_precision: Literal["float32", "bfloat16", "float16"] = "float32"
    hidden_layers: Annotated[int, Interval(0, 1000)] = 0
    d_hidden: Positive = 256
    d_model: Positive = 128
    n_heads: Positive = 8
    d_ff: Positive = 256
    n_layers: Positive = 3
    mixer: str = "attention"
    dropout: Share = 0.1
    calendar_features: bool = True

    _causal: ClassVar[bool] = True
    _own_calendar: ClassVar[bool] = True
    _clock: ClassVar[str] = "clock"
    references: ClassVar[frozenset[str]] = NetworkForecaster.references | {"llm"}
    learned_record: ClassVar[Any] = AutoTimesRecord
    moving_references: ClassVar[frozenset[str]] = frozenset({"llm"})

    # ------------------------------------------------------------------ fit

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        learned = super()._learn(panel, go_on)
        self._count_weights()
        return learned

    def _count_weights(self) -> None:
        backbone = self._segment_network.backbone
        frozen = backbone.n_parameters if isinstance(backbone, FrozenBackbone) else 0
        self.n_trainable_ = sum(weight.numel() for weight in self.module_.parameters())
        self.n_parameters_ = self.n_trainable_ + frozen

    @property
    def _segment_network(self) -> AutoTimesNetwork:
        """The fitted network, also where it is behind the pathway of covariates."""
        network = self.module_
        if isinstance(network, CovariatePathway):
            network = network.network
        assert isinstance(network, AutoTimesNetwork)
        return network

    def choose(self, panel: Panel) -> dict[str, Any]:
        chosen = super().choose(panel)
        if "context_length" in chosen:
            # A context is made of whole segments.
            segments = max(chosen["context_length"] // self.segment_length, 1)
            chosen["context_length"] = segments * self.segment_length
        return chosen

    def _check_consistency(self) -> None:
        super()._check_consistency()
        size, length = self.segment_length, self.context_length
        if length is not None and length < size:
            raise ParameterError(
                f"AutoTimes: context_length must be at least segment_length={size}, got {length}"
            )
        if length is not None and length % size:
            raise ParameterError(
                f"AutoTimes: context_length must be a multiple of segment_length={size}, "
                f"got {length}; the nearest are {length - length % size} and "
                f"{length - length % size + size}"
            )
        if self.llm is None:
            check_choice("AutoTimes", "mixer", self.mixer, causal_mixers())
            check_heads("AutoTimes", self.mixer, d_model=self.d_model, n_heads=self.n_heads)
        else:
            if not isinstance(self.llm, str):
                # It may have learned more since it was copied.
                self.__dict__.pop("_loaded", None)
            # Better now than after reading the data.
            self._language_model()

    def _check_length(self, n_segments: int, backbone: Decoder | FrozenBackbone) -> None:
        if backbone.max_tokens is not None and n_segments > backbone.max_tokens:
            raise ParameterError(
                f"AutoTimes: {n_segments} segments are more than the {backbone.max_tokens} tokens "
                f"that the backbone takes; lengthen segment_length or shorten the context"
            )

    def _language_model(self) -> FrozenBackbone:
        """Return the language model, loaded once."""
        wanted = (self.llm, self.llm_precision)
        held, backbone = getattr(self, "_loaded", (None, None))
        if backbone is None or held != wanted:
            try:
                backbone = self._load_language_model()
            except (ParameterError, MissingExtraError) as error:
                raise type(error)(f"AutoTimes: {error}") from None
            self._loaded = wanted, backbone
        return backbone

    def _load_language_model(self) -> FrozenBackbone:
        if isinstance(self.llm, nn.Module | FittedLanguageModel):
            return freeze(self.llm)
        try:
            device = resolve_device(self.device)
        except ParameterError:
            # A saved model whose device is not on this machine.
            device = torch.device("cpu")
        return load_backbone(str(self.llm), precision=self.llm_precision, device=device)

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        backbone = self._make_decoder() if self.llm is None else self._language_model()
        self._check_length(spec.context_length // self.segment_length, backbone)
        return AutoTimesNetwork(
            horizon=spec.horizon,
            segment_length=self.segment_length,
            output=spec.output,
            backbone=backbone,
            hidden_layers=self.hidden_layers,
            d_hidden=self.d_hidden,
            dropout=self.dropout,
            timestamps=spec.covariates.n_calendar > 0,
        )

    def _make_decoder(self) -> Decoder:
        options = accepted_options(self.mixer, n_heads=self.n_heads, causal=True)
        mixers = [make_mixer(self.mixer, self.d_model, **options) for _ in range(self.n_layers)]
        return Decoder(mixers, d_model=self.d_model, d_ff=self.d_ff, dropout=self.dropout)

    # -------------------------------------------------------------- predict

    @frame_first
    def predict(
        self,
        horizon: int | Frame | None = None,
        df: Frame | int | None = None,
        future: Frame | None = None,
        *,
        context: Any = None,
        quantiles: Sequence[float] | None = None,
        level: float | Sequence[float] | None = None,
        samples: int | None = None,
        allow_new_variates: bool = False,
    ) -> Any:
        """Forecast the steps that follow, after a prompt of other series if one is given.

        Parameters
        ----------
        horizon : int or None
            How many steps; None takes the fitted ``horizon``. A shorter one gives the
            first rows of the full forecast, a longer one is rolled forward.
        df : DataFrame or Series, optional
            Series to forecast without fitting again; None continues the fitted ones.
        future : DataFrame, optional
            Future covariates of every step to forecast, see :meth:`make_future_frame`.
        context : DataFrame or Series, optional
            In-context forecasting (section 3.4): series with the fitted variates that come
            before the history as a prompt, for example what happened in a similar season.
            One series prompts all forecasts, several prompt those of their own ids. Whole
            segments are taken from their ends. As with ``df``, a fitted series keeps the
            scale of the fit, and a wide frame is the fitted series: bring one in other units
            into those of the fit first. Series with ids that were not fitted are scaled by
            statistics of their own.
        quantiles : sequence of float, optional
            Levels to return beside the point forecast.
        level : float or sequence of float, optional
            Intervals to return beside it, by the percentage of values they are to cover.
        samples : int, optional
            Return so many samples instead; with ``context``, of the fitted horizon at most.
        allow_new_variates : bool, default False
            Whether ``df`` may lack fitted variates or bring others.

        Returns
        -------
        DataFrame or Series
            As for every forecaster, see :meth:`tsar.Forecaster.predict`.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            An argument or a frame is not usable.
        """
        if context is None:
            return super().predict(
                horizon,
                df,
                future,
                quantiles=quantiles,
                level=level,
                samples=samples,
                allow_new_variates=allow_new_variates,
            )
        self.check_fitted()
        if isinstance(self.module_, CovariatePathway):
            raise ParameterError(
                "AutoTimes: context needs a model without covariates; fit one without "
                "past_covariates, future_covariates and static_covariates"
            )
        horizon = self.resolve_horizon(horizon)
        if samples is not None and horizon > self.horizon_:
            raise ParameterError(
                f"AutoTimes: samples after a context reach over the fitted horizon={self.horizon_} "
                f"at most, got {horizon}; fit a longer one, or leave the context out"
            )
        outputs = read_request(self, quantiles, level, samples)
        prompts = in_order(self.read_new(context), self.end_.variates)
        panel = self.end_ if df is None else self.read_new(df, allow_new_variates)
        return self._answer(outputs, panel, horizon, future, prompts=prompts)

    def forecast(
        self,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        horizon: int,
        known_ahead: Mapping[Any, np.ndarray] | None = None,
        levels: Sequence[float] = (),
        samples: int | None = None,
        *,
        after_fitted: bool = False,
        prompts: Panel | None = None,
    ) -> Forecasts:
        """Forecast windows, the ends of series also after a prompt, see ``predict(context=)``."""
        if prompts is None:
            return super().forecast(
                panel,
                owners,
                rows,
                horizon,
                known_ahead,
                levels,
                samples,
                after_fitted=after_fitted,
            )
        steps = horizon if samples is None else max(horizon, self.horizon_)
        ahead = steps_covering(steps, self._segment_network.segment_length)
        ((_, windows),) = self._scaled(panel, owners, rows, ahead, known_ahead)
        scaled = self._roll_prompted(panel, windows, prompts, steps)
        paths = None
        if samples is not None:
            draw = self._make_draw(windows)
            repeated = np.repeat(scaled[:, None], samples, axis=1)
            drawn = [draw(one, number) for number, one in enumerate(repeated)]
            paths = np.stack(drawn)[:, :, :horizon]
        return self._restored(scaled[:, :horizon], windows.scaling, levels, paths)

    def _roll_prompted(
        self, panel: Panel, windows: SeriesWindows, prompts: Panel, horizon: int
    ) -> np.ndarray:
        """Forecast windows after what comes before them, in scaled units."""
        network, n_rows = self._segment_network, self.context_rows
        size = network.segment_length
        if list(panel.variates) != list(prompts.variates):
            raise ParameterError("AutoTimes: context needs series with the fitted variates")
        owners = np.zeros(panel.n_series, dtype=np.int64)
        if prompts.n_series > 1:
            owners = id_places(panel.ids, prompts.ids)
            if (owners < 0).any():
                raise DataError(
                    f"AutoTimes: context has no series for id {panel.ids[int(owners.argmin())]!r}; "
                    f"pass one series for all, or one for each"
                )
        n_prompt = int(prompts.lengths.max()) // size * size
        if not n_prompt:
            raise DataError(
                f"AutoTimes: context needs segment_length={size} rows of a series, got "
                f"{prompts.lengths.max()}"
            )
        self._check_length((n_prompt + n_rows) // size, network.backbone)
        ahead = steps_covering(horizon, size)
        tensors, device = windows.tensors, self._forecast_device
        told = self._tensors(prompts, self._scaling_of(prompts), device, self.learned_.coding)
        parts = []
        at_once = windows_at_once(n_prompt + n_rows, panel.n_variates)
        for part in torch.arange(panel.n_series, device=device).split(at_once):
            owner = torch.from_numpy(owners).to(part.device)[part]
            pieces = [
                (told, owner, told.offsets[owner + 1], n_prompt, 0),
                (tensors, part, tensors.offsets[part + 1], n_rows, ahead),
            ]
            inputs = _join([_window(*piece) for piece in pieces])
            with torch.inference_mode():
                parts.append(network.roll(inputs, ahead // size, n_prompt)[:, :horizon].cpu())
        return torch.cat(parts).double().numpy()

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        backbone = self._segment_network.backbone
        if isinstance(backbone, FrozenBackbone):
            record["language_model"] = backbone.fingerprint()
        return record, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        if (self.llm is None) != ("language_model" not in record):
            held = "no language model" if self.llm is not None else "a language model"
            raise PersistenceError(
                f"load: the saved forecaster was fitted with {held}, got llm={self.llm!r}; leave "
                f"llm out, or pass the one it was fitted with"
            )
        if self.llm is not None:
            repair = "pass the one it was fitted with: tsar.load(folder, llm=...)"
            try:
                fingerprint = self._language_model().fingerprint()
            except ParameterError as error:
                raise PersistenceError(f"load: {error}; {repair}") from None
            if fingerprint != record["language_model"]:
                raise PersistenceError(
                    f"load: llm={self._language_model().source!r} holds other weights than the "
                    f"language model of the saved forecaster; {repair}"
                )
        super().restore_learned_state(record, tensors, members)
        self._count_weights()


def _window(
    tensors: SeriesTensors, series: Tensor, cutoffs: Tensor, before: int, after: int
) -> Inputs:
    """Cut windows with their calendar, which covers ``after`` steps more."""
    target, observed = tensors.gather(series, cutoffs, before, 0)
    calendar = tensors.gather_covariates(series, cutoffs, before, after).get("calendar")
    return Inputs(target, observed, calendar=calendar)


def _join(windows: list[Inputs]) -> Inputs:
    """Put windows one after the other."""
    observed = None
    if any(window.observed is not None for window in windows):
        observed = torch.cat(
            [
                torch.ones_like(window.target, dtype=torch.bool)
                if window.observed is None
                else window.observed
                for window in windows
            ],
            dim=1,
        )
    calendars = [window.calendar for window in windows if window.calendar is not None]
    return Inputs(
        torch.cat([window.target for window in windows], dim=1),
        observed,
        calendar=torch.cat(calendars, dim=1) if calendars else None,
    )
