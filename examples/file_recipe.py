"""One TOML recipe for three commands: compare models, tune one of them, forecast with the best.

Run with ``python examples/file_recipe.py``; it needs ``pip install 'tsar[cli,tune]'``, and takes
seconds. The file of sales is made; the rest is what a shell would run beside
``examples/file_recipe.toml``.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tsar.cli.main import main

N_ITEMS, N_DAYS = 12, 200

draw = np.random.default_rng(0)
day = pd.date_range("2025-01-01", periods=N_DAYS, freq="D")
week = 1 + 0.5 * (day.day_of_week >= 5)
level = draw.uniform(20, 100, size=(N_ITEMS, 1))
sales = pd.DataFrame(
    {
        "item": np.repeat([f"item_{number:02d}" for number in range(N_ITEMS)], N_DAYS),
        "day": np.tile(day.strftime("%d/%m/%Y"), N_ITEMS),
        "sold": draw.poisson(level * week).ravel(),
    }
)

recipe = Path(__file__).with_suffix(".toml").absolute()
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    shutil.copy(recipe, recipe.name)
    sales.to_csv("sales.csv", index=False)
    for command in ("backtest", "tune", "forecast"):
        print(f"$ tsar {command} --recipe {recipe.name}", flush=True)
        try:
            main([command, "--recipe", recipe.name])
        except SystemExit as stop:
            assert not stop.code, f"{command} ended with {stop.code}"
    forecast = pd.read_csv("forecast.csv")

print(forecast.head(3).to_string(index=False, float_format="%.1f"))
assert forecast["item"].nunique() == N_ITEMS and (forecast["status"] == "ok").all()
