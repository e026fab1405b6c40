"""Several texts in the passes of one: the greedy text if it is one, and by hand if they are few."""

import itertools
import math

import pytest
import torch
from torch import nn

from tsar.core.decoder import Decoder
from tsar.core.decoding import NGramDraft, superposed
from tsar.core.generation import generate
from tsar.core.mixers import SoftmaxAttention
from tsar.core.sampling import Sampler
from tsar.exceptions import ParameterError
from tsar.language.network import TokenNetwork

PROMPT = [1, 0, 2]


@pytest.fixture
def network():
    torch.manual_seed(0)
    mixers = [SoftmaxAttention(8, 2, causal=True, rotary=True) for _ in range(2)]
    decoder = Decoder(mixers, d_model=8, d_ff=16, max_tokens=None, position=None)
    network = TokenNetwork(decoder, 5).double().eval()
    nn.init.normal_(network.embedding.weight)
    return network


def test_one_text_is_the_greedy_one(network):
    drawn = generate(network, torch.tensor([PROMPT]), 12, Sampler(temperature=0))
    (text,) = superposed(network, PROMPT, NGramDraft(3), n_texts=1, max_tokens=12, weight=0.0)
    assert list(text.tokens) == [int(tokens) for _, tokens in drawn]


def test_two_steps_by_hand(network):
    """All pairs of a first and a second token, from the mixture of the first ones."""
    counts, weight = NGramDraft(2, [2, 3, 2, 4, 3, 1, 4, 1, 4, 0, 3, 0]), 0.4
    # What follows what, in the counted text and in the prompt.
    told = {
        **{2: {3: 1, 4: 1}, 3: {2: 1, 1: 1, 0: 1}, 4: {3: 1, 1: 1, 0: 1}},
        **{1: {4: 2, 0: 1}, 0: {3: 1, 2: 1}},
    }

    def step(shares, last, tokens):
        total = sum(told[last].values())
        mixed = [
            shares[t] ** (1 - weight) * (told[last].get(t, 0) / total + 1e-6) ** weight
            for t in tokens
        ]
        return dict(zip(tokens, (m / sum(mixed) for m in mixed), strict=True))

    with torch.no_grad():
        shares = network(torch.tensor([PROMPT]))[0, -1].softmax(dim=-1)
        tokens = shares.topk(3).indices.tolist()
        first = step(shares.tolist(), 2, tokens)
        kept = sorted(first, key=first.get, reverse=True)[:3]
        weights = torch.tensor([first[t] for t in kept], dtype=torch.float64)
        mixture = (weights / weights.sum()) @ network.embedding.weight[kept]
        embedded = torch.cat([network.embedding(torch.tensor(PROMPT)), mixture[None]])
        shares = network.logits(network.decoder(embedded[None]))[0, -1].softmax(dim=-1)
        tokens = shares.topk(3).indices.tolist()
        pairs = {}
        for one in kept:
            for other, share in step(shares.tolist(), one, tokens).items():
                pairs[one, other] = first[one] * share
    best = sorted(pairs, key=pairs.get, reverse=True)[:3]
    texts = superposed(network, PROMPT, counts, max_tokens=2, weight=weight)
    assert [text.tokens for text in texts] == best
    for text in texts:
        assert text.score == pytest.approx(math.log(pairs[text.tokens]))


def test_texts_differ_and_cost_the_passes_of_one(network):
    passes = []
    plain = network.decoder.extend
    network.decoder.extend = lambda read, state: (passes.append(read.shape[1]), plain(read, state))[
        1
    ]
    ids = torch.randint(5, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    texts = superposed(network, PROMPT, NGramDraft(3, ids), n_texts=4, max_tokens=6)
    assert passes == [3, 1, 1, 1, 1, 1]
    assert len({text.tokens for text in texts}) == 4
    assert all(one.score >= other.score for one, other in itertools.pairwise(texts))


def test_what_cannot_be_superposed(network):
    for name, wrong in (("n_texts", 0), ("n_texts", "3"), ("max_tokens", 0), ("weight", 1.0)):
        with pytest.raises(ParameterError, match=f"superposed: {name} must be"):
            superposed(network, PROMPT, NGramDraft(), **{name: wrong})
    with pytest.raises(ParameterError, match="at least one token, got none"):
        superposed(network, [], NGramDraft())
    with pytest.raises(ParameterError, match="has the token 7"):
        superposed(network, PROMPT, NGramDraft(2, [0, 7]))
