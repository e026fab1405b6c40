"""ProbSparse attention: the queries that stand out attend, the others take a mean."""

from torch import Tensor

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.ops.sampled_attention import draw_keys, prominent_attention, sample_size
from tsar.core.random import Random
from tsar.core.tracing import is_traced
from tsar.exceptions import ParameterError

__all__ = ["ProbSparse"]


class ProbSparse(Mixer, Random):
    """Full attention for a few queries, which are chosen by their products with some keys.

    Of L tokens, ``factor * ceil(ln(L))`` attend to all. They are those whose largest product
    with a sample of as many keys is farthest above the mean product. The others take the mean of
    all values, or, if ``masked``, the sum of the values so far.

    Keys are drawn for each query, and are the same for all sequences of a batch and all heads.
    While training they are drawn anew in every call. Otherwise they are the same in every call,
    so that a forecast repeats, and does not depend on what is beside it.

    It is not causal, masked or not: which queries attend is decided among all of them.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    factor : float, default 5.0
    masked : bool, default False
        Whether values are read of no later token, as the decoder of Informer does.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or the factor is not positive.

    References
    ----------
    Zhou et al., "Informer: beyond efficient transformer for long sequence time-series
    forecasting", AAAI 2021, section 3. In the decoder of the authors' code heads and tokens
    change places before they are joined, which moves tokens to other places; here they do not.
    """

    knows_order = False
    formula = "softmax(q_t k_s' / sqrt(E)) v_s for log L of the t, mean of v_s for others"
    cost = "L log(L) D"

    def __init__(
        self, d_model: int, n_heads: int, *, factor: float = 5.0, masked: bool = False
    ) -> None:
        super().__init__()
        head_width("ProbSparse", d_model, n_heads)
        if not factor > 0:
            raise ParameterError(f"ProbSparse: factor must be above 0, got {factor}; take 5")
        self.n_heads = n_heads
        self.factor = factor
        self.masked = masked
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        query, key, value = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, L, E)
        length = x.shape[1]
        size = sample_size(length, self.factor)
        keys = draw_keys(
            length,
            length,
            size,
            device=x.device,
            drawing=self.training,
            # What is written down draws where it will run, as dropout does.
            generator=None if is_traced() else self.generator,
        )
        mixed = prominent_attention(
            query, key, value, keys, n_queries=size, mask=mask, masked=self.masked
        )
        return self.output(join_heads(mixed))
