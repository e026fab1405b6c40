import json
import logging
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tsar.core.dropout import Dropout
from tsar.data.windows import Batch, Inputs
from tsar.exceptions import ParameterError, TrainingError
from tsar.forecasting.outputs.losses import make_loss
from tsar.forecasting.outputs.objective import ForecastObjective
from tsar.training import (
    Adam,
    AdamW,
    Phase,
    TrainingOptions,
    TrainingState,
    evaluate,
    seeded,
    train,
    train_phases,
)

CPU = torch.device("cpu")
CONTEXT, HORIZON, VARIATES = 9, 4, 2
OPTIONS = TrainingOptions(max_epochs=4, batch_size=8, learning_rate=0.02)
MSE = ForecastObjective(make_loss("mse"))


class TensorWindows:
    """Windows held in memory, remembering what they were asked for."""

    def __init__(self, n, seed=0, *, observed=False, scale=False):
        generator = torch.Generator().manual_seed(100)
        truth = torch.randn(CONTEXT, HORIZON, generator=generator) / 3
        generator.manual_seed(seed)
        self.inputs = torch.randn(n, CONTEXT, VARIATES, generator=generator)
        noise = torch.randn(n, HORIZON, VARIATES, generator=generator)
        self.target = torch.einsum("blc,lh->bhc", self.inputs, truth) + 0.1 * noise
        seen = torch.rand(self.target.shape, generator=generator) > 0.3
        self.observed = seen if observed else None
        self.scale = torch.rand(n, VARIATES, generator=generator) + 0.5 if scale else None
        self.asked = []

    def __len__(self):
        return len(self.target)

    def batch(self, index):
        self.asked.append(index.tolist())
        observed, scale = (None if t is None else t[index] for t in (self.observed, self.scale))
        return Batch(Inputs(self.inputs[index]), self.target[index], observed, scale)


