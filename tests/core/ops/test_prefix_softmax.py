"""Softmax sums over prefixes, against softmax itself."""

import math

import torch

from tsar.core.ops.prefix_softmax import SoftmaxSums, merge, prefix_softmax


def test_large_scores_do_not_overflow():
    """The sums of exponentials of 800 are not numbers; their ratios are."""
    scores = torch.tensor([[[800.0], [-800.0], [799.0], [800.0]]])
    values = torch.tensor([[[[1.0]], [[5.0]], [[2.0]], [[3.0]]]])
    e = math.exp(-1)
    means = prefix_softmax(scores, values).mean()[0, :, 0, 0]
    expected = torch.tensor([1.0, 1.0, (1 + 2 * e) / (1 + e), (1 + 2 * e + 3) / (2 + e)])
    torch.testing.assert_close(means, expected)


def test_sums_over_parts_are_merged_in_any_order():
    generator = torch.Generator().manual_seed(0)
    scores = 5 * torch.randn(2, 17, 3, dtype=torch.float64, generator=generator)
    values = torch.randn(2, 17, 3, 4, dtype=torch.float64, generator=generator)
    whole = (scores.softmax(dim=1)[..., None] * values).sum(dim=1)
    none = SoftmaxSums.none(scores, 2, 3, 4)
    parts = [none]
    for part, value in zip(
        scores.split([4, 6, 1, 6], 1), values.split([4, 6, 1, 6], 1), strict=True
    ):
        parts.append(SoftmaxSums(*(x[:, -1] for x in prefix_softmax(part, value))))
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]):
        merged = parts[order[0]]
        for place in order[1:]:
            merged = merge(merged, parts[place])
        torch.testing.assert_close(merged.mean(), whole, rtol=1e-12, atol=1e-12)
    left, right = merge(parts[1], parts[2]), merge(parts[3], parts[4])
    torch.testing.assert_close(merge(left, right).mean(), whole, rtol=1e-12, atol=1e-12)
    assert not none.mean().any()
