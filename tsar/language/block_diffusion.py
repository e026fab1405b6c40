"""Diffusion inside of blocks of tokens, one block after the other."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core import masks
from tsar.core.block import Encoder
from tsar.core.generation import is_bounded
from tsar.core.linear import Linear
from tsar.core.masking import masked_losses, random_block_masks
from tsar.core.mixers import Mixer, level_mixers
from tsar.core.norm import make_norm
from tsar.core.sampling import Sampler
from tsar.core.state import rewind
from tsar.core.unmasking import unmask
from tsar.estimator.trained import ScheduleName
from tsar.exceptions import ParameterError
from tsar.language.base import WINDOWS_AT_ONCE, texts_so_far
from tsar.language.corpus import scored_windows
from tsar.language.masked_text import LIKELIHOOD_SEED, MaskedTokenNetwork
from tsar.language.mixed import MixedText
from tsar.language.network import FIRST_SCALE
from tsar.language.prompts import continuations, draws_for, in_inference_mode
from tsar.params.constraints import Interval, check_choice, check_value
from tsar.training import Cosine, Objective, Schedule, make_generator
from tsar.training.checkpoint import checkpoints_in

__all__ = ["BlockDiffusionLM"]


class BlockState(NamedTuple):
    """What a network of blocks remembers of the tokens so far.

    Parameters
    ----------
    encoder : tuple
        The states of its blocks of layers.
    last : int64 Tensor of shape (B, 1)
        The last token; before the first one, a mask.
    """

    encoder: tuple[Any, ...]
    last: Tensor


class BlockNetwork(MaskedTokenNetwork):
    """Logits of the masked tokens of each block, from its other tokens and the blocks before.

    At every place it reads the token before beside the one that is there or a mask. A network that
    gives the next token reads just the former where it gives the latter: so it goes on from what
    such a network knows, and has only to learn what masks and later tokens of a block say.

    Parameters
    ----------
    encoder : Encoder
        Of mixers that take levels.
    d_model, n_tokens : int
        See :class:`MaskedTokenNetwork`.
    block_size : int

    References
    ----------
    Gong et al., "Scaling diffusion language models via adaptation from autoregressive models", ICLR
    2025, figure 1, shift what is given by one place to the same end. The first token of a block
    would then be given by the block before, which sees none of its others; here what is read is
    shifted.
    """

    no_decay = ("embedding.weight", "before.weight")

    def __init__(self, encoder: Encoder, d_model: int, n_tokens: int, block_size: int) -> None:
        super().__init__(encoder, d_model, n_tokens)
        self.block_size = block_size
        # Where nothing is before, a mask is.
        self.before = nn.Embedding(n_tokens + 1, d_model)
        nn.init.normal_(self.before.weight, std=FIRST_SCALE)
        self.here = Linear(d_model, d_model, bias=False)
        nn.init.eye_(self.here.weight)

    def forward(self, ids: Tensor, clean: Tensor) -> Tensor:  # type: ignore[override]
        """Return the logits (B, L, V) of all blocks at once.

        Parameters
        ----------
        ids : int64 Tensor of shape (B, L)
            With masks.
        clean : int64 Tensor of shape (B, L)
            Without, which is what later blocks see of earlier ones.
        """
        length = ids.shape[1]
        places = torch.arange(length, device=ids.device)
        first = clean.new_full((len(clean), 1), self.mask_token)
        before_clean = torch.cat([first, clean[:, :-1]], dim=1)
        before_noisy = torch.cat([first, ids[:, :-1]], dim=1)
        # What is before a block is clean.
        begins = places % self.block_size == 0
        before = [torch.where(begins, before_clean, before_noisy), before_clean]
        both = self._read(torch.cat([ids, clean], dim=1), torch.cat(before, dim=1))
        seen = masks.block_diffusion(length, self.block_size, device=ids.device)
        # A noisy token is where its clean one is.
        return self.logits(
            self.encoder(both, mask=seen[None], positions=places.repeat(2))[:, :length]
        )

    def _read(self, ids: Tensor, before: Tensor) -> Tensor:
        """Return what the encoder reads (B, L, D) of tokens and of those before them (B, L)."""
        return self.before(before) + self.here(self.embedding(ids))

    def levels(self, n_tokens: int, device: torch.device) -> Tensor:
        """Return the block of each of so many tokens, which begin with a block."""
        return torch.arange(n_tokens, device=device) // self.block_size

    def init_state(self, batch: int) -> BlockState:
        """Return the state before the first block of ``batch`` sequences."""
        device = self.before.weight.device
        nothing = torch.full((batch, 1), self.mask_token, device=device)
        return BlockState(self.encoder.init_state(batch), nothing)

    def extend_each(self, ids: Tensor, state: BlockState) -> tuple[Tensor, tuple[BlockState, ...]]:
        """Read whole blocks (B, T); return the logits (B, T, V), and the states after each token.

        The state before is that behind a block. Of the states behind the tokens, those behind a
        block are of use.
        """
        levels = self.levels(ids.shape[1], ids.device)
        read = self._read(ids, torch.cat([state.last, ids], dim=1)[:, :-1])
        encoded, states = self.encoder.extend_each(read, state.encoder, levels)
        lasts = ids.split(1, dim=1)
        return self.logits(encoded), tuple(
            BlockState(after, last) for after, last in zip(states, lasts, strict=True)
        )


class BlockCounts(Objective):
    """Any number of masked tokens in each block; see :func:`random_block_masks`."""

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        """Return the weighted loss of windows (B, L + 1), the first token of which is given."""
        maskable = torch.ones(batch.shape[1], dtype=torch.bool, device=batch.device)
        maskable[0] = False
        losses = weighted_losses(network, batch, maskable, generator)
        n_tokens = len(batch) * (batch.shape[1] - 1)
        return {"loss": (losses.sum(), torch.tensor(n_tokens, device=batch.device))}


def weighted_losses(
    network: Any, windows: Tensor, maskable: Tensor, generator: torch.Generator
) -> Tensor:
    """Mask windows (B, L) at random; return the losses (B, L), weighted to bound the likelihood."""
    chosen, weights = random_block_masks(maskable, network.block_size, len(windows), generator)
    losses = masked_losses(
        lambda noisy: network(noisy, windows), windows, chosen, network.mask_token
    )
    return losses * weights.to(losses.dtype)


@dataclass(kw_only=True, eq=False, repr=False)
class BlockDiffusionLM(MixedText):
    """A language model that writes block after block, and the tokens of a block in any order.

    Between blocks it is autoregressive, with keys and values of what is written; inside of a block
    it is a masked model, which draws several tokens in a pass where it is sure of them. Blocks of
    one token are an autoregressive model, blocks as long as the context masked diffusion.

    Parameters
    ----------
    mixer : str, subclass of Mixer, or list of these, default "attention"
        What mixes tokens: one that takes levels, which of tsar's own is attention.
    block_size : int, default 4
        Tokens of a block.
    likelihood_draws : int, default 32
        Random masks of a window from which the bound of its likelihood is estimated; with blocks
        of one token every one of them is exact.

    Attributes
    ----------
    decoding_ : dict
        Of the last ``generate``: ``passes`` of the network, ``tokens`` drawn, and ``seconds``.

    References
    ----------
    Arriola et al., "Block diffusion: interpolating between autoregressive and diffusion language
    models", ICLR 2025, sections 3 and 4: masks and bound; Wu et al., "Fast-dLLM",
    arXiv:2505.22618, section 3.3: tokens above a confidence in one pass.

    Examples
    --------
    >>> from tsar.language import BlockDiffusionLM, LanguageModel
    >>> settings = {"context_length": 32, "d_model": 32, "n_layers": 1, "d_ff": 64,
    ...             "learning_rate": 0.01, "random_state": 0, "device": "cpu"}
    >>> texts = ["one, two, three, four. " * 40]
    >>> trained = LanguageModel(**settings, max_steps=150).fit(texts)
    >>> model = BlockDiffusionLM(**settings, max_steps=150).fit(texts, initial=trained)
    >>> len(model.generate("one, two", max_tokens=7, random_state=0)) <= 7
    True
    """

    block_size: Annotated[int, Interval(1)] = 4
    likelihood_draws: Annotated[int, Interval(1)] = 32
    # What begins with a trained model is trained for few steps, and knows where to go.
    learning_rate_schedule: ScheduleName | Schedule = Cosine(lowest=0.05, warmup_steps=20)

    def fit(
        self,
        texts: Any,
        y: None = None,
        *,
        initial: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on texts; afresh, unless ``warm_start`` is set.

        Parameters
        ----------
        texts : str or sequence of str
            A text, or any number of them, as in a Series: each is told from the next.
        y : None
            Ignored.
        initial : LanguageModel, optional
            A fitted one of the same sizes, whose tokenizer and weights are taken over. A fifth of
            its steps makes a model of blocks of it.
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
            A parameter is outside of its constraint, or the initial model has other sizes.
        DataError
            There is no text, or too little of it for one window.
        NotFittedError
            The initial model is not fitted.
        TrainingError
            The loss is not finite, or the checkpoint is of another training.
        """
        if initial is not None:
            if not hasattr(initial, "check_fitted") or not isinstance(initial, MixedText):
                raise ParameterError(
                    f"{self.name}: initial must be a fitted LanguageModel, got {initial!r}"
                )
            initial.check_fitted()
            if self.warm_start and self.__sklearn_is_fitted__():
                raise ParameterError(
                    f"{self.name}: warm_start=True goes on with the weights of the fit before, and "
                    f"initial brings others; pass one of them"
                )
            if initial.as_fitted.tokenizer != self.tokenizer:
                raise ParameterError(
                    f"{self.name}: initial has tokenizer={initial.as_fitted.tokenizer!r}, and this "
                    f"model tokenizer={self.tokenizer!r}; give both the same"
                )
        with checkpoints_in(checkpoint):
            return self._fit(texts, go_on=self.warm_start, initial=initial)

    # ------------------------------------------------------------------ network

    def _check_mixer(self, mixer: Any, parameter: str) -> None:
        if not (isinstance(mixer, type) and issubclass(mixer, Mixer) and mixer.takes_levels):
            check_choice(self.name, parameter, mixer, level_mixers())

    def _make_network(self, n_tokens: int) -> BlockNetwork:
        blocks = [self._make_block(self._make_mixer(mixer, causal=False)) for mixer in self._mixers]
        d_model = int(self.d_model)
        encoder = Encoder(blocks, make_norm("rms", d_model))
        return BlockNetwork(encoder, d_model, n_tokens, int(self.block_size))

    def _begin_from(self, initial: Any, network: nn.Module) -> None:
        taken_over = {
            name.removeprefix("decoder."): weight
            for name, weight in initial.module_.state_dict().items()
        }
        own = network.state_dict()
        rows = taken_over["embedding.weight"]
        if rows.shape[1] == own["embedding.weight"].shape[1]:
            for table in ("embedding.weight", "before.weight"):
                # One token more, which stands for a mask.
                taken_over[table] = torch.cat([rows, own[table][len(rows) :]])
        # Of the token that is there, a model that is to give it has read nothing.
        taken_over["here.weight"] = torch.zeros_like(own["here.weight"])
        unlike = sorted(taken_over.keys() ^ own.keys()) or [
            name for name in own if own[name].shape != taken_over[name].shape
        ]
        if unlike:
            raise ParameterError(
                f"{self.name}: initial, a {initial.name}, has other weights than this model, "
                f"beginning with {unlike[0]!r}; give both the same mixer, d_model, n_layers, "
                f"n_heads, d_ff and mlp"
            )
        network.load_state_dict(taken_over)

    def _objective(self) -> Objective:
        return BlockCounts()

    def restore_learned_state(
        self, record: dict[str, Any], tensors: dict[str, Tensor], members: Any
    ) -> None:
        """See :meth:`TextEstimator.restore_learned_state`.

        Networks did not read the token before at first: to them it says nothing, and the one that
        is there what it did.
        """
        kinds = ("network.", "training.weights/", "training.averaged/")
        tensors = dict(tensors)
        for kind in kinds:
            table = tensors.get(f"{kind}embedding.weight")
            if table is not None and f"{kind}before.weight" not in tensors:
                tensors[f"{kind}before.weight"] = torch.zeros_like(table)
                tensors[f"{kind}here.weight"] = torch.eye(table.shape[1]).to(table)
        super().restore_learned_state(record, tensors, members)

    # --------------------------------------------------------------- likelihood

    def log_likelihood(self, texts: Any, *, stride: int | None = None) -> np.ndarray:
        """Return a lower bound of the natural logarithm of the probability of each text.

        It is the mean over all orders of drawing the tokens of each block, estimated from
        ``likelihood_draws`` random masks, the same ones in every call; with blocks of one token it
        is exact. So are the perplexity, the bits per byte and the score made from it bounds.

        Parameters
        ----------
        texts : str or sequence of str
        stride : int or None, default None
            Windows of ``context_length`` tokens begin so far apart, and each scores what the one
            before has not, given the rest; None takes half a context.

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
        return super().log_likelihood(texts, stride=stride)

    def _text_losses(self, tokens: Tensor, stride: int) -> Tensor:
        length = int(self.as_fitted.context_length)
        n_draws = int(self.as_fitted.likelihood_draws)
        generator = make_generator(LIKELIHOOD_SEED, "cpu")
        total = tokens.new_zeros((), dtype=torch.float64)
        for window, n_scored in scored_windows(tokens, length, stride):
            maskable = torch.arange(len(window), device=window.device) >= len(window) - n_scored
            for begin in range(0, n_draws, WINDOWS_AT_ONCE):
                n = min(WINDOWS_AT_ONCE, n_draws - begin)
                losses = weighted_losses(self.module_, window.expand(n, -1), maskable, generator)
                total += losses.double().sum() / n_draws
        return total

    # ----------------------------------------------------------------- generate

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        max_tokens: int = 200,
        *,
        threshold: float | None = 0.9,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        random_state: int | None = None,
    ) -> Any:
        """Continue a text, or each of several, block after block.

        Parameters
        ----------
        prompt : str or sequence of str, default ""
            What to continue; nothing begins a text.
        max_tokens : int, default 200
            Tokens to draw. A text ends sooner where the model says that it does.
        threshold : float or None, default 0.9
            In each pass all tokens are taken that were drawn with a larger probability than this,
            and the likeliest in any case. None takes one in a random place, which is an exact
            draw.
        temperature : float, default 1.0
            0 takes the likeliest token every time.
        top_k, top_p : int and float, optional
            Draw from the best few only, see :class:`~tsar.core.sampling.Sampler`.
        stop : str or sequence of str, optional
            End before one of these.
        random_state : int or None, default None
            Seed of the draws; None draws a new one.

        Returns
        -------
        str, or list of str
            What is added, without the prompt.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            A parameter is outside its range, or a prompt is no text.
        """
        self.check_fitted()
        return continuations(
            self,
            prompt,
            max_tokens,
            random_state,
            threshold=threshold,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop=stop,
        )

    def stream(
        self,
        prompt: str = "",
        max_tokens: int = 200,
        *,
        threshold: float | None = 0.9,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        random_state: int | None = None,
    ) -> Iterator[str]:
        """Continue a text, and give every block as soon as it is there.

        Parameters
        ----------
        prompt, max_tokens, threshold, temperature, top_k, top_p, stop, random_state
            As for :meth:`generate`.

        Yields
        ------
        str
        """
        self.check_fitted()
        count, ends, generator = draws_for(self.name, prompt, max_tokens, stop, random_state)
        check_value(self.name, "threshold", threshold, Annotated[float, Interval(0, 1)] | None)
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
        tokens = self._drawn(self._token_row(prompt), count, threshold, sampler, generator)
        return texts_so_far(self.tokenizer_, tokens, ends)

    def _drawn(
        self,
        row: Tensor,
        max_tokens: int,
        threshold: float | None,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> Iterator[int]:
        began = time.perf_counter()
        boundary, n_given = self.tokenizer_.n_tokens, len(row)
        self.decoding_: dict[str, float] = {"passes": 0, "tokens": 0, "seconds": 0.0}
        reading = _Reading(self.module_, int(self.as_fitted.context_length) + 1)
        while len(row) < n_given + max_tokens:
            ids = reading.next_block(row)
            n_open = int((ids == reading.mask_token).sum())
            passes = unmask(
                reading.logits,
                ids,
                mask_token=reading.mask_token,
                sampler=sampler,
                generator=generator,
                order="random" if threshold is None else "confidence",
                threshold=threshold,
            )
            for revealed in in_inference_mode(passes):
                ids = revealed
                self.decoding_["passes"] += 1
            new = ids[0, ids.shape[1] - n_open :][: n_given + max_tokens - len(row)]
            self.decoding_["seconds"] = time.perf_counter() - began
            for token in new.tolist():
                if token == boundary:
                    return
                self.decoding_["tokens"] += 1
                yield token
            row = torch.cat([row, new])


class _Reading:
    """A text of whole blocks that a network has read, and the block that is written.

    A block that is full is read in the first pass over the next one, so that it costs no pass of
    its own.
    """

    def __init__(self, network: Any, limit: int) -> None:
        self.network = network
        self.mask_token: int = network.mask_token
        self.size: int = network.block_size
        # A state that grows holds no more than the windows of the training.
        self.limit = None if is_bounded(network.init_state(1)) else max(limit, 2 * self.size)
        self.state = network.init_state(1)
        # Of the text, where the state began, and where it ends.
        self.begin = self.end = 0
        self.unread: Tensor | None = None

    def next_block(self, row: Tensor) -> Tensor:
        """Return the block (1, P) behind the last that is full, filled up with masks."""
        n_whole = len(row) // self.size * self.size
        if self.limit is not None and n_whole + self.size - self.begin > self.limit:
            # Anew, from the last half.
            n_again = max(self.limit // 2 // self.size, 1) * self.size
            self.begin = self.end = max(0, n_whole - n_again)
            self.state = self.network.init_state(1)
        self.unread = row[None, self.end : n_whole]
        self.end = n_whole
        open_part = row[n_whole:]
        masked = row.new_full((self.size - len(open_part),), self.mask_token)
        return torch.cat([open_part, masked])[None]

    def logits(self, ids: Tensor) -> Tensor:
        """Return the logits (1, P, V) of the block as it is now."""
        unread = ids[:, :0] if self.unread is None else self.unread
        every, states = self.network.extend_each(
            torch.cat([unread, ids], dim=1), rewind(self.state)
        )
        if unread.shape[1]:
            self.state = states[unread.shape[1] - 1]
        self.unread = None
        return every[:, unread.shape[1] :]
