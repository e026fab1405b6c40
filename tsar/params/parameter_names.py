"""What is said of a parameter that an estimator does not have."""

import difflib
from collections.abc import Callable, Collection
from typing import Any

from tsar.exceptions import UnknownParameterError

__all__ = ["check_names"]

# What belongs to an object that is a parameter, by the name that other libraries have for it.
PARTS: dict[str, Callable[[Any], str]] = {
    "weight_decay": lambda value: f"optimizer=AdamW(weight_decay={value!r})",
    "betas": lambda value: f"optimizer=Adam(betas={value!r})",
    "adam_betas": lambda value: f"optimizer=Adam(betas={value!r})",
    "clip": lambda value: f"optimizer=Adam(clip={value!r})",
    "gradient_clip": lambda value: f"optimizer=Adam(clip={value!r})",
    "gradient_clip_val": lambda value: f"optimizer=Adam(clip={value!r})",
    "precision": lambda value: f"optimizer=Adam(precision={value!r})",
    "warmup_steps": lambda value: f"learning_rate_schedule=Cosine(warmup_steps={value!r})",
    "head_epochs": lambda value: f"fine_tuning={value!r}",
    "val_size": lambda value: f"early_stopping={value!r}",
    "validation_size": lambda value: f"early_stopping={value!r}",
}
# Other names for a parameter, of libraries and papers that users come from.
OTHER_NAMES = {
    "context_length": (
        *("input_size", "input_chunk_length", "seq_len", "lookback", "look_back", "window_length"),
        *("context_len", "input_length", "n_lags", "lags"),
    ),
    "horizon": ("h", "fh", "output_chunk_length", "pred_len", "prediction_length", "n_steps"),
    "max_epochs": ("n_epochs", "epochs", "num_epochs", "train_epochs"),
    "learning_rate": ("lr",),
    "learning_rate_schedule": ("lr_scheduler", "scheduler", "lradj"),
    "random_state": ("seed", "random_seed"),
    "d_model": ("hidden_size", "dim", "embed_dim", "n_embd"),
    "d_ff": ("dim_feedforward", "linear_hidden_size", "ffn_dim"),
    "n_layers": ("num_layers", "e_layers", "encoder_layers", "n_layer", "depth"),
    "n_heads": ("num_heads", "nhead", "n_head", "num_attention_heads"),
    "patch_length": ("patch_len", "patch_size"),
    "season_length": ("seasonality", "period", "periods", "sp"),
    "scaler": ("scaler_type", "scaling"),
    "verbose": ("verbosity",),
    "device": ("accelerator", "gpus"),
}
_MEANT = {other: name for name, others in OTHER_NAMES.items() for other in others}


def check_names(owner: str, params: dict[str, Any], names: Collection[str]) -> None:
    """Refuse parameters that an estimator does not have, with the nearest that it has.

    Parameters
    ----------
    owner : str
        What the error calls the estimator.
    params : dict
        Those that were passed.
    names : collection of str
        Those that there are.

    Raises
    ------
    UnknownParameterError
        One error names all of them.
    """
    unknown = [name for name in params if name not in names]
    if not unknown:
        return
    advice = "; ".join(_advice(name, params[name], names) for name in unknown)
    listed = ", ".join(map(repr, unknown))
    kind = "parameter" if len(unknown) == 1 else "parameters"
    raise UnknownParameterError(f"{owner} has no {kind} {listed}: {advice}")


def _advice(name: str, value: Any, names: Collection[str]) -> str:
    """Say what to write in place of a parameter."""
    if name in PARTS:
        instead = PARTS[name](value)
        if instead.partition("=")[0] in names:
            return f"write {instead} for {name}"
    if _MEANT.get(name) in names:
        return f"{name!r} is called {_MEANT[name]!r} here"
    near = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"the parameters are {', '.join(sorted(names))}"