class LinearNetwork(nn.Module):
    """One linear map over time, with dropout to use the run's generator."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.linear = nn.Linear(CONTEXT, HORIZON)
        self.dropout = Dropout(dropout)

    def forward(self, inputs):
        return self.linear(self.dropout(inputs.target).transpose(1, 2)).transpose(1, 2)


def make_network(dropout=0.3):
    with seeded(0):
        return LinearNetwork(dropout)


def run(network, windows, validation=None, objective=MSE, state=None, seed=5, **options):
    return train(
        network, windows, validation, objective, replace(OPTIONS, **options),
        device=CPU, seed=seed, state=state,
    )  # fmt: skip


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_steps_equal_a_plain_loop():
    """Written out with torch alone: order, rate, loss, optimiser, clipping."""
    windows, network = TensorWindows(37), make_network(0.0)
    options = {"optimizer": AdamW(weight_decay=0.1, clip=0.5), "schedule": "halving"}
    result = run(network, windows, **options)

    plain = make_network(0.0)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.02, weight_decay=0.1, fused=False)
    asked, epoch_losses = iter(windows.asked), []
    for rate in (0.02, 0.02, 0.01, 0.005):
        losses = []
        for _ in range(4):
            index = next(asked)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            forecast = plain(Inputs(windows.inputs[index]))
            loss = nn.functional.mse_loss(forecast, windows.target[index])
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
        epoch_losses.append(sum(losses) / 4)
    torch.testing.assert_close(network.linear.weight, plain.linear.weight)
    assert result.history["train_loss"] == pytest.approx(epoch_losses, rel=1e-5)
    assert result.history["learning_rate"] == [0.02, 0.02, 0.01, 0.005]
    assert next(asked, None) is None


def test_every_epoch_is_shuffled_anew_and_leaves_out_the_incomplete_batch():
    windows = TensorWindows(37)
    run(make_network(), windows, max_epochs=3)
    epochs = [sum(windows.asked[4 * e : 4 * e + 4], []) for e in range(3)]
    assert all(len(set(epoch)) == 32 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != sorted(epochs[0])


def test_fewer_windows_than_a_batch_still_train():
    windows = TensorWindows(5)
    result = run(make_network(0.0), windows)
    assert [len(index) for index in windows.asked] == [5] * 4
    assert result.history["train_loss"][-1] < result.history["train_loss"][0]


def test_loss_falls():
    result = run(make_network(0.0), TensorWindows(200), max_epochs=10)
    assert result.history["train_loss"][0] > 4 * result.history["train_loss"][-1]


@pytest.mark.parametrize("batch_size", [1, 7, 32, 4096])
@pytest.mark.parametrize("name", ["mse", "quantile"])
def test_validation_counts_entries_not_batches(batch_size, name):
    windows = TensorWindows(41, observed=True, scale=True)
    network = make_network()
    loss = make_loss(name, [0.2, 0.5] if name == "quantile" else None)
    if name == "quantile":
        network = nn.Sequential(network)
        network.forward = lambda inputs: torch.stack(
            [network[0](inputs) - 1, network[0](inputs)], dim=-1
        )
    objective = ForecastObjective(loss)
    found = evaluate(network, windows, objective, batch_size=batch_size, device=CPU)
    assert [i for index in windows.asked for i in index] == list(range(41))
    network.eval()
    forecast = network(Inputs(windows.inputs))
    expected = loss(forecast, windows.target, windows.observed).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    point = forecast[..., 1] if name == "quantile" else forecast
    error = (point - windows.target).abs() * windows.scale[:, None]
    assert found["mae"] == pytest.approx(error[windows.observed].mean().item(), rel=1e-6)


def test_validation_sees_no_dropout_and_training_goes_on_with_it():
    network = make_network(0.5).train()
    windows = TensorWindows(20)
    scores = {
        tuple(evaluate(network, windows, MSE, batch_size=7, device=CPU).items()) for _ in range(3)
    }
    assert len(scores) == 1 and network.training


def test_best_weights_come_back():
    windows, validation = TensorWindows(30), TensorWindows(25, seed=1)
    network = make_network()
    result = run(network, windows, validation, max_epochs=11, learning_rate=0.4)
    losses = result.history["val_loss"]
    assert result.n_epochs == len(losses) == 11
    assert losses[result.best_epoch - 1] == min(losses) != losses[-1]
    score = evaluate(network, validation, MSE, batch_size=8, device=CPU)["loss"]
    assert score == pytest.approx(min(losses), abs=1e-7)
    assert not network.training


def test_early_stopping_counts_validations():
    windows, validation = TensorWindows(30), TensorWindows(25, seed=1)
    result = run(make_network(), windows, validation, max_epochs=50, learning_rate=0.4, patience=3)
    losses = result.history["val_loss"]
    assert len(losses) == result.best_epoch + 3 < 50
    assert min(losses) == losses[-4]


def test_last_weights_stay_without_validation():
    result = run(make_network(), TensorWindows(30))
    assert result.best_epoch == result.n_epochs == 4
    assert "val_loss" not in result.history and not result.state.weights


def test_max_steps_stops_in_the_middle_of_an_epoch():
    windows, validation = TensorWindows(37), TensorWindows(11, seed=1)
    result = run(make_network(), windows, validation, max_steps=6)
    assert len(windows.asked) == 6
    assert len(result.history["val_loss"]) == result.n_epochs == 2
    windows = TensorWindows(37)
    run(make_network(), windows, max_epochs=None, max_steps=9)
    assert len(windows.asked) == 9


def test_length_must_be_bounded():
    with pytest.raises(ParameterError, match="one of max_epochs and max_steps"):
        run(make_network(), TensorWindows(9), max_epochs=None)


def test_no_window_is_an_error():
    with pytest.raises(ParameterError, match="no window to train on"):
        run(make_network(), TensorWindows(0))


def test_no_validation_window_means_no_validation():
    assert "val_loss" not in run(make_network(), TensorWindows(9), TensorWindows(0)).history


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_twice_five_epochs_are_ten(validated, saved):
    windows = TensorWindows(37)
    validation = TensorWindows(25, seed=1) if validated else None
    options = {"learning_rate": 0.3, "patience": 8}
    whole = make_network()
    expected = run(whole, windows, validation, max_epochs=10, **options)
    half = make_network()
    first = run(half, windows, validation, max_epochs=5, **options)
    state = first.state
    if saved:
        tensors, record = state.to_tensors()
        state = TrainingState.from_tensors(tensors, json.loads(json.dumps(record)))
    second = run(half, windows, validation, max_epochs=5, seed=99, state=state, **options)
    assert same_weights(whole, half)
    for name in expected.history.keys() - {"seconds"}:
        assert second.history[name] == expected.history[name]
    assert (second.best_epoch, second.n_epochs) == (expected.best_epoch, expected.n_epochs)
    ours, theirs = second.state.to_tensors()[0], expected.state.to_tensors()[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("schedule", ["halving", "type3", "cosine", "one_cycle"])
def test_a_continued_schedule_goes_on(schedule):
    windows = TensorWindows(16)
    result = run(make_network(), windows, max_epochs=3, schedule=schedule)
    result = run(make_network(), windows, max_epochs=3, schedule=schedule, state=result.state)
    whole = run(make_network(), windows, max_epochs=6, schedule=schedule)
    assert result.history["learning_rate"][3:] == whole.history["learning_rate"][3:]


def test_patience_that_ran_out_starts_anew():
    windows, validation = TensorWindows(30), TensorWindows(25, seed=1)
    network, options = make_network(), {"max_epochs": 50, "learning_rate": 0.4, "patience": 2}
    first = run(network, windows, validation, **options)
    assert first.state.stale == 0
    second = run(network, windows, validation, state=first.state, **options)
    assert second.n_epochs >= first.n_epochs + 2


def test_same_seed_same_weights_and_global_generators_untouched():
    torch.manual_seed(11)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    networks = [make_network() for _ in range(3)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        run(network, TensorWindows(20), TensorWindows(9, seed=1), seed=seed)
    assert same_weights(networks[0], networks[1])
    assert not same_weights(networks[0], networks[2])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert all(n.dropout.generator is None for n in networks)


class Interrupting(TensorWindows):
    """Windows that press ctrl-c after so many batches."""

    def __init__(self, n, after, **options):
        super().__init__(n, **options)
        self.after = after

    def batch(self, index):
        if len(self.asked) == self.after:
            raise KeyboardInterrupt
        return super().batch(index)


def test_keyboard_interrupt_gives_the_best_so_far():
    validation = TensorWindows(25, seed=1)
    network = make_network()
    result = run(network, Interrupting(30, after=20), validation, max_epochs=50, learning_rate=0.4)
    assert result.interrupted
    assert result.n_epochs == len(result.history["val_loss"]) == 6
    score = evaluate(network, validation, MSE, batch_size=8, device=CPU)["loss"]
    assert score == pytest.approx(min(result.history["val_loss"]), abs=1e-7)


@pytest.mark.parametrize("average", [None, 0.9])
def test_keyboard_interrupt_without_validation_gives_the_last_finished_epoch(average):
    """And none of the steps of the epoch that it ended."""
    networks = [make_network(), make_network()]
    options = {"average": average, "learning_rate": 0.1}
    # Three batches in an epoch.
    cut = run(networks[0], Interrupting(24, after=8), max_epochs=50, **options)
    assert (cut.interrupted, cut.best_epoch, cut.n_epochs) == (True, 2, 2)
    whole = run(networks[1], TensorWindows(24), max_epochs=2, **options)
    assert (whole.interrupted, whole.best_epoch, whole.n_epochs) == (False, 2, 2)
    assert same_weights(*networks)


def test_keyboard_interrupt_before_the_first_epoch_ends():
    network = make_network()
    result = run(network, Interrupting(30, after=2), TensorWindows(9, seed=1))
    assert (result.interrupted, result.best_epoch, result.n_epochs) == (True, 0, 0)
    assert network(Inputs(torch.zeros(1, CONTEXT, 1))).isfinite().all()


@pytest.mark.parametrize("n", [37, 500])
def test_loss_that_is_not_finite_names_the_step(n):
    windows = TensorWindows(n)
    windows.target[:] = 1e30
    with pytest.raises(TrainingError, match=r"in epoch 1, step 1, at learning rate 0.02; lower"):
        run(make_network(), windows)


def test_step_in_the_message_is_the_bad_one():
    class Turning(TensorWindows):
        def batch(self, index):
            batch = super().batch(index)
            if len(self.asked) == 6:
                batch.target[:] = torch.nan
            return batch

    with pytest.raises(TrainingError, match="in epoch 2, step 6, at"):
        run(make_network(), Turning(37))


def test_quiet_by_default(capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        run(make_network(), TensorWindows(20), TensorWindows(9, seed=1))
    assert capsys.readouterr() == ("", "") and not caplog.records


def test_verbose_is_one_bar_and_a_line_per_epoch(capsys, terminal, caplog):
    with caplog.at_level(logging.INFO, logger="tsar"):
        run(make_network(), TensorWindows(20), TensorWindows(9, seed=1), verbose=1)
    written = capsys.readouterr()
    assert written.out == "" and "8/8" in written.err
    assert [record.name for record in caplog.records] == ["tsar"] * 4
    assert "epoch 4: train_loss" in caplog.records[-1].getMessage()


def test_bfloat16_trains():
    optimizer = Adam(precision="bfloat16")
    result = run(make_network(0.0), TensorWindows(200), optimizer=optimizer, max_epochs=10)
    assert result.history["train_loss"][0] > 3 * result.history["train_loss"][-1]


class Bilingual(LinearNetwork):
    """Learns from the last step of the context, and forecasts the future."""

    def compare(self, batch):
        known = batch.inputs.target[:, -1:]
        return self(batch.inputs)[:, :1], known, None


def test_a_network_may_say_what_a_step_compares():
    """Training follows its comparison, validation the forecast."""
    windows = TensorWindows(16, observed=True)
    with seeded(0):
        network = Bilingual()
    with torch.no_grad():
        forecast = network(Inputs(windows.inputs))
    known = windows.inputs[:, -1:]
    result = run(network, windows, windows, max_epochs=1, batch_size=16, learning_rate=1e-9)
    np.testing.assert_allclose(
        result.history["train_loss"], [(forecast[:, :1] - known).square().mean()], rtol=1e-5
    )
    errors = (forecast - windows.target).square()[windows.observed]
    np.testing.assert_allclose(result.history["val_loss"], [errors.mean()], rtol=1e-5)


class Restrained(LinearNetwork):
    """Wants small weights, the more so the larger the error is."""

    def penalty(self, error):
        assert not error.requires_grad
        return error.sqrt() * self.linear.weight.abs().sum()


def test_a_network_may_penalise_its_weights():
    """Steps minimise the error and the penalty; the history holds errors alone."""
    windows = TensorWindows(16)
    with seeded(0):
        network, plain = Restrained(), LinearNetwork()
    plain.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.02, fused=False)
    errors, prices = [], []
    for _ in range(4):
        error = nn.functional.mse_loss(plain(Inputs(windows.inputs)), windows.target)
        strength = error.item() ** 0.5
        optimizer.zero_grad()
        price = strength * plain.linear.weight.abs().sum()
        (error + price).backward()
        optimizer.step()
        errors.append(error.item())
        prices.append(price.item())
    with torch.no_grad():
        last = nn.functional.mse_loss(plain(Inputs(windows.inputs)), windows.target)
    result = run(network, windows, batch_size=16)
    torch.testing.assert_close(network.linear.weight, plain.linear.weight)
    np.testing.assert_allclose(result.history["train_loss"], errors, rtol=1e-5)
    np.testing.assert_allclose(result.history["train_penalty"], prices, rtol=1e-5)
    validated = evaluate(network, windows, MSE, batch_size=16, device=CPU)["loss"]
    np.testing.assert_allclose(validated, last, rtol=1e-5)


def test_terms_that_come_and_go_keep_an_entry_per_epoch():
    windows, network = TensorWindows(16), make_network()
    first = run(network, windows, max_epochs=2)
    second = run(network, windows, TensorWindows(9, seed=1), state=first.state, max_epochs=2)
    assert np.isnan(second.history["val_loss"][:2]).all()
    assert np.isfinite(second.history["val_loss"][2:]).all()
    assert second.best_epoch in (3, 4)
    third = run(network, windows, state=second.state, max_epochs=1)
    assert {len(values) for values in third.history.values()} == {5}


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_a_batch_add_up_to_the_batch(parts):
    """Of windows that count different numbers of entries, and with a penalty."""
    networks, histories = [], []
    for accumulate in (1, parts):
        with seeded(0):
            networks.append(Restrained())
        networks[-1].penalty = lambda error, n=networks[-1]: n.linear.weight.abs().sum()
        windows = TensorWindows(37, observed=True)
        windows.observed[:9] = False
        result = run(networks[-1], windows, accumulate=accumulate, optimizer=Adam(clip=1.0))
        histories.append(result.history)
        assert {len(index) for index in windows.asked} <= {-(-8 // accumulate), 8 % accumulate, 2}
    torch.testing.assert_close(
        networks[0].linear.weight, networks[1].linear.weight, rtol=1e-6, atol=1e-6
    )
    for name in ("train_loss", "train_penalty"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-5)


def test_averaged_weights_equal_those_of_torch():
    network, plain = make_network(0.0), make_network(0.0)
    windows, validation = TensorWindows(37), TensorWindows(20, seed=1)
    result = run(network, windows, validation, average=0.7)
    averaged = torch.optim.swa_utils.AveragedModel(
        plain, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.7)
    )
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.02, fused=False)
    losses, kept = [], []
    for step, index in enumerate(windows.asked):
        optimizer.zero_grad()
        forecast = plain(Inputs(windows.inputs[index]))
        nn.functional.mse_loss(forecast, windows.target[index]).backward()
        optimizer.step()
        averaged.update_parameters(plain)
        if step % 4 == 3:
            kept.append(averaged.module.linear.weight.clone())
            forecast = averaged(Inputs(validation.inputs))
            losses.append(nn.functional.mse_loss(forecast, validation.target).item())
    np.testing.assert_allclose(result.history["val_loss"], losses, rtol=1e-5)
    torch.testing.assert_close(network.linear.weight, kept[result.best_epoch - 1])
    torch.testing.assert_close(result.state.weights["linear.weight"], plain.linear.weight)


@pytest.mark.parametrize("validated", [False, True])
def test_averaged_training_goes_on_from_its_own_weights(validated):
    windows = TensorWindows(37)
    validation = TensorWindows(25, seed=1) if validated else None
    whole, half = make_network(), make_network()
    run(whole, windows, validation, max_epochs=6, average=0.9)
    first = run(half, windows, validation, max_epochs=3, average=0.9)
    tensors, record = first.state.to_tensors()
    state = TrainingState.from_tensors(tensors, json.loads(json.dumps(record)))
    run(half, windows, validation, max_epochs=3, average=0.9, state=state)
    assert same_weights(whole, half)


class Two(nn.Module):
    """A part with statistics and dropout, and a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(CONTEXT), Dropout(0.5))
        self.head = nn.Linear(CONTEXT, HORIZON)

    def forward(self, inputs):
        return self.head(self.body(inputs.target).transpose(1, 2)).transpose(1, 2)


