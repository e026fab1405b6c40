"""PatchTST: a transformer over patches of each series."""

from torch import Tensor, nn

from tsar.core.block import Block, Encoder
from tsar.core.dropout import Dropout
from tsar.core.embedding import PatchEmbedding
from tsar.core.mixers import make_mixer
from tsar.core.mlp import MLP
from tsar.core.norm import RevIN, make_norm
from tsar.core.position import LearnedPosition
from tsar.data.windows import Inputs

__all__ = ["PatchTSTNetwork"]


class PatchTSTNetwork(nn.Module):
    """The supervised network of PatchTST; every variate is a series of its own.

    Windows are normalised one by one (RevIN), cut into patches, embedded, given
    a position, encoded, laid flat and mapped to the horizon by one linear map
    that all variates share.

    Parameters
    ----------
    context_length, horizon : int
    output : nn.Module
        Has ``n_outputs`` and maps (raw, location, scale) to the forecast; see
        :mod:`tsar.core.output`.
    patch_length, stride : int, default 16 and 8
    d_model, n_heads, d_ff, n_layers : int, default 128, 16, 256 and 3
    dropout : float, default 0.2
        After the embedding, inside the feed-forward part and on the branches.
        The mixer's branch is dropped twice in a row, as in the authors' code
        (once at its output, once where the residual is added).
    head_dropout : float, default 0.0
        Of the forecast.
    norm : {"batch", "layer", "rms"}, default "batch"
    pre_norm : bool, default False
    residual_attention : bool, default True
        Add up the scores before the softmax from layer to layer.
    mixer : str, default "attention"
        One of :data:`tsar.core.mixers.MIXERS`.
    end_padding : bool, default True
        Repeat the last value ``stride`` times, which gives one patch more.

    References
    ----------
    Nie et al., "A time series is worth 64 words: long-term forecasting with
    transformers", ICLR 2023, section 3.1.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: nn.Module,
        patch_length: int = 16,
        stride: int = 8,
        d_model: int = 128,
        n_heads: int = 16,
        d_ff: int = 256,
        n_layers: int = 3,
        dropout: float = 0.2,
        head_dropout: float = 0.0,
        norm: str = "batch",
        pre_norm: bool = False,
        residual_attention: bool = True,
        mixer: str = "attention",
        end_padding: bool = True,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.revin = RevIN()
        self.embedding = PatchEmbedding(
            context_length, patch_length, stride, d_model, end_padding=end_padding
        )
        self.position = LearnedPosition(self.embedding.n_patches, d_model)
        self.dropout = Dropout(dropout)
        options = (
            {"n_heads": n_heads, "residual_scores": residual_attention}
            if mixer == "attention"
            else {}
        )
        blocks = [
            Block(
                make_mixer(mixer, d_model, **options),
                MLP(d_model, d_ff, dropout=dropout),
                d_model=d_model,
                norm=norm,
                pre_norm=pre_norm,
                dropout=dropout,
                # Two draws in a row are one draw that keeps with the product of their chances.
                mixer_dropout=1 - (1 - dropout) ** 2,
            )
            for _ in range(n_layers)
        ]
        self.encoder = Encoder(blocks, make_norm(norm, d_model) if pre_norm else None)
        self.head = nn.Linear(self.embedding.n_patches * d_model, horizon * output.n_outputs)
        self.head_dropout = Dropout(head_dropout)
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
        tokens = self.dropout(self.position(self.embedding(x)))  # (B * C, P, D)
        tokens = self.encoder(tokens, mask=mask)
        raw = self.head_dropout(self.head(tokens.flatten(1)))  # (B * C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)
