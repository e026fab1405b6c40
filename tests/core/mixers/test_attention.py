import pytest
import torch

from tsar.core.mixers import (
    MIXERS,
    SoftmaxAttention,
    accepted_options,
    causal_mixers,
    make_mixer,
)
from tsar.exceptions import ParameterError


def _mixer(**options):
    torch.manual_seed(0)
    return SoftmaxAttention(6, 2, **options).double()


def _tokens(batch=3, length=7):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, 6, dtype=torch.float64, generator=generator)


def _by_heads(mixer, x, mask=None, previous=None):
    """Multi-head attention as a loop over sequences and heads; returns scores as well."""
    weight, bias = mixer.query_key_value.weight, mixer.query_key_value.bias
    query, key, value = (x @ w.T + b for w, b in zip(weight.chunk(3), bias.chunk(3), strict=True))
    outputs, all_scores = [], []
    for b in range(len(x)):
        heads = []
        for n in range(2):
            part = slice(3 * n, 3 * n + 3)
            scores = query[b, :, part] @ key[b, :, part].T / 3**0.5
            if previous is not None:
                scores = scores + previous[b][n]
            heads.append(scores)
        all_scores.append(heads)
        seen = torch.ones(x.shape[1], x.shape[1]).bool() if mask is None else mask[b]
        mixed = [
            s.masked_fill(~seen, -torch.inf).softmax(-1) @ value[b, :, 3 * n : 3 * n + 3]
            for n, s in enumerate(heads)
        ]
        outputs.append(torch.cat(mixed, dim=-1) @ mixer.output.weight.T + mixer.output.bias)
    return torch.stack(outputs), all_scores


@pytest.mark.parametrize("backend", ["reference", "matmul", "sdpa", None])
def test_heads_are_mixed_one_by_one(backend):
    mixer, x = _mixer(backend=backend), _tokens()
    torch.testing.assert_close(mixer(x), _by_heads(mixer, x)[0])


def test_masks():
    mixer, x = _mixer(), _tokens()
    mask = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(2)) > 0.3
    mask[..., 0] = True
    torch.testing.assert_close(mixer(x, mask=mask), _by_heads(mixer, x, mask)[0])
    keys = mask[:, 0]
    expected = _by_heads(mixer, x, keys[:, None].expand(-1, 7, -1))[0]
    torch.testing.assert_close(mixer(x, mask=keys), expected)


def test_masked_tokens_change_nothing():
    mixer, x = _mixer(), _tokens()
    keys = torch.ones(3, 7).bool()
    keys[:, 4] = False
    other = x.clone()
    other[:, 4] = 100.0
    places = [0, 1, 2, 3, 5, 6]
    assert torch.equal(mixer(x, mask=keys)[:, places], mixer(other, mask=keys)[:, places])


@pytest.mark.parametrize("backend", ["reference", "matmul", "sdpa"])
def test_residual_scores_add_up(backend):
    """Three layers: the scores handed on are those of all layers before, summed."""
    x = _tokens()
    carry, previous = None, None
    for seed in range(3):
        torch.manual_seed(seed)
        mixer = SoftmaxAttention(6, 2, residual_scores=True, backend=backend).double()
        expected, previous = _by_heads(mixer, x, previous=previous)
        output, carry = mixer.mix(x, carry)
        torch.testing.assert_close(output, expected)
        x = output


def test_nothing_is_handed_on_without_residual_scores():
    assert _mixer().mix(_tokens(), None)[1] is None


@pytest.mark.parametrize("n_memory", [1, 4, 7, 15])
@pytest.mark.parametrize("masking", ["none", "keys", "pairs"])
@pytest.mark.parametrize("causal", [False, True])
def test_memory_is_read_as_by_torch(n_memory, masking, causal):
    """Torch's own cross-attention with the same weights; causal or not, all of it is read."""
    mixer, x = _mixer(causal=causal), _tokens().requires_grad_()
    memory = _tokens(length=n_memory).requires_grad_()
    theirs = torch.nn.MultiheadAttention(6, 2, batch_first=True).double()
    ours = ("query_key_value.weight", "query_key_value.bias", "output.weight", "output.bias")
    names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    theirs.load_state_dict(
        {name: mixer.get_parameter(own) for name, own in zip(names, ours, strict=True)}
    )
    mask, hidden = None, {}
    if masking != "none":
        shape = (3, n_memory) if masking == "keys" else (3, 7, n_memory)
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.3
        mask[..., 0] = True
        # There True is what may not be seen, and pairs have an axis of heads.
        hidden = (
            {"key_padding_mask": ~mask}
            if masking == "keys"
            else {"attn_mask": ~mask.repeat_interleave(2, dim=0)}
        )
    expected = theirs(x, memory, memory, need_weights=False, **hidden)[0]
    output = mixer(x, mask=mask, memory=memory)
    torch.testing.assert_close(output, expected)
    weight = _tokens(length=7)
    ours, theirs = (
        torch.autograd.grad((y * weight).sum(), [x, memory]) for y in (output, expected)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["mamba", "bidirectional_mamba"])
