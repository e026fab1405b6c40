import itertools
import math

import pytest
import torch

from tsar.core.sampling import Guidance, Sampler, draw, uniform
from tsar.exceptions import ParameterError

LOGITS = torch.tensor([[2.0, 0.5, 1.0, -1.0, 0.4], [0.0, 3.0, -2.0, 2.9, -40.0]])


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _by_hand(row, temperature, top_k, top_p):
    """In words: scale, sort, stop, divide."""
    weights = {token: math.exp(logit / temperature) for token, logit in enumerate(row)}
    order = sorted(weights, key=lambda token: -weights[token])[:top_k]
    total = sum(weights[token] for token in order)
    chosen, before = [], 0.0
    for token in order:
        if before < (2.0 if top_p is None else top_p):
            chosen.append(token)
        before += weights[token] / total
    total = sum(weights[token] for token in chosen)
    return [weights[t] / total if t in chosen else 0.0 for t in range(len(row))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, 9])
@pytest.mark.parametrize("top_p", [None, 0.2, 0.7, 1.0])
def test_probabilities_by_hand(temperature, top_k, top_p):
    sampler = Sampler(temperature, top_k, top_p)
    expected = [_by_hand(row, temperature, top_k, top_p) for row in LOGITS.double().tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(sampler.probabilities(LOGITS), expected)
    torch.testing.assert_close(sampler.probabilities(LOGITS[:, None])[:, 0], expected)


def test_the_mass_before_a_token_decides():
    """Half of the mass lies before the second token, which is not less than a half."""
    logits = torch.tensor([0.5, 0.25, 0.25]).log()
    assert Sampler(top_p=0.5).probabilities(logits).tolist() == [1.0, 0.0, 0.0]
    assert (Sampler(top_p=0.51).probabilities(logits) > 0).sum() == 2
    assert (Sampler(top_k=2).probabilities(torch.zeros(5)) > 0).sum() == 2


def test_temperature_of_nothing_takes_the_largest():
    sampler, generator = Sampler(temperature=0), _generator()
    before = generator.get_state()
    assert sampler.draw(LOGITS, generator).tolist() == [0, 1]
    assert torch.equal(generator.get_state(), before)
    assert sampler.probabilities(LOGITS).tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]


def test_extreme_logits_stay_finite():
    logits = torch.tensor([3e38, -3e38, 2.9e38, -math.inf])
    assert Sampler(temperature=1e-3).probabilities(logits).tolist() == [1, 0, 0, 0]


def test_draws_have_their_probabilities():
    """Chi-square of 100,000 draws, for which 18.5 is exceeded once in a thousand times."""
    for sampler in (Sampler(), Sampler(0.7, top_k=4), Sampler(1.5, top_p=0.8)):
        expected = sampler.probabilities(LOGITS[0]) * 100_000
        drawn = sampler.draw(LOGITS[:1].expand(100_000, -1), _generator(1))
        counts = torch.bincount(drawn, minlength=5)
        possible = expected > 0
        assert counts[~possible].sum() == 0
        assert ((counts - expected).square()[possible] / expected[possible]).sum() < 18.5


def test_a_draw_is_the_largest_with_gumbel_noise_in_double_precision():
    numbers = uniform(torch.Size((1000, 4)), _generator(3), LOGITS.device)
    assert numbers.dtype == torch.float64 and (numbers.float().double() != numbers).sum() > 3900
    logits = torch.randn(1000, 4, generator=_generator(4))
    expected = (logits - (-numbers.log()).log()).argmax(dim=1)
    assert torch.equal(draw(logits.softmax(1), _generator(3)), expected)


def test_draws_are_repeatable():
    logits = torch.randn(200, 7, generator=_generator(2))
    first, second, other = (Sampler().draw(logits, _generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a number in \\[0, inf\\), got -0.1"),
        ({"temperature": math.nan}, "temperature must be a number in \\[0, inf\\), got nan"),
        ({"top_k": 0}, "top_k must be an integer in \\[1, inf\\) or None, got 0"),
        ({"top_p": 0.0}, r"top_p must be a number in \(0, 1\] or None, got 0.0"),
        ({"top_p": 1.1}, r"top_p must be a number in \(0, 1\] or None, got 1.1"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ParameterError, match=f"^Sampler: {message}"):
        Sampler(**options)


def test_guidance_schedules():
    shares = [0.0, 0.25, 0.5, 1.0]
    weights = {
        ("constant", 1.0): [4.0, 4.0, 4.0, 4.0],
        ("linear", 1.0): [1.0, 1.75, 2.5, 4.0],
        ("power_cosine", 1.0): [1.0, 1 + 1.5 * (1 - 0.5**0.5), 2.5, 4.0],
        ("power_cosine", 2.0): [1.0, 1 + 1.5 * (1 - math.cos(math.pi / 16)), None, 4.0],
    }
    for (schedule, power), expected in weights.items():
        guidance = Guidance(3.0, schedule, power)
        for share, weight in zip(shares, expected, strict=True):
            if weight is not None:
                assert guidance.weight(share) == pytest.approx(weight)
    with pytest.raises(ParameterError, match="did you mean 'linear'"):
        Guidance(1.0, "linaer")
    with pytest.raises(ParameterError, match="power must be positive, got 0"):
        Guidance(1.0, "power_cosine", 0)


def test_guidance_combines():
    conditional, unconditional = torch.randn(2, 3, 4, generator=_generator()).unbind(0)
    for scale, share in itertools.product((0.0, 2.0), (0.0, 1.0)):
        weight = Guidance(scale, "linear").weight(share)
        result = Guidance.combine(conditional, unconditional, weight)
        expected = conditional + (weight - 1) * (conditional - unconditional)
        torch.testing.assert_close(result, expected)
        assert torch.equal(result, conditional) is (weight == 1)
