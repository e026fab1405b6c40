"""iTransformer: attention over variates instead of time steps."""

from dataclasses import dataclass
from functools import partial

from torch import nn

from tsar.core.mixers import accepted_options, make_mixer
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.network import NetworkSpec
from tsar.forecasting.outputs.output import Output
from tsar.forecasting.variate_tokens import (
    NO_COVARIATES,
    VariateTokenForecaster,
    VariateTokenNetwork,
)

__all__ = ["iTransformer", "iTransformerNetwork"]


class iTransformerNetwork(VariateTokenNetwork):
    """A transformer encoder over variate tokens.

    Blocks normalise after the residual sum, attention weights are dropped as well, and a
    last normalisation follows the blocks, as in the authors' code.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    d_model, n_heads, d_ff, n_layers : int, default 128, 8, 128 and 2
    dropout : float, default 0.1
        After the embedding, of the attention weights, inside the feed-forward part and on
        the branches.
    mixer : str, default "attention"
        One of :data:`tsar.core.mixers.MIXERS`.
    covariates : CovariateSpec, optional
    variate_share : float, default 1.0
        See :class:`~tsar.forecasting.variate_tokens.VariateTokenNetwork`.

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
        d_model: int = 128,
        n_heads: int = 8,
        d_ff: int = 128,
        n_layers: int = 2,
        dropout: float = 0.1,
        mixer: str = "attention",
        covariates: CovariateSpec = NO_COVARIATES,
        variate_share: float = 1.0,
    ) -> None:
        options = accepted_options(mixer, n_heads=n_heads, dropout=dropout)
        super().__init__(
            context_length=context_length,
            horizon=horizon,
            output=output,
            make_mixer=partial(make_mixer, mixer, d_model, **options),
            n_layers=n_layers,
            d_model=d_model,
            d_ff=d_ff,
            dropout=dropout,
            covariates=covariates,
            variate_share=variate_share,
        )


@dataclass(kw_only=True, eq=False, repr=False)
class iTransformer(VariateTokenForecaster):
    """iTransformer: every variate is one token, and attention runs over variates.

    For data whose variates inform each other; the number of variates is free, their order
    does not matter. The defaults are the authors' for small data sets such as ETTh2 and
    exchange_rate; for ETTh1 they use ``d_model=256, d_ff=256``, for large sets 512.

    Parameters
    ----------
    n_heads : int, default 8
        Attention heads.
    mixer : str, default "attention"
        What mixes the variates, one of ``tsar.core.mixers.MIXERS``.

    References
    ----------
    Liu et al., "iTransformer: inverted transformers are effective for time series
    forecasting", ICLR 2024, section 3.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.iTransformer(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return iTransformerNetwork(**self._network_options(spec))
