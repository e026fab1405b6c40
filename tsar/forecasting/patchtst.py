"""PatchTST: a transformer over patches of each series."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn

from tsar.core.block import Block, Encoder
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import (
    MIXERS,
    SoftmaxAttention,
    accepted_options,
    check_heads,
    make_mixer,
)
from tsar.core.mlp import MLP
from tsar.core.norm import make_norm
from tsar.core.position import LearnedPosition
from tsar.data.panel import Panel
from tsar.data.windows import Inputs, SeriesTensors
from tsar.exceptions import ParameterError
from tsar.forecasting.chosen import DataSize
from tsar.forecasting.layers.embedding import PatchEmbedding, check_patch_length
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.losses import Loss
from tsar.forecasting.outputs.output import Output
from tsar.forecasting.patch_pretraining import PatchNetwork, PretrainedForecaster
from tsar.forecasting.variate_groups import GroupedBlock, VariateGroups, correlated_groups
from tsar.params.constraints import Interval, check_choice
from tsar.training.objective import Objective

__all__ = ["PatchTST", "PatchTSTNetwork"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]
# The parameters that a network is built with.
SIZES = (
    *("patch_length", "stride", "end_padding", "d_model", "n_heads", "d_ff", "n_layers"),
    *("dropout", "norm", "mixer"),
)
# A patch is so much of a context: two weeks of hours are cut into days.
PATCHES_OF_A_CONTEXT = 14

Norm: TypeAlias = Literal["batch", "layer", "rms", "pre_batch", "pre_layer", "pre_rms"]


class PatchTSTNetwork(PatchNetwork):
    """The supervised network of PatchTST; every variate is a series of its own.

    Windows are normalised one by one (RevIN), cut into patches, embedded, given
    a position, encoded, laid flat and mapped to the horizon by one linear map
    that all variates share.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    patch_length, stride : int, default 16 and 8
    d_model, n_heads, d_ff, n_layers : int, default 128, 16, 256 and 3
    dropout : float, default 0.2
        After the embedding, inside the feed-forward part and on the branches.
        The mixer's branch is dropped twice in a row, as in the authors' code
        (once at its output, once where the residual is added).
    norm : str, default "batch"
        "batch", "layer" or "rms" after each residual sum, or "pre_batch", "pre_layer" or
        "pre_rms" at the beginning of each branch.
    mixer : str or VariateGroups, default "residual_attention"
        One of :data:`tsar.core.mixers.MIXERS`.
    end_padding : bool, default True
        Repeat the last value ``stride`` times, which gives one patch more.
    n_variates : int, default 1
        How many are grouped, where they are.

    References
    ----------
    Nie et al., "A time series is worth 64 words: long-term forecasting with
    transformers", ICLR 2023, section 3.1.
    """

    BACKBONE = ("embedding", "position", "dropout", "encoder")

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        patch_length: int = 16,
        stride: int = 8,
        d_model: int = 128,
        n_heads: int = 16,
        d_ff: int = 256,
        n_layers: int = 3,
        dropout: float = 0.2,
        norm: Norm = "batch",
        mixer: str | VariateGroups = "residual_attention",
        end_padding: bool = True,
        n_variates: int = 1,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.revin = RevIN()
        self.embedding = PatchEmbedding(
            context_length, patch_length, stride, d_model, end_padding=end_padding
        )
        self.position = LearnedPosition(self.embedding.n_patches, d_model)
        self.dropout = Dropout(dropout)
        pre_norm, norm_kind = norm.startswith("pre_"), norm.removeprefix("pre_")
        self.correlation = mixer.correlation if isinstance(mixer, VariateGroups) else None
        along = _along_time(mixer)
        options = accepted_options(along, n_heads=n_heads)

        def block(*parts: Any, **settings: Any) -> Block:
            if self.correlation is None:
                return Block(*parts, **settings)
            across = SoftmaxAttention(d_model, n_heads)
            return GroupedBlock(*parts, across=across, n_variates=n_variates, **settings)

        blocks = [
            block(
                make_mixer(along, d_model, **options),
                MLP(d_model, d_ff, dropout=dropout),
                d_model=d_model,
                norm=norm_kind,
                pre_norm=pre_norm,
                dropout=dropout,
                # Two draws in a row are one draw that keeps with the product of their chances.
                mixer_dropout=1 - (1 - dropout) ** 2,
            )
            for _ in range(n_layers)
        ]
        self.encoder = Encoder(blocks, make_norm(norm_kind, d_model) if pre_norm else None)
        self.head = Linear(self.embedding.n_patches * d_model, horizon * output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C), and ``observed`` where values are missing.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        batch, _, n_variates = inputs.target.shape
        x, location, scale = self.revin(inputs.target, inputs.observed)
        mask = None if inputs.observed is None else self.embedding.mask(inputs.observed)
        tokens = self.encode(self.embedding(x), mask)
        raw = self.head(tokens.flatten(1))  # (B * C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)

    def prepare(self, series: SeriesTensors, stop: Tensor) -> None:
        """Group the variates by their correlations on the training rows, where they are grouped."""
        if self.correlation is not None:
            groups = correlated_groups(series, stop, self.correlation)
            blocks: Any = self.encoder.blocks
            for block in blocks:
                block.groups.copy_(groups)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode embedded patches (B * C, P, D); ``mask`` (B * C, P) says which to read."""
        return self.encoder(self.dropout(self.position(tokens)), mask=mask)


