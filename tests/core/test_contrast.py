import pytest
import torch
from torch.nn import functional as F

from tsar.core.contrast import (
    hierarchical_contrast,
    instance_contrast,
    mean_discrepancy,
    neighbour_contrast,
    similarity_contrast,
    token_contrast,
)


def _views(length):
    generator = torch.Generator().manual_seed(length)
    return torch.randn(2, 3, length, 4, dtype=torch.float64, generator=generator)


def _plain_contrast(first, second):
    """One sequence: every token of either view against all others, one by one."""
    length, errors = len(first), []
    tokens = [*first, *second]
    for place, token in enumerate(tokens):
        twin = (place + length) % (2 * length)
        others = [k for k in range(2 * length) if k != place]
        scores = torch.stack([token @ tokens[k] for k in others])
        errors.append(scores.logsumexp(0) - token @ tokens[twin])
    return torch.stack(errors).mean()


@pytest.mark.parametrize("length", [1, 2, 5, 7])
def test_tokens_are_told_from_all_others(length):
    first, second = _views(length)
    expected = torch.stack([_plain_contrast(a, b) for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(token_contrast(first, second), expected)


@pytest.mark.parametrize(("length", "lengths"), [(1, [1]), (5, [5, 2, 1]), (11, [11, 5, 2, 1])])
def test_levels_are_halved_by_the_larger_of_two(length, lengths):
    first, second = _views(length)
    contrast = hierarchical_contrast(first, second)
    for b in range(3):
        total, pair = torch.zeros(()).double(), (first[b], second[b])
        for level in lengths:
            assert len(pair[0]) == level
            total += _plain_contrast(*pair) if level > 1 else 0
            pair = tuple(
                torch.stack([torch.maximum(x[2 * k], x[2 * k + 1]) for k in range(level // 2)])
                if level > 1
                else x
                for x in pair
            )
        torch.testing.assert_close(contrast[b], total / len(lengths))


def test_equal_views_of_tokens_far_apart_are_told_with_certainty():
    tokens = 10 * F.one_hot(torch.arange(4), 4).double()[None]
    assert float(token_contrast(tokens, tokens)) < 1e-6
    assert float(token_contrast(tokens, tokens.roll(1, dims=1))) > 50


@pytest.mark.parametrize("length", [1, 2, 6])
@pytest.mark.parametrize("hidden", [False, True])
def test_tokens_are_told_from_all_but_those_they_are_most_like(length, hidden):
    """Similarities of whole tenths, so that several are the largest."""
    tokens, _ = _views(length)
    generator = torch.Generator().manual_seed(9)
    similarity = torch.randint(0, 4, (3, length, length), generator=generator) / 10
    readable = torch.ones(3, length, dtype=torch.bool)
    if hidden:
        readable[:, 1:3] = False
    contrast = similarity_contrast(tokens, similarity.double(), readable if hidden else None)
    for b in range(3):
        for i in range(length):
            others = [j for j in range(length) if j != i and readable[b, j]]
            expected = torch.zeros(()).double()
            if others:
                scores = {j: tokens[b, i] @ tokens[b, j] for j in others}
                total = torch.stack(list(scores.values())).logsumexp(0)
                most = max(float(similarity[b, i, j]) for j in others)
                right = [j for j in others if float(similarity[b, i, j]) == most]
                expected = most * sum(total - scores[j] for j in right) / len(right)
            torch.testing.assert_close(contrast[b, i], expected, check_dtype=False)


def test_vectors_are_told_from_all_of_the_other_view():
    first, second = (view[:, 0] for view in _views(3))
    contrast = instance_contrast(first, second)
    for b in range(3):
        scores = torch.stack([F.cosine_similarity(first[b], other, dim=0) for other in second])
        torch.testing.assert_close(contrast[b], scores.logsumexp(0) - scores[b])


@pytest.mark.parametrize("length", [2, 3, 6])
def test_parts_are_told_from_all_but_their_neighbours(length):
    parts, _ = _views(length)
    contrast = neighbour_contrast(parts)
    for b in range(3):
        errors = []
        for i in range(length):
            right = i + 1 if i + 1 < length else i - 1
            others = [right, *(j for j in range(length) if abs(i - j) > 1)]
            scores = torch.stack([parts[b, i] @ parts[b, j] for j in others])
            errors.append(scores.logsumexp(0) - scores[0])
        torch.testing.assert_close(contrast[b], torch.stack(errors).mean())


def test_discrepancy_against_loops():
    first, second = (view[:, 0] for view in _views(4))
    both = [*first, *second]
    pairs = [(a - b).square().sum() for a in both for b in both]
    width = sum(pairs) / (6 * 5)

    def kernel(a, b):
        return sum(torch.exp(-(a - b).square().sum() / (width * f)) for f in (0.25, 0.5, 1, 2, 4))

    def mean(one, other):
        return torch.stack([kernel(a, b) for a in one for b in other]).mean()

    expected = mean(first, first) + mean(second, second) - 2 * mean(first, second)
    torch.testing.assert_close(mean_discrepancy(first, second), expected)
    torch.testing.assert_close(mean_discrepancy(first, first), torch.zeros(()).double())
