"""
What was not forecast
=====================

Residuals in four ways. These are far from noise: what was warmer than a year ago stays so for
months, which the seasonal naive forecast does not see.
"""

import tsar
from tsar import plot

sea = tsar.load_dataset("elnino")
model = tsar.SeasonalNaive(horizon=12).fit(sea)
axes = plot.residuals(model.fitted_values(sea[-240:], horizon=1))
