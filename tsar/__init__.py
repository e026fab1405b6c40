"""Time-series forecasting with a scikit-learn interface.

>>> import tsar
>>> sea = tsar.load_dataset("elnino")
>>> tsar.SeasonalNaive(horizon=12).fit(sea).predict().shape
(12, 1)
"""

from tsar import forecasting
from tsar.data.datasets import dataset_names, load_dataset
from tsar.data.events import add_events, public_holidays
from tsar.data.panel import Panel
from tsar.data.queries import read_query
from tsar.data.tidying import tidy
from tsar.forecasting import *  # noqa: F403  (the list of models is kept in one place)
from tsar.forecasting.base import Forecaster
from tsar.forecasting.pretrained import load_pretrained
from tsar.hierarchy import Reconciled, reconcile
from tsar.persistence import load
from tsar.registration import register

__version__ = "0.1.0"

__all__ = [
    "Forecaster",
    "Panel",
    "Reconciled",
    "add_events",
    "dataset_names",
    "load",
    "load_dataset",
    "load_pretrained",
    "public_holidays",
    "read_query",
    "reconcile",
    "register",
    "tidy",
    *forecasting.__all__,
]
