"""What every language model promises beside the contract of all estimators."""

import functools
from typing import Any

import numpy as np
from sklearn.base import clone

from tsar.checks.contract import Check, Family, made_small, raises
from tsar.exceptions import DataError, NotFittedError
from tsar.language.base import TextEstimator

__all__ = ["Language", "small_language_model"]

# By the one vocabulary that all models share, these make any of them small.
SMALL = {
    **{"context_length": 16, "d_model": 8, "n_heads": 2, "d_ff": 12, "n_layers": 2},
    **{"max_steps": 6, "batch_size": 4, "random_state": 0, "device": "cpu"},
}


def small_language_model(cls: type[TextEstimator], **parameters: Any) -> TextEstimator:
    """Return a language model that fits in a moment.

    Parameters
    ----------
    cls : type
        Its class.
    **parameters
        Set on top of the small settings.
    """
    estimator: TextEstimator = made_small(cls, SMALL, **parameters)
    return estimator


class Language(Family):
    """Language models: they fit texts and say how likely texts are."""

    def covers(self, estimator: Any) -> bool:
        return isinstance(estimator, TextEstimator)

    def small(self, cls: type[Any]) -> Any:
        return small_language_model(cls)

    def data(self, seed: int = 0) -> list[str]:
        words = np.random.default_rng(seed).choice(["one", "two", "red", "ünd", "so"], size=(3, 30))
        return [" ".join(line) for line in words]

    def answer(self, fitted: Any) -> np.ndarray:
        return np.asarray(fitted.log_likelihood(self.data(7)))

    def checks(self, estimator: Any) -> tuple[Check, ...]:
        checks: list[Check] = []
        for check in (check_score, check_texts, check_company, check_generation):
            checks.append(functools.update_wrapper(functools.partial(check, family=self), check))
        return tuple(checks)


def check_score(estimator: Any, family: Family) -> None:
    """Scores, bits and perplexities are one likelihood, counted in different units."""
    fitted, texts = clone(estimator).fit(family.data()), family.data(7)
    nats = -fitted.log_likelihood(texts).sum()
    n_bytes = sum(len(text.encode("utf-8")) for text in texts)
    np.testing.assert_allclose(fitted.bits_per_byte(texts), nats / np.log(2) / n_bytes)
    np.testing.assert_allclose(fitted.score(texts), -nats / np.log(2) / n_bytes)
    n_tokens = sum(len(fitted.tokenizer_.encode(text)) for text in texts)
    np.testing.assert_allclose(fitted.perplexity(texts), np.exp(nats / n_tokens))


def check_texts(estimator: Any, family: Family) -> None:
    """What is no text, or too little of it, is refused before any training."""
    model = clone(estimator)
    raises(NotFittedError, "call fit first", lambda: model.log_likelihood("a"))
    for wrong, words in (
        ([], "no text"),
        ("", "no text"),
        (b"bytes", "decode"),
        (3, "must be a str"),
        (["a", None], "at place 1"),
        ("short", "tokens, fewer than"),
    ):
        raises(DataError, words, lambda wrong=wrong: model.fit(wrong))  # type: ignore[misc]
    raises(NotFittedError, "call fit first", lambda: model.log_likelihood("a"))


def check_company(estimator: Any, family: Family) -> None:
    """How likely a text is does not depend on what else is asked about."""
    fitted, texts = clone(estimator).fit(family.data()), family.data(7)
    together = fitted.log_likelihood(texts)
    alone = [fitted.log_likelihood(text)[0] for text in texts]
    np.testing.assert_array_equal(together, alone)


def check_generation(estimator: Any, family: Family) -> None:
    """One seed gives one text, as long as was asked for, and streams it in pieces."""
    fitted = clone(estimator).fit(family.data())
    first = fitted.generate("one", max_tokens=40, random_state=3)
    assert first == fitted.generate("one", max_tokens=40, random_state=3)
    assert first == "".join(fitted.stream("one", max_tokens=40, random_state=3))
    assert fitted.decoding_["tokens"] <= 40
