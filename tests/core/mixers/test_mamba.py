import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tsar.core.mixers import (
    Bidirectional,
    BidirectionalMamba,
    Mamba,
    SoftmaxAttention,
    accepted_options,
    make_mixer,
)
from tsar.exceptions import ParameterError

SIZES = {"d_state": 3, "d_conv": 4, "expand": 2}


def _mixer(kind=Mamba, d_model=6, **options):
    torch.manual_seed(0)
    return kind(d_model, **(SIZES | options)).double()


def _tokens(batch=3, length=7, d_model=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, d_model, dtype=torch.float64, generator=generator)


def _by_tokens(mixer, x):
    """The published block for one sequence and one token after the other."""
    width, n_states = mixer.log_decay.shape
    rank = mixer.step_size.in_features
    outputs = []
    for sequence in x:
        inputs, h = [torch.zeros(width).double()] * 3, torch.zeros(width, n_states).double()
        for token in sequence:
            value, gate = (mixer.input.weight @ token).split(width)
            inputs = [*inputs[-3:], value]
            taps = mixer.conv_weight.unbind(1)
            value = mixer.conv_bias + sum(w * v for w, v in zip(taps, inputs, strict=True))
            value = value * value.sigmoid()
            step, b, c = (mixer.select.weight @ value).split([rank, n_states, n_states])
            delta = F.softplus(mixer.step_size.weight @ step + mixer.step_size.bias)
            decay = torch.exp(-delta[:, None] * mixer.log_decay.exp())
            h = decay * h + (delta * value)[:, None] * b
            y = (h @ c + mixer.skip * value) * gate * gate.sigmoid()
            outputs.append(mixer.output.weight @ y)
    return torch.stack(outputs).view_as(x)


@pytest.mark.parametrize("backend", ["reference", "chunked", None])
def test_the_published_block(backend):
    mixer, x = _mixer(backend=backend), _tokens()
    nn.init.normal_(mixer.skip)
    torch.testing.assert_close(mixer(x), _by_tokens(mixer, x))


def test_first_values_are_those_of_the_authors():
    torch.manual_seed(0)
    mixer = Mamba(200, d_state=5, d_conv=3, expand=4)
    assert mixer.step_size.in_features == 13  # a sixteenth of the width, rounded up
    torch.testing.assert_close(
        -mixer.log_decay.exp(), -torch.arange(1.0, 6.0).expand(800, 5), rtol=1e-6, atol=0
    )
    assert (mixer.skip == 1).all()
    steps = F.softplus(mixer.step_size.bias)
    assert (steps >= 0.99e-3).all() and (steps <= 1.01e-1).all()
    logs = steps.log10()  # evenly from -3 to -1
    assert abs(logs.mean() + 2) < 0.05 and abs(logs.std() - 2 / 12**0.5) < 0.03
    assert mixer.step_size.weight.abs().max() <= 13**-0.5
    assert 0.5 < mixer.conv_weight.abs().max() <= 3**-0.5
    assert mixer.input.bias is None and mixer.select.bias is None and mixer.output.bias is None


def test_number_of_parameters():
    """d_model 256, d_state 2, d_conv 2, expand 1, as S-Mamba has it, counted by hand."""
    expected = 256 * 512 + 256 * 3 + 256 * (16 + 4) + 16 * 256 + 256 + 256 * 2 + 256 + 256 * 256
    mixer = Mamba(256, d_state=2, d_conv=2, expand=1)
    assert sum(p.numel() for p in mixer.parameters()) == expected


def test_does_not_look_ahead():
    mixer, x = _mixer(), _tokens()
    other = x.clone()
    other[:, 5:] = 100.0
    torch.testing.assert_close(mixer(x)[:, :5], mixer(other)[:, :5])


