import copy
import pickle

import pytest
import torch
from torch import nn

from tsar.core.position import LearnedPosition
from tsar.exceptions import ParameterError
from tsar.training.optim import Adam, AdamW, TorchOptimizer, make_optimizer


def _list(tensors):
    return nn.ParameterList([nn.Parameter(tensor.clone()) for tensor in tensors])


def _train(optimizer, parameters):
    generator = torch.Generator().manual_seed(1)
    for turn in range(7):
        optimizer.zero_grad()
        # The second parameter has a gradient in every other step only.
        used = [p for place, p in enumerate(parameters) if place != 1 or turn % 2]
        loss = sum((p * torch.randn(p.shape, generator=generator)).sin().sum() for p in used)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_equal_torch(name, weight_decay, fused, monkeypatch):
    monkeypatch.setattr("tsar.training.optim.has_fused_optimizers", lambda device: fused)
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(3, 5, generator=generator), torch.randn(2, generator=generator)]
    start.append(torch.randn(4, generator=generator, dtype=torch.float64))
    ours, theirs = _list(start), _list(start)
    options = {"betas": (0.8, 0.95), "weight_decay": weight_decay}
    kind = {"adam": Adam, "adamw": AdamW}[name](**options)
    _train(make_optimizer(kind, ours, 0.05), ours)
    builtin = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    _train(builtin(theirs, lr=0.05, foreach=False, fused=fused, **options), theirs)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, **({"rtol": 0, "atol": 0} if fused else {}))


