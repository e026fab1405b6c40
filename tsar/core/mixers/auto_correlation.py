"""Auto-Correlation as a mixer."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer
from tsar.core.mixers.heads import head_width
from tsar.core.ops.auto_correlation import auto_correlation

__all__ = ["AutoCorrelation"]


class AutoCorrelation(Mixer):
    """Mix a sequence with itself at the delays at which it resembles itself.

    In training all sequences of a batch share the delays, which are those of the largest mean
    correlation over the batch; in evaluation every sequence has its own and is mixed alike
    whatever else is in the batch.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    factor : float, default 3.0
        There are ``floor(factor * log(length))`` delays.
    head_delays : bool, default False
        Every head chooses its delays and weights, as in eq. 7 of the paper. Otherwise they are
        chosen once, from the mean over all heads, as in the authors' code; the number of heads
        then changes nothing.
    backend : str, optional
        Forces a form of :func:`tsar.core.ops.auto_correlation.auto_correlation`.

    Raises
    ------
    ParameterError
        If the heads do not divide the width.

    References
    ----------
    Wu et al., "Autoformer: decomposition transformers with auto-correlation for long-term
    series forecasting", NeurIPS 2021, section 3.2.
    """

    formula = "v shifted by the delays at which q and k agree most"
    cost = "L log L D"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        factor: float = 3.0,
        head_delays: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        head_width("AutoCorrelation", d_model, n_heads)
        self.n_choices = n_heads if head_delays else 1
        self.scale = self.n_choices / d_model
        self.factor = factor
        self.backend = backend
        self.query = Linear(d_model, d_model)
        self.key = Linear(d_model, d_model)
        self.value = Linear(d_model, d_model)
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix all tokens at once.

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        mask : bool Tensor of shape (B, S), optional
            False for tokens whose keys and values count as zero.
        memory : Tensor of shape (B, S, D), optional
            Where keys and values come from; ``x`` by default. They are cut after L tokens, or
            filled up with zeros.

        Returns
        -------
        Tensor of shape (B, L, D)
        """
        memory = x if memory is None else memory
        if self._folds(memory):
            return self._folded(x, memory, mask)
        query, key, value = self.query(x), self.key(memory), self.value(memory)
        return self.output(self._mixed(query, key, value, mask))

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        heads = (part.unflatten(2, (self.n_choices, -1)) for part in (query, key, value))
        mixed = auto_correlation(
            *heads,
            factor=self.factor,
            shared=self.training,
            mask=mask,
            scale=self.scale,
            backend=self.backend,
        )
        return mixed.flatten(2)

    def _folds(self, memory: Tensor) -> bool:
        """Whether half of the projections are folded into the others.

        That pays where there are more tokens than features, and is for training only: the form
        that forecasts does not depend on how many tokens there are, so that a forecast is the
        same bit for bit whatever else is forecast beside it.
        """
        n_tokens = memory.shape[0] * memory.shape[1]
        return self.n_choices == 1 and torch.is_grad_enabled() and n_tokens > memory.shape[2]

    def _folded(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """The same with two products of weights in place of two projections of tokens.

        One choice of delays sums the correlation over all features, so the maps of queries and
        keys only meet in their product; the rolled sum acts on time and the maps of values and
        outputs on features, so it can be taken before both. A column of ones carries the biases
        of keys and values to where a token is present.
        """
        query, key, value, output = self.query, self.key, self.value, self.output
        key_weight: Tensor = key.weight
        value_weight: Tensor = value.weight
        bias: Tensor = output.bias
        if mask is None and memory.shape[1] >= x.shape[1]:
            # With every token present the bias of keys moves the whole correlation, which the
            # softmax does not see: its gradient is zero, but there has to be one. The weights of
            # the rolled sum add up to one.
            query_bias = query.bias @ key_weight + 0.0 * key.bias
            bias = output.weight @ value.bias + bias
        else:
            memory = F.pad(memory, (0, 1), value=1.0)
            key_weight = torch.cat([key_weight, key.bias[:, None]], dim=1)
            value_weight = torch.cat([value_weight, value.bias[:, None]], dim=1)
            query_bias = query.bias @ key_weight
        query_key = F.linear(x, key_weight.T @ query.weight, query_bias)
        mixed = self._mixed(query_key, memory, memory, mask)
        return F.linear(mixed, output.weight @ value_weight, bias)
