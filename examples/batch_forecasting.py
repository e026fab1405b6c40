"""The nightly run: one model for a file of many series, bad ones set aside, nothing half written.

Run with ``python examples/batch_forecasting.py``; it needs ``pip install 'tsar[parquet]'``, and
takes seconds. The file is made; the same run from a shell is

    tsar forecast sales.parquet --model model --horizon 14 --level 80 --out forecast.parquet
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import tsar
from tsar.batch import forecast

N_ITEMS, N_DAYS, HORIZON = 300, 200, 14

draw = np.random.default_rng(0)
day = pd.date_range("2025-01-01", periods=N_DAYS, freq="D")
week = 1 + 0.5 * (day.day_of_week >= 5)
level = draw.uniform(5, 100, size=(N_ITEMS, 1))
sales = pd.DataFrame(
    {
        "item": np.repeat([f"item_{number:03d}" for number in range(N_ITEMS)], N_DAYS),
        "day": np.tile(day, N_ITEMS),
        "sold": draw.poisson(level * week).ravel().astype(float),
    }
)
# What happens: an item misses a week, another one is listed twice, a third is new.
sales = sales.drop(index=range(1050, 1057))
sales = pd.concat([sales, sales[sales["item"] == "item_007"]])
sales = sales[(sales["item"] != "item_009") | (sales["day"] > day[-10])]

columns = {"id_column": "item", "time_column": "day", "target": "sold"}
settings = {"context_length": 56, "horizon": HORIZON, "max_epochs": 10, "random_state": 0}

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    sales.to_parquet(folder / "sales.parquet", index=False)

    # Once a month: fit on the good series, and keep the model.
    bad = ["item_005", "item_007", "item_009"]
    model = tsar.NLinear(**settings, **columns, loss="gaussian", output_range=(0, None))
    model.fit(sales[~sales["item"].isin(bad)]).save(folder / "model")

    # Every night: forecast the whole file.
    done = forecast(
        folder / "sales.parquet",
        model=folder / "model",
        horizon=HORIZON,
        level=[80],
        out=folder / "forecast.parquet",
        report=folder / "report.json",
    )
    result = pd.read_parquet(folder / "forecast.parquet")

print(result.head(3).to_string(index=False, float_format="%.1f"))
print(f"{done.n_series} items, {done.n_failed} without a forecast; not as the others are:")
print(done.series.to_string(index=False))
assert result["item"].nunique() == N_ITEMS and done.n_failed == 2
assert (result.loc[result["status"] == "ok", "sold_lo80"] >= 0).all()
