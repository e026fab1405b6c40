"""What each forecaster can do, as it declares it."""

from typing import Any

from tsar.forecasting.base import Forecaster
from tsar.forecasting.network import NetworkForecaster

__all__ = ["CAPABILITIES", "capabilities", "learning"]

# Parameters that hold other forecasters.
MEMBERS = {"models", "model", "candidates"}
CAPABILITIES = {
    "distribution": "forecasts quantiles or a distribution by itself; every model has calibrated "
    "intervals",
    "past": "reads columns known up to now",
    "future": "reads columns known ahead",
    "static": "reads what is constant in a series",
    "joint": "the history of one column moves the forecast of another",
    "pretrain": "can learn from other series first, or begin with published weights",
    "mixer": "takes any token mixer by name",
}


def capabilities(cls: type[Forecaster]) -> dict[str, bool | None]:
    """Say of each of :data:`CAPABILITIES` whether a forecaster has it.

    Parameters
    ----------
    cls : subclass of Forecaster

    Returns
    -------
    dict of str to bool or None
        None where it depends on the members of the forecaster.
    """
    parameters = cls().get_params(deep=False)
    has: dict[str, bool | None] = {
        "distribution": bool({"loss", "quantiles"} & set(parameters)) or _has_quantiles(cls),
        **{role: f"{role}_covariates" in parameters for role in ("past", "future", "static")},
        "joint": not cls.channel_independent,
        "pretrain": hasattr(cls, "pretrain") or "pretrained" in parameters,
        "mixer": "mixer" in parameters,
    }
    if MEMBERS & set(parameters):
        of_members = ("distribution", "past", "future", "static", "joint")
        has |= dict.fromkeys(of_members)
    return has


def _has_quantiles(cls: type[Forecaster]) -> bool:
    return bool(cls().expected_predictive.has_quantiles)


def learning(cls: type[Forecaster]) -> str:
    """Say what a forecaster learns: a network, a regression, each series, its members, or nothing.

    It tells what a fit costs: seconds to minutes for a network and seconds for a regression,
    whatever the number of series; a fraction of a second for each series; next to nothing.

    Parameters
    ----------
    cls : subclass of Forecaster
    """
    parameters: dict[str, Any] = cls().get_params(deep=False)
    if issubclass(cls, NetworkForecaster):
        return "network"
    if MEMBERS & set(parameters):
        return "members"
    if "estimator" in parameters:
        return "regression"
    return "per series" if "n_jobs" in parameters else "nothing"