def test_phases_train_what_they_say_and_count_together():
    with seeded(0):
        network = Two()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    windows = TensorWindows(37)
    head = Phase(replace(OPTIONS, max_epochs=2), ("body",))
    body = Phase(replace(OPTIONS, max_epochs=3, learning_rate=0.01), ("head",))
    options = {"device": CPU, "seed": 0}
    result = train_phases(network, windows, None, MSE, [head], **options)
    after = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}
    assert {path.rsplit(".", 1)[0] for path in result.state.optimizer} == changed
    assert all(parameter.requires_grad for parameter in network.parameters())
    with seeded(0):
        network = Two()
    result = train_phases(network, windows, None, MSE, [head, body], **options)
    assert result.history["learning_rate"] == [0.02, 0.02, 0.01, 0.01, 0.01]
    for name in ("head.weight", "head.bias"):
        assert torch.equal(network.state_dict()[name], after[name])
    assert not torch.equal(network.body[0].weight, before["body.0.weight"])
    bounded = [replace(p, options=replace(p.options, max_steps=9)) for p in (head, body)]
    assert train_phases(network, windows, None, MSE, bounded, **options).n_epochs == 3


def test_a_phase_may_have_an_objective_of_its_own():
    """The first phase is as if all were for it, the second goes on for that of the training."""
    mae, windows = ForecastObjective(make_loss("mae")), TensorWindows(37)
    options = {"device": CPU, "seed": 0}
    phase = Phase(replace(OPTIONS, max_epochs=2))
    both, of_it, of_training = (
        train_phases(make_network(), windows, None, MSE, phases, **options).history["train_loss"]
        for phases in (
            [replace(phase, objective=mae), phase],
            [replace(phase, objective=mae)],
            [phase],
        )
    )
    whole = train_phases(make_network(), windows, None, mae, [phase], **options)
    assert both[:2] == of_it == whole.history["train_loss"]
    continued = make_network()
    first = train_phases(continued, windows, None, mae, [phase], **options)
    state = first.state.afresh()
    second = train_phases(continued, windows, None, MSE, [phase], **options, state=state)
    assert both == second.history["train_loss"] and both[2] not in of_training


@pytest.mark.parametrize(("name", "value"), [("accumulate", 0), ("average", 1.0)])
def test_options_are_checked(name, value):
    with pytest.raises(ParameterError, match=f"train: {name} must be"):
        TrainingOptions(**{name: value})
