"""Masked diffusion of texts."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tsar.core.masking import stratified
from tsar.core.sampling import uniform
from tsar.language.masked_text import MaskedText, UniformCounts
from tsar.training import Objective

__all__ = ["MaskedDiffusionLM"]

# The smallest share of tokens that are masked: the weight of a loss is one over it.
_LEAST_MASKED = 1e-3


@dataclass(kw_only=True, eq=False, repr=False)
class MaskedDiffusionLM(MaskedText):
    """A language model that turns masks into tokens, several at a time if it is asked to.

    In training a share of the tokens, drawn anew for each window, is masked, each of them by
    itself. The loss of the masked ones, weighted by one over the share, bounds minus the
    log-likelihood. To generate, one token in a random place per pass is an exact draw from the
    reverse process (the first-hitting sampler); ``n_passes`` draws several in a pass.

    References
    ----------
    Nie et al., "Scaling up masked diffusion models on text", ICLR 2025 (network, loss and
    guidance); Sahoo et al., "Simple and effective masked diffusion language models", NeurIPS
    2024; Zheng et al., "Masked diffusion models are secretly time-agnostic masked models and
    exploit inaccurate categorical sampling", ICLR 2025 (sampler).

    Examples
    --------
    >>> from tsar.language import MaskedDiffusionLM
    >>> model = MaskedDiffusionLM(
    ...     context_length=32, d_model=32, n_layers=2, d_ff=64, max_steps=60, random_state=0,
    ...     device="cpu",
    ... ).fit(["one, two, three, four. " * 40])
    >>> len(model.generate("one, two", max_tokens=7, random_state=0)) <= 7
    True
    """

    def _objective(self) -> Objective:
        return _Shares()


class _Shares(UniformCounts):
    """A share of the tokens is masked; validated by counts, the mean of which is less noisy."""

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        n_rows, n_tokens = len(batch), batch.shape[1] - 1
        shares = stratified(n_rows, generator, batch.device)
        shares = (1 - _LEAST_MASKED) * shares + _LEAST_MASKED
        masks = uniform(torch.Size([n_rows, n_tokens]), generator, batch.device) < shares[:, None]
        return self.weighted(network, batch, masks, 1 / shares)

    def validate(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        return super().loss(network, batch, generator)
