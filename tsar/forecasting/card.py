"""CARD: attention over patches and over variates in turns, each along two axes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import (
    MIXERS,
    DualAttention,
    Mixer,
    accepted_options,
    check_heads,
    make_mixer,
)
from tsar.core.mlp import MLP
from tsar.core.norm import make_norm
from tsar.core.position import LearnedPosition
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.embedding import PatchEmbedding, check_patch_length
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.losses import Loss
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval, check_choice

__all__ = ["CARD", "CARDNetwork"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class BranchedBlock(nn.Module):
    """A mixer with branches, each of which has a map of every token of its own.

    The branches are normalised and mapped, added to the tokens, and the sum is normalised. A
    :class:`~tsar.core.mixers.DualAttention` has two branches, any other mixer is one.

    Parameters
    ----------
    mixer : Mixer
    d_model, d_ff : int
    dropout : float
        Inside the maps.
    norm : str
        One of :data:`tsar.core.norm.NORMS`.
    """

    def __init__(self, mixer: Mixer, *, d_model: int, d_ff: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.mixer = mixer
        n_branches = 2 if isinstance(mixer, DualAttention) else 1
        self.branch_norms = nn.ModuleList(make_norm(norm, d_model) for _ in range(n_branches))
        self.mlps = nn.ModuleList(MLP(d_model, d_ff, dropout=dropout) for _ in range(n_branches))
        self.norm = make_norm(norm, d_model)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map tokens (B, L, D); ``mask`` (B, L) says which to read."""
        mixed: tuple[Tensor, ...]
        if isinstance(self.mixer, DualAttention):
            mixed = self.mixer.branches(x, mask=mask)
        else:
            mixed = (self.mixer(x, mask=mask),)
        for branch, norm, mlp in zip(mixed, self.branch_norms, self.mlps, strict=True):
            x = x + mlp(norm(branch))
        return self.norm(x)


class CARDLayer(nn.Module):
    """Mix the variates at every patch, then the patches of every variate; add the sum of both.

    Parameters
    ----------
    across, along : Mixer
        Of variates and of patches.
    d_model, d_ff : int
    dropout : float
        Inside the maps of the branches and after that of their sum.
    norm : str
        One of :data:`tsar.core.norm.NORMS`.
    """

    def __init__(
        self, across: Mixer, along: Mixer, *, d_model: int, d_ff: int, dropout: float, norm: str
    ) -> None:
        super().__init__()
        self.across, self.along = (
            BranchedBlock(mixer, d_model=d_model, d_ff=d_ff, dropout=dropout, norm=norm)
            for mixer in (across, along)
        )
        self.project = Linear(d_model, d_model)
        self.dropout = Dropout(dropout)
        self.norm = make_norm(norm, d_model)

    def forward(self, x: Tensor, across_mask: Tensor | None, along_mask: Tensor | None) -> Tensor:
        """Map tokens (B, C, T, D), given what may be read: (B * T, C) and (B * C, T)."""
        n_variates, n_tokens = x.shape[1:3]
        across = self.across(x.transpose(1, 2).flatten(0, 1), across_mask)
        across = across.unflatten(0, (-1, n_tokens)).transpose(1, 2)
        along = self.along(across.flatten(0, 1), along_mask).unflatten(0, (-1, n_variates))
        return self.norm(self.dropout.add(x, self.project(across + along)))