@dataclass(kw_only=True, eq=False, repr=False)
class PatchTST(PretrainedForecaster):
    """PatchTST: a transformer over patches, each variate a series of its own.

    With nothing but a horizon it is of a size that suits the data, and learns quantiles in the
    units of MASE. The authors use ``context_length=336, patch_length=16, stride=8, d_model=16,
    dropout=0.3, scaler="standard", loss="mse"`` for small data sets such as ETTh1, and
    ``d_model=128, n_heads=16, d_ff=256, dropout=0.2`` for large ones.

    Parameters
    ----------
    patch_length, stride : int or None, default None
        Steps in a patch, and from one patch to the next. None: a fourteenth of the context, which
        makes 24 hours of two weeks, and half a patch.
    d_model : int or None, default None
        Width of a token, a multiple of ``n_heads``. None: 32 where there are 300 windows and
        more that share no row, all variates counted, otherwise 16.
    n_heads, d_ff, n_layers : int, default 4, 128 and 3
        Attention heads, width of the feed-forward part, blocks.
    dropout : float or None, default None
        After the embedding, in the feed-forward part and on both branches of a block. None: 0.2
        where there are fewer than 300 such windows, otherwise 0.
    scaler : {"standard", "seasonal", "max_abs"} or None, default "seasonal"
        Standardise each series and variate by its training part; move it by the mean and divide
        it by the mean absolute seasonal difference there, so that errors count in the units of
        MASE; or divide it by the largest absolute value.
    loss : str, Loss or callable, default "quantile"
        What training minimises, as for every network.
    norm : str, default "batch"
        Normalisation of tokens: "batch", "layer" or "rms" after each residual sum, or
        "pre_batch", "pre_layer" or "pre_rms" at the beginning of each branch.
    mixer : str or VariateGroups, default "residual_attention"
        What mixes the patches, one of ``tsar.core.mixers.MIXERS``; the default adds up the
        attention scores from block to block, "attention" does not. With an object such as
        ``tsar.forecasting.variate_groups.VariateGroups(correlation=0.6)`` the variates that
        move together inform each other.

    Attributes
    ----------
    patch_length_, stride_, d_model_, dropout_ : object
        The values that the fit used, given or chosen.

    References
    ----------
    Nie et al., "A time series is worth 64 words: long-term forecasting with
    transformers", ICLR 2023, section 3.1.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.PatchTST(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    patch_length: Positive | None = None  # type: ignore[assignment]  # chosen
    stride: Positive | None = None  # type: ignore[assignment]  # chosen
    d_model: Positive | None = None
    n_heads: Positive = 4
    d_ff: Positive = 128
    n_layers: Positive = 3
    norm: Norm = "batch"
    mixer: str | VariateGroups = "residual_attention"
    dropout: Share | None = None  # type: ignore[assignment]  # chosen
    scaler: Literal["standard", "seasonal", "max_abs"] | None = "seasonal"
    loss: str | Loss | Callable = "quantile"

    other_groups: ClassVar[Mapping[str, str]] = {
        **NetworkForecaster.other_groups,
        "dropout": "model",
    }
    _untuned_rate: ClassVar[float] = 3e-3
    _choosable: ClassVar[tuple[str, ...]] = (
        *PretrainedForecaster._choosable,  # noqa: SLF001  (of the base)
        *("patch_length", "stride", "d_model", "dropout"),
    )

    _architecture: ClassVar = (
        *("context_length", "patch_length", "stride", "end_padding"),
        *("d_model", "n_heads", "d_ff", "n_layers"),
        *("norm", "mixer"),
    )

    @classmethod
    def upgrade_parameters(cls, saved: dict[str, Any]) -> dict[str, Any]:
        parameters = super().upgrade_parameters(saved)
        # The dropout of the forecast is gone: it is drawn while training only.
        parameters.pop("head_dropout", None)
        if parameters.pop("pre_norm", False):
            parameters["norm"] = f"pre_{parameters['norm']}"
        if parameters.pop("residual_attention", False) and parameters["mixer"] == "attention":
            parameters["mixer"] = "residual_attention"
        return parameters

    def choose(self, panel: Panel) -> dict[str, Any]:
        chosen = super().choose(panel)
        context = chosen["context_length"] if self.context_length is None else self.context
        patch_length = self.patch_length or max(context // PATCHES_OF_A_CONTEXT, 1)
        large = DataSize.of(panel, int(self.horizon)).is_large(context)
        sizes = {
            "patch_length": patch_length,
            "stride": (patch_length + 1) // 2,
            "d_model": self.n_heads * (8 if large else 4),
            "dropout": 0.0 if large else 0.2,
        }
        own = {name: value for name, value in sizes.items() if getattr(self, name) is None}
        return self._as_pretrained(chosen | own)

    def _check_consistency(self) -> None:
        super()._check_consistency()
        mixer = _along_time(self.mixer)
        check_choice("PatchTST", "mixer", mixer, MIXERS)
        check_patch_length("PatchTST", self.patch_length, self.context_length)
        if self.d_model is None:
            return
        check_heads("PatchTST", mixer, d_model=self.d_model, n_heads=self.n_heads)
        if isinstance(self.mixer, VariateGroups):
            check_heads("PatchTST", "attention", d_model=self.d_model, n_heads=self.n_heads)

    @property
    def _was_grouped(self) -> bool:
        return isinstance(self.fitted_parameters_["mixer"], VariateGroups)

    @property
    def forecasts_variates_alone(self) -> bool:
        return not self._was_grouped

    @property
    def takes_new_variates(self) -> bool:
        return super().takes_new_variates and not self._was_grouped

    def _pretraining(self, network: PatchNetwork, n_variates: int) -> tuple[nn.Module, Objective]:
        if isinstance(self.mixer, VariateGroups):
            raise ParameterError(
                f"PatchTST: pretrain needs a mixer by name, got mixer={self.mixer!r}, whose groups "
                f"are those of the variates that are fitted; set mixer={_along_time(self.mixer)!r}"
            )
        return super()._pretraining(network, n_variates)

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        # By name: a fit has given all of them values.
        sizes: dict[str, Any] = {name: getattr(self, name) for name in SIZES}
        return PatchTSTNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            n_variates=spec.n_variates,
            **sizes,
        )


def _along_time(mixer: str | VariateGroups) -> str:
    return mixer.mixer if isinstance(mixer, VariateGroups) else mixer
