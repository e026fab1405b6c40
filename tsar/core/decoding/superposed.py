"""Several texts for the passes of one: their last tokens are read as a mixture."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tsar.core.decoding.drafts import NGramDraft
from tsar.exceptions import ParameterError
from tsar.params.constraints import Interval, check_count, check_value

__all__ = ["MixtureNetwork", "Suggestion", "superposed"]

# Of a token that n-grams have not seen: little, and not nothing.
_UNSEEN = 1e-6


class MixtureNetwork(Protocol):
    """A causal network of tokens whose embedding, decoder and logits stand apart."""

    embedding: nn.Embedding
    decoder: Any

    @property
    def n_tokens(self) -> int: ...  # noqa: D102

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., D)."""
        ...


class Suggestion(NamedTuple):
    """One of several texts.

    Parameters
    ----------
    tokens : tuple of int
    score : float
        The logarithm of what mixtures and n-grams give it, comparable within one call only.
    """

    tokens: tuple[int, ...]
    score: float


@torch.inference_mode()
def superposed(
    network: MixtureNetwork,
    prompt: Sequence[int],
    counts: NGramDraft,
    *,
    n_texts: int = 3,
    max_tokens: int = 10,
    weight: float = 0.5,
) -> list[Suggestion]:
    """Write several texts in as many passes as one takes.

    In each step the network reads the mean of the embeddings of the last tokens, weighted by how
    likely their texts are, and what it says is of all of them together. N-grams tell which token
    goes on which text: of all pairs of a text and one of the likeliest tokens those with the
    largest ``p_network^(1 - weight) p_ngram^weight`` are kept. That is not how the network
    distributes texts; a single text is the greedy one.

    Parameters
    ----------
    network : MixtureNetwork
    prompt : sequence of int
        At least one token.
    counts : NGramDraft
        Of texts such as are written; it counts the prompt as well.
    n_texts : int, default 3
    max_tokens : int, default 10
        Of each text.
    weight : float, default 0.5
        Of the n-grams, in [0, 1).

    Returns
    -------
    list of Suggestion
        The best first.

    Raises
    ------
    ParameterError
        A number is out of its range, or there is no prompt.

    References
    ----------
    Shen et al., "Superposed decoding: multiple generations from a single autoregressive inference
    pass", NeurIPS 2024, section 3.
    """
    check_count("superposed", "n_texts", n_texts)
    check_count("superposed", "max_tokens", max_tokens)
    share = Annotated[float, Interval(0, 1, open_high=True)]
    check_value("superposed", "weight", weight, share)
    if not len(prompt):
        raise ParameterError("superposed: prompt must have at least one token, got none")
    counts.begin(prompt, network.n_tokens)
    device = network.embedding.weight.device
    state = network.decoder.init_state(1)
    read = network.embedding(torch.tensor([list(prompt)], device=device))
    texts = [Suggestion((), 0.0)]
    for _ in range(max_tokens):
        hidden, state = network.decoder.extend(read, state)
        logs = network.logits(hidden[0, -1]).double().log_softmax(dim=-1)
        best = logs.topk(min(n_texts, len(logs)))
        likely = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        grown = []
        for text in texts:
            shares = _shares(counts, [*prompt, *text.tokens], [token for token, _ in likely])
            scores = [
                (1 - weight) * log + weight * math.log(share)
                for (_, log), share in zip(likely, shares, strict=True)
            ]
            total = math.log(sum(math.exp(score) for score in scores))
            grown += [
                Suggestion((*text.tokens, token), text.score + score - total)
                for (token, _), score in zip(likely, scores, strict=True)
            ]
        grown.sort(key=lambda suggestion: -suggestion.score)
        texts = grown[:n_texts]
        weights = torch.tensor([text.score for text in texts], dtype=torch.float64).softmax(dim=0)
        last = torch.tensor([text.tokens[-1] for text in texts], device=device)
        embedded = network.embedding(last)
        read = (weights.to(embedded) @ embedded)[None, None]
    return texts


def _shares(counts: NGramDraft, text: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Return how often each of the tokens followed the end of a text, as a share."""
    seen = counts.following(text)
    total = sum(seen.values())
    return [_UNSEEN + (seen.get(token, 0) / total if total else 0.0) for token in tokens]
