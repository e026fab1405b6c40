import itertools
import math

import pytest
import torch

from tsar.core.sampling import Sampler
from tsar.core.unmasking import cosine_counts, even_counts, unmask, unmask_vectors
from tsar.exceptions import ParameterError

N_TOKENS, LENGTH, MASK = 3, 4, 3


class Table:
    """Logits that depend on every token by random tables; the mask is a token like any other."""

    def __init__(self, length=LENGTH):
        generator = torch.Generator().manual_seed(0)
        shape = length, N_TOKENS + 1, length, N_TOKENS + 1
        self.weight = torch.randn(shape, dtype=torch.float64, generator=generator)
        self.n_masked = []

    def __call__(self, ids):
        self.n_masked.append((ids == MASK).sum(1).tolist())
        places = torch.arange(ids.shape[1])
        return self.weight[places, ids].sum(1)  # (B, L, V) for tokens (B, L)


def _generator(seed=1):
    return torch.Generator().manual_seed(seed)


def _masked(batch, length=LENGTH):
    return torch.full((batch, length), MASK)


def _last(*args, **options):
    *_, ids = unmask(*args, mask_token=MASK, **options)
    return ids


def _probabilities(table, sampler):
    """Of all sequences: the mean over all orders of the chain rule in that order."""
    ways = torch.tensor(list(itertools.product(range(N_TOKENS), repeat=LENGTH)))
    total = torch.zeros(len(ways), dtype=torch.float64)
    orders = list(itertools.permutations(range(LENGTH)))
    for order in orders:
        ids, likelihood = _masked(len(ways)), torch.ones(len(ways), dtype=torch.float64)
        for place in order:
            logits = table(ids)[:, place, :N_TOKENS]
            chance = sampler.probabilities(logits)
            likelihood *= chance.gather(1, ways[:, place, None])[:, 0]
            ids[:, place] = ways[:, place]
        total += likelihood
    return total / len(orders)


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(0.8, top_k=2)])
def test_one_at_a_time_is_the_mean_over_all_orders(sampler):
    """Chi-square over all 81 sequences; 124.8 is exceeded once in a thousand times."""
    expected = _probabilities(Table(), sampler)
    torch.testing.assert_close(expected.sum(), torch.ones((), dtype=torch.float64))
    n_draws = 40_000
    ids = _last(Table(), _masked(n_draws), sampler=sampler, generator=_generator())
    counts = torch.bincount(ids @ torch.tensor([27, 9, 3, 1]), minlength=81)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    # Sequences that are too rare for the approximation count together.
    rare = possible & (expected * n_draws < 5)
    parts = [(counts[possible & ~rare], expected[possible & ~rare])]
    if rare.any():
        parts.append((counts[rare].sum()[None], expected[rare].sum()[None]))
    square = sum(((c - n_draws * p).square() / (n_draws * p)).sum() for c, p in parts)
    assert square < 124.8


def test_every_order_is_as_likely():
    """Which of 4 places are revealed first and second: 12 ways, evenly."""
    passes = unmask(
        Table(), _masked(12_000), mask_token=MASK, sampler=Sampler(), generator=_generator()
    )
    first, second = (next(passes) != MASK for _ in range(2))
    assert first.sum(1).eq(1).all() and second.sum(1).eq(2).all()
    ways = first.int().argmax(1) * 4 + (second & ~first).int().argmax(1)
    counts = torch.bincount(ways, minlength=16)
    counts = counts[counts > 0]
    assert len(counts) == 12
    assert ((counts - 1000).square() / 1000).sum() < 31.3  # one in a thousand


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_what_is_there_stays_and_rows_may_differ(order):
    table, ids = Table(9), _masked(3, 9)
    ids[0, 2:] = 1
    ids[1, ::2] = 2
    before, passes = ids.clone(), []
    for after in unmask(
        table,
        ids,
        mask_token=MASK,
        sampler=Sampler(),
        generator=_generator(),
        reveal=[4, 3, 2],
        order=order,
    ):
        assert torch.equal(after[before != MASK], before[before != MASK])
        passes.append((after == MASK).sum(1).tolist())
    assert torch.equal(ids, before)
    assert table.n_masked == [[2, 4, 9], [0, 0, 5], [0, 0, 2]]
    assert passes == [[0, 0, 5], [0, 0, 2], [0, 0, 0]]


