"""Which checks an estimator has to pass, and running them."""

import functools
from typing import Any

from tsar.checks.contract import CONTRACT_CHECKS, Check, Family
from tsar.checks.forecasting import Forecasting
from tsar.checks.images import Images
from tsar.checks.language import Language
from tsar.exceptions import ParameterError
from tsar.forecasting.registry import forecaster_class, forecaster_names

__all__ = ["all_forecasters", "check_estimator", "check_id", "checks_for"]

FAMILIES: tuple[Family, ...] = (Forecasting(), Language(), Images())


def all_forecasters() -> list[type[Any]]:
    """Return the class of every forecaster by name: of tsar, and those that are registered."""
    return [forecaster_class(name) for name in forecaster_names()]


def checks_for(estimator: Any, family: Family | None = None) -> list[tuple[Any, Check]]:
    """Return every check that applies to an estimator, each with the estimator.

    Parameters
    ----------
    estimator : Estimator or its class
        Unfitted, with small settings; of a class they are chosen here.
    family : Family, optional
        What there is to fit, for an estimator of a family that tsar does not have.

    Raises
    ------
    ParameterError
        ``random_state`` is None: two fits are compared, and would differ. Or nobody says what
        the estimator fits.
    """
    example = estimator() if isinstance(estimator, type) else estimator
    if family is None:
        family = next((one for one in FAMILIES if one.covers(example)), None)
    if family is None:
        raise ParameterError(
            f"checks: {type(example).__name__} is of no family of tsar; pass family=, which says "
            f"what it fits"
        )
    if isinstance(estimator, type):
        estimator = family.small(estimator)
    if estimator.get_params().get("random_state", 0) is None:
        raise ParameterError(
            f"{type(estimator).__name__}: random_state must be an integer to be checked, "
            "got None; pass random_state=0"
        )
    contract: list[Check] = []
    for check in CONTRACT_CHECKS:
        bound = functools.partial(check, family=family)
        contract.append(functools.update_wrapper(bound, check))
    return [(estimator, check) for check in (*contract, *family.checks(estimator))]


def check_id(value: Any) -> str:
    """Return a readable test id for what :func:`checks_for` returns.

    Parameters
    ----------
    value : Estimator or function
        One member of a pair.
    """
    return value.__name__ if callable(value) else type(value).__name__


def check_estimator(estimator: Any, family: Family | None = None) -> None:
    """Run every check that applies to an estimator.

    Parameters
    ----------
    estimator : Estimator or its class
        Unfitted, with small settings; of a class they are chosen here.
    family : Family, optional
        See :func:`checks_for`.

    Raises
    ------
    AssertionError
        Names the first check that fails.
    ParameterError
        It cannot be checked, see :func:`checks_for`.
    """
    for subject, check in checks_for(estimator, family):
        try:
            check(subject)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error