def test_a_memory_is_refused_by_what_reads_none(name):
    mixer = make_mixer(name, 6).double()
    with pytest.raises(ParameterError, match=f"{type(mixer).__name__}: cannot read a memory"):
        mixer(_tokens(), memory=_tokens(length=4))


def test_causal_forward_does_not_look_ahead():
    mixer, x = _mixer(causal=True), _tokens()
    other = x.clone()
    other[:, 5:] = 100.0
    assert torch.equal(mixer(x)[:, :5], mixer(other)[:, :5])


def test_dropout_of_weights_acts_in_training_only():
    mixer, x = _mixer(dropout=0.5), _tokens()
    assert not torch.allclose(mixer(x), mixer(x))
    mixer.eval()
    torch.testing.assert_close(mixer(x), _by_heads(mixer, x)[0])


def test_heads_must_divide_the_width():
    with pytest.raises(ParameterError, match="n_heads=4 does not divide d_model=6"):
        SoftmaxAttention(6, 4)


def test_mixers_by_name():
    assert isinstance(make_mixer("attention", 6, n_heads=2), SoftmaxAttention)
    with pytest.raises(ParameterError, match="did you mean 'attention'"):
        make_mixer("atention", 6, n_heads=2)


def test_a_mixer_takes_of_what_is_offered_what_it_has():
    offered = accepted_options("attention", n_heads=2, d_state=5, dropout=0.1)
    assert offered == {"n_heads": 2, "dropout": 0.1}
    with pytest.raises(ParameterError, match="did you mean 'attention'"):
        accepted_options("atention")


@pytest.mark.parametrize("name", MIXERS)
def test_causal_mixers_are_those_that_can_be_causal(name):
    mixer = make_mixer(name, 6, **accepted_options(name, n_heads=2, causal=True))
    assert mixer.causal is (name in causal_mixers())


def test_causal_attention_looks_at_nothing_later_whatever_is_masked():
    mixer, x = _mixer(causal=True), _tokens()
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    mask[0, :2] = mask[1] = False
    altered = torch.cat([x[:, :-1], 1 - x[:, -1:]], dim=1)
    torch.testing.assert_close(mixer(altered, mask=mask)[:, :-1], mixer(x, mask=mask)[:, :-1])


