"""ProbSparse attention against loops and full attention, and how its keys are drawn."""

import math

import pytest
import torch

from tsar.core.mixers import (
    ProbSparse,
    SoftmaxAttention,
    accepted_options,
    causal_mixers,
    make_mixer,
)
from tsar.core.ops.sampled_attention import (
    draw_keys,
    prominence,
    prominent_attention,
    sample_size,
)
from tsar.exceptions import ParameterError

CPU = torch.device("cpu")


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("length", "factor", "size"),
    [(96, 5, 25), (168, 5, 30), (336, 5, 30), (720, 5, 35), (48, 3, 12), (7, 5, 7), (1, 5, 1)],
)
def test_sizes_of_the_sample(length, factor, size):
    assert sample_size(length, factor) == size


def _splitmix(n_numbers, salt):
    """SplitMix64 with the integers of Python."""
    numbers = []
    for place in range(1, n_numbers + 1):
        x = (place * 0x9E3779B97F4A7C15 + salt) % 2**64
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        numbers.append((x ^ (x >> 31)) >> 1)
    return numbers


def test_keys_are_those_of_splitmix():
    keys = draw_keys(7, 13, 5, device=CPU)
    expected = torch.tensor([number % 13 for number in _splitmix(35, 0)]).view(7, 5)
    assert torch.equal(keys, expected)


def test_keys_are_drawn_anew_where_they_are_to_be():
    first, second, again = (
        draw_keys(9, 50, 6, device=CPU, drawing=True, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1, 0)
    )
    assert torch.equal(first, again) and not torch.equal(first, second)
    salt = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    expected = torch.tensor([number % 50 for number in _splitmix(54, salt)]).view(9, 6)
    assert torch.equal(first, expected)


def test_all_keys_are_drawn_equally_often():
    counts = torch.bincount(draw_keys(1000, 20, 40, device=CPU).flatten(), minlength=20)
    # Chi-squared with 19 degrees of freedom; a fair draw passes 43.8 once in a thousand times.
    assert 5 < float((counts - 2000).square().sum() / 2000) < 43.8


def _by_loops(query, key, value, keys, n_queries, seen, masked):
    batch, n_heads, length, width = query.shape
    result = torch.zeros_like(value)
    for b in range(batch):
        for n in range(n_heads):
            measure = []
            for t in range(length):
                scores = [
                    float(query[b, n, t] @ key[b, n, int(s)]) for s in keys[t] if seen[b, int(s)]
                ]
                measure.append(max(scores, default=-math.inf) - sum(scores) / length)
                if not seen[b, t]:
                    measure[-1] = -math.inf
            active = sorted(range(length), key=lambda t: -measure[t])[:n_queries]
            for t in range(length):
                read = [s for s in range(length) if seen[b, s] and (not masked or s <= t)]
                if t in active:
                    scores = torch.stack([query[b, n, t] @ key[b, n, s] for s in read])
                    weights = (scores / width**0.5).softmax(dim=0)
                elif masked:
                    weights = torch.ones(len(read), dtype=value.dtype)
                else:
                    weights = torch.full((len(read),), 1 / len(read), dtype=value.dtype)
                for s, weight in zip(read, weights, strict=True):
                    result[b, n, t] += weight * value[b, n, s]
    return result


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_that_of_loops(masked, padded):
    query, key, value = (_random(2, 3, 11, 4, seed=seed) for seed in range(3))
    keys = draw_keys(11, 11, 5, device=CPU)
    seen = torch.ones(2, 11, dtype=torch.bool)
    if padded:
        seen[0, 8:] = False
        seen[1, 5] = False
    mask = seen if padded else None
    result = prominent_attention(query, key, value, keys, n_queries=4, mask=mask, masked=masked)
    expected = _by_loops(query, key, value, keys, 4, seen, masked)
    there = seen[:, None, :, None].expand_as(result)
    torch.testing.assert_close(result[there], expected[there])


def test_a_query_that_stands_out_has_the_largest_measure():
    query, key = torch.zeros(1, 1, 6, 2).double(), _random(1, 1, 6, 2)
    query[0, 0, 4] = 3 * key[0, 0, 2]
    keys = torch.full((6, 3), 2)
    measure = prominence(query, key, keys)[0, 0]
    score = 3 * float(key[0, 0, 2].square().sum())
    expected = torch.zeros(6).double()
    expected[4] = score - 3 * score / 6
    torch.testing.assert_close(measure, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_with_a_large_factor_it_is_full_attention_whatever_keys_were_drawn(masked):
    torch.manual_seed(0)
    mixer = ProbSparse(12, 3, factor=20, masked=masked).double().train()
    full = SoftmaxAttention(12, 3, causal=masked).double()
    full.load_state_dict(mixer.state_dict())
    x = _random(2, 17, 12)
    for _ in range(2):
        torch.testing.assert_close(mixer(x), full(x))
    mask = torch.rand(2, 17, generator=torch.Generator().manual_seed(0)) > 0.3
    mask[:, 0] = True
    torch.testing.assert_close(mixer(x, mask=mask)[mask], full(x, mask=mask)[mask])


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_choices_that_do_not_change(masked):
    query, key, value = (_random(1, 2, 7, 3, seed=seed).requires_grad_() for seed in range(3))
    keys = draw_keys(7, 7, 4, device=CPU)
    torch.autograd.gradcheck(
        lambda *parts: prominent_attention(*parts, keys, n_queries=2, masked=masked),
        (query, key, value),
    )


def test_training_draws_and_forecasts_repeat():
    torch.manual_seed(0)
    mixer, x = ProbSparse(8, 2, factor=1).double(), _random(3, 40, 8)
    assert any(not torch.equal(mixer(x), mixer(x)) for _ in range(5))
    mixer.eval()
    before = torch.get_rng_state()
    assert torch.equal(mixer(x), mixer(x))
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(mixer(x)[1:2], mixer(x[1:2]))  # the same keys for every sequence


def test_the_masked_form_reads_no_later_value_but_is_not_causal():
    """Whether an early token attends is decided by later ones."""
    torch.manual_seed(0)
    mixer = ProbSparse(8, 2, factor=1, masked=True).double().eval()
    x = _random(1, 40, 8)
    later = x.clone()
    later[:, 20:] = 5 * _random(1, 20, 8, seed=1)
    assert not torch.allclose(mixer(x)[:, :20], mixer(later)[:, :20])
    assert not mixer.causal and "probsparse" not in causal_mixers()


def test_errors():
    with pytest.raises(ParameterError, match="ProbSparse: n_heads=3 does not divide d_model=8"):
        ProbSparse(8, 3)
    with pytest.raises(ParameterError, match="ProbSparse: factor must be above 0, got 0"):
        ProbSparse(8, 2, factor=0)
    mixer = make_mixer("probsparse", 8, **accepted_options("probsparse", n_heads=2))
    with pytest.raises(ParameterError, match="ProbSparse: cannot read a memory"):
        mixer(torch.zeros(1, 3, 8), memory=torch.zeros(1, 2, 8))
    with pytest.raises(ParameterError, match="ProbSparse: mask must have the shape"):
        mixer(torch.zeros(1, 3, 8), mask=torch.ones(1, 3, 3, dtype=torch.bool))
