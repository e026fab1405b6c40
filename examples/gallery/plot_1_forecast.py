"""
A forecast with its intervals
=============================

A network learns quantiles of the monthly sea temperature, and forecasts the year after the data.
"""

import tsar
from tsar import plot

sea = tsar.load_dataset("elnino")
model = tsar.NLinear(
    context_length=48,
    horizon=12,
    loss="quantile",
    quantiles=[0.025, 0.1, 0.9, 0.975],
    max_epochs=15,
    random_state=0,
)
forecast = model.fit(sea).predict(level=[80, 95])
ax = plot.forecast(forecast, sea, rows=60)

# %%
# The forecast is a frame, in the form of the data.

forecast.head(3).round(1)
