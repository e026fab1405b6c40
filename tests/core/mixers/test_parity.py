"""Mixers against the formulas that define them, written as loops over tokens."""

import math

import pytest
import torch
from torch.nn import functional as F

from tsar.core.mixers import (
    AttentionFree,
    Combiner,
    Companion,
    DynamicConvolution,
    ExponentialSmoothing,
    FlowAttention,
    Fourier,
    GatedConvolution,
    GatedStateSpace,
    HashedAttention,
    HolographicAttention,
    LandmarkAttention,
    LightConvolution,
    LowRankAttention,
    Mega,
    MultiresolutionAttention,
    NeighbourhoodAttention,
    PrefixAttention,
    RoutingAttention,
    SoftmaxAttention,
    SparseKeys,
    StructuredStateSpace,
)
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


def _companion(mixer, x):
    last = mixer.last / mixer.last.abs().sum(dim=1, keepdim=True)
    n_heads, d_state = last.shape
    h, outputs = torch.zeros(*x[:, 0].shape, d_state, dtype=x.dtype), []
    head = torch.arange(D) // (D // n_heads)
    for x_t in x.unbind(1):
        moved = torch.cat([torch.zeros_like(h[..., :1]), h[..., :-1]], dim=-1)
        h = moved + last[head] * h[..., -1:] + mixer.enter[head] * x_t[..., None]
        outputs.append((mixer.leave[head] * h).sum(dim=-1) + mixer.skip * x_t)
    return torch.stack(outputs, dim=1)


