"""Mixers side by side: time and memory over the length, and what they learn of three tasks."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from torch import Tensor

from tsar.core.mixers import MIXERS, Mixer, accepted_options, causal_mixers, make_mixer
from tsar.data.datasets import Borders, load_card, load_dataset
from tsar.evaluation.published import evaluate
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice, check_count
from tsar.progress import progress

__all__ = ["copying", "cost_exponents", "forecast_errors", "mixer_costs", "text_losses"]

LETTERS, BLANK = "abcdefgh", "."
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


def cost_exponents(costs: pd.DataFrame) -> pd.Series:
    """Return how the time of a pass grows with the length: 1 in proportion, 2 with its square.

    Parameters
    ----------
    costs : DataFrame
        Of :func:`mixer_costs`, for two lengths at least.

    Returns
    -------
    Series
        For each mixer the slope of the line that fits the logarithms best.
    """
    logs = costs.assign(length=np.log(costs["length"]), pass_ms=np.log(costs["pass_ms"]))
    slopes = {
        mixer: float(np.polyfit(rows["length"], rows["pass_ms"], 1)[0])
        for mixer, rows in logs.groupby("mixer", sort=False)
    }
    return pd.Series(slopes, name="exponent")


def copying(
    mixers: Sequence[Any],
    *,
    selective: bool = False,
    max_steps: int = 400,
    random_state: int = 0,
    verbose: int = 0,
) -> pd.DataFrame:
    """Measure what language models of each mixer learn to copy: twelve letters, and again.

    Parameters
    ----------
    mixers : sequence of str or list of str
        Causal ones; a list is a hybrid.
    selective : bool, default False
        Whether blanks stand between the letters at random, which are not to be copied: what is
        remembered has to depend on what is read.
    max_steps : int, default 400
        Steps of the training.
    random_state : int, default 0
        Seed of the texts and of the training.
    verbose : int, default 0
        With 1, a progress bar.

    Returns
    -------
    DataFrame
        A row for each mixer: ``weights``, as equal as they can be made, ``seconds`` of training,
        ``nats``, the mean loss of a letter of the copy on new texts (ln 8 = 2.08 for who remembers
        nothing), and ``right``, the share of these letters that would be guessed.

    References
    ----------
    Gu and Dao, "Mamba", arXiv:2312.00752, section 4.1.1 (selective copying).
    """
    check_count("copying", "max_steps", max_steps)
    draw = np.random.default_rng(random_state)
    pairs = [_pair(draw, selective) for _ in range(2100)]
    texts = [f"{shown}|{word}" for shown, word in pairs]
    rows = []
    settings = {
        **{"tokenizer": "char", "context_length": len(texts[0]) + 1, "batch_size": 32},
        **{"max_steps": max_steps, "random_state": random_state},
    }
    for mixer, model in _equal_models("copying", mixers, texts[:4], verbose, **settings):
        began = time.perf_counter()
        model.fit(texts[:2000])
        seconds = time.perf_counter() - began
        whole = model.log_likelihood(texts[2000:])
        first = model.log_likelihood([text[:-COPIED] for text in texts[2000:]])
        ids = torch.tensor([model.encode(text) for text in texts[2000:]])
        with torch.inference_mode():
            guessed = model.module_(ids[:, :-1])[:, -COPIED:].argmax(dim=-1)
        rows.append(
            {
                "mixer": mixer,
                "weights": _n_weights(model),
                "seconds": seconds,
                "nats": float((first - whole).mean() / COPIED),
                "right": float((guessed == ids[:, -COPIED:]).double().mean()),
            }
        )
    return pd.DataFrame(rows)


def _pair(draw: np.random.Generator, selective: bool) -> tuple[str, str]:
    """Return what is shown, and what of it is to be copied."""
    word = "".join(draw.choice(list(LETTERS), COPIED))
    if not selective:
        return word, word
    shown = np.full(4 * COPIED, BLANK)
    shown[np.sort(draw.choice(len(shown), COPIED, replace=False))] = list(word)
    return "".join(shown), word


def text_losses(
    mixers: Sequence[Any],
    text: str | None = None,
    *,
    max_steps: int = 400,
    random_state: int = 0,
    verbose: int = 0,
) -> pd.DataFrame:
    """Measure what language models of each mixer learn of a text.

    Parameters
    ----------
    mixers : sequence of str or list of str
        Causal ones; a list is a hybrid.
    text : str, optional
        By default the help texts of Python. The last tenth is held out.
    max_steps : int, default 400
        Steps of 8 windows of 128 bytes.
    random_state : int, default 0
        Seed of the training.
    verbose : int, default 0
        With 1, a progress bar.

    Returns
    -------
    DataFrame
        A row for each mixer: ``weights``, as equal as they can be made, ``seconds`` of training,
        and ``nats`` per byte of the held-out end.
    """
    from tsar.language.corpus import bundled_text

    check_count("text_losses", "max_steps", max_steps)
    text = bundled_text() if text is None else text
    cut = int(0.9 * len(text))
    rows = []
    settings = {
        **{"tokenizer": "byte", "context_length": 128, "batch_size": 8},
        **{"max_steps": max_steps, "random_state": random_state},
    }
    for mixer, model in _equal_models("text", mixers, text[:cut], verbose, **settings):
        began = time.perf_counter()
        model.fit(text[:cut])
        seconds = time.perf_counter() - began
        nats = float(model.bits_per_byte(text[cut:]) * np.log(2))
        rows.append(
            {"mixer": mixer, "weights": _n_weights(model), "seconds": seconds, "nats": nats}
        )
    return pd.DataFrame(rows)


def _equal_models(
    task: str, mixers: Sequence[Any], texts: Any, verbose: int, **settings: Any
) -> Iterator[tuple[str, Any]]:
    """Give a small language model for each mixer, the feed-forward parts as wide as to be equal."""
    from tsar.language import LanguageModel

    small: dict[str, Any] = {"d_model": 64, "n_layers": 2, "n_heads": 4, "device": "cpu"}
    models = [LanguageModel(**small, **settings, mixer=mixer) for mixer in mixers]
    for model in models:
        # All of them before the first is trained.
        model.check()
    with progress(shown=verbose >= 1, total=len(models), desc=task, unit="mixer") as bar:
        for mixer, model in zip(mixers, models, strict=True):
            model.set_params(d_ff=_equal_width(model, texts))
            yield mixer if isinstance(mixer, str) else "+".join(mixer), model
            bar.update()


def forecast_errors(
    mixers: Sequence[str] | None = None,
    frame: pd.DataFrame | None = None,
    borders: Any = None,
    *,
    max_epochs: int = 5,
    random_state: int = 0,
    verbose: int = 0,
) -> pd.DataFrame:
    """Measure forecasts of PatchTST with each mixer, 96 steps from 336.

    Parameters
    ----------
    mixers : sequence of str, optional
        All of them by default.
    frame : DataFrame, optional
        Wide; by default ETTh1, which has to be there, see :func:`tsar.load_dataset`.
    borders : Borders or sequence of int, optional
        Where training, validation and test end; needed with a frame.
    max_epochs : int, default 5
        Longest training.
    random_state : int, default 0
        Seed of the training.
    verbose : int, default 0
        With 1, a progress bar.

    Returns
    -------
    DataFrame
        A row for each mixer: ``weights``, as equal as they can be made, ``seconds`` of training,
        ``mse`` and ``mae`` over all test windows on the z-scored scale.
    """
    from tsar.forecasting.patchtst import PatchTST

    check_count("forecast_errors", "max_epochs", max_epochs)
    names = list(MIXERS) if mixers is None else list(mixers)
    for name in names:
        check_choice("forecast_errors", "mixers", name, MIXERS)
    if (frame is None) != (borders is None):
        raise ParameterError(
            "forecast_errors: frame and borders go together: pass where training, validation and "
            "test of the frame end, as (train_end, val_end, test_end), or neither for ETTh1"
        )
    if frame is None:
        frame, borders = load_dataset("ETTh1"), load_card("ETTh1").borders
    split = borders if isinstance(borders, Borders) else Borders(*borders)
    training = frame.iloc[: split.val_end]
    rows = []
    with progress(shown=verbose >= 1, total=len(names), desc="forecasts", unit="mixer") as bar:
        for name in names:
            model = PatchTST(
                mixer=name,
                context_length=336,
                horizon=96,
                patch_length=16,
                stride=8,
                d_model=16,
                n_heads=4,
                n_layers=3,
                dropout=0.3,
                max_epochs=max_epochs,
                batch_size=128,
                learning_rate=1e-3,
                early_stopping=split.val_end - split.train_end,
                scaler="standard",
                loss="mse",
                random_state=random_state,
                device="cpu",
            )
            model.set_params(d_ff=_equal_width(model, training.tail(600), early_stopping=96))
            began = time.perf_counter()
            model.fit(training)
            seconds = time.perf_counter() - began
            errors = evaluate(model, frame, split)
            rows.append(
                {
                    "mixer": name,
                    "weights": _n_weights(model),
                    "seconds": seconds,
                    "mse": errors["mse"],
                    "mae": errors["mae"],
                }
            )
            bar.update()
    return pd.DataFrame(rows)


def _equal_width(model: Any, data: Any, **options: Any) -> int:
    """Return the width of the feed-forward part that makes a model as large as one of attention.

    The number of weights is a line over that width; two models give it.
    """
    tiny = {"d_ff": 1, "max_epochs": 1, "max_steps": 1, **options}

    def size(**parameters: Any) -> int:
        made = clone(model).set_params(**{**tiny, **parameters})
        return _n_weights(made.fit(data))

    aim = size(mixer="attention", d_ff=2 * int(model.d_model))
    base = size()
    slope = size(d_ff=2) - base
    return max(1, 1 + round((aim - base) / slope))


def _n_weights(model: Any) -> int:
    return sum(weights.numel() for weights in model.module_.parameters())