@pytest.mark.parametrize("backend", ["reference", "chunked", "mamba_ssm"])
@pytest.mark.parametrize("d_conv", [1, 2, 4])
def test_pieces_agree_with_the_whole(backend, d_conv):
    """Of fewer tokens than the convolution has taps, and whatever form is forced."""
    mixer, x = _mixer(d_conv=d_conv, backend=backend), _tokens()
    outputs, state = [], mixer.init_state(3)
    for piece in x.split([2, 1, 4], dim=1):
        output, state = mixer.extend(piece, state)
        outputs.append(output)
    mixer.backend = "reference"
    torch.testing.assert_close(torch.cat(outputs, dim=1), mixer(x))


def test_a_state_does_not_keep_the_piece():
    mixer, x = _mixer(), _tokens()
    _, state = mixer.extend(x, mixer.init_state(3))
    assert state.inputs.untyped_storage().nbytes() == state.inputs.nbytes


@pytest.mark.parametrize("kind", [Mamba, BidirectionalMamba])
def test_masked_tokens_change_nothing(kind):
    mixer, x = _mixer(kind), _tokens()
    mask = torch.ones(3, 7).bool()
    mask[:, 3] = False
    mask[1, 5:] = False
    mask[2] = False
    other = torch.where(mask[..., None], x, 100.0)
    assert torch.equal(mixer(x, mask=mask)[mask], mixer(other, mask=mask)[mask])
    assert mixer(x, mask=mask).isfinite().all()


@pytest.mark.parametrize("kind", [Mamba, BidirectionalMamba])
def test_masked_tokens_at_the_ends_are_not_there(kind):
    mixer, x = _mixer(kind), _tokens()
    mask = torch.ones(3, 7).bool()
    mask[:, :2] = mask[:, 6:] = False
    torch.testing.assert_close(mixer(x, mask=mask)[:, 2:6], mixer(x[:, 2:6]))


def test_a_mask_of_pairs_is_refused():
    with pytest.raises(ParameterError, match=r"shape \(3, 7\), one entry per token, got \(3, 7, 7"):
        _mixer()(_tokens(), mask=torch.ones(3, 7, 7).bool())


def test_both_directions_are_added_up():
    mixer, x = _mixer(BidirectionalMamba), _tokens()
    expected = mixer.ahead(x) + mixer.back(x.flip(1)).flip(1)
    torch.testing.assert_close(mixer(x), expected)
    assert not mixer.causal
    with pytest.raises(NotImplementedError):
        mixer.init_state(3)


def test_reversed_tokens_give_the_reverse_with_the_directions_exchanged():
    mixer, x = _mixer(BidirectionalMamba), _tokens()
    exchanged = Bidirectional(mixer.back, mixer.ahead)
    torch.testing.assert_close(exchanged(x.flip(1)), mixer(x).flip(1))
    mask = _tokens(seed=2)[..., 0] > -1
    torch.testing.assert_close(exchanged(x.flip(1), mask=mask.flip(1)), mixer(x, mask=mask).flip(1))


def test_every_token_reaches_every_other():
    mixer, x = _mixer(BidirectionalMamba), _tokens(batch=1).requires_grad_()
    for place in range(7):
        (grad,) = torch.autograd.grad(mixer(x)[0, place].sum(), x)
        assert (grad[0].abs().sum(dim=-1) > 0).all()


def test_directions_are_causal_mixers():
    with pytest.raises(ParameterError, match="SoftmaxAttention sees all tokens"):
        Bidirectional(SoftmaxAttention(6, 2), SoftmaxAttention(6, 2, causal=True))
    both = Bidirectional(*(SoftmaxAttention(6, 2, causal=True).double() for _ in range(2)))
    assert both(_tokens()).shape == (3, 7, 6)


def test_mixers_by_name():
    offered = {"n_heads": 2, "residual_scores": True, "d_state": 5}
    for name, kind in [("mamba", Mamba), ("bidirectional_mamba", BidirectionalMamba)]:
        options = accepted_options(name, **offered)
        assert options == {"d_state": 5}
        assert isinstance(make_mixer(name, 6, **options), kind)
