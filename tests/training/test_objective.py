"""Objectives and sources that know nothing of time series."""

import pytest
import torch
from torch import nn

from tsar.exceptions import ParameterError
from tsar.training import Objective, TrainingOptions, evaluate, seeded, train

CPU = torch.device("cpu")


def run(network, source, validation, objective, max_epochs, state=None):
    options = TrainingOptions(max_epochs=max_epochs, batch_size=8, learning_rate=0.02)
    return train(network, source, validation, objective, options, device=CPU, seed=5, state=state)


def same_weights(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


def make_network():
    with seeded(0):
        return nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7))


class TokenObjective(Objective):
    """Let tokens be likely: nothing of windows, scales or what was observed."""

    def loss(self, network, batch, generator):
        scores = network(batch[:, :-1]).flatten(0, 1)
        errors = nn.functional.cross_entropy(scores, batch[:, 1:].flatten(), reduction="sum")
        return {"loss": (errors, torch.tensor(batch[:, 1:].numel()))}

    def validate(self, network, batch, generator):
        right = network(batch[:, :-1]).argmax(-1) == batch[:, 1:]
        count = torch.tensor(right.numel())
        return {**self.loss(network, batch, generator), "accuracy": (right.float().sum(), count)}


class Sentences:
    """Sentences in which each word says what the next one is."""

    def __init__(self, n):
        begin = torch.arange(n)[:, None] % 7
        self.tokens = (begin + 3 * torch.arange(9)) % 7

    def __len__(self):
        return len(self.tokens)

    def batch(self, index):
        return self.tokens[index]


def test_a_classifier_of_tokens_is_trained_by_the_same_loop():
    network = make_network()
    validation = Sentences(21)
    result = run(network, Sentences(64), validation, TokenObjective(), max_epochs=30)
    assert set(result.history) == {
        *("train_loss", "val_loss", "val_accuracy", "learning_rate", "seconds")
    }
    assert result.history["val_accuracy"][-1] == 1.0 and result.history["val_loss"][-1] < 0.5
    scores = network(validation.tokens[:, :-1]).flatten(0, 1)
    expected = nn.functional.cross_entropy(scores, validation.tokens[:, 1:].flatten())
    assert min(result.history["val_loss"]) == pytest.approx(expected.item(), rel=1e-5)


def test_an_objective_without_a_loss_is_one_error():
    class Nameless(TokenObjective):
        def loss(self, network, batch, generator):
            return {"error": super().loss(network, batch, generator)["loss"]}

    network = make_network()
    with pytest.raises(ParameterError, match=r"must give a term named 'loss', got \['error'\]"):
        run(network, Sentences(64), None, Nameless(), max_epochs=1)


class Noisy(TokenObjective):
    """Remembers the noise that it draws."""

    def __init__(self):
        self.trained, self.validated = [], []

    def loss(self, network, batch, generator):
        self.trained.append(torch.rand((), generator=generator).item())
        return super().loss(network, batch, generator)

    def validate(self, network, batch, generator):
        self.validated.append(torch.rand((), generator=generator).item())
        return super().loss(network, batch, generator)


def test_validation_draws_the_same_noise_every_time_and_training_new():
    objective = Noisy()
    network = make_network()
    run(network, Sentences(24), Sentences(16), objective, max_epochs=3)
    assert len(set(objective.trained)) == 9
    first, second, third = (objective.validated[2 * e : 2 * e + 2] for e in range(3))
    assert first == second == third and first[0] != first[1]


class Drawn:
    """Examples without numbers."""

    epoch_size = 21

    def __init__(self):
        self.sizes = []

    def draw(self, size, generator):
        self.sizes.append(size)
        return (torch.randint(7, (size, 1), generator=generator) + 3 * torch.arange(9)) % 7


def test_a_source_may_draw_its_examples():
    networks = [make_network() for _ in range(2)]
    source = Drawn()
    whole = run(networks[0], source, Drawn(), TokenObjective(), max_epochs=6)
    assert source.sizes == [8] * 12
    assert whole.history["train_loss"][-1] < whole.history["train_loss"][0]
    first = run(networks[1], Drawn(), Drawn(), TokenObjective(), max_epochs=3)
    run(networks[1], Drawn(), Drawn(), TokenObjective(), max_epochs=3, state=first.state)
    assert same_weights(*networks)
    scores = {evaluate(networks[0], Drawn(), TokenObjective(), batch_size=21, device=CPU)["loss"]}
    scores |= {evaluate(networks[0], Drawn(), TokenObjective(), batch_size=21, device=CPU)["loss"]}
    assert len(scores) == 1
