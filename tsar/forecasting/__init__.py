"""The forecasters, one file per model.

A name in ``__all__`` is a forecaster: the checks, the API pages and the command line find
it here.
"""

from tsar.forecasting.arima import ARIMA
from tsar.forecasting.arnet import ARNet
from tsar.forecasting.auto_arima import AutoARIMA
from tsar.forecasting.auto_ets import AutoETS
from tsar.forecasting.auto_forecaster import AutoForecaster
from tsar.forecasting.autocon import AutoCon
from tsar.forecasting.autoformer import AutoformerForecaster
from tsar.forecasting.autoreg import AutoReg
from tsar.forecasting.autotcl import AutoTCL
from tsar.forecasting.autotimes import AutoTimes
from tsar.forecasting.averages import Drift, Mean
from tsar.forecasting.card import CARD
from tsar.forecasting.chimera import Chimera
from tsar.forecasting.dgm2 import DGM2
from tsar.forecasting.dlinear import DLinear
from tsar.forecasting.ensemble import Ensemble
from tsar.forecasting.ets import ETS
from tsar.forecasting.etsformer import ETSformer
from tsar.forecasting.informer import Informer
from tsar.forecasting.itransformer import iTransformer
from tsar.forecasting.lag_regressor import LagRegressor
from tsar.forecasting.lstnet import LSTNet
from tsar.forecasting.mstl import MSTL
from tsar.forecasting.naive import Naive, SeasonalNaive
from tsar.forecasting.nlinear import NLinear
from tsar.forecasting.patchtst import PatchTST
from tsar.forecasting.pits import PITS
from tsar.forecasting.pretrained import PretrainedForecaster
from tsar.forecasting.pvrnn import PVRNN
from tsar.forecasting.smamba import SMamba
from tsar.forecasting.spacetime import SpaceTime
from tsar.forecasting.stl_ets import STLETS
from tsar.forecasting.theta import Theta
from tsar.forecasting.timemoe import TimeMoE
from tsar.forecasting.transformed import TransformedTarget
from tsar.forecasting.tsdiff import TSDiff
from tsar.forecasting.tsm2 import TSM2

__all__ = [
    "ARIMA",
    "ARNet",
    "AutoARIMA",
    "AutoCon",
    "AutoETS",
    "AutoForecaster",
    "AutoReg",
    "AutoTCL",
    "AutoTimes",
    "AutoformerForecaster",
    "CARD",
    "Chimera",
    "DGM2",
    "DLinear",
    "Drift",
    "ETS",
    "ETSformer",
    "Ensemble",
    "Informer",
    "LSTNet",
    "LagRegressor",
    "MSTL",
    "Mean",
    "NLinear",
    "Naive",
    "PITS",
    "PVRNN",
    "PatchTST",
    "PretrainedForecaster",
    "SMamba",
    "STLETS",
    "TSDiff",
    "TSM2",
    "SeasonalNaive",
    "SpaceTime",
    "Theta",
    "TimeMoE",
    "TransformedTarget",
    "iTransformer",
]
