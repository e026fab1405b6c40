"""Forecast how much to stock: a distribution of daily counts, its intervals and its samples.

Run with ``python examples/probabilistic.py``; it needs nothing but tsar and takes seconds. The data
are made: what three shops sell a day, counts that vary more than their mean.
"""

import numpy as np
import pandas as pd

import tsar
from tsar.evaluation import backtest, measure

N_DAYS, HORIZON = 700, 14
draw = np.random.default_rng(0)
day = pd.date_range("2024-01-01", periods=N_DAYS, freq="D")
mean = np.outer(1 + 0.6 * (day.day_of_week >= 5), [12.0, 30.0, 4.0])
sales = pd.DataFrame(
    draw.negative_binomial(5, 5 / (5 + mean)), index=day, columns=["centre", "station", "village"]
)

settings = {"context_length": 28, "horizon": HORIZON, "max_epochs": 30, "random_state": 0}
model = tsar.NLinear(**settings, loss="negative_binomial").fit(sales.iloc[:-56])

# Four times two weeks that the model has not seen: do 80 of 100 days fall inside the intervals?
tested = backtest(model, sales, windows=4, level=80)
print(measure(tested, metrics=["mae", "coverage", "interval_width"], by="series").round(2))

print(model.predict(level=80)[["village", "village_lo80", "village_hi80"]].head(3).round(1))

# What a week takes in all: a sum needs samples of whole weeks, not the quantiles of its days.
weeks = model.predict(horizon=7, samples=500).groupby("sample")["village"].sum()
apart = model.predict(horizon=7, quantiles=[0.9])["village_q0.9"].sum()
print(f"the village sells {weeks.mean():.0f} a week; {weeks.quantile(0.9):.0f} suffice in nine of")
print(f"ten weeks. The same quantile of each day, added up, would be {apart:.0f}.")
assert weeks.mean() < weeks.quantile(0.9) < apart
