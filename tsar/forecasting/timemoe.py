"""Time-MoE: a causal decoder of experts that continues series head by head."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from torch import nn

from tsar.core.mixers import accepted_options, causal_mixers, check_heads, make_mixer
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.covariates import CovariatePathway
from tsar.forecasting.layers.point_tokens import TimeMoENetwork
from tsar.forecasting.layers.timemoe_checkpoint import load_weights, read_sizes
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.network_spec import TrainingData
from tsar.forecasting.outputs.losses import HuberLoss, Loss
from tsar.params.constraints import Interval, check_choice
from tsar.training.options import Phase, TrainingOptions

__all__ = ["TimeMoE"]

Positive = Annotated[int, Interval(1)]


@dataclass(kw_only=True, eq=False, repr=False)
class TimeMoE(NetworkForecaster):
    """Time-MoE: a causal transformer over single steps, most of whose weights rest at each of them.

    For many series to learn from, or a checkpoint that has. Each token goes through a few experts,
    so that a model is larger than what a step computes. The columns of a frame do not inform each
    other. A context of L steps is L tokens: attention costs their square.

    `from_pretrained` reads the authors' checkpoints; `fit` trains them further, or uses them as
    they are (``fine_tuning=False``). Their context and horizon together should have 4096 steps at
    most. Settings of the authors' fine-tuning: ``optimizer=AdamW(weight_decay=0.1, betas=(0.9,
    0.95), clip=1.0)``, ``learning_rate=1e-4``, a cosine schedule down to half of it, windows of
    1024 steps, 64 of them at a time.

    Parameters
    ----------
    horizon_lengths : sequence of int, default (1, 8, 32, 64)
        Steps that each head forecasts, increasing from 1. A forecast is put together from the
        longest ones that fit, so that horizons made of other heads differ in all steps.
    d_model, n_heads, d_ff, n_layers : int, default 64, 4, 256 and 4
        Width of a token, heads, hidden width of the expert that all tokens share, blocks.
    n_experts, top_k : int, default 8 and 2
        How many experts there are beside it, each ``d_ff // top_k`` wide, and through how many of
        them a token goes.
    balance_weight : float, default 0.02
        How much training minds that experts have unequally much to do; recorded as
        ``train_balance``.
    mixer : str, default "attention"
        What mixes tokens, one of ``tsar.core.mixers.causal_mixers()``. Attention is turned by
        positions (rotary).
    pretrained : str or None, default None
        A folder with ``config.json`` and ``model.safetensors`` of the authors, in which ``fit``
        begins. A saved model has its own weights and does not need it.
    fine_tuning : bool, default True
        Whether ``fit`` trains pre-trained weights; without it, it measures the scale of the data.
    loss : str, Loss or callable, optional
        ``HuberLoss(2.0)`` if left out; otherwise as for all networks. In training it is that of
        every step of all heads, from every step of the context.

    References
    ----------
    Shi et al., "Time-MoE: billion-scale time series foundation models with mixture of experts",
    ICLR 2025.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.TimeMoE(context_length=24, horizon=12, max_epochs=1, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    horizon_lengths: Sequence[Positive] = (1, 8, 32, 64)
    d_model: Positive = 64
    n_heads: Positive = 4
    d_ff: Positive = 256
    n_layers: Positive = 4
    n_experts: Positive = 8
    top_k: Positive = 2
    balance_weight: Annotated[float, Interval(0)] = 0.02
    mixer: str = "attention"
    pretrained: str | None = None
    fine_tuning: bool = True
    loss: str | Loss | Callable = HuberLoss(2.0)

    _causal: ClassVar[bool] = True
    references: ClassVar[frozenset[str]] = NetworkForecaster.references | {"pretrained"}
    moving_references: ClassVar[frozenset[str]] = frozenset({"pretrained"})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **parameters: Any) -> Self:
        """Describe the model of a checkpoint, as the authors publish them.

        Parameters
        ----------
        folder : path
            With ``config.json`` and ``model.safetensors``. Nothing is fetched.
        **parameters
            All others, such as ``context_length=512, horizon=96, fine_tuning=False``.

        Returns
        -------
        TimeMoE
            Not fitted. The weights are read by ``fit``.

        Raises
        ------
        ParameterError
            There is no such file, it is another model, or a parameter contradicts it.

        Examples
        --------
        >>> model = tsar.TimeMoE.from_pretrained("TimeMoE-50M", horizon=96)  # doctest: +SKIP
        >>> model.set_params(context_length=512, fine_tuning=False).fit(df)  # doctest: +SKIP
        """
        model = cls(**{**read_sizes(Path(folder)), "pretrained": os.fspath(folder), **parameters})
        model.check()
        return model

    # ------------------------------------------------------------------ fit

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice("TimeMoE", "mixer", self.mixer, causal_mixers())
        check_heads("TimeMoE", self.mixer, d_model=self.d_model, n_heads=self.n_heads)
        lengths = list(self.horizon_lengths)
        if not lengths or lengths[0] != 1 or sorted(set(lengths)) != lengths:
            raise ParameterError(
                f"TimeMoE: horizon_lengths must increase from 1, so that heads make up any "
                f"horizon, got {lengths}; begin with 1"
            )
        if self.mixer == "attention" and (self.d_model // self.n_heads) % 2:
            raise ParameterError(
                f"TimeMoE: d_model // n_heads must be even, since positions turn pairs of "
                f"features, got {self.d_model // self.n_heads}; change one of them"
            )
        if self.top_k > min(self.n_experts, self.d_ff):
            raise ParameterError(
                f"TimeMoE: top_k must be at most n_experts={self.n_experts} and d_ff={self.d_ff}, "
                f"got {self.top_k}"
            )
        if self.pretrained is not None:
            self._check_pretrained(Path(self.pretrained))
        elif not self.fine_tuning:
            raise ParameterError(
                "TimeMoE: fine_tuning=False needs pretrained weights, got pretrained=None; use "
                "TimeMoE.from_pretrained(folder)"
            )

    def _check_pretrained(self, folder: Path) -> None:
        for name, value in read_sizes(folder).items():
            mine = getattr(self, name)
            mine = list(mine) if name == "horizon_lengths" else mine
            if mine != value:
                raise ParameterError(
                    f"TimeMoE: {name} must be {value} as in {str(folder)!r}, got {mine}; use "
                    f"TimeMoE.from_pretrained, or set pretrained=None"
                )
        if self.mixer != "attention" or self.resolve_loss().make_output().n_outputs != 1:
            raise ParameterError(
                f"TimeMoE: pretrained weights are of attention, and forecast one number a step, "
                f"got mixer={self.mixer!r}, loss={self.loss!r}; use such a loss, and attention"
            )

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        options = accepted_options(
            self.mixer, n_heads=self.n_heads, causal=True, rotary=True, bias="inputs"
        )
        return TimeMoENetwork(
            horizon=spec.horizon,
            output=spec.output,
            mixers=[make_mixer(self.mixer, self.d_model, **options) for _ in range(self.n_layers)],
            **{
                name: getattr(self, name)
                for name in (
                    *("horizon_lengths", "d_model", "d_ff", "n_experts", "top_k"),
                    "balance_weight",
                )
            },
        )

    def _first_network(self, spec: NetworkSpec, seed: int, data: TrainingData) -> nn.Module:
        network = super()._first_network(spec, seed, data)
        if self.pretrained is not None:
            inner = network.network if isinstance(network, CovariatePathway) else network
            assert isinstance(inner, TimeMoENetwork)
            load_weights(inner, Path(self.pretrained))
        return network

    def _phases(self, network: nn.Module, options: TrainingOptions, go_on: bool) -> Sequence[Phase]:
        if not self.fine_tuning:
            options = replace(options, max_epochs=0)
        return super()._phases(network, options, go_on)
