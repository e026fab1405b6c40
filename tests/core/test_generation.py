import itertools

import pytest
import torch
from torch import nn

from tsar.core.decoder import Decoder
from tsar.core.generation import (
    RenewedContext,
    TokenLevels,
    generate,
    generate_levels,
    is_bounded,
)
from tsar.core.heads import CategoricalHead
from tsar.core.mixers import Mamba, SoftmaxAttention
from tsar.core.sampling import Guidance, Sampler
from tsar.exceptions import ParameterError

N_TOKENS, D_MODEL = 3, 6


class Network(nn.Module):
    """A small causal network of tokens that counts how many rows it was given."""

    def __init__(self, n_tokens=N_TOKENS):
        super().__init__()
        torch.manual_seed(0)
        self.n_tokens = n_tokens
        self.table = nn.Embedding(n_tokens, D_MODEL)
        mixers = [SoftmaxAttention(D_MODEL, 1, causal=True, rotary=True), Mamba(D_MODEL)]
        self.decoder = Decoder(mixers, d_model=D_MODEL, d_ff=5, position=None, max_tokens=None)
        self.map = nn.Linear(D_MODEL, n_tokens)
        self.shapes = []

    def forward(self, ids):
        return self.map(self.decoder(self.table(ids)))

    def init_state(self, batch):
        return self.decoder.init_state(batch)

    def extend(self, ids, state):
        self.shapes.append(tuple(ids.shape))
        z, state = self.decoder.extend(self.table(ids), state)
        return self.map(z), state


@pytest.fixture
def network():
    return Network().double().eval()


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _drawn(network, prompts, **options):
    levels = generate_levels(
        network, prompts, sampler=Sampler(), generator=_generator(1), **options
    )
    return torch.cat([drawn.tokens for drawn in levels], dim=1)


def _probabilities(network, prompt, length):
    """Of all continuations, by the chain rule over full passes."""
    ways = list(itertools.product(range(N_TOKENS), repeat=length))
    ids = torch.tensor([[*prompt, *way] for way in ways])
    likelihood = network(ids[:, :-1]).log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return likelihood[:, len(prompt) - 1 :].sum(1).exp().detach()


def test_sequences_are_drawn_with_their_probabilities(network):
    """Chi-square over all 27 of three tokens; 54.1 is exceeded once in a thousand times."""
    expected = _probabilities(network, [2, 0], 3)
    torch.testing.assert_close(expected.sum(), torch.ones((), dtype=torch.float64))
    prompts = torch.tensor([[2, 0]]).expand(20_000, -1)
    drawn = _drawn(TokenLevels(network, max_tokens=3), prompts)
    counts = torch.bincount(drawn @ torch.tensor([9, 3, 1]), minlength=27)
    expected = expected * 20_000
    assert ((counts - expected).square() / expected).sum() < 54.1
    assert network.shapes == [(20_000, 1)] * 4  # the prompt, and three tokens


def test_greedy_tokens_are_those_of_full_passes(network):
    prompts = torch.tensor([[0, 1, 2], [2, 2, 1]])
    levels = generate_levels(
        TokenLevels(network, max_tokens=12), prompts, sampler=Sampler(temperature=0)
    )
    ids = prompts
    for drawn in levels:
        assert drawn.rows.tolist() == [0, 1]
        assert torch.equal(drawn.tokens, network(ids)[:, -1:].argmax(-1))
        ids = torch.cat([ids, drawn.tokens], dim=1)
    assert ids.shape == (2, 15)


@pytest.mark.parametrize("context_length", [None, 6])
def test_texts_that_have_ended_are_dropped(context_length):
    """Each text is, up to its end, the greedy one that it is by itself."""
    network, stop = Network(16).double().eval(), 12
    reads = network if context_length is None else RenewedContext(network, context_length)
    levels = TokenLevels(reads, max_tokens=9, stop_token=stop)
    prompts = torch.tensor([[a, b] for a in range(3) for b in range(3)])
    ends = [[] for _ in prompts]
    for rows, tokens in generate_levels(levels, prompts, sampler=Sampler(temperature=0)):
        assert len(rows) == network.shapes[-1][0] == len(tokens)
        for row, token in zip(rows.tolist(), tokens[:, 0].tolist(), strict=True):
            ends[row].append(token)
    assert len({len(end) for end in ends}) == 3
    for prompt, end in zip(prompts, ends, strict=True):
        alone = generate_levels(levels, prompt[None], sampler=Sampler(temperature=0))
        assert end == [drawn.tokens.item() for drawn in alone]
        assert (end[-1] == stop or len(end) == 9) and stop not in end[:-1]


