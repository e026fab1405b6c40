"""
Do intervals cover what they promise?
=====================================

A forecaster without intervals learns them from its own errors. Below each of its quantiles should
lie as much of the truth as it says: on the diagonal, it does.
"""

import tsar
from tsar import plot
from tsar.evaluation import backtest

sea = tsar.load_dataset("elnino")
model = tsar.SeasonalNaive(horizon=12).fit(sea[:-240]).calibrate(sea[:-240])
tested = backtest(model, sea, windows=120, step=1, level=[50, 80, 95])
ax = plot.reliability(tested)
