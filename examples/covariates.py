"""Forecast the demand of three sites from what is known of the days ahead.

Run with ``python examples/covariates.py``; it needs nothing but tsar and takes seconds. The data
are made: demand follows the temperature (measured, and forecast for the days ahead), closing
days (known in advance) and the weekday; what a site is stays the same.
"""

import numpy as np
import pandas as pd

import tsar
from tsar.evaluation import mae

N_DAYS, HORIZON = 730, 14


def make_site(name: str, kind: str, base: float, seed: int) -> pd.DataFrame:
    """Return two years of days of one site."""
    draw = np.random.default_rng(seed)
    day = pd.date_range("2024-01-01", periods=N_DAYS, freq="D")
    season = 10 - 12 * np.cos(2 * np.pi * (day.day_of_year - 20) / 365)
    temperature = season + np.cumsum(draw.normal(size=N_DAYS)) * 0.2 + 3 * draw.normal(size=N_DAYS)
    closed = (draw.random(N_DAYS) < 0.07).astype(int)
    demand = base + 4 * np.maximum(15 - temperature, 0) - 60 * closed + 5 * (day.day_of_week < 5)
    return pd.DataFrame(
        {
            "site": name,
            "day": day,
            "demand": demand + 3 * draw.normal(size=N_DAYS),
            "temperature": temperature,
            "closed": closed,
            "kind": kind,
        }
    )


sites = pd.concat(
    [
        make_site("north", "office", 200.0, 0),
        make_site("south", "office", 150.0, 1),
        make_site("harbour", "workshop", 300.0, 2),
    ]
)
last_days = sites["day"] > sites["day"].max() - pd.Timedelta(days=HORIZON)
history, ahead = sites[~last_days], sites[last_days].reset_index(drop=True)

columns = {"id_column": "site", "time_column": "day", "target": "demand"}
settings = {"context_length": 28, "horizon": HORIZON, "max_epochs": 10, "random_state": 0}
informed = tsar.NLinear(
    **settings,
    **columns,
    future_covariates=["temperature", "closed"],
    static_covariates=["kind"],
    calendar_features=True,
).fit(history)

# The ids and days to fill in; here the columns of the days that were held out.
future = informed.make_future_frame()
future = future[["site", "day"]].merge(ahead[["site", "day", "temperature", "closed"]])
print(future.head(3).to_string())

alone = tsar.NLinear(**settings, **columns).fit(history[["site", "day", "demand"]])
truth = ahead["demand"]
errors = {
    "with covariates": mae(truth, informed.predict(future=future)["demand"]),
    "without": mae(truth, alone.predict()["demand"]),
}
for name, error in errors.items():
    print(f"{name:16} MAE {error:.1f}")
assert errors["with covariates"] < errors["without"] / 2

# What a closed day takes off the forecast of the first day.
first = future["day"] == future["day"].min()
open_then, closed_then = (
    future.assign(closed=future["closed"].where(~first, flag)) for flag in (0, 1)
)
difference = (
    informed.predict(future=closed_then)["demand"] - informed.predict(future=open_then)["demand"]
)
print("a closed first day:", difference[first].round(0).tolist(), "(the data were made with -60)")
