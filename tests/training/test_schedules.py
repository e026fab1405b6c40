import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tsar.exceptions import ParameterError
from tsar.training.schedules import (
    Constant,
    Cosine,
    Decaying,
    OneCycle,
    as_schedule,
    make_schedule,
)


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
    plain, warm = _rates(name), _rates(replace(as_schedule(name), warmup_steps=4))
    factors = [1 / 4, 2 / 4, 3 / 4] + [1.0] * 15
    assert warm == pytest.approx([rate * f for rate, f in zip(plain, factors, strict=True)])


def test_unknown_schedule_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'cosine'"):
        make_schedule("cosin", 1.0, steps_per_epoch=1, n_steps=1)


def test_objects_have_parameters_of_their_own():
    halved = [0.8, 0.8, 0.8, 0.2, 0.05, 0.0125]
    expected = [rate for rate in halved for _ in range(3)]
    assert _rates(Decaying(share=0.25, full_epochs=3)) == pytest.approx(expected)
    cosine = [0.8 * (0.1 + 0.45 * (1 + math.cos(math.pi * step / 18))) for step in range(18)]
    assert _rates(Cosine(lowest=0.1)) == pytest.approx(cosine)
    warm = [0.8 * min(1, (step + 1) / 4) for step in range(18)]
    assert _rates(Constant(warmup_steps=4)) == pytest.approx(warm)


def test_one_cycle_with_other_parameters_equals_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.8, 18, cycle_momentum=False, pct_start=0.5, div_factor=10, final_div_factor=50
    )
    expected = []
    for step in range(18):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 17:
            scheduler.step()
    found = _rates(OneCycle(rising=0.5, start=1 / 10, lowest=1 / 500))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(lowest=2), r"Cosine: lowest must be a number in \[0, 1\], got 2"),
        (lambda: OneCycle(rising=0), "OneCycle: rising must be"),
        (lambda: Decaying(share=0.5, full_epochs=0), "Decaying: full_epochs must be"),
        (lambda: Constant(warmup_steps=-1), "Constant: warmup_steps must be"),
    ],
)
def test_objects_check_what_they_are_given(make, message):
    with pytest.raises(ParameterError, match=message):
        make()
