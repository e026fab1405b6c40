"""What all estimators have in common that are fitted to texts."""

import functools
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from tsar.estimator.base import Estimator
from tsar.estimator.trained import Positive, ScheduleName, TrainedEstimator
from tsar.exceptions import DataError, ParameterError
from tsar.language.corpus import DrawnWindows, OrderedWindows, as_texts, token_row
from tsar.language.tokenizer import (
    Tokenizer,
    UserTokenizer,
    fitted_tokenizer,
    tokenizer_from_record,
)
from tsar.params.constraints import Interval, check_count
from tsar.training import AdamW, Cosine, Objective, Optimizer, Schedule, seeded
from tsar.training.checkpoint import checkpoints_in, digest
from tsar.training.state import TrainedFitted, TrainingRecord
from tsar.training.threads import settle_number

__all__ = ["TextEstimator", "TextRecord"]

# Windows scored at a time.
WINDOWS_AT_ONCE = 32


class TokenizerRecord(TypedDict):
    """What JSON holds of a tokenizer."""

    kind: str
    content: str


class TextRecord(TypedDict):
    """What JSON holds of an estimator of texts."""

    training: TrainingRecord
    fitted: TrainedFitted
    tokenizer: TokenizerRecord
    more: NotRequired[dict[str, Any]]


