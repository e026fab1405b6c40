"""PITS: perceptrons over patches that know nothing of each other."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.contrast import hierarchical_contrast
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.data.windows import Inputs
from tsar.forecasting.layers.embedding import PatchEmbedding, check_patch_length
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkSpec
from tsar.forecasting.outputs.output import Output
from tsar.forecasting.patch_pretraining import (
    PatchNetwork,
    PretrainedForecaster,
)
from tsar.params.arguments import Frame
from tsar.params.constraints import Interval
from tsar.training.objective import Objective, Terms

__all__ = ["PITS", "PITSNetwork"]

# The authors', of the contrast beside the errors of reconstruction.
CONTRAST_WEIGHT = 0.5


class PITSNetwork(PatchNetwork):
    """A perceptron of one hidden layer for every patch, and a linear map of all patches.

    Every variate is a series of its own. Windows are normalised one by one (RevIN) and cut into
    patches. No patch knows of another before the head, which maps all of them to the horizon.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    patch_length, stride : int, default 24 and 12
    d_model : int, default 128
        Width of the hidden layer and of a token.
    dropout : float, default 0.0
        Of the tokens before the head.
    end_padding : bool, default True
        Repeat the last value ``stride`` times, which gives one patch more.

    References
    ----------
    Lee et al., "Learning to embed time series patches independently", ICLR 2024, section 3.
    """

    BACKBONE = ("embedding", "second")

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        patch_length: int = 24,
        stride: int = 12,
        d_model: int = 128,
        dropout: float = 0.0,
        end_padding: bool = True,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.revin = RevIN()
        self.embedding = PatchEmbedding(
            context_length, patch_length, stride, d_model, end_padding=end_padding
        )
        self.second = Linear(d_model, d_model)
        self.dropout = Dropout(dropout)
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
        tokens = self.dropout(self.encode(self.embedding(x)))
        raw = self.head(tokens.flatten(1))  # (B * C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode embedded patches (B * C, P, D); there is no patch that reads another."""
        return self.second(F.relu(tokens))


class ComplementaryViews(nn.Module):
    """The network of the pre-training: patches rebuilt from themselves, and two views of them.

    One view shows the patches that the other hides.

    Parameters
    ----------
    network : PITSNetwork
        Its own head is not used.
    n_variates : int
    dropout : float
        Of the tokens before the map back to patches.
    """

    def __init__(self, network: PITSNetwork, *, n_variates: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.n_variates = n_variates
        self.dropout = Dropout(dropout)
        project = network.embedding.project
        self.head = Linear(project.out_features, project.in_features)

    def forward(self, patches: Tensor) -> Tensor:
        """Rebuild each of the patches (B * C, P, patch_length) from itself."""
        tokens = self.network.encode(self.network.embedding.project(patches))
        return self.head(self.dropout(tokens))

    def contrast(self, first: Tensor, second: Tensor) -> Tensor:
        """Contrast what the hidden layer makes of two views (B * C, P, patch_length): (B,).

        The variates of a window are joined.
        """
        views = (
            F.relu(self.network.embedding.project(patches))
            .unflatten(0, (-1, self.n_variates))
            .transpose(1, 2)
            .flatten(2)
            for patches in (first, second)
        )
        return hierarchical_contrast(*views)


class ComplementaryObjective(Objective):
    """Rebuild the patches that each view shows, and tell patches from others by the other view.

    As no patch knows of another, the error of both views is that of all patches, twice where both
    show as many.

    References
    ----------
    Lee et al., "Learning to embed time series patches independently", ICLR 2024, section 3, with
    the contrast weighed as in the authors' code.
    """

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        """Return the sum of both, of a batch of masked patches."""
        views: Any = network
        shown, patches = batch.inputs.patches, batch.target
        errors = (views(patches) - patches).square()
        if batch.measured is not None:
            errors, n_entries = errors * batch.measured, batch.measured.sum().clamp(min=1)
        else:
            n_entries = torch.tensor(errors.numel(), device=errors.device)
        contrast = views.contrast(shown, patches - shown)
        total = 2 * errors.sum() / n_entries + CONTRAST_WEIGHT * contrast.mean()
        count = torch.tensor(len(contrast), device=errors.device)
        return {"loss": (total * count, count)}


@dataclass(kw_only=True, eq=False, repr=False)
class PITS(PretrainedForecaster):
    """PITS: patches of each series by themselves, through one hidden layer.

    It asks whether patches have to know of each other at all: often as good as PatchTST, at a
    fraction of its cost. Each variate is a series of its own. The defaults are the authors' patches
    for ETTh1 and ETTh2; they take 256 and 64 for ``d_model``.

    Parameters
    ----------
    patch_length, stride : int, default 24 and 12
        Steps in a patch, and from one patch to the next.
    d_model : int, default 128
        Width of the hidden layer and of a token.
    dropout : float, default 0.0
        Of the tokens before the head, and before the map back to patches while it is
        pre-trained.

    References
    ----------
    Lee et al., "Learning to embed time series patches independently", ICLR 2024.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.PITS(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    patch_length: Annotated[int, Interval(1)] = 24
    stride: Annotated[int, Interval(1)] = 12
    d_model: Annotated[int, Interval(1)] = 128
    dropout: Annotated[float, Interval(0, 1, open_high=True)] = 0.0

    _architecture: ClassVar = (
        *("context_length", "patch_length", "stride", "end_padding"),
        "d_model",
    )

    def pretrain(
        self,
        df: Frame,
        *,
        mask_ratio: float = 0.5,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train the network below its head to rebuild patches, and to know them in another view.

        Each window is seen twice, the patches that are hidden in one view being those that the
        other shows. A patch is rebuilt from itself alone, and what the hidden layer makes of it is
        to be told from all other patches of the window, of all variates together.

        Afterwards ``fit`` starts from these weights, as in :meth:`PatchTST.pretrain`, and with the
        same limits.

        Parameters
        ----------
        df : DataFrame or Series
            As in ``fit``; it need not be what is forecast later.
        mask_ratio : float, default 0.5
            Share of the patches that the first view hides, inside (0, 1).
        checkpoint : path, optional
            A folder from which a pre-training that was killed goes on, as in ``fit``.

        Returns
        -------
        self
            With ``pretrain_history_``, which has ``train_loss`` and ``val_loss`` of both together,
            ``learning_rate`` and ``seconds`` of every epoch.

        Raises
        ------
        ParameterError
            A parameter is outside its constraint, patches overlap, or ``mask_ratio`` hides
            none or all of them.
        DataError
            The frame has faults: one error names all of them.
        TrainingError
            The loss is no longer finite, or the checkpoint is of another training.

        References
        ----------
        Lee et al., "Learning to embed time series patches independently", ICLR 2024, section 3.
        """
        return super().pretrain(df, mask_ratio=mask_ratio, checkpoint=checkpoint)

    def _pretraining(self, network: PatchNetwork, n_variates: int) -> tuple[nn.Module, Objective]:
        assert isinstance(network, PITSNetwork), "it is what is built below"
        task = ComplementaryViews(network, n_variates=n_variates, dropout=self.dropout)
        return task, ComplementaryObjective()

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_patch_length("PITS", self.patch_length, self.context_length)

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return PITSNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            patch_length=self.patch_length,
            stride=self.stride,
            d_model=self.d_model,
            dropout=self.dropout,
            end_padding=self.end_padding,
        )
