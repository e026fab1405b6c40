import pytest
import torch

from tsar.core.masks import block_diffusion, together, visible, window
from tsar.exceptions import ParameterError


def _table(rule, n_queries, n_keys):
    return torch.tensor([[rule(i, j) for j in range(n_keys)] for i in range(n_queries)])


def test_a_token_sees_its_level_and_lower_ones():
    levels = torch.tensor([[0, 1, 1, 2], [3, 0, 2, 0]])
    seen = visible(levels)
    assert seen.shape == (2, 4, 4)
    for row, own in enumerate(levels.tolist()):
        assert torch.equal(seen[row], _table(lambda i, j, own=own: own[j] <= own[i], 4, 4))
    assert torch.equal(visible(torch.arange(5)), torch.ones(5, 5).tril().bool())
    assert torch.equal(visible(levels[:, 2:], levels), seen[:, 2:])


def test_a_token_sees_its_level_alone():
    levels = torch.tensor([[0, 1, 1, 2], [3, 0, 2, 0]])
    seen = together(levels)
    for row, own in enumerate(levels.tolist()):
        assert torch.equal(seen[row], _table(lambda i, j, own=own: own[j] == own[i], 4, 4))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("size", "sinks"), [(None, 0), (1, 0), (3, 2), (9, 1)])
def test_windows(size, sinks, causal):
    def rule(i, j):
        near = size is None or abs(i + 4 - j) < size or j < sinks
        return near and (j <= i + 4 or not causal)

    seen = window(torch.arange(4, 9), torch.arange(9), size, sinks=sinks, causal=causal)
    assert torch.equal(seen, _table(rule, 5, 9))


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 9])
def test_noisy_and_clean_blocks(block_size):
    def rule(i, j):
        query, key = i % 7 // block_size, j % 7 // block_size
        if i < 7:  # noisy
            return key == query if j < 7 else key < query
        return j >= 7 and key <= query

    assert torch.equal(block_diffusion(7, block_size), _table(rule, 14, 14))


def test_blocks_have_tokens():
    with pytest.raises(ParameterError, match="block_size must be at least 1, got 0"):
        block_diffusion(4, 0)
