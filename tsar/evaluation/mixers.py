"""What mixers cost, side by side: time and memory over the length, and what they learn to copy."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsar.core.mixers import MIXERS, Mixer, accepted_options, causal_mixers, make_mixer
from tsar.params.constraints import check_choice, check_count
from tsar.progress import progress

__all__ = ["copying", "mixer_costs"]

LETTERS = "abcdefgh"
# Tokens of which the copying of texts is learned and asked.
COPIED = 12
FEWEST_SECONDS = 0.05


def mixer_costs(
    mixers: Sequence[str] | None = None,
    lengths: Sequence[int] = (128, 512, 2048, 8192),
    *,
    d_model: int = 64,
    n_heads: int = 4,
    verbose: int = 0,
) -> pd.DataFrame:
    """Measure mixers: a pass over so many tokens, and one more token after so many.

    Parameters
    ----------
    mixers : sequence of str, optional
        Names of :data:`tsar.core.mixers.MIXERS`; all of them by default.
    lengths : sequence of int, default (128, 512, 2048, 8192)
        Tokens.
    d_model, n_heads : int, default 64 and 4
        Width of the tokens, and heads of those that have some.
    verbose : int, default 0
        With 1, a progress bar.

    Returns
    -------
    DataFrame
        A row for each mixer and length: ``causal``, ``weights``, ``pass_ms`` of one sequence,
        ``step_ms`` of one more token and ``state`` (numbers that are remembered then), which are
        missing where a mixer does not go token by token.

    Raises
    ------
    ParameterError
        There is no mixer of that name, or a number is out of its range.
    """
    names = list(MIXERS) if mixers is None else list(mixers)
    for name in names:
        check_choice("mixer_costs", "mixers", name, MIXERS)
    for length in lengths:
        check_count("mixer_costs", "lengths", length)
    rows = []
    with progress(
        shown=verbose >= 1, total=len(names) * len(lengths), desc="mixers", unit="length"
    ) as bar:
        for name in names:
            torch.manual_seed(0)
            options = accepted_options(name, n_heads=n_heads, causal=name in causal_mixers())
            mixer = make_mixer(name, d_model, **options).eval()
            for length in lengths:
                rows.append({"mixer": name, **_costs(mixer, length, d_model)})
                bar.update()
    return pd.DataFrame(rows)


@torch.inference_mode()
def _costs(mixer: Mixer, length: int, d_model: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, length, d_model, generator=generator)
    row: dict[str, Any] = {
        "length": length,
        "causal": mixer.causal,
        "weights": sum(weights.numel() for weights in mixer.parameters()),
        "pass_ms": _milliseconds(lambda: mixer(x)),
        "step_ms": np.nan,
        "state": np.nan,
    }
    if mixer.causal:
        try:
            _, state = mixer.extend(x, mixer.init_state(1))
        except NotImplementedError:
            return row
        row["step_ms"] = _milliseconds(lambda: mixer.extend(x[:, -1:], state))
        row["state"] = _numbers(state)
    return row


def _milliseconds(work: Callable[[], Any]) -> float:
    """Return the median time of a call, after one that is not counted."""
    work()
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < FEWEST_SECONDS and len(taken) < 50):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1000 * float(np.median(taken))


def _numbers(state: Any) -> int:
    """Count the numbers of the tensors of a state; of caches, those of their tokens."""
    if hasattr(state, "keys") and hasattr(state, "values"):
        return state.keys.numel() + state.values.numel()
    if isinstance(state, Tensor):
        return state.numel()
    return sum(map(_numbers, state)) if isinstance(state, tuple) else 0


def copying(
    mixers: Sequence[Any], *, max_steps: int = 400, random_state: int = 0, verbose: int = 0
) -> pd.DataFrame:
    """Measure what language models of each mixer learn to copy: twelve letters, and again.

    Parameters
    ----------
    mixers : sequence of str or list of str
        Causal ones; a list is a hybrid.
    max_steps : int, default 400
        Steps of the training.
    random_state : int, default 0
        Seed of the texts and of the training.
    verbose : int, default 0
        With 1, a progress bar.

    Returns
    -------
    DataFrame
        A row for each mixer: ``weights``, ``seconds`` of training, and ``nats``, the mean loss of
        a letter of the copy on new texts; ln 8 = 2.08 for who remembers nothing.
    """
    from tsar.language import LanguageModel

    check_count("copying", "max_steps", max_steps)
    draw = np.random.default_rng(random_state)
    words = ["".join(draw.choice(list(LETTERS), COPIED)) for _ in range(2100)]
    training, told = words[:2000], words[2000:]
    rows = []
    with progress(shown=verbose >= 1, total=len(mixers), desc="copying", unit="mixer") as bar:
        for mixer in mixers:
            model = LanguageModel(
                mixer=mixer,
                tokenizer="char",
                context_length=2 * COPIED + 2,
                d_model=64,
                n_layers=2,
                n_heads=4,
                d_ff=128,
                batch_size=32,
                max_steps=max_steps,
                random_state=random_state,
                device="cpu",
            )
            began = time.perf_counter()
            model.fit([f"{word}|{word}" for word in training])
            seconds = time.perf_counter() - began
            whole = model.log_likelihood([f"{word}|{word}" for word in told])
            first = model.log_likelihood([f"{word}|" for word in told])
            rows.append(
                {
                    "mixer": mixer if isinstance(mixer, str) else "+".join(mixer),
                    "weights": sum(weights.numel() for weights in model.module_.parameters()),
                    "seconds": seconds,
                    "nats": float((first - whole).mean() / COPIED),
                }
            )
            bar.update()
    return pd.DataFrame(rows)
