"""Drafts that are trained for a language model, which stays as it is."""

import copy
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.block import Block
from tsar.core.decoding import (
    BlockwiseHeads,
    DraftHeads,
    EarlyExitDraft,
    HeadsDraft,
    HydraHeads,
    MedusaHeads,
)
from tsar.core.mixers import SoftmaxAttention
from tsar.core.sampling import Sampler
from tsar.exceptions import DataError, ParameterError
from tsar.language.corpus import DrawnWindows, as_texts, token_row
from tsar.language.language_model import LanguageModel
from tsar.params.constraints import Interval, check_choice, check_count, check_value
from tsar.training import AdamW, Cosine, Objective, Phase, TrainingOptions, seeded, train_phases
from tsar.training.threads import settle_number

__all__ = ["fit_early_exit", "fit_heads"]

HEADS: dict[str, type[DraftHeads]] = {
    "blockwise": BlockwiseHeads,
    "medusa": MedusaHeads,
    "hydra": HydraHeads,
}
# How much less a head counts in the training than the one before it.
_FALL = 0.8


def fit_heads(
    model: LanguageModel,
    texts: Any,
    *,
    kind: Literal["blockwise", "medusa", "hydra"] = "hydra",
    n_heads: int = 3,
    max_steps: int = 500,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    random_state: int = 0,
    verbose: int = 0,
) -> HeadsDraft:
    """Train heads that guess the tokens behind the next one, on a model that stays as it is.

    Parameters
    ----------
    model : LanguageModel
        A fitted one.
    texts : str or sequence of str
        Such as it was fitted to.
    kind : {"blockwise", "medusa", "hydra"}, default "hydra"
        See :class:`tsar.core.decoding.BlockwiseHeads`, :class:`~tsar.core.decoding.MedusaHeads`
        and :class:`~tsar.core.decoding.HydraHeads`.
    n_heads : int, default 3
        Tokens that are guessed in a pass.
    max_steps, batch_size : int
        Of the training, over windows as long as the context of the model.
    learning_rate : float, default 1e-3
    random_state : int, default 0
        Seed of the training.
    verbose : int, default 0
        With 1, a progress bar.

    Returns
    -------
    HeadsDraft
        For ``generate(decoding=Speculative(draft, n_heads))``.

    Raises
    ------
    NotFittedError, ParameterError, DataError
        The model is not fitted, there are no such heads, or too little text.
    """
    check_choice("fit_heads", "kind", kind, HEADS)
    check_count("fit_heads", "n_heads", n_heads)
    windows = _windows("fit_heads", model, texts, least=n_heads + 1)
    network: Any = model.module_
    with seeded(random_state):
        heads = HEADS[kind](n_heads, network.embedding.weight).to(model.device_)
    options = _options("fit_heads", max_steps, batch_size, learning_rate, verbose)
    _train(heads, windows, _HeadLosses(network), options, model.device_, random_state)
    return HeadsDraft(heads)