class CARDNetwork(ForecastNetwork):
    """Patches of all variates, mixed along both axes.

    Windows are normalised one by one (RevIN), cut into patches, embedded and given a position. A
    token that is no patch is put before those of every variate. What the layers make of the tokens
    is laid flat and mapped to the horizon by one linear map that all variates share. The order of
    the variates matters a little, since queries are averages with the variates before.

    A patch without an observed step is hidden from the other patches of its variate, and from
    those of other variates at its place.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    patch_length, stride : int, default 16 and 8
    d_model, n_heads, d_ff, n_layers : int, default 16, 2, 32 and 2
    n_slots : int, default 8
        Sums of variates that attention over variates reads.
    merge_size : int, default 2
        Neighbouring tokens that attention joins, see
        :func:`~tsar.core.mixers.dual_attention.blend_heads`.
    dropout : float, default 0.3
        After the embedding, of attention weights, inside the maps and on the branch of a layer.
    norm : {"batch", "layer", "rms"}, default "batch"
        Of branches and sums.
    mixer : str, default "dual_attention"
        One of :data:`tsar.core.mixers.MIXERS`, along both axes.

    References
    ----------
    Wang et al., "CARD: channel aligned robust blend transformer for time series forecasting",
    ICLR 2024, section 3; steps and sizes as in the authors' code.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        patch_length: int = 16,
        stride: int = 8,
        d_model: int = 16,
        n_heads: int = 2,
        d_ff: int = 32,
        n_layers: int = 2,
        n_slots: int = 8,
        merge_size: int = 2,
        dropout: float = 0.3,
        norm: str = "batch",
        mixer: str = "dual_attention",
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.revin = RevIN()
        self.embedding = PatchEmbedding(
            context_length, patch_length, stride, d_model, end_padding=False
        )
        self.dropout = Dropout(dropout)
        self.position = LearnedPosition(self.embedding.n_patches, d_model)
        self.first_token = nn.Parameter(0.01 * torch.randn(d_model))
        options = {"n_heads": n_heads, "merge_size": merge_size, "dropout": dropout}
        both = accepted_options(mixer, **options)
        pooling = accepted_options(mixer, n_slots=n_slots)
        self.layers = nn.ModuleList(
            CARDLayer(
                make_mixer(mixer, d_model, **both, **pooling),
                make_mixer(mixer, d_model, **both),
                d_model=d_model,
                d_ff=d_ff,
                dropout=dropout,
                norm=norm,
            )
            for _ in range(n_layers)
        )
        n_tokens = self.embedding.n_patches + 1
        self.head = Linear(n_tokens * d_model, horizon * output.n_outputs)
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
        patches = self.position(self.dropout(self.embedding(x)))  # (B * C, P, D)
        first = self.first_token.expand(len(patches), 1, -1)
        tokens = torch.cat([first, patches], dim=1).unflatten(0, (batch, n_variates))
        masks = self.embedding.masks(inputs.observed, first_token=True)
        for layer in self.layers:
            tokens = layer(tokens, *masks)
        raw = self.head(tokens.flatten(2))  # (B, C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)


@dataclass(kw_only=True, eq=False, repr=False)
class CARD(NetworkForecaster):
    """CARD: a transformer over patches whose variates inform each other patch by patch.

    For data whose columns move each other, with the resolution of PatchTST. The variates of a
    frame inform each other; the series of a long frame do not. The defaults are the authors' for
    ETTh1 and ETTh2, where they train with ``batch_size=128``, ``learning_rate=1e-4`` and
    ``learning_rate_schedule="cosine"``. Missing values are masked patch by patch.

    Parameters
    ----------
    patch_length, stride : int, default 16 and 8
        Steps in a patch, and from one patch to the next. The oldest steps are left out where
        patches do not fill the context.
    d_model, n_heads, d_ff, n_layers : int, default 16, 2, 32 and 2
        Width of a token, attention heads, width of the maps, layers.
    n_slots : int, default 8
        Sums of variates that attention over variates reads, however many variates there are.
    merge_size : int, default 2
        Neighbouring tokens that attention joins to one; divides ``n_heads``.
    dropout : float, default 0.3
        After the embedding, of attention weights, and inside of the layers.
    norm : {"batch", "layer", "rms"}, default "batch"
        Normalisation of tokens.
    mixer : str, default "dual_attention"
        What mixes patches and variates, one of ``tsar.core.mixers.MIXERS``; ``n_slots`` and
        ``merge_size`` are about the default.
    loss : str, Loss or callable, default "decaying_mae"
        As for the other models; the authors' is the absolute error divided by the root of the
        step.

    References
    ----------
    Wang et al., "CARD: channel aligned robust blend transformer for time series forecasting",
    ICLR 2024.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.CARD(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    patch_length: Positive = 16
    stride: Positive = 8
    d_model: Positive = 16
    n_heads: Positive = 2
    d_ff: Positive = 32
    n_layers: Positive = 2
    n_slots: Positive = 8
    merge_size: Positive = 2
    dropout: Share = 0.3
    norm: Literal["batch", "layer", "rms"] = "batch"
    mixer: str = "dual_attention"
    loss: str | Loss | Callable = "decaying_mae"

    channel_independent: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice("CARD", "mixer", self.mixer, MIXERS)
        check_heads("CARD", self.mixer, d_model=self.d_model, n_heads=self.n_heads)
        check_patch_length("CARD", self.patch_length, self.context_length)
        merges = accepted_options(self.mixer, merge_size=self.merge_size)
        if merges and self.n_heads % self.merge_size:
            raise ParameterError(
                f"CARD: merge_size must divide n_heads={self.n_heads}, got {self.merge_size}"
            )

    @property
    def _shortest_context(self) -> int:
        return self.patch_length

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return CARDNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            patch_length=self.patch_length,
            stride=self.stride,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff,
            n_layers=self.n_layers,
            n_slots=self.n_slots,
            merge_size=self.merge_size,
            dropout=self.dropout,
            norm=self.norm,
            mixer=self.mixer,
        )
