"""Mixers against the formulas that define them, written as loops over tokens."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch.nn import functional as F

from tsar.core.masks import neighbours
from tsar.core.mixers import (
    AttentionFree,
    DynamicConvolution,
    FlowAttention,
    Fourier,
    GatedConvolution,
    GatedStateSpace,
    HashedAttention,
    HolographicAttention,
    LandmarkAttention,
    LatentAttention,
    LightConvolution,
    LowRankAttention,
    Mega,
    MultiresolutionAttention,
    NeighbourhoodAttention,
    PrefixAttention,
    SoftmaxAttention,
    SparseKeys,
    StructuredStateSpace,
)
from tsar.core.mixers.hashed_attention import collisions
from tsar.core.mixers.landmark import newton_inverse
from tsar.core.ops.diagonal_recurrence import diagonal_recurrence
from tsar.core.ops.prefix_softmax import SoftmaxSums, merge, prefix_softmax
from tsar.core.ops.sparse_selection import select_softly
from tsar.exceptions import ParameterError

LENGTHS = (1, 2, 7, 33, 65)
D = 8


def _tokens(length, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, length, D, dtype=torch.float64, generator=generator).to(dtype)


# ------------------------------------------------------- the formulas, as loops


def _prefix_attention(mixer, x):
    key, value = mixer.key_value(x).unflatten(2, (2, 2, -1)).unbind(2)
    mixed = []
    for t in range(x.shape[1]):
        scores = torch.einsum("blne,ne->bln", key[:, : t + 1], mixer.query) / 2
        mixed.append((scores.softmax(dim=1)[..., None] * value[:, : t + 1]).sum(dim=1).flatten(1))
    return mixer.output(torch.stack(mixed, dim=1))


def _attention_free(mixer, x):
    query, key, value = mixer.query_key_value(x).chunk(3, dim=-1)
    near, mixed = mixer.near, []
    for t in range(x.shape[1]):
        parts = []
        for s in range(t + 1):
            bias = near[t - s] if t - s < len(near) else torch.zeros(D, dtype=x.dtype)
            parts.append(key[:, s] + bias)
        shares = torch.stack(parts, dim=1).softmax(dim=1)
        mixed.append(query[:, t].sigmoid() * (shares * value[:, : t + 1]).sum(dim=1))
    return mixer.output(torch.stack(mixed, dim=1))


def _modes(u, rate, weight):
    """``h_t = exp(rate) h_{t-1} + u_t``, one token after the other."""
    h, outputs = 0.0, []
    for u_t in u.unbind(1):
        h = rate.exp() * h + u_t[..., None]
        outputs.append((weight * h).sum(dim=-1).real)
    return torch.stack(outputs, dim=1)


def _gated_state_space(mixer, x):
    n_channels = max(1, D // 4)
    wide = F.gelu(mixer.input(x))
    u, gate = wide[..., :n_channels], wide[..., n_channels:]
    rate = torch.complex(-mixer.log_decay.exp(), mixer.frequency)
    weight = torch.complex(mixer.weight[..., 0], mixer.weight[..., 1])
    y = _modes(u, rate, weight * (rate.exp() - 1) / rate)
    return mixer.output(mixer.widen(y) * gate)


def _structured_state_space(mixer, x):
    step = mixer.log_step.exp()[:, None]
    rate = torch.complex(-mixer.log_decay.exp(), mixer.frequency)
    weight = torch.complex(mixer.weight[..., 0], mixer.weight[..., 1])
    y = 2 * _modes(x, step * rate, weight * ((step * rate).exp() - 1) / rate) + mixer.skip * x
    first, second = mixer.output(F.gelu(y)).chunk(2, dim=-1)
    return first * second.sigmoid()


def _turned(x, t):
    half = x.shape[-1] // 2
    angle = t * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    a, b = x[..., :half], x[..., half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _mega(mixer, x):
    p, a = mixer.delta.sigmoid(), mixer.alpha.sigmoid()
    h, smooth = torch.zeros(2, D, mixer.delta.shape[1], dtype=x.dtype), []
    for x_t in x.unbind(1):
        h = (1 - p * a) * h + p * mixer.beta * x_t[..., None]
        average = (mixer.gamma * h).sum(dim=-1) / mixer.delta.shape[1] ** 0.5
        smooth.append(F.silu(average + mixer.omega * x_t))
    opened, z, gate, hidden = mixer.base(torch.stack(smooth, dim=1)).split(mixer.parts, dim=-1)
    z, value, outputs = F.silu(z), F.silu(mixer.value(x)), []
    query, key = (z * mixer.query_key_scale[i] + mixer.query_key_bias[i] for i in (0, 1))
    key = torch.stack([_turned(key[:, t], t) for t in range(x.shape[1])], dim=1)
    for t in range(x.shape[1]):
        scores = torch.einsum("be,bse->bs", _turned(query[:, t], t), key[:, : t + 1])
        shares = (scores / mixer.d_key**0.5).softmax(dim=-1)
        attended = torch.einsum("bs,bsv->bv", shares, value[:, : t + 1])
        candidate = F.silu(hidden[:, t] + mixer.candidate(attended * F.silu(gate[:, t])))
        outputs.append(opened[:, t].sigmoid() * (candidate - x[:, t]))
    return torch.stack(outputs, dim=1)


def _fourier(mixer, x):
    length, period = x.shape[1], mixer.period
    index = torch.arange(D, dtype=torch.float64)
    features = torch.exp(-2j * math.pi / D * torch.outer(index, index))
    places = torch.arange(length, dtype=torch.float64)
    rows = torch.exp(-2j * math.pi / period * torch.outer(places, places)).tril()
    rows = rows / (places[:, None] + 1).sqrt()
    return (rows @ x.to(torch.complex128) @ features).real


def _convolution(mixer, x):
    first, second = mixer.input(x).chunk(2, dim=-1)
    value, size = first * second.sigmoid(), mixer.kernel_size
    by_head, outputs = value.unflatten(2, (2, -1)), []
    for t in range(x.shape[1]):
        weights = mixer.kernel(value[:, t]).view(-1, 2, size).softmax(dim=-1)
        mixed = 0.0
        for tap in range(size):
            s = t + tap - (size - 1 if mixer.causal else size // 2)
            if 0 <= s < x.shape[1]:
                mixed = mixed + weights[:, :, tap, None] * by_head[:, s]
        outputs.append(mixed.expand(2, -1, -1).flatten(1))
    return mixer.output(torch.stack(outputs, dim=1))


def _selected(scores, n_selected):
    """The projection by root finding."""
    if len(scores) <= n_selected:
        return torch.ones_like(scores)
    values = scores.detach().numpy()
    tau = brentq(
        lambda level: np.clip(values - level, 0, 1).sum() - n_selected,
        values.min() - 2,
        values.max(),
        xtol=1e-14,
    )
    # Numbers strictly between pass gradients, less their mean; the others are at a corner.
    chosen = (scores.detach() - tau).clamp(0, 1)
    between = (chosen > 1e-9) & (chosen < 1 - 1e-9)
    moved = scores - scores.detach()
    if between.any():
        moved = moved - moved[between].mean()
    return chosen + moved * between


def _sparse_keys(mixer, x):
    query, key, value = mixer.query_key_value(x).unflatten(2, (3, 2, -1)).unbind(2)
    score, rows = mixer.score(x), []
    for b in range(len(x)):
        outputs = []
        for t in range(x.shape[1]):
            heads = []
            for n in range(2):
                best = score[b, : t + 1, n].topk(min(2 * mixer.n_keys, t + 1))
                share = torch.zeros(t + 1, dtype=x.dtype)
                share = share.scatter(0, best.indices, _selected(best.values, mixer.n_keys))
                near = torch.arange(t + 1) > t - mixer.window
                seen = near | (share > 0)
                products = (key[b, : t + 1, n] @ query[b, t, n]) / 2
                weights = products.masked_fill(~seen, -torch.inf).softmax(dim=0)
                weights = weights * torch.where(near, 1.0, share)
                heads.append(weights @ value[b, : t + 1, n])
            outputs.append(torch.cat(heads))
        rows.append(torch.stack(outputs))
    return mixer.output(torch.stack(rows))


def _flow(mixer, x):
    heads = mixer.query_key_value(x).unflatten(2, (3, 2, -1))
    query, key, value = (part.transpose(1, 2) for part in heads.unbind(2))
    query, key, length = query.sigmoid(), key.sigmoid(), x.shape[1]
    flows = query @ key.mT  # (B, N, sinks, sources)
    if mixer.causal:
        flows = flows.tril()
    into, out = flows.sum(dim=3) + 1e-6, flows.sum(dim=2) + 1e-6
    if mixer.causal:  # what flows out of a source up to itself
        out = (query @ key.mT).triu().sum(dim=2) + 1e-6
    # With the capacity of all sinks, and of all sources, set to one.
    by_sink, by_source = flows / into[..., None], flows / out[..., None, :]
    given, taken = by_sink.sum(dim=2), by_source.sum(dim=3)
    if mixer.causal:
        given = ((query / into[..., None]) @ key.mT).triu().sum(dim=2)
    rows = []
    for s in range(length):
        among = given[..., : s + 1] if mixer.causal else given
        rows.append(among.softmax(dim=-1)[..., s] * among.shape[-1])
    competing = torch.stack(rows, dim=-1)[..., None] * value
    mixed = taken.sigmoid()[..., None] * (by_sink @ competing)
    return mixer.output(mixed.transpose(1, 2).flatten(2))


def _holographic(mixer, x):
    query, key, value = mixer.query_key_value(x).unflatten(2, (3, 2, -1)).unbind(2)
    width = D // 2

    def bound(a, b):
        return torch.stack(
            [sum(a[..., i] * b[..., (n - i) % width] for i in range(width)) for n in range(width)],
            dim=-1,
        )

    whole = sum(bound(key[:, s], value[:, s]) for s in range(x.shape[1]))
    index = torch.arange(width, dtype=torch.float64)
    transform = torch.exp(-2j * math.pi / width * torch.outer(index, index))
    weights = []
    for t in range(x.shape[1]):
        spectrum = query[:, t].to(torch.complex128) @ transform
        inverse = (spectrum.conj() / (spectrum.abs() ** 2 + 1e-6)) @ transform.conj() / width
        brought = bound(inverse.real, whole)
        near = (brought * value[:, t]).sum(dim=-1)
        weights.append(near / brought.norm(dim=-1) / value[:, t].norm(dim=-1))
    shares = torch.stack(weights, dim=1).softmax(dim=1) * x.shape[1]
    return mixer.output((shares[..., None] * value).flatten(2))


def _gaussian(mixer, x):
    key, value = mixer.key_value(x).unflatten(2, (2, 2, -1)).unbind(2)
    outputs = []
    for t in range(x.shape[1]):
        distance = (key[:, t : t + 1] - key).square().sum(dim=-1)
        weights = (-distance / (2 * (D / 2) ** 0.5)).exp()
        outputs.append((weights[..., None] * value).sum(dim=1).flatten(1))
    return mixer.output(torch.stack(outputs, dim=1))


def _gated_convolution(mixer, x):
    value, gate = mixer.input(x).chunk(2, dim=-1)
    n_taps, outputs = mixer.conv_weight.shape[1], []
    for t in range(x.shape[1]):
        seen = mixer.conv_bias
        for tap in range(n_taps):
            if t - n_taps + 1 + tap >= 0:
                seen = seen + mixer.conv_weight[:, tap] * value[:, t - n_taps + 1 + tap]
        outputs.append(seen * seen.sigmoid() * gate[:, t] * gate[:, t].sigmoid())
    return mixer.output(torch.stack(outputs, dim=1))


FORMULAS = {
    "gated_convolution": (lambda: GatedConvolution(D, d_conv=3), _gated_convolution),
    "flow": (lambda: FlowAttention(D, 2), _flow),
    "causal flow": (lambda: FlowAttention(D, 2, causal=True), _flow),
    "holographic": (lambda: HolographicAttention(D, 2), _holographic),
    "landmarks everywhere": (lambda: LandmarkAttention(D, 2, n_landmarks=65), _gaussian),
    "prefix_attention": (lambda: PrefixAttention(D, 2), _prefix_attention),
    "attention_free": (lambda: AttentionFree(D, window=5), _attention_free),
    "without order": (lambda: AttentionFree(D, window=0), _attention_free),
    "gated_state_space": (lambda: GatedStateSpace(D, d_state=6), _gated_state_space),
    "structured_state_space": (lambda: StructuredStateSpace(D, d_state=6), _structured_state_space),
    "mega": (lambda: Mega(D, n_averages=3), _mega),
    "fourier": (lambda: Fourier(D, causal=True, period=24), _fourier),
    "light": (lambda: LightConvolution(D, 2, kernel_size=4, causal=True), _convolution),
    "dynamic": (lambda: DynamicConvolution(D, 2, kernel_size=4, causal=True), _convolution),
    "dynamic both ways": (lambda: DynamicConvolution(D, 2, kernel_size=5), _convolution),
    "sparse_keys": (lambda: SparseKeys(D, 2, n_keys=3, window=4), _sparse_keys),
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixers_are_their_formulas_in_value_and_gradient(kind, length, dtype):
    make, formula = FORMULAS[kind]
    torch.manual_seed(0)
    # Buffers in double precision too, so that they are what the formula says.
    torch.set_default_dtype(torch.float64)
    try:
        mixer = make()
        for parameter in mixer.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    finally:
        torch.set_default_dtype(torch.float32)
    results = []
    weight = _tokens(length, seed=2)
    for compute, kept in ((mixer, dtype), (lambda x: formula(mixer, x), torch.float64)):
        mixer.to(kept)
        x = _tokens(length, kept).requires_grad_()
        y = compute(x)
        wanted = [x, *mixer.parameters()]
        grads = torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True)
        results.append([y.double(), *(None if part is None else part.double() for part in grads)])
    tolerance = 1e-10 if dtype is torch.float64 else 2e-3
    for result, expected in zip(*results, strict=True):
        if result is None or expected is None:  # a token alone has no past to weigh
            assert all(part is None or not part.any() for part in (result, expected))
        else:
            torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


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


# ---------------------------------------------------- what sees both directions


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


# ------------------------------------------------------------------------- ops


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


@pytest.mark.parametrize("kind", ["real", "complex", "shared"])
def test_convolutions_go_on_from_a_state(kind):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    n_channels = 1 if kind == "shared" else D
    rate, weight = -draw(n_channels, 5).exp(), draw(D, 5)
    if kind != "real":
        rate, weight = torch.complex(rate, draw(n_channels, 5)), torch.complex(weight, draw(D, 5))
    x = _tokens(40)
    expected, state = _modes(x, rate, weight), None
    outputs = []
    for piece in x.split([1, 13, 1, 1, 24], dim=1):
        y, state = diagonal_recurrence(piece, rate, weight, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_selected", [1, 3, 8])
def test_soft_selection_is_the_projection(n_selected):
    """Against root finding, in value and gradient, and against the conditions of the projection."""
    generator = torch.Generator().manual_seed(n_selected)
    for scale in [0.1, 1.0, 10.0] * 20:
        scores = scale * torch.randn(12, dtype=torch.float64, generator=generator)
        results = []
        for select in (select_softly, _selected):
            u = scores.clone().requires_grad_()
            chosen = select(u, n_selected)
            (gradient,) = torch.autograd.grad((chosen * torch.arange(12.0)).sum(), u)
            results.append((chosen.detach(), gradient))
        for result, expected in zip(*results, strict=True):
            torch.testing.assert_close(result, expected)
        chosen, gradient = results[0]
        assert float(chosen.sum()) == pytest.approx(n_selected)
        assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-9)
    ties = select_softly(torch.zeros(12, dtype=torch.float64), n_selected)
    torch.testing.assert_close(ties, torch.full_like(ties, n_selected / 12))
    few = torch.tensor([3.0, -torch.inf, 1.0])
    torch.testing.assert_close(select_softly(few, 2), torch.tensor([1.0, 0.0, 1.0]))


def test_with_room_for_all_keys_sparse_attention_is_attention():
    torch.manual_seed(0)
    mixer = SparseKeys(D, 2, n_keys=40, window=2).double()
    plain = SoftmaxAttention(D, 2, causal=True).double()
    plain.query_key_value.load_state_dict(mixer.query_key_value.state_dict())
    plain.output.load_state_dict(mixer.output.state_dict())
    torch.testing.assert_close(mixer(_tokens(40)), plain(_tokens(40)))


def test_what_is_remembered_of_keys_does_not_grow():
    mixer = SparseKeys(D, 2, n_keys=3, window=4).double()
    state, sizes = mixer.init_state(2), []
    for x_t in _tokens(40).split(1, dim=1):
        _, state = mixer.extend(x_t, state)
        sizes.append(state.keys.shape[2])
    assert max(sizes) == sizes[-1] == 2 * 3 + 4 - 1


def test_an_attention_free_mixer_without_a_window_knows_no_order():
    torch.manual_seed(0)
    for window, equal in ((0, True), (4, False)):
        mixer = AttentionFree(D, window=window).double()
        with torch.no_grad():
            mixer.near += torch.randn_like(mixer.near)
        x = _tokens(9)
        other = torch.cat([x[:, :8].flip(1), x[:, 8:]], dim=1)
        assert torch.allclose(mixer(x)[:, -1], mixer(other)[:, -1]) == equal


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PrefixAttention(6, 4), "PrefixAttention: n_heads=4 does not divide d_model=6"),
        (lambda: AttentionFree(6, window=-1), "window must be at least 0, got -1"),
        (lambda: GatedStateSpace(6, d_state=0), "must be at least 1, got 0, 4 and 4"),
        (lambda: StructuredStateSpace(6, d_state=5), "d_state must be a positive even number"),
        (lambda: Mega(6, d_key=3), "d_key even, got 16, 3 and 2"),
        (lambda: Fourier(6, period=1), "period must be at least 2, got 1"),
        (lambda: DynamicConvolution(6, 2, kernel_size=4), "odd unless causal=True, got 4"),
        (lambda: LightConvolution(6, 4), "LightConvolution: n_heads=4 does not divide"),
        (lambda: NeighbourhoodAttention(6, 2, window=4), "positive odd number"),
        (lambda: NeighbourhoodAttention(6, 4), "n_heads=4 does not divide d_model=6"),
        (lambda: LowRankAttention(6, 2, rank=0), "rank must be at least 1, got 0"),
        (lambda: LowRankAttention(6, 4), "n_heads=4 does not divide d_model=6"),
        (lambda: FlowAttention(6, 4), "FlowAttention: n_heads=4 does not divide d_model=6"),
        (lambda: HolographicAttention(6, 4), "n_heads=4 does not divide d_model=6"),
        (lambda: MultiresolutionAttention(6, 4), "n_heads=4 does not divide d_model=6"),
        (lambda: MultiresolutionAttention(6, 2, n_refined=0), "n_refined must be at least 1"),
        (lambda: HashedAttention(6, 4), "n_heads=4 does not divide d_model=6"),
        (lambda: HashedAttention(6, 2, n_bits=17), "n_bits must be from 1 to 16"),
        (lambda: LandmarkAttention(6, 4), "n_heads=4 does not divide d_model=6"),
        (lambda: LandmarkAttention(6, 2, n_landmarks=0), "n_landmarks must be at least 1"),
        (lambda: SparseKeys(6, 2, n_keys=0), "n_keys and window must be at least 1, got 0 and 64"),
        (lambda: SparseKeys(6, 4), "n_heads=4 does not divide d_model=6"),
    ],
)
def test_what_cannot_be_built(make, words):
    with pytest.raises(ParameterError, match=words):
        make()