class _HeadLosses(Objective):
    """Cross-entropy of what each head guesses, less for those behind."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        with torch.no_grad():
            hidden = self.network.hidden(batch[:, :-1])
        losses = network.losses(hidden, batch)  # type: ignore[operator]
        total = sum(_FALL**head * loss.sum() for head, loss in enumerate(losses))
        return {"loss": (total, torch.tensor(losses[0].numel(), device=batch.device))}


def fit_early_exit(
    model: LanguageModel,
    texts: Any,
    *,
    n_blocks: int = 1,
    confidence: float = 0.6,
    max_steps: int = 500,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    random_state: int = 0,
    verbose: int = 0,
) -> EarlyExitDraft:
    """Train one layer of attention on the first blocks of a model, which stands for the rest.

    Parameters
    ----------
    model : LanguageModel
        A fitted one, of more blocks than the draft shares with it.
    texts : str or sequence of str
        Such as it was fitted to.
    n_blocks : int, default 1
        First blocks of the model, which are read and not trained.
    confidence : float, default 0.6
        It guesses no further behind a token of a smaller probability.
    max_steps, batch_size : int
        Of the training, over windows as long as the context of the model.
    learning_rate : float, default 1e-3
    random_state : int, default 0
        Seed of the training.
    verbose : int, default 0
        With 1, a progress bar.

    Returns
    -------
    EarlyExitDraft
        For ``generate(decoding=Speculative(draft, 6))``.

    Raises
    ------
    NotFittedError, ParameterError, DataError
        The model is not fitted, has too few blocks, or there is too little text.

    References
    ----------
    Liu et al., "Kangaroo: lossless self-speculative decoding via double early exiting", NeurIPS
    2024, section 3.
    """
    check_count("fit_early_exit", "n_blocks", n_blocks)
    check_value("fit_early_exit", "confidence", confidence, Annotated[float, Interval(0, 1)])
    windows = _windows("fit_early_exit", model, texts, least=1)
    whole: Any = model.module_
    if n_blocks >= len(whole.decoder.encoder.blocks):
        raise ParameterError(
            f"fit_early_exit: n_blocks must be less than the {len(whole.decoder.encoder.blocks)} "
            f"blocks of the model, got {n_blocks}"
        )
    early = copy.deepcopy(whole)
    encoder = early.decoder.encoder
    d_model, n_heads = int(model.as_fitted.d_model), int(model.as_fitted.n_heads)
    with seeded(random_state):
        rotary = (d_model // n_heads) % 2 == 0
        mixer = SoftmaxAttention(d_model, n_heads, causal=True, rotary=rotary, qk_norm=True)
        adapter = Block(mixer, None, d_model=d_model, norm="rms").to(model.device_)
    encoder.blocks = nn.ModuleList([*encoder.blocks[:n_blocks], adapter])
    shared = ("embedding", *(f"decoder.encoder.blocks.{k}" for k in range(n_blocks)))
    options = _options("fit_early_exit", max_steps, batch_size, learning_rate, verbose)
    _train(early, windows, _Teaching(whole), options, model.device_, random_state, shared)
    # What was not trained is the model's own, so that no block has to read a token twice.
    early.embedding, early.decoder.position = whole.embedding, whole.decoder.position
    encoder.blocks = nn.ModuleList([*whole.decoder.encoder.blocks[:n_blocks], encoder.blocks[-1]])
    return EarlyExitDraft(early.eval(), whole, confidence)


class _Teaching(Objective):
    """Cross-entropy of what one network says with all that another one thinks possible."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        with torch.no_grad():
            shares = Sampler().probabilities(self.teacher(batch[:, :-1]))
        logits = network(batch[:, :-1])
        shares = shares.to(logits.dtype)
        total = F.cross_entropy(logits.flatten(0, 1), shares.flatten(0, 1), reduction="sum")
        return {"loss": (total, torch.tensor(batch[:, 1:].numel(), device=batch.device))}


def _windows(owner: str, model: LanguageModel, texts: Any, *, least: int) -> DrawnWindows:
    if not isinstance(model, LanguageModel):
        raise ParameterError(f"{owner}: model must be a fitted LanguageModel, got {model!r}")
    model.check_fitted()
    length = int(model.as_fitted.context_length)
    tokens = token_row(model.tokenizer_, as_texts(owner, texts), model.tokenizer_.n_tokens)
    if len(tokens) <= length or length <= least:
        raise DataError(
            f"{owner}: the texts have {len(tokens) - 1} tokens and the model a context of "
            f"{length}; pass at least one window of it, and guess fewer tokens than it has"
        )
    return DrawnWindows(tokens, length)


def _options(
    owner: str, max_steps: int, batch_size: int, learning_rate: float, verbose: int
) -> TrainingOptions:
    check_count(owner, "max_steps", max_steps)
    check_count(owner, "batch_size", batch_size)
    positive = Annotated[float, Interval(0, open_low=True)]
    check_value(owner, "learning_rate", learning_rate, positive)
    return TrainingOptions(
        max_epochs=None,
        max_steps=max_steps,
        batch_size=batch_size,
        optimizer=AdamW(weight_decay=0.0, betas=(0.9, 0.99), clip=1.0),
        learning_rate=learning_rate,
        schedule=Cosine(lowest=0.05, warmup_steps=min(100, max_steps // 10)),
        verbose=verbose,
    )


@torch.inference_mode(False)
@torch.enable_grad()
def _train(
    network: nn.Module,
    windows: DrawnWindows,
    objective: Objective,
    options: TrainingOptions,
    device: str,
    seed: int,
    frozen: tuple[str, ...] = (),
) -> None:
    settle_number()
    train_phases(
        network,
        windows,
        None,
        objective,
        [Phase(options, frozen)],
        device=torch.device(device),
        seed=seed,
    )
