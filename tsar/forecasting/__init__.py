"""The forecasters, one file per model.

A name in ``__all__`` is a forecaster: the checks, the API pages and the command line find
it here.
"""

from tsar.forecasting.arnet import ARNet
from tsar.forecasting.autoformer import AutoformerForecaster
from tsar.forecasting.autotimes import AutoTimes
from tsar.forecasting.dlinear import DLinear
from tsar.forecasting.itransformer import iTransformer
from tsar.forecasting.naive import Naive, SeasonalNaive
from tsar.forecasting.nlinear import NLinear
from tsar.forecasting.patchtst import PatchTST
from tsar.forecasting.smamba import SMamba

__all__ = [
    "ARNet",
    "AutoTimes",
    "AutoformerForecaster",
    "DLinear",
    "NLinear",
    "Naive",
    "PatchTST",
    "SMamba",
    "SeasonalNaive",
    "iTransformer",
]
