"""A fitted estimator in plain values: its run manifest, metrics, seeds, parameters and parts."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["NO_MANIFEST", "Describable", "description"]

NO_MANIFEST = "it was saved by a version before there were any; fit it again"
# What every epoch tells besides metrics.
NO_METRICS = ("learning_rate", "seconds")


class Describable(Protocol):
    """What a description asks of a fitted estimator, see :class:`tsar.estimator.base.Estimator`."""

    fitted_parameters_: dict[str, Any]

    @property
    def members(self) -> "Mapping[str, Describable]": ...


def description(model: Describable) -> dict[str, Any]:
    """Return what a fitted estimator is, as JSON can hold it.

    Parameters
    ----------
    model : Estimator
        Fitted.

    Returns
    -------
    dict
        ``model``, the class; ``manifest``, the run manifest or None; ``missing``, why it is
        None; ``metrics`` and ``seed`` of a trained model; ``parameters`` as texts; ``members``,
        the same of each estimator that the model is made of, without manifests of their own.
    """
    manifest = getattr(model, "manifest_", None)
    described = _of_one(model)
    return {
        "model": described.pop("model"),
        "manifest": None if manifest is None else manifest.to_state(),
        "missing": None if manifest is not None else NO_MANIFEST,
        **described,
    }


def _of_one(model: Describable) -> dict[str, Any]:
    parameters = {name: repr(value) for name, value in model.fitted_parameters_.items()}
    described: dict[str, Any] = {
        "model": type(model).__name__,
        "seed": getattr(model, "seed_", model.fitted_parameters_.get("random_state")),
        "metrics": _metrics(model),
        "parameters": parameters,
    }
    weights = getattr(model, "weights_", None)
    members = {name: _of_one(member) for name, member in model.members.items()}
    if weights is not None:
        for name in members:
            members[name]["weights"] = [float(weight) for weight in weights.loc[name]]
    return {**described, "members": members}


def _metrics(model: Any) -> dict[str, Any]:
    """Return the losses of the best epoch, of a model that was trained."""
    history = getattr(model, "history_", None)
    if not history:
        return {}
    best = model.best_epoch_
    held = {
        name: float(values[best - 1])
        for name, values in history.items()
        if name not in NO_METRICS and 1 <= best <= len(values)
    }
    # JSON has no word for what is not a number.
    finite = {name: value if math.isfinite(value) else None for name, value in held.items()}
    return {"best_epoch": best, "epochs": model.n_epochs_, **finite}
