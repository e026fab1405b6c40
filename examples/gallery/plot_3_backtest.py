"""
What it would have forecast
===========================

Ten years, each forecast from what was known when it began, and how the error grows with the month.
"""

from matplotlib.figure import Figure

import tsar
from tsar import plot
from tsar.evaluation import backtest, measure

sea = tsar.load_dataset("elnino")
models = [tsar.AutoReg(horizon=12, season_length=12), tsar.SeasonalNaive(horizon=12)]
tested = backtest(models, sea, windows=10)

figure = Figure(figsize=(10, 3.5), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[2, 1])
plot.backtest(tested, model="AutoReg", ax=left)
ax = plot.error_by_step(tested, "mae", ax=right)

# %%
# The same in numbers.

measure(tested, metrics=["mae", "rmse"]).round(2)
