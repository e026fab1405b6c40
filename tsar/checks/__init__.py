"""Named checks that every estimator has to pass, yours included.

A check is a function of an unfitted estimator; it raises an ``AssertionError`` that says
what is wrong. :func:`check_estimator` runs all of them, and :func:`checks_for` is for a test::

    @pytest.mark.parametrize("estimator, check", checks_for(MyForecaster()), ids=check_id)
    def test_contract(estimator, check):
        check(estimator)

Checks fit several times: pass an estimator with small settings, for example the one that
:func:`small_forecaster` builds. An estimator of a family of its own says by a :class:`Family`
what it fits.
"""

from tsar.checks.contract import Family
from tsar.checks.forecasting import small_forecaster
from tsar.checks.running import all_forecasters, check_estimator, check_id, checks_for

__all__ = [
    "Family",
    "all_forecasters",
    "check_estimator",
    "check_id",
    "checks_for",
    "small_forecaster",
]
