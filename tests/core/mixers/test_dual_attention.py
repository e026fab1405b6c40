"""Attention along tokens and along features, against the formulas as loops."""

import pytest
import torch

from tsar.core.mixers import DualAttention
from tsar.core.mixers.dual_attention import blend_heads, moving_average
from tsar.core.mixers.heads import join_heads
from tsar.exceptions import ParameterError

D, N_HEADS = 12, 4


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _mask(batch, length):
    mask = torch.rand(batch, length, generator=torch.Generator().manual_seed(3)) < 0.6
    mask[0, 0], mask[1, 0], mask[:, -1] = False, True, True
    return mask


def _mixer(**options):
    torch.manual_seed(0)
    mixer = DualAttention(D, N_HEADS, **options).double()
    for weights in mixer.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    return mixer


def _averages(rows, share):
    """Row by row: the first as it is, then a share of the row and the rest of the one before."""
    averages = []
    for row in rows:
        averages.append(share * row + (1 - share) * averages[-1] if averages else row)
    return torch.stack(averages)


def _plain_branches(mixer, x, mask):
    """Head by head and token by token, masked tokens being left out; before the blend."""
    width = D // N_HEADS
    along_tokens = torch.zeros(len(x), N_HEADS, x.shape[1], width).double()
    along_features = along_tokens.clone()
    for b, n in [(b, n) for b in range(len(x)) for n in range(N_HEADS)]:
        places = mask[b].nonzero()[:, 0].tolist()
        rows = [
            mixer.query_key_value(x[b, place]).view(3, N_HEADS, width)[:, n] for place in places
        ]
        query, key, value = torch.stack(rows).unbind(1)
        products = torch.zeros(width, width).double()
        for q, k in zip(query, key, strict=True):
            products += torch.outer(q, k)
        weights = (products * len(places) ** 0.5).softmax(dim=1)
        for place, v in zip(places, value, strict=True):
            along_features[b, n, place] = weights @ v
        pooled_key, pooled_value = key, value
        if mixer.key_slots is not None:
            shares = [(mixer.key_slots(k).softmax(0), k) for k in key]
            pooled_key = sum(torch.outer(share, k) for share, k in shares)
            shares = [(mixer.value_slots(v).softmax(0), v) for v in value]
            pooled_value = sum(torch.outer(share, v) for share, v in shares)
        smooth_key = _averages(pooled_key, mixer.smoothing)
        # A token that is masked asks with the average before it.
        for place in range(x.shape[1]):
            before = [row for row, p in zip(query, places, strict=True) if p <= place]
            q = _averages(before, mixer.smoothing)[-1] if before else torch.zeros(width).double()
            weights = (smooth_key @ q * width**0.5).softmax(dim=0)
            along_tokens[b, n, place] = weights @ pooled_value
    return along_tokens, along_features


@pytest.mark.parametrize("n_slots", [None, 5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_branches_are_their_formulas(length, masked, n_slots):
    mixer, x = _mixer(n_slots=n_slots, merge_size=2, smoothing=0.3), _random(3, length, D)
    mask = _mask(3, length) if masked else None
    everything = torch.ones(3, length, dtype=torch.bool)
    expected = _plain_branches(mixer, x, everything if mask is None else mask)
    for branch, plain in zip(mixer.branches(x, mask=mask), expected, strict=True):
        torch.testing.assert_close(branch, blend_heads(plain, 2))
    torch.testing.assert_close(mixer(x, mask=mask), sum(blend_heads(part, 2) for part in expected))


@pytest.mark.parametrize("n_slots", [None, 5])
def test_what_is_masked_is_what_is_not_there(n_slots):
    mixer, x = _mixer(n_slots=n_slots), _random(2, 9, D)
    mask = torch.arange(9).expand(2, -1) < 6
    torch.testing.assert_close(mixer(x, mask=mask)[:, :6], mixer(x[:, :6]))
    nothing = mixer(x, mask=torch.zeros(2, 9, dtype=torch.bool))
    assert nothing.isfinite().all()


def test_sequences_do_not_know_of_each_other():
    mixer, x, order = _mixer(n_slots=3, merge_size=4), _random(5, 7, D), [3, 0, 4, 2, 1]
    torch.testing.assert_close(mixer(x[order]), mixer(x)[order])


def test_averages_follow_their_recursion():
    x, mask = _random(3, 9, 2), _mask(3, 9)
    averages, masked = moving_average(x, 0.3), moving_average(x, 0.3, mask)
    for b in range(3):
        torch.testing.assert_close(averages[b], _averages(x[b], 0.3))
        last = None
        for t in range(9):
            if mask[b, t]:
                last = x[b, t] if last is None else 0.3 * x[b, t] + 0.7 * last
            torch.testing.assert_close(
                masked[b, t], torch.zeros(2).double() if last is None else last
            )
    assert torch.equal(moving_average(x, 1.0), x)


@pytest.mark.parametrize("masked", [False, True])
def test_long_averages_follow_their_recursion(masked):
    x, mask = _random(2, 300, 3), _mask(2, 300) if masked else torch.ones(2, 300).bool()
    averages = moving_average(x, 0.1, mask if masked else None)
    for b in range(2):
        torch.testing.assert_close(averages[b, mask[b]], _averages(x[b, mask[b]], 0.1))


def test_blended_tokens_are_neighbours_of_a_head():
    heads = _random(2, 4, 6, 3)
    assert torch.equal(blend_heads(heads, 1), join_heads(heads))
    for merge_size in (2, 4):
        blended = blend_heads(heads, merge_size)
        rows = [[head[t] for head in heads[b] for t in range(6)] for b in range(2)]
        for b, j in [(b, j) for b in range(2) for j in range(6)]:
            expected = [
                rows[b][(group * 6 + j) * merge_size + neighbour]
                for neighbour in range(merge_size)
                for group in range(4 // merge_size)
            ]
            assert torch.equal(blended[b, j], torch.cat(expected))
    two = blend_heads(heads[:, :2], 2)
    assert torch.equal(two[:, 1], torch.cat([heads[:, 0, 2], heads[:, 0, 3]], dim=-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge_size": 3}, "merge_size=3 does not divide n_heads=4"),
        ({"merge_size": 0}, "merge_size=0 does not divide n_heads=4"),
        ({"smoothing": 0.0}, r"smoothing must be in \(0, 1\], got 0.0"),
        ({"n_slots": 0}, "n_slots must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_built(options, message):
    with pytest.raises(ParameterError, match=f"DualAttention: {message}"):
        DualAttention(D, N_HEADS, **options)


def test_what_cannot_be_read():
    mixer, x = _mixer(), _random(2, 7, D)
    with pytest.raises(ParameterError, match="mask must have the shape"):
        mixer(x, mask=torch.ones(2, 7, 7, dtype=torch.bool))
    with pytest.raises(ParameterError, match="cannot read a memory"):
        mixer(x, memory=x)
