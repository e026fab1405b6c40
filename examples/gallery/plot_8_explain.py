"""
What moves a forecast
=====================

Sales follow a price that is known in advance, and a wind that does not matter. ``explain`` hides
one input after the other and looks at how far the forecast moves.
"""

import numpy as np
import pandas as pd

import tsar
from tsar import plot

draw = np.random.default_rng(0)
days = pd.date_range("2024-01-01", periods=400)
shop = pd.DataFrame({"price": draw.normal(3, 1, 400), "wind": draw.normal(size=400)}, index=days)
shop["sold"] = 50 - 8 * shop["price"] + 5 * (days.day_of_week == 5) + draw.normal(size=400)

model = tsar.NLinear(
    context_length=28,
    horizon=7,
    target="sold",
    future_covariates=["wind", "price"],
    max_epochs=20,
    random_state=0,
)
explained = model.fit(shop[:-60]).explain(shop)
ax = plot.importance(explained)