def _exponential_smoothing(mixer, x):
    a = mixer.logit.sigmoid().repeat_interleave(D // len(mixer.logit))
    before, growth, outputs = mixer.first_value, mixer.first_growth, []
    for value in mixer.value(x).unbind(1):
        growth = a * growth + (1 - a) * (value - before)
        before = value
        outputs.append(mixer.output(growth))
    return torch.stack(outputs, dim=1)


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
                share = share.scatter(0, best.indices, select_softly(best.values, mixer.n_keys))
                near = torch.arange(t + 1) > t - mixer.window
                seen = near | (share > 0)
                products = (key[b, : t + 1, n] @ query[b, t, n]) / 2
                weights = products.masked_fill(~seen, -torch.inf).softmax(dim=0)
                weights = weights * torch.where(near, 1.0, share)
                heads.append(weights @ value[b, : t + 1, n])
            outputs.append(torch.cat(heads))
        rows.append(torch.stack(outputs))
    return mixer.output(torch.stack(rows))


def _combiner_weights(mixer, x):
    """The weight of every token for every other, one pair after the other."""
    query, key, _ = mixer.query_key_value(x).unflatten(2, (3, 2, -1)).unbind(2)
    length, size = x.shape[1], mixer.block_size
    blocks = [range(b, min(b + size, length)) for b in range(0, length, size)]
    rows = []
    for t in range(length):
        own = [s for s in blocks[t // size] if s <= t or not mixer.causal]
        others = [
            b for k, b in enumerate(blocks) if (k < t // size if mixer.causal else k != t // size)
        ]
        q = query[:, t]  # (B, N, E)
        logits = [(q * key[:, s]).sum(dim=-1) / 2 for s in own]
        inside = []
        for block in others:
            k, summary = key[:, list(block)], query[:, list(block)].amax(dim=1)
            logits.append((q * k.amax(dim=1)).sum(dim=-1) / 2)
            inside.append((torch.einsum("bne,bsne->bsn", summary, k) / 2).softmax(dim=1))
        shares = torch.stack(logits).softmax(dim=0)
        row = [torch.zeros_like(shares[0])] * length
        for s, share in zip(own, shares, strict=False):
            row[s] = share
        for block, share, parts in zip(others, shares[len(own) :], inside, strict=True):
            for place, s in enumerate(block):
                row[s] = share * parts[:, place]
        rows.append(torch.stack(row))
    return torch.stack(rows)  # (L, L, B, N)


def _combiner(mixer, x):
    value = mixer.query_key_value(x).unflatten(2, (3, 2, -1))[:, :, 2]
    mixed = torch.einsum("tsbn,bsne->btne", _combiner_weights(mixer, x), value)
    return mixer.output(mixed.flatten(2))


def _routing(mixer, x):
    query, key, value = mixer.query_key_value(x).unflatten(2, (3, 2, -1)).unbind(2)
    rows = []
    for b in range(len(x)):
        outputs = []
        for t in range(x.shape[1]):
            heads = []
            for n in range(2):
                nearest = (key[b, : t + 1, n] @ mixer.centres[n].mT).argmax(dim=1)
                wanted = (mixer.centres[n] @ query[b, t, n]).argmax()
                members = [s for s in range(t + 1) if nearest[s] == wanted][-mixer.n_keys :]
                seen = sorted({*members, t})
                weights = (key[b, seen, n] @ query[b, t, n] / 2).softmax(dim=0)
                heads.append(weights @ value[b, seen, n])
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
    "companion": (lambda: Companion(D, 2, d_state=5), _companion),
    "exponential_smoothing": (lambda: ExponentialSmoothing(D, 2), _exponential_smoothing),
    "mega": (lambda: Mega(D, n_averages=3), _mega),
    "fourier": (lambda: Fourier(D, causal=True, period=24), _fourier),
    "light": (lambda: LightConvolution(D, 2, kernel_size=4, causal=True), _convolution),
    "dynamic": (lambda: DynamicConvolution(D, 2, kernel_size=4, causal=True), _convolution),
    "dynamic both ways": (lambda: DynamicConvolution(D, 2, kernel_size=5), _convolution),
    "combiner": (lambda: Combiner(D, 2, block_size=5), _combiner),
    "causal combiner": (lambda: Combiner(D, 2, block_size=5, causal=True), _combiner),
    "routing": (lambda: RoutingAttention(D, 2, n_clusters=3, n_keys=4).eval(), _routing),
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


def test_with_room_for_all_keys_sparse_attention_is_attention():
    torch.manual_seed(0)
    mixer = SparseKeys(D, 2, n_keys=40, window=2).double()
    plain = SoftmaxAttention(D, 2, causal=True).double()
    plain.query_key_value.load_state_dict(mixer.query_key_value.state_dict())
    plain.output.load_state_dict(mixer.output.state_dict())
    torch.testing.assert_close(mixer(_tokens(40)), plain(_tokens(40)))


@pytest.mark.parametrize("causal", [False, True])
def test_a_combiner_weighs_every_token_that_may_be_seen(causal):
    torch.manual_seed(0)
    mixer = Combiner(D, 2, block_size=4, causal=causal).double()
    weights = _combiner_weights(mixer, _tokens(11)).permute(2, 3, 0, 1)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 11, dtype=torch.float64))
    seen = torch.ones(11, 11).tril() if causal else torch.ones(11, 11)
    assert torch.equal((weights > 0).double(), seen.double().expand_as(weights))


@pytest.mark.parametrize("causal", [False, True])
def test_a_combiner_of_one_block_is_attention(causal):
    torch.manual_seed(0)
    mixer = Combiner(D, 2, block_size=40, causal=causal, rotary=True).double()
    plain = SoftmaxAttention(D, 2, causal=causal, rotary=True).double()
    plain.query_key_value.load_state_dict(mixer.query_key_value.state_dict())
    plain.output.load_state_dict(mixer.output.state_dict())
    torch.testing.assert_close(mixer(_tokens(33)), plain(_tokens(33)))


def test_one_cluster_with_room_for_all_keys_is_attention():
    torch.manual_seed(0)
    mixer = RoutingAttention(D, 2, n_clusters=1, n_keys=80, rotary=True).double()
    plain = SoftmaxAttention(D, 2, causal=True, rotary=True).double()
    plain.query_key_value.load_state_dict(mixer.query_key_value.state_dict())
    plain.output.load_state_dict(mixer.output.state_dict())
    torch.testing.assert_close(mixer(_tokens(70)), plain(_tokens(70)))


def test_centres_follow_what_is_trained_on_and_nothing_else():
    """Two directions that all tokens have: the centres come to lie there."""
    torch.manual_seed(0)
    mixer = RoutingAttention(D, 1, n_clusters=2, decay=0.5)
    with torch.no_grad():
        mixer.query_key_value.weight.copy_(torch.eye(D).repeat(3, 1))
        mixer.query_key_value.bias.zero_()
    ways = F.normalize(torch.randn(2, D), dim=1)
    lengths = torch.rand(3, 20, 1) + 0.5
    x = lengths * ways[torch.randint(2, (3, 20))]
    before = mixer.centres.clone()
    mixer.eval()(x)
    mixer.train().extend(x, mixer.init_state(3))
    assert torch.equal(mixer.centres, before)
    mixer.centres.copy_(F.normalize(ways[None] + 0.3 * torch.randn(1, 2, D), dim=2))
    for _ in range(40):
        mixer(x)
    torch.testing.assert_close(mixer.centres[0], ways, rtol=0, atol=1e-4)
    hidden = torch.zeros(3, 20, dtype=torch.bool)
    mixer(torch.randn(3, 20, D), mask=hidden)  # tokens that are not there move nothing
    torch.testing.assert_close(mixer.centres[0], ways, rtol=0, atol=1e-4)


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
        (lambda: Companion(6, 4), "Companion: n_heads=4 does not divide d_model=6"),
        (lambda: Companion(6, d_state=0), "Companion: d_state must be at least 1, got 0"),
        (lambda: ExponentialSmoothing(6, 4), "n_heads=4 does not divide d_model=6"),
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
        (lambda: Combiner(6, 4), "Combiner: n_heads=4 does not divide d_model=6"),
        (lambda: Combiner(6, 2, block_size=0), "block_size must be at least 1, got 0"),
        (lambda: RoutingAttention(6, 4), "n_heads=4 does not divide d_model=6"),
        (lambda: RoutingAttention(6, 2, n_clusters=0), "got 0, 32 and 0.999"),
        (lambda: SparseKeys(6, 4), "n_heads=4 does not divide d_model=6"),
    ],
)
def test_what_cannot_be_built(make, words):
    with pytest.raises(ParameterError, match=words):
        make()