def _plainly(mixer, x):
    """Attention with all options, as loops over heads, queries and features."""
    n_heads, n_kv, width = mixer.n_heads, mixer.n_kv_heads, x.shape[2] // mixer.n_heads
    projected = mixer.query_key_value(x)
    batch, length, d_model = x.shape
    parts = projected.split([d_model, n_kv * width, n_kv * width], dim=2)
    query, key, value = (part.reshape(batch, length, -1, width).clone() for part in parts)
    for heads, norm in ((query, mixer.query_norm), (key, mixer.key_norm)):
        for n in range(heads.shape[2]):
            for t in range(length):
                row = heads[:, t, n].clone()
                if norm is not None:
                    eps = torch.finfo(row.dtype).eps
                    row = row / (row.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight
                turned = row.clone()
                for i in range(width // 2 if mixer.rotary is not None else 0):
                    point = torch.complex(row[:, i], row[:, i + width // 2])
                    angle = torch.tensor(t * 10_000 ** (-2 * i / width), dtype=x.dtype)
                    point = point * torch.polar(torch.ones_like(angle), angle)
                    turned[:, i], turned[:, i + width // 2] = point.real, point.imag
                heads[:, t, n] = turned
    mixed = torch.zeros_like(query)
    for n in range(n_heads):
        k = n // (n_heads // n_kv)
        for t in range(length):
            seen = [
                s
                for s in range(length)
                if (s <= t or not mixer.causal)
                and (mixer.window is None or abs(t - s) < mixer.window or s < mixer.sinks)
            ]
            scores = (query[:, t, n, None] * key[:, seen, k]).sum(-1) / width**0.5
            mixed[:, t, n] = (scores.softmax(-1)[..., None] * value[:, seen, k]).sum(1)
    return mixer.output(mixed.flatten(2))


OPTIONS = {
    "rotary": {"rotary": True},
    "norm": {"qk_norm": True, "bias": False},
    "window": {"window": 3},
    "sinks": {"window": 2, "sinks": 2, "rotary": True},
    "grouped": {"n_kv_heads": 2, "bias": "inputs"},
    "all": {
        "rotary": True,
        "qk_norm": True,
        "bias": False,
        "window": 3,
        "sinks": 1,
        "n_kv_heads": 1,
    },
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_against_loops(options, causal):
    torch.manual_seed(0)
    mixer = SoftmaxAttention(16, 4, causal=causal, **options).double()
    for name, parameter in mixer.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=generator).requires_grad_()
    results = [mixer(x), _plainly(mixer, x)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)
    over = [x, *mixer.parameters()]
    grads = [torch.autograd.grad(result.square().sum(), over) for result in results]
    for result, expected in zip(*grads, strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_are_recorded_with_all_options(options):
    mixer = SoftmaxAttention(16, 4, causal=True, **options)
    with mixer.recording() as recorded:
        mixer(torch.randn(2, 7, 16))
    (weights,) = recorded
    assert weights.shape == (2, 4, 7, 7)
    apart = torch.arange(7)[:, None] - torch.arange(7)
    near = (apart < options.get("window", 7)) | (torch.arange(7) < options.get("sinks", 0))
    assert torch.equal(weights > 0, ((apart >= 0) & near).expand_as(weights))


def test_scores_of_turned_tokens_depend_on_their_distance():
    mixer, x = SoftmaxAttention(16, 4, causal=True, rotary=True).double(), torch.randn(2, 5, 16)
    x = x.double()
    _, state = mixer.extend(torch.randn(2, 30, 16).double(), mixer.init_state(2))
    moved = mixer.extend(x, state)[1].keys[:, :, 30:]
    place = mixer.extend(x, mixer.init_state(2))[1].keys
    torch.testing.assert_close(moved @ moved.mT, place @ place.mT)
    assert not torch.allclose(moved, place)


def test_a_memory_has_no_positions():
    mixer = SoftmaxAttention(16, 4, rotary=True, window=1, qk_norm=True, n_kv_heads=2, bias=False)
    x, memory = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(mixer(x, memory=memory[:, order]), mixer(x, memory=memory))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_kv_heads": 3}, "n_kv_heads=3 does not divide n_heads=4"),
        ({"n_kv_heads": 0}, "n_kv_heads=0 does not divide n_heads=4"),
        ({"window": 0}, "window must be at least 1"),
        ({"sinks": 2}, "sinks=2 are the first tokens that are seen beside a window"),
        ({"window": 2, "sinks": -1}, "sinks=-1"),
    ],
)
def test_options_that_contradict(options, message):
    with pytest.raises(ParameterError, match=f"^SoftmaxAttention: {message}"):
        SoftmaxAttention(16, 4, **options)


def test_heads_too_narrow_to_be_turned():
    with pytest.raises(ParameterError, match="width of a head must be a multiple of 2, got 3"):
        SoftmaxAttention(6, 2, rotary=True)


def test_names_and_numbers_without_options_are_what_they_were():
    torch.manual_seed(0)
    mixer = SoftmaxAttention(6, 2)
    torch.manual_seed(0)
    maps = torch.nn.Linear(6, 18), torch.nn.Linear(6, 6)
    names = [
        f"{name}.{part}" for name in ("query_key_value", "output") for part in ("weight", "bias")
    ]
    assert list(mixer.state_dict()) == names
    for result, expected in zip(
        mixer.parameters(), (p for linear in maps for p in linear.parameters()), strict=True
    ):
        assert torch.equal(result, expected)
