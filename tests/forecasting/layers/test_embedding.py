import pytest
import torch

from tsar.exceptions import ParameterError
from tsar.forecasting.layers.embedding import (
    ColumnTokens,
    PatchEmbedding,
    VariateEmbedding,
    cut_patches,
)


@pytest.mark.parametrize("end_padding", [True, False])
def test_patches_are_cut_per_variate(end_padding):
    x = torch.randn(3, 23, 2, generator=torch.Generator().manual_seed(0))
    padding = 4 if end_padding else 0
    patches = cut_patches(x, 5, 4, padding)
    padded = torch.cat([x, x[:, -1:].expand(-1, padding, -1)], dim=1)
    n_patches = (23 - 5) // 4 + (2 if end_padding else 1)
    assert patches.shape == (6, n_patches, 5)
    oldest = 0 if end_padding else 2  # without padding the patches end with the window
    for b in range(3):
        for c in range(2):
            for p in range(n_patches):
                expected = padded[b, oldest + 4 * p : oldest + 4 * p + 5, c]
                assert torch.equal(patches[2 * b + c, p], expected)


@pytest.mark.parametrize(
    ("context_length", "patch_length", "stride", "n_patches"),
    [(336, 16, 8, 42), (512, 16, 8, 64), (104, 24, 2, 42)],
)
def test_published_patch_counts(context_length, patch_length, stride, n_patches):
    embedding = PatchEmbedding(context_length, patch_length, stride, 6)
    assert embedding.n_patches == n_patches
    assert embedding(torch.zeros(2, context_length, 3)).shape == (6, n_patches, 6)
    bare = PatchEmbedding(context_length, patch_length, stride, 6, end_padding=False)
    assert bare.n_patches == n_patches - 1


def test_mask_says_which_patches_hold_an_observation():
    observed = torch.zeros(1, 12, 3).bool()
    observed[0, 9, 0] = True  # patches are 0-3, 4-7, 8-11 and the last value four times
    observed[0, 11, 1] = True
    mask = PatchEmbedding(12, 4, 4, 2).mask(observed)
    assert mask.tolist() == [[False, False, True, False], [False, False, True, True], [True] * 4]


def test_patch_longer_than_the_context():
    with pytest.raises(
        ParameterError, match="patch_length must be at most context_length=8, got 9"
    ):
        PatchEmbedding(8, 9, 1, 2)


def test_a_variate_is_one_token():
    torch.manual_seed(0)
    embedding = VariateEmbedding(11, 4).double()
    x = torch.randn(3, 11, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("blc,dl->bcd", x, embedding.project.weight) + embedding.project.bias
    torch.testing.assert_close(embedding(x), expected)


def test_mask_says_which_variates_were_observed_at_all():
    observed = torch.zeros(2, 9, 3).bool()
    observed[0, 4, 1] = True
    observed[1, :, 0] = True
    mask = VariateEmbedding(9, 2).mask(observed)
    assert mask.tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize("first_token", [False, True])
def test_masks_over_variates_and_along_time(first_token):
    observed = torch.rand(3, 11, 4, generator=torch.Generator().manual_seed(1)) > 0.8
    observed[1, :, 2], observed[2, 3:7] = False, False  # a variate, and a patch of all of them
    embedding = PatchEmbedding(11, 4, 4, 2, end_padding=False)
    across, along = embedding.masks(observed, first_token=first_token)
    seen = torch.zeros(3, 4, 2 + first_token, dtype=torch.bool)
    for b, c in [(b, c) for b in range(3) for c in range(4)]:
        steps = observed[b, :, c]
        some = [bool(steps[s : s + 4].any()) for s in (3, 7)]
        seen[b, c] = torch.tensor([any(some), *some] if first_token else some)
    assert across.shape == (3 * (2 + first_token), 4) and along.shape == (12, 2 + first_token)
    for row, (b, t) in enumerate((b, t) for b in range(3) for t in range(2 + first_token)):
        own = seen[b, :, t]
        assert torch.equal(across[row], own if own.any() else ~own)
    for row, (b, c) in enumerate((b, c) for b in range(3) for c in range(4)):
        own = seen[b, c]
        assert torch.equal(along[row], own if own.any() else ~own)
    assert embedding.masks(None) == (None, None)


def test_every_column_has_a_map_of_its_own():
    torch.manual_seed(0)
    tokens = ColumnTokens(3, 7, 4).double()
    x = torch.randn(5, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([x[..., k] @ tokens.weight[k] + tokens.bias[k] for k in range(3)], dim=1)
    torch.testing.assert_close(tokens(x), expected)
    assert tokens.weight.abs().max() <= 7**-0.5
