"""A family of its own on the estimators: bigrams of integers.

Nothing below the families knows time series, or this could not be written: it is trained,
validated, stopped early, interrupted by checkpoints, saved, loaded, cloned and checked by the same
machinery as every forecaster.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tsar
from tsar.checks import Family, check_estimator, check_id, checks_for
from tsar.estimator.trained import TrainedEstimator
from tsar.exceptions import NotFittedError, ParameterError, PersistenceError
from tsar.params.constraints import Interval
from tsar.persistence import OTHER_ESTIMATORS
from tsar.training import Objective
from tsar.training.device import resolve_device
from tsar.training.seeding import seeded


class Pairs:
    """Pairs of an integer and the one after it, as batches (B, 2)."""

    def __init__(self, ids: np.ndarray) -> None:
        self.pairs = torch.from_numpy(np.stack([ids[:-1], ids[1:]], axis=1))

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, index: Tensor) -> Tensor:
        return self.pairs[index]


class NextToken(Objective):
    """Cross-entropy of the next integer, and in validation how often it is the likeliest."""

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        errors = F.cross_entropy(network(batch[:, 0]), batch[:, 1], reduction="none")
        return {"loss": (errors.sum(), torch.tensor(len(errors)))}

    def validate(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        terms = self.loss(network, batch, generator)
        right = network(batch[:, 0]).argmax(dim=1) == batch[:, 1]
        return {**terms, "accuracy": (right.sum(), torch.tensor(len(right)))}


@dataclass(kw_only=True, eq=False, repr=False)
class Bigram(TrainedEstimator):
    """What integer follows another, by a table of logits that is trained."""

    n_symbols: Annotated[int, Interval(2)] = 4

    def fit(self, ids: Any, y: None = None) -> "Bigram":
        self.check()
        ids = np.asarray(ids)
        if ids.max() >= self.n_symbols:
            raise ParameterError(f"Bigram: n_symbols must be above {ids.max()}; raise it")
        cut = int(0.8 * len(ids)) if self.early_stopping else len(ids)
        device, seed = resolve_device(self.device), self._draw_seed()
        with seeded(seed):
            network = self._network()
        result = self._train(
            network,
            Pairs(ids[:cut]),
            Pairs(ids[cut:]) if cut < len(ids) - 1 else None,
            NextToken(),
            self._phases(network, self._training_options, go_on=False),
            device=device,
            seed=seed,
        )
        self._keep(network, result, device, seed)
        self.remember_parameters()
        return self

    def _network(self) -> nn.Module:
        return nn.Embedding(int(self.n_symbols), int(self.n_symbols))

    def next_probabilities(self) -> np.ndarray:
        self.check_fitted()
        with torch.inference_mode():
            return self.module_.weight.softmax(dim=1).numpy()

    def learned_state(self) -> Any:
        self.check_fitted()
        return self._trained_state()

    def restore_learned_state(self, record: Any, tensors: Any, members: Any) -> None:
        self._restore_trained_state(self._network, record, tensors)
        self.remember_parameters()


class Integers(Family):
    """Walks on a ring of four: one step on, seldom back."""

    def covers(self, estimator: Any) -> bool:
        return isinstance(estimator, Bigram)

    def data(self, seed: int = 0) -> np.ndarray:
        steps = np.random.default_rng(seed).choice([1, 3], p=[0.9, 0.1], size=400)
        return np.cumsum(steps) % 4

    def answer(self, fitted: Any) -> np.ndarray:
        return fitted.next_probabilities()


SMALL = {"max_epochs": 3, "learning_rate": 0.1, "random_state": 0, "device": "cpu"}


@pytest.mark.parametrize("estimator, check", checks_for(Bigram(**SMALL), Integers()), ids=check_id)
def test_the_contract_holds(estimator, check):
    check(estimator)


def test_what_is_learned_are_the_frequencies():
    ids = Integers().data()
    model = Bigram(max_epochs=60, learning_rate=0.05, early_stopping=False, random_state=0).fit(ids)
    counts = np.zeros((4, 4))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.next_probabilities(), shares, atol=0.05)
    expected = -(counts * np.log(np.maximum(shares, 1e-9))).sum() / counts.sum()
    assert model.history_["train_loss"][-1] == pytest.approx(expected, abs=0.05)


def test_validation_is_told_and_stops_it():
    model = Bigram(max_epochs=200, learning_rate=0.3, patience=2, random_state=0)
    model.fit(Integers().data())
    assert model.n_epochs_ < 200 and max(model.history_["val_accuracy"]) > 0.8
    assert model.best_epoch_ == 1 + int(np.argmin(model.history_["val_loss"]))


def test_parameters_are_those_of_every_trained_estimator():
    with pytest.raises(ParameterError, match="Bigram: max_epochs must be an integer"):
        Bigram(max_epochs=0).fit([0, 1])
    with pytest.raises(ParameterError, match=r"Bigram: early_stopping must be .*, got 1.5"):
        Bigram(early_stopping=1.5).fit([0, 1])
    with pytest.raises(NotFittedError, match="Bigram is not fitted yet"):
        Bigram().next_probabilities()


def test_it_is_loaded_by_class_by_name_or_from_a_trusted_module(tmp_path):
    model = Bigram(**SMALL).fit(Integers().data())
    model.save(tmp_path / "model")
    with pytest.raises(PersistenceError, match="'Bigram' is no estimator of tsar.*trust="):
        tsar.load(tmp_path / "model")
    tsar.register(Bigram)
    try:
        named = tsar.load(tmp_path / "model")
    finally:
        OTHER_ESTIMATORS.unregister("Bigram")
    given = tsar.load(tmp_path / "model", cls=Bigram)
    for twin in (named, given):
        np.testing.assert_array_equal(twin.next_probabilities(), model.next_probabilities())
        assert twin.history_ == model.history_


def test_a_model_saved_without_its_training_state_is_smaller_and_the_same(tmp_path):
    model = Bigram(n_symbols=50, **SMALL).fit(Integers().data())
    model.save(tmp_path / "whole")
    model.save(tmp_path / "bare", training_state=False)
    sizes = [(tmp_path / name / "arrays.safetensors").stat().st_size for name in ("whole", "bare")]
    assert sizes[1] < sizes[0] / 2.5
    twin = tsar.load(tmp_path / "bare", cls=Bigram)
    np.testing.assert_array_equal(twin.next_probabilities(), model.next_probabilities())
    assert twin.n_epochs_ == model.n_epochs_


def test_a_family_that_nobody_knows_is_asked_for():
    with pytest.raises(ParameterError, match="Bigram is of no family of tsar; pass family="):
        check_estimator(Bigram(**SMALL))
