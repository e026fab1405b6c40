"""
Many series on a page
=====================

A model for each series, estimated in parallel, intervals for all of them, and a page that says
what it leaves out.
"""

import tsar
from tsar import plot

economy = tsar.load_dataset("macrodata")[
    ["realgdp", "realcons", "realinv", "cpi", "tbilrate", "unemp"]
]
model = tsar.Theta(horizon=8).fit(economy).calibrate(economy, refit=True)
axes = plot.forecasts(economy, model.predict(level=[80, 95]), rows=60)