def test_the_most_confident_go_first():
    table, ids = Table(6), _masked(2, 6)
    sampler = Sampler(temperature=0)
    for after in unmask(table, ids, mask_token=MASK, sampler=sampler, reveal=2, order="confidence"):
        for row in range(2):
            chances = table(ids)[row, :, :N_TOKENS].softmax(1).amax(1)
            hidden = [t for t in range(6) if ids[row, t] == MASK]
            best = sorted(hidden, key=lambda t: -chances[t].item())[:2]
            assert [t for t in hidden if after[row, t] != MASK] == sorted(best)
            for t in best:
                assert after[row, t] == table(ids)[row, t, :N_TOKENS].argmax()
        ids = after
    assert (ids != MASK).all()


def test_all_that_is_sure_is_revealed_at_once():
    table, ids, n_passes = Table(6), _masked(1, 6), 0
    options = {"mask_token": MASK, "order": "confidence", "threshold": 0.8}
    for after in unmask(table, ids, sampler=Sampler(temperature=0), **options):
        chances = table(ids)[0, :, :N_TOKENS].softmax(1).amax(1)
        sure = (ids[0] == MASK) & (chances > 0.8)
        assert (after[0] != ids[0]).sum() == max(sure.sum().item(), 1)
        ids, n_passes = after, n_passes + 1
    assert (ids != MASK).all() and n_passes < 6


def test_the_mask_is_never_drawn():
    table = Table()
    table.weight[..., MASK] += 100
    assert (_last(table, _masked(50), sampler=Sampler(), generator=_generator()) < MASK).all()


def test_nothing_to_do():
    ids = torch.zeros(2, 4, dtype=torch.int64)
    assert list(unmask(Table(), ids, mask_token=MASK, sampler=Sampler())) == []


@pytest.mark.parametrize("n_tokens", [1, 2, 7, 64])
@pytest.mark.parametrize("n_passes", [1, 3, 8, 100])
def test_counts(n_tokens, n_passes):
    for counts in (even_counts(n_tokens, n_passes), cosine_counts(n_tokens, n_passes)):
        assert sum(counts) == n_tokens and min(counts) >= 1 and len(counts) <= n_passes
    even = even_counts(n_tokens, n_passes)
    assert len(even) == min(n_tokens, n_passes) and max(even) - min(even) <= 1


def test_cosine_counts_follow_the_cosine():
    left = [math.floor(64 * math.cos(math.pi / 2 * k / 8)) for k in range(8)] + [0]
    assert cosine_counts(64, 8) == [a - b for a, b in itertools.pairwise(left)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reveal": [1, 2]}, "as many as there are masked tokens in all, 4, got 3"),
        ({"reveal": 0}, "reveal must be at least 1"),
        ({"order": "rndom"}, "did you mean 'random'"),
        ({"threshold": 0.9}, "threshold is about confidence"),
    ],
)
def test_what_cannot_be_done(options, message):
    with pytest.raises(ParameterError, match=message):
        _last(Table(), _masked(1), sampler=Sampler(), **options)


def test_vectors_are_drawn_once_each_and_the_others_stay():
    x = torch.arange(24.0).view(2, 6, 2)
    masked = torch.tensor([[True, True, False, True, True, True], [True] * 6])
    seen, drawn = [], []

    def network(held, hidden):
        seen.append((held.clone(), hidden.clone()))
        return held[None] + 100

    def draw(features, n_drawn):
        drawn.append((features.shape[1], n_drawn))
        return -features[0]

    steps = list(
        unmask_vectors(
            network, x, masked, draw, generator=torch.Generator().manual_seed(0), reveal=[1, 2, 3]
        )
    )
    assert [count for count, _ in drawn] == [2, 4, 5] and [n for _, n in drawn] == [0, 1, 3]
    last = steps[-1]
    torch.testing.assert_close(last[masked], -(x[masked] + 100))
    assert torch.equal(last[~masked], x[~masked])
    # What a pass sees as drawn is what the pass before gave.
    for (held, hidden), before in zip(seen[1:], steps, strict=False):
        assert torch.equal(held, before) and not hidden[~masked].any()
    with pytest.raises(ParameterError, match="6, got 3"):
        list(unmask_vectors(network, x, masked, draw, reveal=[1, 2]))
