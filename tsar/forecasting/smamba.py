"""S-Mamba: a state space over variates, read from both ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from tsar.core.mixers import Mamba, accepted_options, make_mixer
from tsar.core.ops.selective_scan import check_backend, pick_backend
from tsar.data.panel import Panel
from tsar.estimator.base import Estimator
from tsar.exceptions import ParameterError
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.network import NetworkSpec
from tsar.forecasting.outputs.output import Output
from tsar.forecasting.variate_tokens import (
    NO_COVARIATES,
    VariateTokenForecaster,
    VariateTokenNetwork,
)
from tsar.params.constraints import Interval
from tsar.training.device import resolve_device

__all__ = ["SMamba", "SMambaNetwork"]

Positive = Annotated[int, Interval(1)]


class SMambaNetwork(VariateTokenNetwork):
    """Blocks of two Mambas over the variate tokens, one in each direction.

    As in the authors' code, blocks normalise after the residual sum, nothing is dropped on
    the branch of the Mambas, and a last normalisation follows the blocks.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    d_model, d_ff, n_layers : int, default 256, 256 and 2
    d_state, d_conv, expand : int, default 2, 2 and 1
        See :class:`~tsar.core.mixers.Mamba`.
    dropout : float, default 0.1
        After the embedding, inside the feed-forward part and on its branch.
    scan_backend : str, optional
        Forces a form of the scan.
    mixer : str, default "bidirectional_mamba"
    n_heads : int, default 8
        Of a mixer that has heads.
    covariates : CovariateSpec, optional
    variate_share : float, default 1.0
        See :class:`~tsar.forecasting.variate_tokens.VariateTokenNetwork`.

    References
    ----------
    Wang et al., "Is Mamba effective for time series forecasting?", arXiv:2403.11144,
    section 3.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        d_model: int = 256,
        d_ff: int = 256,
        n_layers: int = 2,
        d_state: int = 2,
        d_conv: int = 2,
        expand: int = 1,
        dropout: float = 0.1,
        scan_backend: str | None = None,
        mixer: str = "bidirectional_mamba",
        n_heads: int = 8,
        covariates: CovariateSpec = NO_COVARIATES,
        variate_share: float = 1.0,
    ) -> None:
        options = accepted_options(
            mixer, d_state=d_state, d_conv=d_conv, expand=expand, n_heads=n_heads
        )
        if _scans(mixer):
            options["backend"] = scan_backend
        super().__init__(
            context_length=context_length,
            horizon=horizon,
            output=output,
            make_mixer=partial(make_mixer, mixer, d_model, **options),
            n_layers=n_layers,
            d_model=d_model,
            d_ff=d_ff,
            dropout=dropout,
            mixer_dropout=0.0,
            covariates=covariates,
            variate_share=variate_share,
        )


@dataclass(kw_only=True, eq=False, repr=False)
class SMamba(VariateTokenForecaster):
    """S-Mamba: every variate is one token, and Mambas read the variates from both ends.

    For data with many variates that inform each other: the cost grows with their number,
    not with its square as that of attention does. Their order is that of the columns and
    matters a little. The defaults are the authors' for ETTh1 and ETTh2.

    Parameters
    ----------
    d_model, d_ff, n_layers : int, default 256, 256 and 2
        Width of a token, width of the feed-forward part, blocks.
    d_state : int, default 2
        States per channel of a Mamba; the authors use up to 32 where there are more
        variates.
    d_conv : int, default 2
        Tokens that the convolution before the scan joins.
    expand : int, default 1
        Channels of a Mamba per feature of a token.
    scan_backend : {"reference", "chunked", "mamba_ssm"} or None, default None
        Forces a form of the scan: token by token, in chunks, or the kernel of mamba-ssm
        (``pip install 'tsar[mamba]'``, on an accelerator). None takes the kernel where it
        runs and agrees with the plain form, and chunks elsewhere.
    mixer : str, default "bidirectional_mamba"
        What mixes the variates, one of ``tsar.core.mixers.MIXERS``.
    n_heads : int, default 8
        Heads of a mixer that has some; the Mambas have none.

    Attributes
    ----------
    scan_backend_ : str or None
        The form of the scan that is used; None where the mixer has no scan.

    References
    ----------
    Wang et al., "Is Mamba effective for time series forecasting?", arXiv:2403.11144,
    section 3.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.SMamba(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    d_model: Positive = 256
    d_ff: Positive = 256
    d_state: Positive = 2
    d_conv: Positive = 2
    expand: Positive = 1
    scan_backend: Literal["reference", "chunked", "mamba_ssm"] | None = None
    mixer: str = "bidirectional_mamba"

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.scan_backend is not None:
            if not _scans(self.mixer):
                raise ParameterError(
                    f"SMamba: scan_backend must be None with mixer={self.mixer!r}, which has no "
                    f"scan, got {self.scan_backend!r}"
                )
            try:
                check_backend(self.scan_backend, resolve_device(self.device))
            except ParameterError as error:
                raise ParameterError(f"SMamba: {error}") from None

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return SMambaNetwork(
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            scan_backend=self.scan_backend,
            **self._network_options(spec),
        )

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        learned = super()._learn(panel, go_on)
        self._record_scan()
        return learned

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        self._record_scan()

    def _record_scan(self) -> None:
        parts = self.module_.modules()
        mamba = next((part for part in parts if isinstance(part, Mamba)), None)
        self.scan_backend_: str | None = None
        if mamba is not None:
            self.scan_backend_ = mamba.backend or pick_backend(self._forecast_device)


def _scans(mixer: str) -> bool:
    """Whether a mixer has a selective scan, whose form can be chosen; attention has kernels."""
    return len(accepted_options(mixer, d_state=1, backend=None)) == 2
