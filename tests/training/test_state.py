import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from tsar.exceptions import TrainingError
from tsar.training.optim import AdamW, TorchOptimizer, make_optimizer
from tsar.training.seeding import make_generator
from tsar.training.state import (
    TrainingState,
    capture_optimizer,
    load_weights,
    restore_generator,
    restore_optimizer,
)


def test_tensors_and_json_hold_everything():
    state = TrainingState(
        epoch=3,
        step=21,
        stale=2,
        optimizer={"a/b.step": torch.tensor(21.0), "a/b.exp_avg": torch.randn(2, 3)},
        optimizer_kind="other",
        parameters={"a/b": ["float32", 2, 3]},
        generators={"shuffle": torch.arange(5, dtype=torch.uint8)},
        weights={"linear.weight": torch.randn(4)},
        averaged={"linear.weight": torch.randn(4)},
        history={"train_loss": [0.5, 0.25, 0.125]},
    )
    tensors, record = state.to_tensors()
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    copy = TrainingState.from_tensors(tensors, json.loads(json.dumps(record)))
    assert (copy.epoch, copy.step, copy.stale, copy.history) == (3, 21, 2, state.history)
    assert (copy.optimizer_kind, copy.parameters) == ("other", state.parameters)
    for group in ("optimizer", "generators", "weights", "averaged"):
        ours, theirs = getattr(copy, group), getattr(state, group)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


SIZES = {"first": (3, 2), "second": (4,), "third": (2, 5)}


