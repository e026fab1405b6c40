"""Whether a model in operation still holds: coverage, errors and inputs, by tests that may run on.

Each night's forecasts are judged when their truth is there. The tests are sequential: looking
every night does not raise the rate of false alarms that they state.
"""

from tsar.monitoring.inputs import population_stability
from tsar.monitoring.sequential import CoverageTest, ErrorTest
from tsar.monitoring.watching import DriftReport, watch, watch_model

__all__ = [
    "CoverageTest",
    "DriftReport",
    "ErrorTest",
    "population_stability",
    "watch",
    "watch_model",
]
