import json

import torch
from torch import nn

from tsar.training.optim import make_optimizer
from tsar.training.state import TrainingState, capture_optimizer, restore_optimizer


def test_tensors_and_json_hold_everything():
    state = TrainingState(
        epoch=3,
        step=21,
        stale=2,
        optimizer={"0.step": torch.tensor(21.0), "0.exp_avg": torch.randn(2, 3)},
        generators={"shuffle": torch.arange(5, dtype=torch.uint8)},
        weights={"linear.weight": torch.randn(4)},
        history={"train_loss": [0.5, 0.25, 0.125]},
    )
    tensors, record = state.to_tensors()
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    copy = TrainingState.from_tensors(tensors, json.loads(json.dumps(record)))
    assert (copy.epoch, copy.step, copy.stale, copy.history) == (3, 21, 2, state.history)
    for group in ("optimizer", "generators", "weights"):
        ours, theirs = getattr(copy, group), getattr(state, group)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_optimizer_goes_on_where_it_was():
    start = [torch.randn(3, 2), torch.randn(4)]
    gradients = [[torch.randn_like(t) for t in start] for _ in range(6)]

    def run(parameters, optimizer, steps):
        for step in steps:
            for parameter, gradient in zip(parameters, gradients[step], strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    whole = [nn.Parameter(t.clone()) for t in start]
    run(whole, make_optimizer("adam", whole, 0.1), range(6))
    half = [nn.Parameter(t.clone()) for t in start]
    first = make_optimizer("adam", half, 0.1)
    run(half, first, range(3))
    second = make_optimizer("adam", half, 0.1)
    restore_optimizer(second, capture_optimizer(first))
    run(half, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, half, strict=True))
