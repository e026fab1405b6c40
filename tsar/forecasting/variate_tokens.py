"""Forecasters whose tokens are variates: what iTransformer and its kin share.

A whole variate is one token, and an encoder mixes variates instead of time steps. A model
of this kind gives the encoder and nothing else.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.embedding import VariateEmbedding
from tsar.core.norm import RevIN
from tsar.core.output import Output
from tsar.data.windows import Inputs
from tsar.forecasting.network import NetworkForecaster
from tsar.params import Interval

__all__ = ["VariateTokenForecaster", "VariateTokenNetwork"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class VariateTokenNetwork(nn.Module):
    """Embed every variate as one token, encode the tokens, map each to the horizon.

    Windows are normalised one by one (RevIN without factors). Calendar features are tokens
    beside those of the variates, embedded by the same map and not normalised, as in the
    authors' code; what comes out at their places is dropped.

    A variate that is observed in parts is embedded with its gaps carried forward. One
    without any observed step is hidden from the others, and forecast from them.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.core.output`.
    encoder : nn.Module
        Maps tokens (B, N, D) to tokens of the same shape; takes ``mask=``, a bool tensor
        (B, N) that is True where a token may be read, or None.
    d_model : int
    dropout : float, default 0.1
        After the embedding.

    References
    ----------
    Liu et al., "iTransformer: inverted transformers are effective for time series
    forecasting", ICLR 2024, section 3.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        encoder: nn.Module,
        d_model: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.context_length, self.horizon = context_length, horizon
        self.revin = RevIN()
        self.embedding = VariateEmbedding(context_length, d_model)
        self.dropout = Dropout(dropout)
        self.encoder = encoder
        self.head = nn.Linear(d_model, horizon * output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C), ``observed`` where values are missing, and
            ``calendar`` of shape (B, L + H, n_calendar) where it is used.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        batch, _, n_variates = inputs.target.shape
        x, location, scale = self.revin(inputs.target, inputs.observed)
        if inputs.calendar is not None:
            x = torch.cat([x, inputs.calendar[:, : self.context_length]], dim=-1)
        tokens = self.dropout(self.embedding(x))  # (B, C + n_calendar, D)
        mask = None
        if inputs.observed is not None:
            mask = self.embedding.mask(inputs.observed)
            mask = nn.functional.pad(mask, (0, tokens.shape[1] - n_variates), value=True)
        tokens = self.encoder(tokens, mask=mask)[:, :n_variates]
        raw = self.head(tokens)  # (B, C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)


@dataclass(kw_only=True, eq=False, repr=False)
class VariateTokenForecaster(NetworkForecaster):
    """A forecaster around a :class:`VariateTokenNetwork`.

    The variates of a frame inform each other: columns of a wide or MultiIndex frame, or
    the ``target`` columns of a long one. The series of a long frame do not; pivot them
    into columns where they should.

    Parameters
    ----------
    d_model, d_ff, n_layers : int, default 128, 128 and 2
        Width of a token, width of the feed-forward part, blocks.
    dropout : float, default 0.1
        After the embedding and inside the blocks.
    """

    d_model: Positive = 128
    d_ff: Positive = 128
    n_layers: Positive = 2
    dropout: Share = 0.1

    _channel_independent: ClassVar[bool] = False
