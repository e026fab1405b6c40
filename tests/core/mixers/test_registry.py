"""Mixers from outside of tsar, by name and by class."""

import pytest
import torch
from torch import nn

from tsar.core.block import Block, Encoder
from tsar.core.generation import is_bounded
from tsar.core.mixers import (
    MIXERS,
    Mixer,
    SoftmaxAttention,
    accepted_options,
    causal_mixers,
    check_heads,
    level_mixers,
    make_mixer,
    recurrent_mixers,
)
from tsar.core.mlp import MLP
from tsar.exceptions import ParameterError


class RunningMean(Mixer):
    """The mean of the tokens so far, through a linear map."""

    causal = True

    def __init__(self, d_model, *, d_state=1):
        super().__init__()
        self.d_state = d_state
        self.map = nn.Linear(d_model, d_model)

    def forward(self, x, *, mask=None, memory=None):
        return self.extend(x, self.init_state(len(x)))[0]

    def init_state(self, batch):
        return 0, self.map.weight.new_zeros(batch, 1, len(self.map.weight))

    def extend(self, x, state):
        count, total = state
        counts = torch.arange(1, x.shape[1] + 1)[:, None] + count
        sums = total + x.cumsum(dim=1)
        return self.map(sums / counts), (count + x.shape[1], sums[:, -1:])


@pytest.fixture
def registered():
    MIXERS.register("running_mean", RunningMean)
    yield
    MIXERS.unregister("running_mean")


@pytest.mark.usefixtures("registered")
def test_a_registered_mixer_is_known_by_name():
    assert isinstance(make_mixer("running_mean", 6, d_state=3), RunningMean)
    assert accepted_options("running_mean", n_heads=2, d_state=3) == {"d_state": 3}
    assert "running_mean" in causal_mixers()
    with pytest.raises(ParameterError, match="did you mean 'running_mean'"):
        make_mixer("runing_mean", 6)


def test_a_class_stands_where_a_name_does():
    mixer = make_mixer(RunningMean, 6, **accepted_options(RunningMean, n_heads=2, d_state=3))
    assert mixer.d_state == 3
    assert isinstance(make_mixer(SoftmaxAttention, 6, n_heads=2), SoftmaxAttention)
    with pytest.raises(ParameterError, match="mixer must be one of 'attention'"):
        make_mixer(nn.Linear, 6)


def test_a_mixer_of_ones_own_runs_in_a_stack():
    torch.manual_seed(0)
    encoder = Encoder([Block(RunningMean(6), MLP(6, 5), d_model=6) for _ in range(2)])
    x, state, outputs = torch.randn(3, 7, 6), encoder.init_state(3), []
    for piece in x.split([3, 1, 3], dim=1):
        output, state = encoder.extend(piece, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), encoder(x))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("attention", RunningMean, "there is a mixer called 'attention' already"),
        ("running_mean", SoftmaxAttention, "there is a mixer called 'running_mean' already"),
        ("linear", nn.Linear, "must be a subclass of tsar.core.mixers.Mixer, got .*Linear"),
        ("instance", RunningMean(6), r"must be a subclass of tsar.core.mixers.Mixer"),
        ("", RunningMean, "must be an identifier, such as 'my_mixer', got ''"),
        (3, RunningMean, "must be an identifier, such as 'my_mixer', got 3"),
    ],
)
def test_what_cannot_be_registered(name, cls, message):
    with pytest.raises(ParameterError, match=f"register: .*{message}"):
        MIXERS.register(name, cls)


def test_a_mixer_may_be_defined_again():
    MIXERS.register("running_mean", RunningMean)
    MIXERS.register("running_mean", RunningMean)
    MIXERS.unregister("running_mean")
    with pytest.raises(ParameterError, match="no mixer was registered as 'running_mean'"):
        MIXERS.unregister("running_mean")
    with pytest.raises(ParameterError, match="no mixer was registered as 'attention'"):
        MIXERS.unregister("attention")


@pytest.mark.parametrize("name", MIXERS)
def test_half_precision_is_near_single(name):
    """Under autocast; near a border, what is hashed or routed may fall on the other side."""
    torch.manual_seed(0)
    mixer = make_mixer(name, 16, **accepted_options(name, n_heads=2)).eval()
    x = torch.randn(2, 200, 16, requires_grad=True)
    expected = mixer(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = mixer(x)
    error = (result.detach().float() - expected).std() / expected.std()
    assert float(error) < (0.1 if name in ("hashed_attention", "routing") else 0.02)
    (gradient,) = torch.autograd.grad(result.float().square().sum(), x)
    assert torch.isfinite(gradient).all() and gradient.any()


def test_heads_are_checked_where_there_are_any():
    check_heads("Model", "attention", d_model=12, n_heads=4)
    check_heads("Model", "mamba", d_model=13, n_heads=4)
    check_heads("Model", RunningMean, d_model=13, n_heads=4)
    with pytest.raises(ParameterError, match="^Model: d_model must be a multiple of n_heads=4, "):
        check_heads("Model", "attention", d_model=13, n_heads=4)


def test_recurrent_mixers_remember_as_much_whatever_they_read():
    x = torch.randn(2, 5, 8)
    for name in recurrent_mixers():
        mixer = make_mixer(name, 8, **accepted_options(name, n_heads=2))
        before = mixer.init_state(2)
        _, after = mixer.extend(x, before)
        assert is_bounded(before) and is_bounded(after), name
    assert {"mamba2", "linear_attention"} <= set(recurrent_mixers())
    assert "attention" not in recurrent_mixers()


def test_level_mixers_take_levels():
    x, levels = torch.randn(2, 5, 8), torch.tensor([0, 0, 1, 1, 1])
    for name in level_mixers():
        mixer = make_mixer(name, 8, **accepted_options(name, n_heads=2))
        mixer.extend(x, mixer.init_state(2), levels=levels)
    assert level_mixers() == ["attention"]
