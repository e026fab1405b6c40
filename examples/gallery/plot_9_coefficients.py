"""
Coefficients that can be read
=============================

An autoregression over forty-eight hours finds the three lags that the data were made with.
"""

import numpy as np
import pandas as pd

import tsar
from tsar import plot

draw = np.random.default_rng(0)
load = np.zeros(3000)
for hour in range(48, 3000):
    known = 0.2 * load[hour - 1] + 0.3 * load[hour - 24] - 0.4 * load[hour - 48]
    load[hour] = known + draw.normal()
series = pd.Series(load, index=pd.date_range("2024-01-01", periods=3000, freq="h"), name="load")

model = tsar.ARNet(context_length=48, horizon=1, expected_lags=3, random_state=0).fit(series)
ax = plot.coefficients(model)
