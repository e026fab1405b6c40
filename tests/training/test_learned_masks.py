"""Masks of functions that are known, against the minimum of what is minimised."""

import numpy as np
import pytest
import torch
from torch import nn

from tsar.exceptions import DataError, ParameterError
from tsar.training import LearnedMask

BATCH, LENGTH, N_FEATURES = 4, 5, 3


def _windows(seed=0):
    return torch.randn(
        BATCH, LENGTH, N_FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.double
    )


@pytest.mark.parametrize("baseline", [0.0, -2.0])
def test_mask_of_one_value_is_where_its_price_meets_the_error(baseline):
    x = _windows()
    x[:, 1, 2] = torch.tensor([0.1, 0.5, 1.0, 3.0]) + baseline
    mask, windows = LearnedMask(mask_weight=2.0).learn(lambda x: x[:, 1, 2], x, baseline=baseline)
    # The derivatives of (1 - m)^2 s^2 and of 2 m / 15.
    expected = 1 - 2.0 / (2 * LENGTH * N_FEATURES * torch.tensor([0.1, 0.5, 1.0, 3.0]) ** 2)
    torch.testing.assert_close(mask[:, 1, 2], expected.clamp(min=0).double(), atol=2e-3, rtol=0.0)
    assert mask[0, 1, 2] == 0
    mask[:, 1, 2] = 0
    assert (mask == 0).all()
    torch.testing.assert_close(windows[:, 0], torch.full_like(x[:, 0], baseline))


def test_mask_without_a_price_preserves_the_output():
    x = _windows()
    mask, windows = LearnedMask(mask_weight=0.0).learn(lambda x: 2 * x, x)
    torch.testing.assert_close(mask, torch.ones_like(x), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(2 * windows, 2 * x, atol=1e-2, rtol=0.0)


def test_mask_that_costs_too_much_shows_nothing():
    x = _windows()
    mask, windows = LearnedMask(mask_weight=1e4).learn(lambda x: x.square().sum(dim=2), x)
    assert (mask == 0).all() and (windows == 0).all()


def test_white_box_is_found():
    """Two features at three steps of an autoregression."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 12, 8, generator=generator)
    for step in range(1, 12):
        x[:, step] += 0.5 * x[:, step - 1]
    read = torch.zeros(12, 8, dtype=torch.bool)
    read[4:7, 2] = read[4:7, 5] = True
    mask, _ = LearnedMask().learn(lambda x: (x.square() * read).sum(dim=2), x)
    assert (mask[:, ~read] == 0).all()
    # The largest square of a step is shown, but where next to nothing is lost with it.
    largest, place = x[:, 4:7, [2, 5]].square().max(dim=2, keepdim=True)
    steps = mask[:, 4:7, [2, 5]].gather(2, place)[largest > 0.5]
    assert len(steps) > 10 and (steps > 0.8).all()


def test_values_left_out_stay_and_cost_nothing():
    x = _windows()
    where = torch.ones(LENGTH, N_FEATURES, dtype=torch.bool)
    where[:, 1] = False
    x[:, 0, 0] = 1.0
    mask, windows = LearnedMask().learn(lambda x: x[:, 0, 0] + 5 * x[:, 2, 1], x, where=where)
    torch.testing.assert_close(windows[..., 1], x[..., 1])
    assert (mask[..., 1] == 0).all()
    expected = torch.full((BATCH,), 1 - 1 / (2 * LENGTH * 2), dtype=torch.double)
    torch.testing.assert_close(mask[:, 0, 0], expected, atol=2e-3, rtol=0.0)


def test_windows_do_not_depend_on_each_other():
    x = _windows()

    def function(x):
        return x[:, 3].square()

    together = LearnedMask(n_steps=80).learn(function, x).mask
    alone = torch.cat([LearnedMask(n_steps=80).learn(function, one[None]).mask for one in x])
    # All but the smallest number that Adam divides by.
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0.0)


def test_mask_comes_back_at_once():
    """For 300 steps nothing is read, which draws the mask down; in 100 steps it is up again."""
    x, calls = torch.ones(1, 2, 2), []

    def function(x):
        calls.append(0)
        read = 10 * x[:, 0, 0]
        # The first call is that of the whole window.
        return 10 + 0 * read if 1 < len(calls) <= 301 else read

    mask, _ = LearnedMask(n_steps=401).learn(function, x)
    assert 0.8 < mask[0, 0, 0] <= 1


def test_replacement_is_learned():
    """What a network can say of a window need not be shown; a fixed replacement has no such way."""
    x = torch.full((BATCH, LENGTH, 2), 1.5)

    def function(x):
        return x[:, 2]

    errors = {}
    for how in ("fixed", "generated"):
        learner = LearnedMask(mask_weight=1e3, replacement=how, replacement_weight=0.0, n_steps=250)
        mask, windows = learner.learn(function, x)
        assert (mask == 0).all()
        errors[how] = (function(windows) - 1.5).abs().max()
    assert errors["fixed"] == 1.5 and errors["generated"] < 0.05
    # The price of the replacement holds it at the baseline.
    dear = LearnedMask(
        mask_weight=1e3, replacement="generated", replacement_weight=1e3, n_steps=250
    )
    assert dear.learn(function, x).windows.abs().max() < 0.1


def test_the_generator_of_the_caller_and_the_function_stay_as_they_are():
    network, x = nn.Linear(N_FEATURES, 2).double(), _windows()
    before = [part.detach().clone() for part in network.parameters()]
    learner = LearnedMask(n_steps=5, replacement="generated", random_state=3)
    state = torch.get_rng_state()
    with torch.inference_mode():
        first = learner.learn(network, x.clone())
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first, learner.learn(network, x), rtol=0.0, atol=0.0)
    assert all(part.grad is None for part in network.parameters())
    assert all(map(torch.equal, before, network.parameters()))
    assert not first.mask.requires_grad


def test_masks_that_are_refused():
    with pytest.raises(ParameterError, match=r"LearnedMask: mask_weight must be a number in \[0"):
        LearnedMask(mask_weight=-1.0)
    with pytest.raises(ParameterError, match="did you mean 'generated'"):
        LearnedMask(replacement="generate")
    learner, x = LearnedMask(n_steps=1), _windows()
    with pytest.raises(DataError, match=r"shape \(windows, steps, features\), got \(4, 5\)"):
        learner.learn(torch.square, x[..., 0])
    with pytest.raises(DataError, match="must be finite, got 1 values"):
        learner.learn(torch.square, torch.where(x == x.max(), np.nan, x))
    with pytest.raises(ParameterError, match="function must let gradients through to x"):
        learner.learn(torch.Tensor.detach, x)
    weight = nn.Parameter(torch.ones(1, dtype=torch.double))
    with pytest.raises(ParameterError, match="function must let gradients through to x"):
        learner.learn(lambda x: weight * x.detach(), x)