@pytest.mark.parametrize(
    ("name", "builtin"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_a_name_has_the_defaults_of_torch(name, builtin):
    start = [torch.randn(3, 5), torch.randn(2)]
    named, reference = _list(start), _list(start)
    _train(make_optimizer(name, named, 0.05), named)
    _train(builtin(reference, lr=0.05, foreach=False, fused=True), reference)
    assert all(torch.equal(a, b) for a, b in zip(named, reference, strict=True))


def test_adam_first_step_by_hand():
    """The first step of Adam is the rate times the sign of the gradient."""
    parameters = _list([torch.tensor([1.0, -2.0, 3.0])])
    optimizer = make_optimizer("adam", parameters, 0.01)
    (parameters[0] * torch.tensor([5.0, -0.3, 2.0])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(parameters[0].data, torch.tensor([0.99, -1.99, 2.99]))


def test_frozen_parameters_stay():
    parameters = _list([torch.ones(2), torch.ones(2)])
    parameters[0].requires_grad_(False)
    optimizer = make_optimizer(AdamW(weight_decay=0.1), parameters, 0.1)
    (parameters[0] * parameters[1]).sum().backward()
    optimizer.step()
    assert torch.equal(parameters[0], torch.ones(2))
    assert not torch.equal(parameters[1], torch.ones(2))


@pytest.mark.parametrize("kind", [Adam(), TorchOptimizer(torch.optim.SGD)])
def test_the_learning_rate_may_change_before_every_step(kind):
    parameters = _list([torch.ones(2)])
    optimizer = make_optimizer(kind, parameters, 0.1)
    optimizer.learning_rate = 0.3
    parameters[0].sum().backward()
    optimizer.step()
    torch.testing.assert_close(parameters[0].data, torch.full((2,), 0.7))


class Tokens(nn.Module):
    """Everything that may be left without weight decay, and what may not."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(3, 4)
        self.position = LearnedPosition(5, 4)
        self.norm = nn.LayerNorm(4)
        self.batch_norm = nn.BatchNorm1d(5)
        self.scale = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 2)
        self.no_decay = ("scale",)

    def forward(self, x):
        x = self.norm(self.batch_norm(self.position(self.embedding(x)))) * self.scale
        return self.head(x)


DECAYED = {"embedding.weight", "head.weight"}


@pytest.mark.parametrize(
    "optimizer",
    [
        AdamW(weight_decay=0.2, betas=(0.9, 0.95), decay_all=False, rates={"head.*": 10.0}),
        TorchOptimizer(
            torch.optim.AdamW,
            weight_decay=0.2,
            betas=(0.9, 0.95),
            fused=True,
            decay_all=False,
            rates={"head.*": 10.0},
        ),
    ],
)
def test_groups_have_a_decay_and_a_rate_of_their_own(optimizer):
    torch.manual_seed(0)
    ours = Tokens()
    theirs = copy.deepcopy(ours)
    groups = [
        {
            "params": [parameter],
            "lr": 0.1 if name.startswith("head") else 0.01,
            "weight_decay": 0.2 if name in DECAYED else 0.0,
        }
        for name, parameter in theirs.named_parameters()
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), fused=True)
    stepper = make_optimizer(optimizer, ours, 0.01)
    for turn in range(4):
        x = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(turn))
        for network, moving in ((ours, stepper), (theirs, reference)):
            moving.zero_grad()
            network(x).square().mean().backward()
            moving.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, msg=name)


def test_a_pattern_of_no_name_is_an_error_that_lists_some():
    with pytest.raises(ParameterError, match=r"'haed.\*'; the parameters are batch_norm"):
        make_optimizer(Adam(rates={"haed.*": 2.0}), Tokens(), 0.1)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.RMSprop, {"weight_decay": 0.1}),
        (torch.optim.NAdam, {}),
    ],
)
def test_any_optimizer_of_torch_steps_and_goes_on(cls, options):
    start = [torch.randn(3, 5), torch.randn(2)]
    ours, theirs = _list(start), _list(start)
    reference = cls(theirs, lr=0.05, **options)
    _train(reference, theirs)
    _train(reference, theirs)
    first = make_optimizer(TorchOptimizer(cls, **options), ours, 0.05)
    _train(first, ours)
    second = make_optimizer(TorchOptimizer(cls, **options), ours, 0.05)
    second.restore(first.moments())
    _train(second, ours)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(weight_decay=-1), r"AdamW: weight_decay must be a number in \[0, inf\)"),
        (lambda: Adam(betas=(0.9,)), "Adam: betas must be two numbers"),
        (lambda: Adam(betas=(0.9, 1.0)), "Adam: betas must be"),
        (lambda: Adam(rates={"head": 0}), r"rates must give a number in \(0, inf\)"),
        (lambda: TorchOptimizer(torch.optim.SGD, lr=0.1), "give it there as learning_rate"),
        (lambda: TorchOptimizer("sgd"), "factory must be"),
        (lambda: TorchOptimizer(nn.Linear), "must be a class of optimisers"),
        (lambda: TorchOptimizer(torch.optim.LBFGS), "LBFGS needs a closure"),
    ],
)
def test_objects_check_what_they_are_given(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_options_that_torch_refuses_are_named():
    with pytest.raises(ParameterError, match=r"TorchOptimizer\(SGD, mometum=0.9\): .*mometum"):
        make_optimizer(TorchOptimizer(torch.optim.SGD, mometum=0.9), Tokens(), 0.1)


@pytest.mark.parametrize(
    "optimizer",
    [AdamW(weight_decay=0.1, betas=(0.9, 0.95)), TorchOptimizer(torch.optim.SGD, momentum=0.9)],
)
def test_objects_are_values(optimizer):
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin == optimizer and repr(twin) == repr(optimizer)
    with pytest.raises(AttributeError):
        optimizer.decay_all = False


def test_unknown_optimizer_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'adamw'"):
        make_optimizer("adamww", nn.Linear(1, 1), 0.1)


def test_options_that_torch_fails_on_are_one_error():
    network = nn.Linear(2, 1)
    message = r"TorchOptimizer\(Adam, betas=\(0.9,\)\): .* its options are betas, eps, weight_decay"
    with pytest.raises(ParameterError, match=message):
        make_optimizer(TorchOptimizer(torch.optim.Adam, betas=(0.9,)), network, 0.1)
