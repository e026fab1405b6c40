"""Chimera: state spaces over time and variates at once."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.grid_state_space import GridStateSpace
from tsar.core.linear import Linear
from tsar.core.position import LearnedPosition
from tsar.data.windows import Inputs
from tsar.forecasting.layers.embedding import PatchEmbedding, check_patch_length
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval

__all__ = ["Chimera", "ChimeraNetwork"]

# First steps of the heads: what is read a few patches ago is gone, or still there.
SEASON_STEPS, TREND_STEPS = (0.1, 1.0), (1e-3, 1e-2)

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class ChimeraLayer(nn.Module):
    """Heads with large and with small steps, each over the variates in both orders, and a gate.

    Parameters
    ----------
    d_model, d_state : int
    dropout : float
        Of what is added to the tokens.
    """

    def __init__(self, d_model: int, d_state: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.ahead, self.back = (
            nn.ModuleList(
                GridStateSpace(
                    d_model, d_state=d_state, smallest_step=smallest, largest_step=largest
                )
                for smallest, largest in (SEASON_STEPS, TREND_STEPS)
            )
            for _ in range(2)
        )
        self.gate = Linear(d_model, d_model)
        self.project = Linear(d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Map tokens (B, C, P, D); ``mask`` (B, C, P) says what to read."""
        x = self.norm(tokens)
        turned, turned_mask = x.flip(1), None if mask is None else mask.flip(1)
        mixed = x
        for ahead, back in zip(self.ahead, self.back, strict=True):
            mixed = mixed + ahead(x, mask=mask) + back(turned, mask=turned_mask).flip(1)
        return self.dropout.add(tokens, self.project(mixed * F.silu(self.gate(x))))


class ChimeraNetwork(ForecastNetwork):
    """Patches of all variates, as cells of a grid that state spaces run over.

    Windows are normalised one by one (RevIN), cut into patches, embedded and given a position. What
    the layers make of the patches of a variate is normalised, laid flat, and mapped to the horizon
    by one linear map that all variates share. A patch without an observed step adds nothing.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    patch_length, stride : int, default 16 and 8
    d_model, d_state, n_layers : int, default 32, 8 and 2
    dropout : float, default 0.1
        After the embedding, of layers, and before the head.

    References
    ----------
    Behrouz et al., "Chimera: effectively modeling multivariate time series with 2-dimensional state
    space models", NeurIPS 2024. Patches, norms and the linear map at the end are not the paper's,
    which decodes by the state space itself.
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
        d_state: int = 8,
        n_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.revin = RevIN()
        self.embedding = PatchEmbedding(
            context_length, patch_length, stride, d_model, end_padding=False
        )
        self.position = LearnedPosition(self.embedding.n_patches, d_model)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            ChimeraLayer(d_model, d_state, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
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
        tokens = self.dropout(self.position(self.embedding(x))).unflatten(0, (batch, n_variates))
        mask = None
        if inputs.observed is not None:
            mask = self.embedding.mask(inputs.observed).unflatten(0, (batch, n_variates))
        for layer in self.layers:
            tokens = layer(tokens, mask)
        raw = self.head(self.dropout(self.norm(tokens).flatten(2)))  # (B, C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)


@dataclass(kw_only=True, eq=False, repr=False)
class Chimera(NetworkForecaster):
    """Chimera: state spaces over time and variates at once. Experimental.

    For columns that move each other, in an order that says something: what a patch knows of other
    variates reached it through its neighbours. The variates of a frame inform each other; the
    series of a long frame do not. The sizes of the paper are not published, and none of its numbers
    has been reproduced.

    Parameters
    ----------
    patch_length, stride : int, default 16 and 8
        Steps in a patch, and from one patch to the next. The oldest steps are left out where
        patches do not fill the context.
    d_model, n_layers : int, default 32 and 2
        Width of a token, layers.
    d_state : int, default 8
        Numbers in each of the two states of a channel.
    dropout : float, default 0.1
        After the embedding, of layers, and before the head.

    References
    ----------
    Behrouz et al., "Chimera: effectively modeling multivariate time series with 2-dimensional state
    space models", NeurIPS 2024.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.Chimera(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    patch_length: Positive = 16
    stride: Positive = 8
    d_model: Positive = 32
    d_state: Positive = 8
    n_layers: Positive = 2
    dropout: Share = 0.1

    channel_independent: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_patch_length("Chimera", self.patch_length, self.context_length)

    @property
    def _shortest_context(self) -> int:
        return self.patch_length

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return ChimeraNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            patch_length=self.patch_length,
            stride=self.stride,
            d_model=self.d_model,
            d_state=self.d_state,
            n_layers=self.n_layers,
            dropout=self.dropout,
        )
