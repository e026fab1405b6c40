import math

import pytest
import torch
from torch import nn

from tsar.exceptions import ParameterError
from tsar.training.optim import make_optimizer, make_schedule


def _rates(name, n_epochs=6, steps_per_epoch=3, **options):
    n_steps = n_epochs * steps_per_epoch
    rate = make_schedule(name, 0.8, steps_per_epoch=steps_per_epoch, n_steps=n_steps, **options)
    return [rate(step) for step in range(n_steps)]


def test_constant():
    assert _rates("constant") == [0.8] * 18


def test_halving_keeps_the_rate_for_two_epochs():
    epochs = [0.8, 0.8, 0.4, 0.2, 0.1, 0.05]
    assert _rates("halving") == pytest.approx([rate for rate in epochs for _ in range(3)])


def test_type3_keeps_the_rate_for_four_epochs():
    """After epoch e (from 1) the rate becomes the full one if e < 3, else 0.9 ** (e - 3) of it."""
    epochs, rate = [], 0.8
    for epoch in range(1, 7):
        epochs.append(rate)
        rate = 0.8 if epoch < 3 else 0.8 * 0.9 ** (epoch - 3)
    assert epochs[:4] == [0.8] * 4
    assert _rates("type3") == pytest.approx([rate for rate in epochs for _ in range(3)])


def test_cosine():
    expected = [0.4 * (1 + math.cos(math.pi * step / 18)) for step in range(18)]
    assert _rates("cosine") == pytest.approx(expected)


@pytest.mark.parametrize("n_epochs", [1, 6, 40])
def test_one_cycle_equals_torch(n_epochs):
    n_steps = 3 * n_epochs
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.8)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.8, total_steps=n_steps, cycle_momentum=False
    )
    expected = []
    for step in range(n_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < n_steps - 1:
            scheduler.step()
    assert _rates("one_cycle", n_epochs) == pytest.approx(expected)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
def test_one_cycle_of_hardly_any_steps(n_steps):
    rate = make_schedule("one_cycle", 1.0, steps_per_epoch=1, n_steps=n_steps)
    assert all(0 < rate(step) <= 1 for step in range(n_steps))


@pytest.mark.parametrize("name", ["constant", "halving", "type3", "cosine", "one_cycle"])
def test_warm_up_grows_linearly_on_top(name):
    plain, warm = _rates(name), _rates(name, warmup_steps=4)
    factors = [1 / 4, 2 / 4, 3 / 4] + [1.0] * 15
    assert warm == pytest.approx([rate * f for rate, f in zip(plain, factors, strict=True)])


def test_unknown_schedule_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'cosine'"):
        make_schedule("cosin", 1.0, steps_per_epoch=1, n_steps=1)


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
    ours, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    options = {"betas": (0.8, 0.95), "weight_decay": weight_decay}
    _train(make_optimizer(name, ours, 0.05, **options), ours)
    builtin = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    _train(builtin(theirs, lr=0.05, foreach=False, fused=fused, **options), theirs)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, **({"rtol": 0, "atol": 0} if fused else {}))


def test_adam_first_step_by_hand():
    """The first step of Adam is the rate times the sign of the gradient."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = make_optimizer("adam", [parameter], 0.01)
    (parameter * torch.tensor([5.0, -0.3, 2.0])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(parameter.data, torch.tensor([0.99, -1.99, 2.99]))


def test_frozen_parameters_stay():
    frozen, free = (nn.Parameter(torch.ones(2)) for _ in range(2))
    frozen.requires_grad_(False)
    optimizer = make_optimizer("adamw", [frozen, free], 0.1, weight_decay=0.1)
    (frozen * free).sum().backward()
    optimizer.step()
    assert torch.equal(frozen, torch.ones(2))
    assert not torch.equal(free, torch.ones(2))


def test_the_learning_rate_may_change_before_every_step():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = make_optimizer("adam", [parameter], 0.1)
    optimizer.learning_rate = 0.3
    parameter.sum().backward()
    optimizer.step()
    torch.testing.assert_close(parameter.data, torch.full((2,), 0.7))


def test_unknown_optimizer_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'adamw'"):
        make_optimizer("adamww", [], 0.1)
