"""Every forecaster passes every check, and the checks can fail."""

from dataclasses import dataclass
from typing import Any

import pytest

from tsar import checks
from tsar.forecasting import SeasonalNaive

# Class name -> check name -> reason. Strict: a failure that is gone has to leave the list.
KNOWN_FAILURES: dict[str, dict[str, str]] = {}


def cases() -> list[Any]:
    found = []
    for cls in checks.all_forecasters():
        for estimator, check in checks.checks_for(checks.small_forecaster(cls)):
            reason = KNOWN_FAILURES.get(cls.__name__, {}).get(check.__name__)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            name = f"{cls.__name__}-{check.__name__}"
            found.append(pytest.param(estimator, check, id=name, marks=marks))
    return found


@pytest.mark.parametrize("estimator, check", cases())
def test_forecaster_passes(estimator, check):
    check(estimator)


@dataclass(kw_only=True, eq=False, repr=False)
class Cheat(SeasonalNaive):
    """Forecasts one thing when fitted for the first time and another later."""

    def fit(self, df, y=None):
        self.fits_ = getattr(self, "fits_", 0) + 1
        return super().fit(df if self.fits_ == 1 else df * 2)


def test_a_broken_contract_is_named():
    with pytest.raises(AssertionError, match="check_refit_equals_fresh_fit"):
        checks.check_estimator(checks.small_forecaster(Cheat))
