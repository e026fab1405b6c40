"""
A history with holes
====================

Missing values stay missing: they are masked in what a network reads and in what it learns from, and
never filled in.
"""

import numpy as np

import tsar
from tsar import plot

co2 = tsar.load_dataset("co2").copy()
co2.iloc[-60:-40] = np.nan
model = tsar.DLinear(context_length=104, horizon=52, max_epochs=8, random_state=0)
ax = plot.forecast(model.fit(co2).predict(), co2, rows=208)
