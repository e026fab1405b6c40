"""Models in a line each, for lists of them."""

from tsar.forecasting.capabilities import capabilities, learning
from tsar.forecasting.registry import forecaster_class

__all__ = ["abilities", "summary"]


def abilities(model: str) -> list[str]:
    """Say what a model learns, which covariates it reads, and what else it can."""
    cls = forecaster_class(model)
    has = capabilities(cls)
    kinds = ("past", "future", "static")
    parts = [
        [name for name in has if (name in kinds) == covariates] for covariates in (True, False)
    ]
    said = [
        ", ".join(name for name in part if has[name])
        or ("as its members" if any(has[name] is None for name in part) else "")
        for part in parts
    ]
    return [learning(cls), *said]


def summary(model: str) -> str:
    return (forecaster_class(model).__doc__ or "").strip().partition("\n")[0]
