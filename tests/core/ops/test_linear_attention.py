"""Sums that go along, in chunks, against the loop over tokens that defines them."""

import pytest
import torch
from torch.nn import functional as F

from tsar.core.mixers import GatedLinearAttention, LinearAttention, Mamba2, Retention
from tsar.core.ops.linear_attention import linear_attention

LENGTHS = (1, 2, 7, 33, 65, 130)


def _loop(query, key, value, log_decay, state):
    outputs = []
    for t in range(value.shape[2]):
        if log_decay is not None:
            state = state * log_decay[:, :, t, None, None].exp()
        state = state + key[:, :, t, :, None] * value[:, :, t, None, :]
        outputs.append((query[:, :, t, :, None] * state).sum(dim=2))
    return torch.stack(outputs, dim=2), state


def _inputs(length, decays, dtype=torch.float64, shared=False):
    generator = torch.Generator().manual_seed(length)

    def draw(*shape):
        drawn = torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)
        return drawn.requires_grad_()

    heads = 1 if shared else 2
    query, key = draw(3, heads, length, 4), draw(3, heads, length, 4)
    log_decay = -draw(3, 2, length).abs().detach() * 2 if decays else None
    if log_decay is not None:
        log_decay.requires_grad_()
    return query, key, draw(3, 2, length, 5), log_decay, draw(3, 2, 4, 5)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("decays", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_are_the_loop_in_value_and_gradient(length, decays, shared, dtype):
    inputs = _inputs(length, decays, dtype, shared)
    wanted = [part for part in inputs if part is not None]
    tolerance = 1e-3 if dtype is torch.float32 else 1e-10
    results = []
    for compute in (linear_attention, _loop):
        y, state = compute(*inputs)
        grads = torch.autograd.grad((y.sin().sum() + state.cos().sum()), wanted)
        results.append([y, state, *grads])
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


def test_many_tokens_are_summed_in_half_precision():
    """Ones: a sum that were kept in bfloat16 itself would end at 256."""
    ones = torch.ones(1, 1, 3000, 1, dtype=torch.bfloat16)
    y, state = linear_attention(ones, ones, ones)
    assert y.dtype == torch.bfloat16 and float(state) == 3000
    torch.testing.assert_close(y[0, 0, :, 0], torch.arange(1, 3001).to(torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = linear_attention(ones.float(), ones.float(), ones.float())
    assert float(state) == 3000


def test_what_has_decayed_away_is_nothing_and_nothing_overflows():
    query, key, value, _, state = _inputs(70, decays=False)
    fast = torch.full((3, 2, 70), -1e4, dtype=torch.float64)
    y, after = linear_attention(query, key, value, fast, state)
    only_itself = (query * key).sum(dim=-1, keepdim=True) * value
    torch.testing.assert_close(y, only_itself)
    torch.testing.assert_close(after, key[:, :, -1, :, None] * value[:, :, -1, None, :])


@pytest.mark.parametrize("length", LENGTHS)
def test_mamba2_is_its_recurrence(length):
    """Token by token and head by head, from the formulas of the paper."""
    torch.manual_seed(0)
    mixer = Mamba2(6, d_state=5).double()
    x = torch.randn(2, length, 6, dtype=torch.float64)
    width, mixed = 12, 12 + 10
    n_heads, size = mixer.n_heads, 12 // mixer.n_heads
    projected = x @ mixer.input.weight.T
    gate, raw = projected[..., :width], projected[..., width : width + mixed]
    step = F.softplus(projected[..., width + mixed :] + mixer.step_bias)
    padded = F.pad(raw, (0, 0, 3, 0))
    expected = []
    state = torch.zeros(2, n_heads, 5, size, dtype=torch.float64)
    for t in range(length):
        seen = (padded[:, t : t + 4] * mixer.conv_weight.T).sum(dim=1) + mixer.conv_bias
        seen = seen * seen.sigmoid()
        value = seen[:, :width].view(2, n_heads, size)
        b, c = seen[:, width : width + 5], seen[:, width + 5 :]
        forget = (-mixer.log_decay.exp() * step[:, t]).exp()[..., None, None]
        added = step[:, t, :, None, None] * b[:, None, :, None] * value[:, :, None]
        state = forget * state + added
        y = (c[:, None, :, None] * state).sum(dim=2) + mixer.skip[:, None] * value
        y = y.reshape(2, width) * gate[:, t] * gate[:, t].sigmoid()
        scale = (y.pow(2).mean(dim=-1, keepdim=True) + torch.finfo(y.dtype).eps).rsqrt()
        expected.append(y * scale * mixer.norm.weight @ mixer.output.weight.T)
    torch.testing.assert_close(mixer(x), torch.stack(expected, dim=1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", [LinearAttention, Retention, GatedLinearAttention])
def test_heads_are_weighted_sums_over_earlier_tokens(kind, length):
    """The whole matrix of weights of each head, written out."""
    torch.manual_seed(0)
    mixer = kind(8, 2).double()
    x = torch.randn(3, length, 8, dtype=torch.float64)
    q, k, v = mixer.query_key_value(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    if kind is LinearAttention:
        weights = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT).tril()
        expected = weights @ v / (weights.sum(dim=-1, keepdim=True) + 1e-6)
    else:
        if kind is Retention:
            kept = 1 - 2.0 ** (-5 - torch.arange(2, dtype=torch.float64))
            logs = kept.log()[:, None].expand(3, 2, length)
        else:
            logs = F.logsigmoid(mixer.forget(x)).mT / 16
        since = logs.cumsum(dim=-1)
        between = (since[..., :, None] - since[..., None, :]).tril().exp().tril()
        mixed = (q / 2 @ k.mT * between) @ v
        scale = (mixed.pow(2).mean(dim=-1, keepdim=True) + torch.finfo(mixed.dtype).eps).rsqrt()
        expected = mixed * scale * mixer.norm.weight
    expected = expected.transpose(1, 2).flatten(2)
    if kind is not LinearAttention:
        gate = mixer.gate(x)
        expected = expected * gate * gate.sigmoid()
    tolerance = 1e-6 if kind is Retention else 1e-9  # its rates are kept in single precision
    torch.testing.assert_close(mixer(x), mixer.output(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [LinearAttention, Retention, GatedLinearAttention])
def test_no_token_sees_a_later_one(kind):
    torch.manual_seed(0)
    mixer, x = kind(8, 2).double(), torch.randn(2, 70, 8, dtype=torch.float64)
    altered = x.clone()
    altered[:, 40:] += 1.0
    before, after = mixer(x), mixer(altered)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert (before[:, 40:] != after[:, 40:]).any()