@dataclass(kw_only=True, eq=False, repr=False)
class TextEstimator(TrainedEstimator):
    """An estimator that is fitted to texts and says how likely texts are.

    A subclass gives the network and the objective.

    Parameters
    ----------
    tokenizer : {"byte", "char"}, int or object, default "byte"
        What a token is: a byte, a character of the fitted texts, or one of so many pieces of
        words that are found in them (the extra ``language``); or an object of your own with
        ``n_tokens``, ``encode(text)`` and ``decode(ids)``, which has to be passed again to
        :func:`tsar.load`.
    context_length : int, default 256
        Tokens that a window of the training predicts.
    max_epochs : int or None, default None
        Longest training in passes over the texts.
    max_steps : int or None, default 2000
        Longest training in steps: what counts for texts, and what the schedule is laid over.
    optimizer : {"adam", "adamw"} or Optimizer
        By default ``AdamW(weight_decay=0.1, betas=(0.9, 0.99), clip=1.0)``.
    learning_rate : float, default 3e-3
        Largest learning rate of the schedule.
    learning_rate_schedule : str or Schedule
        By default ``Cosine(lowest=0.05, warmup_steps=100)``.
    early_stopping : bool, int or float, default False
        Whether to hold out the end of the texts, as a share or a number of windows (True is a
        tenth), stop when it is no longer predicted better, and keep the best weights. By default
        all texts are trained on.

    Attributes
    ----------
    tokenizer_ : Tokenizer
        Fitted to the texts.
    n_tokens_ : int
        Tokens of the fitted texts.
    """

    parameter_group: ClassVar[str] = "data"
    references: ClassVar[frozenset[str]] = TrainedEstimator.references | {"tokenizer"}
    learned_record: ClassVar[Any] = TextRecord

    tokenizer: Literal["byte", "char"] | Annotated[int, Interval(257)] | UserTokenizer = "byte"
    context_length: Annotated[int, Interval(1)] = 256
    # What an epoch is says nothing of a corpus.
    max_epochs: Positive | None = None  # type: ignore[assignment]
    max_steps: Positive | None = 2000
    optimizer: Literal["adam", "adamw"] | Optimizer = AdamW(
        weight_decay=0.1, betas=(0.9, 0.99), clip=1.0
    )
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 3e-3
    learning_rate_schedule: ScheduleName | Schedule = Cosine(lowest=0.05, warmup_steps=100)
    early_stopping: bool | Positive | Annotated[float, Interval(0, 1, True, True)] = False

    # ------------------------------------------------------------- what a subclass gives

    @abstractmethod
    def _make_network(self, n_tokens: int) -> nn.Module:
        """Build the network for so many tokens, the boundary of texts included."""

    @abstractmethod
    def _objective(self) -> Objective:
        """Return what it is trained for."""

    @abstractmethod
    def _text_losses(self, tokens: Tensor, stride: int) -> Tensor:
        """Return minus the log-likelihood of a text's tokens, a Tensor of shape ().

        ``tokens`` begin with a boundary, which is not counted.
        """

    # ------------------------------------------------------------------------ fit

    def fit(
        self, texts: Any, y: None = None, *, checkpoint: str | os.PathLike[str] | None = None
    ) -> Self:
        """Train on texts; afresh, unless ``warm_start`` is set.

        Parameters
        ----------
        texts : str or sequence of str
            A text, or any number of them, as in a Series: each is told from the next.
        y : None
            Ignored.
        checkpoint : path, optional
            A folder in which the training leaves its state every ten minutes. Where a fit was
            killed, the same call goes on from there, and gives the same weights as if it had
            not been. Nothing is left of a fit that ended.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A parameter is outside of its constraint.
        DataError
            There is no text, or too little of it for one window.
        TrainingError
            The loss is not finite, or the checkpoint is of another training.
        """
        with checkpoints_in(checkpoint):
            return self._fit(texts, go_on=self.warm_start)

    def partial_fit(self, texts: Any, y: None = None) -> Self:
        """Go on training the fitted network, on these texts; the tokenizer stays.

        Parameters
        ----------
        texts : str or sequence of str
        y : None
            Ignored.

        Returns
        -------
        self
        """
        return self._fit(texts, go_on=True)

    # The caller may have turned gradients off around the fit.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _fit(self, texts: Any, go_on: bool, initial: Any = None) -> Self:
        """Train, from the weights of the fit before, of another model, or from new ones."""
        self.check()
        listed = as_texts(self.name, texts)
        settle_number()
        go_on = go_on and self.__sklearn_is_fitted__()
        if go_on and _kind(self.as_fitted.tokenizer) != _kind(self.tokenizer):
            raise ParameterError(
                f"{self.name}: tokenizer has changed since the last fit, from "
                f"{self.as_fitted.tokenizer!r} to {self.tokenizer!r}; restore it, or fit with "
                f"warm_start=False"
            )
        tokenizer = self._tokenizer_for(listed, self if go_on else initial)
        tokens = token_row(tokenizer, listed, tokenizer.n_tokens)
        training, validation = self._sources(tokens)
        begin = None
        if initial is not None and not go_on:
            begin = functools.partial(self._begin_from, initial)
        self._fit_network(
            lambda: self._make_network(tokenizer.n_tokens + 1),
            training,
            validation,
            self._objective(),
            data=lambda: digest([tokens]),
            go_on=go_on,
            begin=begin,
        )
        self.tokenizer_: Tokenizer = tokenizer
        self.n_tokens_ = len(tokens)
        self.remember_parameters()
        return self

    def _tokenizer_for(self, texts: list[str], model: Any) -> Tokenizer:
        """Return the tokenizer of a model that is gone on from, or one fitted to the texts."""
        tokenizer: Tokenizer = (
            fitted_tokenizer(self.tokenizer, texts) if model is None else model.tokenizer_
        )
        return tokenizer

    def _begin_from(self, initial: Any, network: nn.Module) -> None:
        """Give a new network the weights of a model of another kind."""
        raise NotImplementedError(f"{self.name} begins with weights of its own")

    def _sources(self, tokens: Tensor) -> tuple[DrawnWindows, OrderedWindows | None]:
        """Cut windows for training, and from the end those for validation if there are any."""
        length = int(self.context_length)
        n_windows = (len(tokens) - 1) // length
        held_out = self._n_held_out(n_windows)
        if n_windows < 1 + held_out:
            raise DataError(
                f"{self.name}: the texts have {len(tokens) - 1} tokens, fewer than the "
                f"{(1 + held_out) * length} of context_length={length}"
                f"{' and early_stopping=' + repr(self.early_stopping) if held_out else ''}; pass "
                f"more text, or a smaller context_length"
            )
        if not held_out:
            return DrawnWindows(tokens, length), None
        cut = len(tokens) - 1 - held_out * length
        return DrawnWindows(tokens[: cut + 1], length), OrderedWindows(tokens[cut:], length)

    def _n_held_out(self, n_windows: int) -> int:
        size = self.early_stopping
        if isinstance(size, bool | np.bool_):
            size = 0.1 if size else 0
        return max(1, int(n_windows * size)) if 0 < size < 1 else int(size)

    # ----------------------------------------------------------------- likelihood

    def _token_row(self, text: str) -> Tensor:
        row = token_row(self.tokenizer_, [text], self.tokenizer_.n_tokens)
        return row.to(self.device_)

    def log_likelihood(self, texts: Any, *, stride: int | None = None) -> np.ndarray:
        """Return the natural logarithm of the probability of each text.

        Parameters
        ----------
        texts : str or sequence of str
        stride : int or None, default None
            Windows of ``context_length`` tokens begin so far apart, and each scores what the one
            before has not; None takes half a context, so that every token but the first ones has
            at least half a context before it. ``context_length`` is the convention of nanoGPT.

        Returns
        -------
        float64 array of shape (n_texts,)

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        DataError
            Something is no text.
        ParameterError
            ``stride`` is not between 1 and ``context_length``.
        """
        self.check_fitted()
        length = int(self.as_fitted.context_length)
        stride = max(1, length // 2) if stride is None else check_count(self.name, "stride", stride)
        if stride > length:
            raise ParameterError(
                f"{self.name}: stride must be from 1 to context_length={length}, got {stride!r}"
            )
        rows = [self._token_row(text) for text in as_texts(self.name, texts)]
        with torch.inference_mode():
            return np.array([-float(self._text_losses(row, stride)) for row in rows])

    def perplexity(self, texts: Any, *, stride: int | None = None) -> float:
        """Return the perplexity per token: how many tokens it hesitates between.

        Parameters
        ----------
        texts, stride
            As for :meth:`log_likelihood`.
        """
        listed = as_texts(self.name, texts)
        total = self.log_likelihood(listed, stride=stride).sum()
        n_tokens = sum(len(self._token_row(text)) - 1 for text in listed)
        return float(np.exp(-total / n_tokens))

    def bits_per_byte(self, texts: Any, *, stride: int | None = None) -> float:
        """Return the bits that a byte of the texts takes: comparable whatever a token is.

        Parameters
        ----------
        texts, stride
            As for :meth:`log_likelihood`.
        """
        listed = as_texts(self.name, texts)
        total = self.log_likelihood(listed, stride=stride).sum()
        return float(-total / np.log(2) / sum(len(text.encode("utf-8")) for text in listed))

    def score(self, texts: Any, y: None = None) -> float:
        """Return minus the bits per byte, for searches of scikit-learn: higher is better."""
        return -self.bits_per_byte(texts)

    # ---------------------------------------------------------------- persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self.check_fitted()
        record, tensors = self._trained_state()
        tokenizer = self.tokenizer_
        held = {"kind": tokenizer.kind, "content": tokenizer.record()}
        return {**record, "tokenizer": held, "more": {"n_tokens": self.n_tokens_}}, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: "dict[str, Estimator] | Any",
    ) -> None:
        self.tokenizer_ = tokenizer_from_record(record["tokenizer"], self.tokenizer)
        self.n_tokens_ = int(record["more"]["n_tokens"])
        n_tokens = self.tokenizer_.n_tokens + 1

        def build() -> nn.Module:
            with seeded(0):
                return self._make_network(n_tokens)

        self._restore_trained_state(build, record, tensors)
        self.remember_parameters()


def _kind(tokenizer: Any) -> Any:
    """Return what tells one value of the parameter from another; of objects, their class."""
    return tokenizer if isinstance(tokenizer, str | Integral) else type(tokenizer)


def texts_so_far(
    tokenizer: Tokenizer, tokens: Iterator[int], stop: Sequence[str] = ()
) -> Iterator[str]:
    """Decode tokens as they come, and give text as soon as it cannot change any more.

    A character whose bytes are not all there is waited for, and so is what may be the beginning of
    a text to stop at, which is left out.
    """
    text = ""
    longest = max((len(end) for end in stop), default=0)
    for piece in tokenizer.decode_each(tokens):
        text += piece
        places = [place for end in stop if (place := text.find(end)) >= 0]
        if places:
            yield text[: min(places)]
            return
        ready = len(text) - max(0, longest - 1)
        if ready > 0:
            yield text[:ready]
            text = text[ready:]
    if text:
        yield text
