"""TSM2: state spaces along patches and over variates, each reading all layers before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import (
    MIXERS,
    Bidirectional,
    Mixer,
    accepted_options,
    check_heads,
    make_mixer,
)
from tsar.core.position import LearnedPosition
from tsar.data.windows import Inputs
from tsar.forecasting.layers.embedding import PatchEmbedding, check_patch_length
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval, check_choice

__all__ = ["TSM2", "TSM2Network"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class WeightedLayer(nn.Module):
    """A mixer of patches and one of variates, which read weighted sums of all outputs so far.

    Parameters
    ----------
    along, across : Mixer
        Of the patches of a variate, and of the variates at a patch.
    n_earlier : int
        Outputs of either kind before this layer, the embedding being the first of both.
    d_model : int
    dropout : float
        Of both branches.

    Attributes
    ----------
    alpha, beta : nn.Parameter of shape (n_earlier,)
        Weights of earlier mixtures of patches and of variates, for the mixer of patches.
    theta, gamma : nn.Parameter of shape (n_earlier + 1,) and (n_earlier,)
        The same for the mixer of variates, which reads the mixture of patches of its own layer.

    References
    ----------
    Behrouz et al., "MambaMixer: efficient selective state space models with dual token and channel
    selection", arXiv:2403.19888, section 3.2. The norms before the mixers and the sums around them
    are not in the paper.
    """

    def __init__(
        self, along: Mixer, across: Mixer, *, n_earlier: int, d_model: int, dropout: float
    ) -> None:
        super().__init__()
        self.along, self.across = along, across
        self.along_norm, self.across_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)
        # Means at first, as a sum would grow from layer to layer.
        self.alpha, self.beta = (_even(n_earlier, 2 * n_earlier) for _ in range(2))
        self.theta = _even(n_earlier + 1, 2 * n_earlier + 1)
        self.gamma = _even(n_earlier, 2 * n_earlier + 1)

    def forward(
        self,
        patches: list[Tensor],
        variates: list[Tensor],
        along_mask: Tensor | None,
        across_mask: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Append what comes out to the mixtures of patches and of variates, each (B, C, P, D).

        The masks say what to read: (B * C, P) and (B * P, C).
        """
        x = _weighted(self.alpha, patches) + _weighted(self.beta, variates)
        n_variates, n_patches = x.shape[1:3]
        mixed = self.along(self.along_norm(x).flatten(0, 1), mask=along_mask)
        patches = [*patches, self.dropout.add(x, mixed.unflatten(0, (-1, n_variates)))]
        x = _weighted(self.theta, patches) + _weighted(self.gamma, variates)
        rows = self.across_norm(x).transpose(1, 2).flatten(0, 1)
        mixed = self.across(rows, mask=across_mask).unflatten(0, (-1, n_patches)).transpose(1, 2)
        return patches, [*variates, self.dropout.add(x, mixed)]


def _even(length: int, n_terms: int) -> nn.Parameter:
    return nn.Parameter(torch.full((length,), 1 / n_terms))


