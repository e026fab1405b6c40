"""Mixers that see all tokens, against matrices of all pairs and formulas as loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from tsar.core.masks import neighbours
from tsar.core.mixers import (
    FlowAttention,
    Fourier,
    HashedAttention,
    HolographicAttention,
    LandmarkAttention,
    LatentAttention,
    LowRankAttention,
    MultiresolutionAttention,
    NeighbourhoodAttention,
    SoftmaxAttention,
)
from tsar.core.mixers.hashed_attention import collisions
from tsar.core.mixers.landmark import newton_inverse
from tsar.exceptions import ParameterError

LENGTHS = (1, 2, 7, 33, 65)
D = 8


def _tokens(length, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, length, D, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mask", [False, True])
def test_fourier_is_the_transform_over_both_axes(length, mask):
    x = _tokens(length)
    seen = torch.arange(length) < max(1, length - 3)
    shown = x * seen[:, None] if mask else x
    index = torch.arange(D, dtype=torch.float64)
    places = torch.arange(length, dtype=torch.float64)
    features = torch.exp(-2j * math.pi / D * torch.outer(index, index))
    rows = torch.exp(-2j * math.pi / length * torch.outer(places, places))
    expected = (rows @ shown.to(torch.complex128) @ features).real
    result = Fourier(D)(x, mask=seen.expand(2, -1) if mask else None)
    torch.testing.assert_close(result, expected)


def _as_softmax(mixer, query_key_value):
    plain = SoftmaxAttention(D, 2).double()
    plain.query_key_value.load_state_dict(query_key_value)
    plain.output.load_state_dict(mixer.output.state_dict())
    return plain


@pytest.mark.parametrize("length", LENGTHS)
def test_a_neighbourhood_is_attention_under_its_mask(length):
    torch.manual_seed(0)
    mixer = NeighbourhoodAttention(D, 2, window=5).double()
    plain = _as_softmax(mixer, mixer.query_key_value.state_dict())
    near = torch.zeros(length, length, dtype=torch.bool)
    for t in range(length):
        begin = min(max(t - 2, 0), max(length - 5, 0))
        near[t, begin : begin + 5] = True
    x = _tokens(length).requires_grad_()
    seen = torch.rand(2, length, generator=torch.Generator().manual_seed(4)) < 0.7
    for mask in (torch.ones(2, length, dtype=torch.bool), seen):
        expected = plain(x, mask=near & mask[:, None])
        shown = (near & mask[:, None]).any(dim=-1)
        result = mixer(x, mask=mask)
        torch.testing.assert_close(result[shown], expected[shown])
        result, expected = (
            torch.autograd.grad(y[shown].sin().sum(), x)[0] for y in (result, expected)
        )
        torch.testing.assert_close(result, expected)


def test_a_neighbourhood_of_an_image_is_shifted_at_its_borders():
    torch.manual_seed(0)
    mixer = NeighbourhoodAttention(D, 2, window=3, grid=(4, 6)).double()
    plain, near = _as_softmax(mixer, mixer.query_key_value.state_dict()), torch.zeros(24, 24)
    for row in range(4):
        for column in range(6):
            top, left = min(max(row - 1, 0), 1), min(max(column - 1, 0), 3)
            for r in range(top, top + 3):
                near[row * 6 + column, r * 6 + left : r * 6 + left + 3] = 1
    x = _tokens(24)
    torch.testing.assert_close(mixer(x), plain(x, mask=near.bool()[None]))
    assert (near.sum(dim=1) == 9).all() and neighbours((4, 6), 3).shape == (24, 9)
    with pytest.raises(ParameterError, match="a grid of 4 x 6 has 24 tokens, got 23"):
        mixer(x[:, 1:])


@pytest.mark.parametrize("length", [1, 2, 7])
def test_few_tokens_are_no_summaries(length):
    torch.manual_seed(0)
    mixer = LowRankAttention(D, 2, rank=7).double()
    maps = [mixer.query.state_dict(), mixer.key_value.state_dict()]
    plain = _as_softmax(mixer, {name: torch.cat([part[name] for part in maps]) for name in maps[0]})
    x, mask = _tokens(length), torch.arange(length) < max(1, length - 2)
    torch.testing.assert_close(mixer(x), plain(x))
    mask = mask.expand(2, -1)
    torch.testing.assert_close(mixer(x, mask=mask), plain(x, mask=mask))


@pytest.mark.parametrize("length", [33, 65])
def test_summaries_are_means_over_stretches_of_what_is_there(length):
    torch.manual_seed(0)
    mixer = LowRankAttention(D, 2, rank=4).double()
    x, expected = _tokens(length), []
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[0, : length // 4] = False  # a stretch of nothing
    stretch = [4 * t // length for t in range(length)]
    for b in range(2):
        means = []
        for k in range(4):
            rows = [t for t in range(length) if stretch[t] == k and mask[b, t]]
            if rows:
                means.append(x[b, rows].mean(dim=0))
        key, value = mixer.key_value(torch.stack(means)).unflatten(1, (2, 2, -1)).unbind(1)
        query = mixer.query(x[b]).unflatten(1, (2, -1))
        weights = (torch.einsum("lne,sne->nls", query, key) / 2).softmax(dim=-1)
        expected.append(mixer.output(torch.einsum("nls,sne->lne", weights, value).flatten(1)))
    torch.testing.assert_close(mixer(x, mask=mask), torch.stack(expected))


def test_latents_read_all_and_are_read_by_all():
    torch.manual_seed(0)
    mixer = LatentAttention(D, 2, n_latents=3).double()
    x, mask = _tokens(9), torch.arange(9).expand(2, -1) < 6
    latents = mixer.latents.expand(2, -1, -1)
    latents = latents + mixer.read(latents, memory=x[:, :6])
    torch.testing.assert_close(mixer(x, mask=mask), mixer.write(x, memory=latents))
    assert not torch.allclose(mixer(x), mixer(x, mask=mask))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("n_refined", [1, 2, 40])
def test_scores_of_blocks_are_those_of_their_means_unless_refined(length, n_refined):
    """The whole matrix of scores, written out; with all blocks refined it is attention."""
    torch.manual_seed(0)
    mixer = MultiresolutionAttention(D, 2, block_size=4, n_refined=n_refined).double()
    x = (2 * _tokens(length)).requires_grad_()
    seen = torch.rand(2, length, generator=torch.Generator().manual_seed(4)) < 0.8
    seen[:, 0] = True
    for mask in (None, seen):
        shown = torch.ones(2, length, dtype=torch.bool) if mask is None else mask
        query, key, value = mixer.query_key_value(x).unflatten(2, (3, 2, -1)).unbind(2)
        n_blocks, rows = -(-length // 4), []
        for b, n in [(b, n) for b in range(2) for n in range(2)]:
            blocks = [[t for t in range(4 * c, min(4 * c + 4, length)) if shown[b, t]]
                      for c in range(n_blocks)]  # fmt: skip
            means = [
                [
                    part[b, block, n].mean(dim=0) if block else torch.zeros(D // 2).double()
                    for block in blocks
                ]
                for part in (query / 2, key)
            ]
            scores = (query[b, :, n] / 2) @ key[b, :, n].T
            coarse = torch.stack(means[0]) @ torch.stack(means[1]).T
            empty = torch.tensor([not block for block in blocks])
            coarse = coarse.masked_fill(empty, -1e300)
            best = coarse.flatten().topk(min(n_refined * n_blocks, n_blocks**2)).indices
            whole = torch.full((length, length), -torch.inf, dtype=torch.float64)
            for pair in range(n_blocks**2):
                r, c = pair // n_blocks, pair % n_blocks
                for t in range(4 * r, min(4 * r + 4, length)):
                    for s in blocks[c]:
                        whole[t, s] = scores[t, s] if pair in best else coarse[r, c]
            rows.append(whole.softmax(dim=-1) @ value[b, :, n])
        expected = torch.stack(rows).view(2, 2, length, -1).transpose(1, 2).flatten(2)
        result = mixer(x, mask=mask)
        torch.testing.assert_close(result, mixer.output(expected))
        if n_refined == 40:
            plain = _as_softmax(mixer, mixer.query_key_value.state_dict())
            exact = plain(x, mask=mask)
            torch.testing.assert_close(result, exact)
            grads = [torch.autograd.grad(y.sin().sum(), x)[0] for y in (mixer(x, mask=mask), exact)]
            torch.testing.assert_close(*grads)


def test_the_error_falls_with_what_is_refined():
    torch.manual_seed(0)
    plain, x = SoftmaxAttention(D, 2).double(), 3 * _tokens(64)
    errors = []
    for n_refined in (1, 2, 4, 8, 16):
        mixer = MultiresolutionAttention(D, 2, block_size=4, n_refined=n_refined).double()
        mixer.load_state_dict(plain.state_dict())
        errors.append(float((mixer(x) - plain(x)).square().mean().detach()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-20 < errors[-2]


def _unit(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)


@pytest.mark.parametrize("n_hashes", [1, 3])
def test_tables_of_hashes_are_sums_over_pairs_that_collide(n_hashes):
    """Values and the gradients of the paper, with the matrix of collisions written out."""
    query, key = _unit(2, 2, 33, 4, seed=0), _unit(2, 2, 33, 4, seed=1)
    value, weight = _unit(2, 2, 33, 5, seed=2), _unit(2, 2, 33, 5, seed=3)
    directions = _unit(n_hashes, 4, 3, seed=4)
    signs = [torch.einsum("bnle,hek->hbnlk", part, directions) > 0 for part in (query, key)]
    same = (signs[0][..., :, None, :] == signs[1][..., None, :, :]).all(dim=-1).double().mean(dim=0)
    for part in (query, key, value):
        part.requires_grad_()
    mixed = collisions(query, key, value, directions)
    torch.testing.assert_close(mixed, same @ value)
    grads = torch.autograd.grad((mixed * weight).sum(), (query, key, value))
    pairs = 1.5 * same * (weight @ value.mT)  # 3 bits, halved
    expected = (pairs @ key, pairs.mT @ query, same.mT @ weight)
    for grad, formula in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, formula)


def test_hashes_weigh_by_the_angle_on_average():
    query, key, value = _unit(1, 1, 9, 4, seed=0), _unit(1, 1, 9, 4, seed=1), torch.eye(9).double()
    directions = torch.randn(
        20_000, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    shares = collisions(query, key, value[None, None], directions)[0, 0]
    angle = (query[0, 0] @ key[0, 0].mT).acos()
    expected = (1 - angle / math.pi) ** 3
    assert float((shares - expected).abs().max()) < 4 * 0.5 / 20_000**0.5


@pytest.mark.parametrize(
    "make", [FlowAttention, HashedAttention, HolographicAttention, LandmarkAttention]
)
def test_what_is_masked_is_what_is_not_there(make):
    torch.manual_seed(0)
    mixer, x = make(D, 2).double(), _tokens(9)
    mask = torch.arange(9).expand(2, -1) < 6
    torch.testing.assert_close(mixer(x, mask=mask)[:, :6], mixer(x[:, :6]))


def test_few_landmarks_are_the_projection_on_their_kernels():
    """``K(x, l) K(l, l)^-1 K(l, x) v``, with the inverse of LAPACK; a stretch may be masked."""
    torch.manual_seed(0)
    mixer, x = LandmarkAttention(D, 2, n_landmarks=4).double(), _tokens(33)
    key, value = mixer.key_value(x).unflatten(2, (2, 2, -1)).transpose(1, 3).unbind(2)
    parts = [key[:, :, [t for t in range(33) if 4 * t // 33 == k]].mean(dim=2) for k in range(4)]

    def kernel(a, b):
        squares = (a[:, :, :, None] - b[:, :, None]).square().sum(dim=-1)
        return (-squares / (2 * (D / 2) ** 0.5)).exp()

    for n_parts in (4, 3):
        marks = torch.stack(parts[:n_parts], dim=2)
        length = [33, 25][4 - n_parts]
        across = kernel(key[:, :, :length], marks)
        ridge = 0.01 * torch.eye(n_parts, dtype=torch.float64)
        inverse = torch.linalg.inv(kernel(marks, marks) + ridge)
        expected = across @ inverse @ across.mT @ value[:, :, :length]
        mask = None if n_parts == 4 else (torch.arange(33) < length).expand(2, -1)
        result = mixer(x, mask=mask)[:, :length]
        torch.testing.assert_close(result, mixer.output(expected.transpose(1, 2).flatten(2)))


def test_an_inverse_by_products_has_its_own_gradient():
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(2, 6, 6, dtype=torch.float64, generator=generator)
    matrix = half @ half.mT + 0.5 * torch.eye(6, dtype=torch.float64)
    results = []
    for inverse in (newton_inverse, torch.linalg.inv):
        a = matrix.clone().requires_grad_()
        y = inverse(a)
        results.append((y, *torch.autograd.grad(y.sin().sum(), a)))
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