def _network(names=tuple(SIZES), seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = nn.Module()
    for name in names:
        value = torch.randn(SIZES[name], generator=generator)
        network.register_parameter(name, nn.Parameter(value))
    return network


def _run(stepper, steps):
    for step in steps:
        for name, parameter in stepper.parameters.items():
            generator = torch.Generator().manual_seed(step + 10 * len(name))
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        stepper.step()


def _state_after(network, steps=range(3), optimizer="adam"):
    stepper, state = make_optimizer(optimizer, network, 0.1), TrainingState()
    _run(stepper, steps)
    capture_optimizer(stepper, state)
    return state


@pytest.mark.parametrize("optimizer", ["adam", TorchOptimizer(torch.optim.SGD, momentum=0.9)])
def test_optimizer_goes_on_where_it_was(optimizer):
    whole, half = _network(), _network()
    _run(make_optimizer(optimizer, whole, 0.1), range(6))
    state = _state_after(half, optimizer=optimizer)
    second = make_optimizer(optimizer, half, 0.1)
    restore_optimizer(second, state)
    _run(second, range(3, 6))
    assert all(map(torch.equal, whole.parameters(), half.parameters()))


def test_moments_are_those_of_a_name_in_any_order():
    state = _state_after(_network())
    other = make_optimizer("adam", _network(("third", "first", "second")), 0.1)
    restore_optimizer(other, state)
    for name, entries in other.moments().items():
        assert torch.equal(entries["exp_avg"], state.optimizer[f"{name}.exp_avg"])


def test_another_set_of_trained_parameters_begins_anew_where_it_is_new():
    network = _network()
    network.first.requires_grad_(False)
    state = _state_after(network)
    network.first.requires_grad_(True)
    network.second.requires_grad_(False)
    stepper = make_optimizer("adam", network, 0.1)
    restore_optimizer(stepper, state)
    assert set(stepper.moments()) == {"third"}
    _run(stepper, [3])
    steps = {name: entries["step"].item() for name, entries in stepper.moments().items()}
    assert steps == {"first": 1, "third": 4}


def test_another_kind_of_optimizer_begins_anew():
    network = _network()
    state = _state_after(network)
    same = make_optimizer(AdamW(weight_decay=0.1), network, 0.1)
    restore_optimizer(same, state)
    assert set(same.moments()) == set(SIZES)
    other = make_optimizer(TorchOptimizer(torch.optim.SGD, momentum=0.9), network, 0.1)
    restore_optimizer(other, state)
    assert not other.moments()


def _by_place(state):
    """The state as models of format 1 have saved it."""
    places = {name: str(place) for place, name in enumerate(state.parameters)}
    optimizer = {}
    for path, tensor in state.optimizer.items():
        name, entry = path.rsplit(".", 1)
        optimizer[f"{places[name]}.{entry}"] = tensor
    record = {"epoch": 0, "step": 3, "stale": 0, "history": {}}
    tensors = {f"optimizer/{path}": tensor for path, tensor in optimizer.items()}
    return TrainingState.from_tensors(tensors, record)


def test_a_state_by_number_is_read_as_before():
    network = _network()
    network.second.requires_grad_(False)
    state = _state_after(network)
    stepper = make_optimizer("adam", network, 0.1)
    restore_optimizer(stepper, _by_place(state))
    for name, entries in stepper.moments().items():
        assert torch.equal(entries["exp_avg_sq"], state.optimizer[f"{name}.exp_avg_sq"])
    # The parameters trained then are known, and others are trained now.
    network.second.requires_grad_(True)
    stepper = make_optimizer("adam", network, 0.1)
    restore_optimizer(stepper, _by_place(state).named(["first", "third"]))
    assert set(stepper.moments()) == {"first", "third"}
    with pytest.raises(TrainingError, match="'second' of the form"):
        restore_optimizer(make_optimizer("adam", network, 0.1), _by_place(state))


@pytest.mark.parametrize(
    ("entry", "tensor"),
    [
        ("first.exp_avg", torch.zeros(2, 3)),
        ("first.exp_avg", torch.zeros(3, 2, dtype=torch.float64)),
        ("first.step", torch.zeros(1)),
        ("second.exp_avg_sq", torch.zeros(3)),
        ("second.other", torch.zeros(4)),
    ],
)
def test_moments_of_another_form_never_reach_the_kernel(entry, tensor):
    network = _network()
    state = _state_after(network)
    state.optimizer[entry] = tensor
    with pytest.raises(TrainingError, match=f"the moments of '{entry.split('.')[0]}' are"):
        restore_optimizer(make_optimizer("adam", network, 0.1), state)


@pytest.mark.parametrize("optimizer", ["adam", TorchOptimizer(torch.optim.SGD, momentum=0.9)])
@pytest.mark.parametrize("change", [lambda p: p.T.contiguous(), lambda p: p.double()])
def test_a_parameter_of_another_form_is_one_error(optimizer, change):
    network = _network()
    state = _state_after(network, optimizer=optimizer)
    network.third = nn.Parameter(change(network.third.detach()))
    with pytest.raises(TrainingError, match=r"'third' of the form \['float32', 2, 5\]"):
        restore_optimizer(make_optimizer(optimizer, network, 0.1), state)


@pytest.mark.parametrize("held", [torch.zeros(7, dtype=torch.uint8), torch.zeros(5056)])
def test_a_generator_takes_a_state_of_its_kind(held):
    with pytest.raises(TrainingError, match="the state of the generator 'shuffle' is"):
        restore_generator(make_generator(0), "shuffle", held)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": torch.zeros(2, 3)}, "'first' is ['float32', 2, 3] among them"),
        ({"first": torch.zeros(3, 2).double()}, "'first' is ['float64', 3, 2] among them"),
        ({"fourth": torch.zeros(1)}, "'fourth' is ['float32', 1] among them, and missing"),
    ],
)
def test_weights_of_another_network_are_one_error(change, words):
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(TrainingError, match=re.escape(words)):
        load_weights(network, {**before, **change})
    with pytest.raises(TrainingError, match="'second' is missing among them"):
        load_weights(network, {name: before[name] for name in ("first", "third")})
    load_weights(network, _network(seed=1).state_dict())
    assert not torch.equal(network.first, before["first"])


def test_a_phase_begins_without_the_steps_of_the_one_before():
    state = replace(_state_after(_network()), epoch=4, step=9, stale=1, history={"train_loss": [1]})
    state = state.afresh()
    assert (state.epoch, state.step, state.stale) == (4, 0, 0) and state.history
    assert not state.optimizer and not state.parameters