def _weighted(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    total = weights[0] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        total = total + weight * output
    return total


class TSM2Network(ForecastNetwork):
    """Patches of all variates, mixed along time in one direction and over variates in both.

    Windows are normalised one by one (RevIN), cut into patches, embedded and given a position.
    What the last mixer of variates gives is normalised over features and over patches, laid flat,
    and mapped to the horizon by one linear map that all variates share.

    A patch without an observed step is hidden from the other patches of its variate, and from those
    of other variates at its place.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    patch_length, stride : int, default 16 and 8
    d_model, n_layers : int, default 32 and 2
    dropout : float, default 0.3
        After the embedding, on the branches, and before the head.
    mixer : str, default "mamba"
        One of :data:`tsar.core.mixers.MIXERS`; over variates, two of it where it looks back only.
    **options
        Options of the mixer; those that it does not have are left out.

    References
    ----------
    Behrouz et al., "MambaMixer: efficient selective state space models with dual token and channel
    selection", arXiv:2403.19888, sections 3.2 and 5.1.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        patch_length: int = 16,
        stride: int = 8,
        d_model: int = 32,
        n_layers: int = 2,
        dropout: float = 0.3,
        mixer: str = "mamba",
        **options: Any,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.revin = RevIN()
        self.embedding = PatchEmbedding(
            context_length, patch_length, stride, d_model, end_padding=False
        )
        n_patches = self.embedding.n_patches
        self.position = LearnedPosition(n_patches, d_model)
        self.dropout = Dropout(dropout)
        options = accepted_options(mixer, **options)

        def make() -> Mixer:
            return make_mixer(mixer, d_model, **options)

        looks_back = MIXERS[mixer].causal
        self.layers = nn.ModuleList(
            WeightedLayer(
                make(),
                Bidirectional(make(), make()) if looks_back else make(),
                n_earlier=layer + 1,
                d_model=d_model,
                dropout=dropout,
            )
            for layer in range(n_layers)
        )
        self.feature_norm, self.patch_norm = nn.LayerNorm(d_model), nn.LayerNorm(n_patches)
        self.head = Linear(n_patches * d_model, horizon * output.n_outputs)
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
        tokens = self.dropout(self.position(self.embedding(x))).unflatten(0, (batch, n_variates))
        across_mask, along_mask = self.embedding.masks(inputs.observed)
        patches = variates = [tokens]
        for layer in self.layers:
            patches, variates = layer(patches, variates, along_mask, across_mask)
        tokens = self.patch_norm(self.feature_norm(variates[-1]).mT).mT
        raw = self.head(self.dropout(tokens.flatten(2)))  # (B, C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)


@dataclass(kw_only=True, eq=False, repr=False)
class TSM2(NetworkForecaster):
    """TSM2 (MambaMixer): state spaces along patches and over variates, with a way to every layer.

    For data whose columns move each other and long histories, whose cost grows with the number of
    patches and of variates and not with its square. The variates of a frame inform each other; the
    series of a long frame do not. Covariates act beside the network, not within as in the paper.

    Parameters
    ----------
    patch_length, stride : int, default 16 and 8
        Steps in a patch, and from one patch to the next. The oldest steps are left out where
        patches do not fill the context.
    d_model, n_layers : int, default 32 and 2
        Width of a token, layers.
    d_state, d_conv, expand : int, default 16, 4 and 2
        Of a Mamba: states per channel, tokens that its convolution joins, channels per feature.
    dropout : float, default 0.3
        After the embedding, inside of the layers, and before the head.
    mixer : str, default "mamba"
        What mixes patches, and variates from both ends; one of ``tsar.core.mixers.MIXERS``.
    n_heads : int, default 4
        Heads of a mixer that has some; Mamba has none.

    References
    ----------
    Behrouz et al., "MambaMixer: efficient selective state space models with dual token and channel
    selection", arXiv:2403.19888.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.TSM2(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    patch_length: Positive = 16
    stride: Positive = 8
    d_model: Positive = 32
    n_layers: Positive = 2
    d_state: Positive = 16
    d_conv: Positive = 4
    expand: Positive = 2
    dropout: Share = 0.3
    mixer: str = "mamba"
    n_heads: Positive = 4

    channel_independent: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice("TSM2", "mixer", self.mixer, MIXERS)
        check_heads("TSM2", self.mixer, d_model=self.d_model, n_heads=self.n_heads)
        check_patch_length("TSM2", self.patch_length, self.context_length)

    @property
    def _shortest_context(self) -> int:
        return self.patch_length

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return TSM2Network(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            **{
                name: getattr(self, name)
                for name in (
                    *("patch_length", "stride", "d_model", "n_layers", "dropout", "mixer"),
                    *("d_state", "d_conv", "expand", "n_heads"),
                )
            },
        )
