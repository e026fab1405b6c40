"""Drafts change how fast a text comes, and not which: against enumeration and plain decoding."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import chisquare
from torch import nn

from tsar.core.decoder import Decoder
from tsar.core.decoding import (
    BlockwiseHeads,
    Draft,
    EarlyExitDraft,
    HeadsDraft,
    HydraHeads,
    JacobiDraft,
    MedusaHeads,
    ModelDraft,
    NGramDraft,
    PromptLookup,
    SpecTr,
    Speculative,
    make_decoding,
    residual,
    verify,
    verify_candidates,
)
from tsar.core.generation import generate
from tsar.core.mixers import Mamba2, SoftmaxAttention
from tsar.core.sampling import Sampler
from tsar.exceptions import ParameterError

N_TOKENS = 3


class Small(nn.Module):
    """A random transformer, or a hybrid, of three tokens."""

    def __init__(self, seed, mixers=("attention",), sharp=3.0):
        super().__init__()
        torch.manual_seed(seed)
        self.n_tokens = N_TOKENS
        self.embedding = nn.Embedding(N_TOKENS, 8)
        made = {
            "attention": lambda: SoftmaxAttention(8, 2, causal=True, rotary=True),
            "mamba2": lambda: Mamba2(8, d_state=4),
        }
        self.decoder = Decoder(
            [made[name]() for name in mixers], d_model=8, d_ff=16, max_tokens=None, position=None
        )
        self.map = nn.Linear(8, N_TOKENS)
        self.sharp = sharp
        self.double().eval()

    def init_state(self, batch):
        return self.decoder.init_state(batch)

    def extend(self, ids, state):
        decoded, state = self.decoder.extend(self.embedding(ids), state)
        return self.logits(decoded), state

    def extend_each(self, ids, state):
        decoded, states = self.hidden_each(ids, state)
        return self.logits(decoded), states

    def hidden_each(self, ids, state):
        return self.decoder.extend_each(self.embedding(ids), state)

    def logits(self, hidden):
        return self.sharp * self.map(hidden)


class Fixed(Draft):
    """Guesses from one distribution, whatever the text is."""

    def __init__(self, shares):
        self.shares = torch.tensor(shares, dtype=torch.float64)

    def begin(self, ids, n_tokens):
        pass

    def propose(self, n_steps, sampler, generator):
        drawn = torch.multinomial(self.shares, n_steps, replacement=True, generator=generator)
        return drawn.tolist(), self.shares.expand(n_steps, -1)

    def accept(self, ids):
        pass


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _heads(cls):
    """Untrained ones, which guess something all the same."""
    torch.manual_seed(3)
    heads = cls(3, torch.randn(N_TOKENS, 8)).double()
    for weight in heads.parameters():
        nn.init.normal_(weight)
    return HeadsDraft(heads.requires_grad_(False))


def _early_exit(network):
    """An untrained one behind the first block."""
    early = Small(7, ("attention", "attention"))
    early.embedding = network.embedding
    early.decoder.encoder.blocks[0] = network.decoder.encoder.blocks[0]
    return EarlyExitDraft(early, network, confidence=0.4)


def _drafts(network=None):
    """All of them; that of an early exit is of the network."""
    text = torch.randint(N_TOKENS, (60,), generator=_generator(9)).tolist()
    return {
        "ngram": lambda: NGramDraft(3, text),
        "ngram of the text alone": lambda: NGramDraft(2),
        "prompt": lambda: PromptLookup(2),
        "model": lambda: ModelDraft(Small(5)),
        "recurrent model": lambda: ModelDraft(Small(5, ("mamba2",))),
        "unsure model": lambda: ModelDraft(Small(5), confidence=0.5),
        "early exit": lambda: _early_exit(network),
        "jacobi": JacobiDraft,
        "blockwise": lambda: _heads(BlockwiseHeads),
        "medusa": lambda: _heads(MedusaHeads),
        "hydra": lambda: _heads(HydraHeads),
        "fixed": lambda: Fixed([0.7, 0.2, 0.1]),
        "wrong": lambda: Fixed([0.0, 0.0, 1.0]),
    }


@pytest.mark.parametrize("n_drafted", [0, 1, 3])
def test_verified_tokens_are_distributed_as_the_target_says(n_drafted):
    """Every text of the first two tokens, by enumeration of what is drafted and drawn."""
    generator = _generator()
    target = torch.tensor([[0.5, 0.3, 0.2]] * (n_drafted + 1), dtype=torch.float64)
    shares = torch.tensor([[0.1, 0.1, 0.8]] * n_drafted, dtype=torch.float64).reshape(-1, 3)
    counts, n_texts = np.zeros(3), 6000
    for _ in range(n_texts):
        drafted = [int(torch.multinomial(row, 1, generator=generator)) for row in shares]
        counts[verify(target, drafted, shares, generator)[0]] += 1
    assert chisquare(counts, n_texts * target[0].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("n_candidates", [1, 2, 5])
def test_several_candidates_leave_the_target_as_it_is(n_candidates):
    """Two places, with drafts drawn anew: all nine texts, against the target."""
    generator = _generator(n_candidates)
    target = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64)
    shares = torch.tensor([[0.2, 0.1, 0.7], [0.6, 0.2, 0.2]], dtype=torch.float64)
    n_texts, counts, kept = 2500, np.zeros((3, 3)), 0
    rows = torch.stack([target[0], target[1], torch.full((3,), 1 / 3).double()])
    for _ in range(n_texts):
        drafted = [
            [int(torch.multinomial(row, 1, generator=generator)) for row in shares]
            for _ in range(n_candidates)
        ]
        whole = rows.expand(n_candidates, -1, -1)
        proposed = shares.expand(n_candidates, -1, -1)
        draft, tokens = verify_candidates(whole, drafted, proposed, generator)
        assert drafted[draft][: len(tokens) - 1] == tokens[:-1]
        kept += len(tokens) > 1
        if len(tokens) == 1:
            tokens.append(int(torch.multinomial(target[1], 1, generator=generator)))
        counts[tokens[0], tokens[1]] += 1
    expected = n_texts * torch.outer(target[0], target[1]).numpy()
    assert chisquare(counts.ravel(), expected.ravel()).pvalue > 1e-3
    # What is kept of a first token is what the paper says: rho times beta.
    p, q = target[0].numpy(), shares[0].numpy()

    def gap(rho):
        beta = np.minimum(q, p / rho).sum()
        return 1 - (1 - beta) ** n_candidates - rho * beta

    rho = 1.0 if n_candidates == 1 else brentq(gap, 1.0, n_candidates)
    share = rho * np.minimum(q, p / rho).sum()
    assert kept / n_texts == pytest.approx(share, abs=4 * math.sqrt(0.25 / n_texts))


def test_the_residual_by_hand():
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.1, 0.1, 0.8]).double()
    np.testing.assert_allclose(residual(p, q), [0.4 / 0.6, 0.2 / 0.6, 0.0])


def _ways(draft, n_tokens):
    """With one draft, and with several unless they would be the same."""
    yield Speculative(draft(), n_tokens)
    if not draft().wants_hidden:
        yield SpecTr(draft(), n_tokens, 3)


@functools.cache
def _without_draft(mixers, context):
    """Return thirty tokens, the likeliest each."""
    network, prompt = Small(0, mixers), torch.tensor([[1, 0, 2, 2, 1]])
    plain = generate(network, prompt, 30, Sampler(temperature=0), context_length=context)
    return [int(tokens) for _, tokens in plain]


@pytest.mark.parametrize("mixers", [("attention",), ("mamba2", "attention")])
@pytest.mark.parametrize("kind", _drafts())
def test_greedy_tokens_are_those_without_a_draft(kind, mixers):
    network, prompt = Small(0, mixers), torch.tensor([1, 0, 2, 2, 1])
    for n_tokens, context in ((1, None), (4, None), (7, None), (4, 12)):
        greedy = Sampler(temperature=0)
        expected = _without_draft(mixers, context)
        # A context that is full is renewed at another place with a draft than without.
        alike = 30 if context is None else context - len(prompt)
        for way in _ways(_drafts(network)[kind], n_tokens):
            drawn = way.decode(network, prompt, 30, greedy, _generator(), context_length=context)
            drawn = list(drawn)
            assert len(drawn) == len(expected) == 30 and drawn[:alike] == expected[:alike]
            if context is None:
                assert way.statistics["passes"] + way.statistics["accepted"] == 30


@pytest.mark.parametrize("kind", _drafts())
def test_texts_are_as_frequent_as_the_target_says(kind):
    """All 81 texts of four tokens, each drawn anew, with a temperature and a filter."""
    network, prompt = Small(1, sharp=1.5), torch.tensor([0, 1])
    sampler, generator = Sampler(temperature=0.8, top_p=0.95), _generator(3)
    texts = list(itertools.product(range(N_TOKENS), repeat=4))
    with torch.no_grad():
        ids = torch.cat([prompt.expand(81, -1), torch.tensor(texts)], dim=1)
        logits, _ = network.extend(ids, network.init_state(81))
        shares = (
            sampler.probabilities(logits)[:, 1:-1].gather(-1, ids[:, 2:, None]).prod(dim=1)[:, 0]
        )
    assert float(shares.sum()) == pytest.approx(1.0)
    n_texts = 250
    for way in _ways(_drafts(network)[kind], 3):
        counts = dict.fromkeys(texts, 0)
        for _ in range(n_texts):
            counts[tuple(way.decode(network, prompt, 4, sampler, generator))] += 1
        expected = n_texts * shares.numpy()
        observed = np.array(list(counts.values()))
        assert not observed[expected == 0].any()
        # Rare ones together, as the test wants a few of each.
        often = expected >= 5
        observed = np.append(observed[often], observed[~often].sum())
        expected = np.append(expected[often], expected[~often].sum())
        assert chisquare(observed, expected).pvalue > 1e-4


SLOW = ["ngram", "prompt", "model", "unsure model", "early exit", "jacobi"]
SLOW += ["blockwise", "medusa", "hydra", "spectr ngram", "spectr model"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_texts_are_as_frequent_in_a_hundred_thousand(kind):
    network, prompt = Small(1, sharp=1.5), torch.tensor([0, 1])
    draft = _drafts(network)[kind.removeprefix("spectr ")]()
    sampler, generator = Sampler(), _generator(4)
    way = SpecTr(draft, 2, 3) if kind.startswith("spectr") else Speculative(draft, 2)
    with torch.no_grad():
        logits, _ = network.extend(prompt[None], network.init_state(1))
        first = sampler.probabilities(logits[0, -1])
        ids = torch.cat([prompt.expand(3, -1), torch.arange(3)[:, None]], dim=1)
        logits, _ = network.extend(ids, network.init_state(3))
        expected = (first[:, None] * sampler.probabilities(logits[:, -1])).flatten().numpy()
    counts = np.zeros(9)
    for _ in range(100_000):
        one, other = way.decode(network, prompt, 2, sampler, generator)
        counts[3 * one + other] += 1
    assert chisquare(counts, 100_000 * expected).pvalue > 1e-3


def test_a_perfect_draft_is_always_right_and_takes_few_passes():
    network = Small(2)
    way = Speculative(ModelDraft(network), 4)
    tokens = list(way.decode(network, torch.tensor([1]), 40, Sampler(), _generator()))
    assert len(tokens) == 40
    assert way.statistics["accepted"] == way.statistics["proposed"] == 32
    assert way.statistics["passes"] == 8 == math.ceil(40 / 5)


def test_a_stop_ends_the_text_and_is_given():
    network, greedy = Small(0), Sampler(temperature=0)
    prompt = torch.tensor([1, 0, 2])
    whole = list(Speculative(PromptLookup()).decode(network, prompt, 30, greedy, _generator()))
    stop = whole[3]
    drawn = Speculative(PromptLookup()).decode(network, prompt, 30, greedy, _generator(), stop=stop)
    assert list(drawn) == whole[: whole.index(stop) + 1]


def test_lookup_goes_on_as_the_last_time():
    draft = PromptLookup(3)
    draft.begin([5, 6, 7, 8, 5, 6, 9, 5, 6], 10)
    assert draft.propose(3, Sampler(), _generator()) == ([9, 5, 6], None)
    draft.accept([7])
    assert draft.propose(2, Sampler(), _generator()) == ([8, 5], None)
    draft.accept([3])
    assert draft.propose(2, Sampler(), _generator()) == ([], None)


def test_what_was_written_before_does_not_change_the_next_text():
    network, prompt, sampler = Small(1), torch.tensor([0, 1]), Sampler()
    way = Speculative(NGramDraft(3, [0, 1, 2, 0, 1]), 3)
    one, other = (list(way.decode(network, prompt, 30, sampler, _generator(5))) for _ in range(2))
    assert one == other


def test_jacobi_guesses_what_was_said_behind():
    draft = JacobiDraft()
    draft.begin([1, 2], 3)
    tokens, shares = draft.propose(2, Sampler(), _generator())
    assert tokens == [2, 2]
    target = torch.eye(3, dtype=torch.float64)[[0, 1, 2]]
    draft.see(target, 0, None)  # the first guess was wrong: 0 is drawn with the first row
    draft.accept([0])
    tokens, shares = draft.propose(3, Sampler(), _generator())
    assert tokens == [1, 2, 0]
    torch.testing.assert_close(shares[:2], target[1:])


@pytest.mark.parametrize("cls", [BlockwiseHeads, MedusaHeads, HydraHeads])
def test_losses_of_heads_are_those_of_their_guesses_token_by_token(cls):
    heads = _heads(cls).heads
    hidden = torch.randn(2, 5, 8, dtype=torch.float64, generator=_generator(1))
    ids = torch.randint(3, (2, 6), generator=_generator(2))
    losses = heads.losses(hidden, ids)
    assert [loss.shape for loss in losses] == [(2, 4), (2, 3), (2, 2)]
    for head, loss in enumerate(losses):
        for b, t in itertools.product(range(2), range(5 - head - 1)):
            following = [ids[b, t + 1 + k] for k in range(head + 1)]
            shares = heads.guess(head, hidden[b, t], following).log_softmax(dim=-1)
            assert float(loss[b, t]) == pytest.approx(-float(shares[ids[b, t + head + 2]]))


def test_new_medusa_heads_say_what_the_network_says():
    embedding = torch.randn(3, 8, generator=_generator(0))
    hidden = torch.randn(4, 8, generator=_generator(1))
    for cls in (MedusaHeads, HydraHeads):
        guess = cls(2, embedding).guess(0, hidden, [torch.tensor([0, 1, 2, 0])])
        torch.testing.assert_close(guess, hidden @ embedding.T)


def test_counts_back_off_and_grow():
    draft = NGramDraft(3, [0, 1, 2, 0, 1, 2, 0, 1, 0])
    draft.begin([0, 1], 3)
    tokens, shares = draft.propose(1, Sampler(), _generator())
    # After 0, 1 came 2 twice and 0 once, and nothing yet in the text itself.
    np.testing.assert_allclose(shares[0], [1 / 3, 0, 2 / 3])
    assert draft.propose(2, Sampler(temperature=0), _generator()) == ([2, 0], None)
    draft.accept([0, 0, 1])
    _, shares = draft.propose(1, Sampler(temperature=0.5), _generator())
    np.testing.assert_allclose(shares[0], [0.5, 0, 0.5])


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Speculative("ngram"), "draft must be a Draft"),
        (lambda: Speculative(PromptLookup(), 0), "n_tokens must be at least 1"),
        (lambda: SpecTr(PromptLookup(), 2, 0), "n_candidates must be at least 1"),
        (lambda: SpecTr(_heads(MedusaHeads)), "HeadsDraft draws one draft .* use Speculative"),
        (lambda: ModelDraft(Small(0), confidence=2), "confidence must be in"),
        (lambda: _heads(HydraHeads).check(5), "heads know 3 tokens and the model 5"),
        (lambda: _heads(HydraHeads).check_network(nn.Linear(1, 1)), "Linear gives no hidden"),
        (lambda: MedusaHeads(0, torch.zeros(3, 8)), "n_heads must be at least 1"),
        (lambda: NGramDraft(0), "order must be at least 1"),
        (lambda: PromptLookup(0), "longest must be at least 1"),
        (lambda: make_decoding("me", "promt_lookup"), "did you mean 'prompt_lookup'"),
        (lambda: NGramDraft(2, [0, 7]).check(3), "has the token 7, and the model knows 3"),
        (lambda: ModelDraft(Small(0)).check(5), "draft knows 3 tokens and the model 5"),
    ],
)
def test_what_cannot_be_a_draft(make, words):
    with pytest.raises(ParameterError, match=words):
        make()