class Pyramid:
    """Levels of 1, 2 and 3 tokens whose inputs are the mean of all that was drawn before."""

    SIZES = (1, 2, 3)

    def __init__(self):
        torch.manual_seed(0)
        self.head = CategoricalHead(4, 5)
        self.labels = torch.randn(8, 4)
        self.decoder = self
        self.n_rows = []

    def begin(self, labels):
        both = torch.cat([labels, torch.full_like(labels, 7)])
        return self.labels[both][:, None], torch.zeros(len(both), 1, 4)

    def extend(self, x, state):
        self.n_rows.append(len(x))
        state = state + x.sum(1, keepdim=True)
        return x + state, state

    def embed(self, step, drawn):
        mean = self.head.weight[drawn].mean(1, keepdim=True)
        return mean.expand(-1, self.SIZES[step + 1], -1).repeat(2, 1, 1)

    def done(self, step, drawn):
        ends = step + 1 == len(self.SIZES)
        return ends or drawn[:, 0] == 4


def test_levels_of_several_tokens_with_guidance():
    """Against a loop over single sequences, each with and without its label."""
    pyramid, labels = Pyramid(), torch.arange(7)
    guidance = Guidance(2.0, "linear")
    levels = list(
        generate_levels(
            pyramid,
            labels,
            sampler=Sampler(temperature=0),
            guidance=lambda step: guidance.weight(step / 2),
        )
    )
    assert [drawn.tokens.shape[1] for drawn in levels] == [1, 2, 3]
    assert pyramid.n_rows == [2 * len(drawn.rows) for drawn in levels]
    assert len(levels[-1].rows) < 7
    tables = pyramid.labels, pyramid.head.weight
    for label in labels.tolist():
        xs = [tables[0][label][None], tables[0][7][None]]
        sums = [torch.zeros(4), torch.zeros(4)]
        for step in range(3):
            sums = [s + x.sum(0) for s, x in zip(sums, xs, strict=True)]
            with_label, without = ((x + s) @ tables[1].T for s, x in zip(sums, xs, strict=True))
            tokens = (without + (1 + step) * (with_label - without)).argmax(-1)
            rows = levels[step].rows.tolist()
            assert levels[step].tokens[rows.index(label)].tolist() == tokens.tolist()
            if tokens[0] == 4:
                assert all(label not in later.rows.tolist() for later in levels[step + 1 :])
                break
            mean = tables[1][tokens].mean(0)
            xs = [mean.expand((1, 2, 3, 0)[step + 1], 4)] * 2


def test_a_full_context_is_begun_anew_with_its_latest_half(network):
    renewed, prompts = RenewedContext(network, 8), torch.tensor([[0, 1, 2], [2, 2, 1]])
    assert renewed.n_tokens == N_TOKENS
    ids, first, lengths = prompts, 0, []
    levels = TokenLevels(renewed, max_tokens=20)
    for drawn in generate_levels(levels, prompts, sampler=Sampler(temperature=0)):
        if ids.shape[1] - first > 8:
            first = ids.shape[1] - 4
        lengths.append(ids.shape[1] - first)
        assert torch.equal(drawn.tokens, network(ids[:, first:])[:, -1:].argmax(-1))
        ids = torch.cat([ids, drawn.tokens], dim=1)
    assert max(lengths) == 8 and lengths.count(4) == 4
    with pytest.raises(ParameterError, match="9 tokens do not fit behind 0 into a context of 8"):
        renewed.extend(torch.zeros(1, 9, dtype=torch.int64), renewed.init_state(1))
    with pytest.raises(ParameterError, match="at least 1, got 0"):
        RenewedContext(network, 0)


def test_prompts_have_tokens(network):
    levels = TokenLevels(network, max_tokens=3)
    for prompts in (torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ParameterError, match="at least one token"):
            next(generate_levels(levels, prompts, sampler=Sampler()))
    with pytest.raises(ParameterError, match="max_tokens must be at least 1, got 0"):
        TokenLevels(network, max_tokens=0)
    with pytest.raises(ParameterError, match="no condition to be guided by"):
        _drawn(levels, torch.zeros(2, 1, dtype=torch.int64), guidance=lambda step: 2.0)


def test_tokens_one_by_one(network):
    """Long prompts are cut, and a full context is renewed where the state grows."""
    assert not is_bounded(network.init_state(2))
    prompts, n_steps = torch.tensor([[0, 1, 2, 2, 0, 1, 0], [2, 2, 1, 0, 0, 1, 1]]), 12
    for context_length in (1, 5, None):
        ids, n_read = prompts, min(7, context_length or 7)
        draws = generate(
            network, prompts, n_steps, Sampler(temperature=0), context_length=context_length
        )
        for rows, tokens in draws:
            assert rows.tolist() == [0, 1]
            expected = network(ids[:, -n_read:])[:, -1].argmax(-1)
            assert torch.equal(tokens, expected)
            ids, n_read = torch.cat([ids, tokens[:, None]], dim=1), n_read + 1
            if context_length is not None and n_read > context_length:
                n_read = max(context_length // 2, 1)
        assert ids.shape == (2, 7 + n_steps)
    assert list(generate(network, prompts, 0, Sampler())) == []


def test_states_that_do_not_grow():
    window = SoftmaxAttention(D_MODEL, 1, causal=True, window=3)
    assert is_bounded((3, (Mamba(D_MODEL).init_state(1), window.init_state(1))))
    assert not is_bounded(
        (3, (window.init_state(1), SoftmaxAttention(6, 1, causal=True).init_state(1)))
    )
