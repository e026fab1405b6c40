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
