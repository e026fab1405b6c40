"""From a messy file of sales to forecasts, a leaderboard, a page of figures and a workbook.

Run with ``python examples/sales_tutorial.py``; it needs ``pip install 'tsar[plot]'``, and for
the workbook ``tsar[excel]``. It takes a minute or two; docs/tutorial_sales.md goes through it.
"""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
from sales_file import STYLE, write_sales

import tsar
from tsar import plot
from tsar.evaluation import compare

n_products = int(sys.argv[1]) if len(sys.argv) > 1 else 200
folder = Path("sales-tutorial")
folder.mkdir(exist_ok=True)
sales, plan = (pd.read_csv(path) for path in write_sales(folder, n_products=n_products))
for frame in (sales, plan):
    frame["day"] = pd.to_datetime(frame["day"], format=STYLE)

# Doubled rows are added up, no row means nothing sold, and what stopped is left out.
keys = {"id_column": "product", "time_column": "day"}
policies = {"duplicates": "sum", "gaps": "zero", "ended": "skip", "ended_after": 14}
clean = tsar.tidy(sales, **keys, target="sold", **policies)
print(clean.notes.groupby("kind")["count"].sum(), clean.status.head(3), sep="\n\n")

# The weeks before Christmas are known ahead, as are the prices and promotions of the plan.
advent = pd.DataFrame({"date": ["2023-12-11", "2024-12-11"], "end": ["2023-12-23", "2024-12-23"]})
history = tsar.add_events(clean.frame, advent.assign(name="advent"), **keys)
future = tsar.add_events(plan, advent.assign(name="advent"), **keys, freq="D")

shared = {**keys, "target": "sold", "horizon": 28, "output_range": "infer"}
covariates = ["price", "promotion", "advent"]
training = {"context_length": 56, "batch_size": 512, "max_epochs": 3, "random_state": 0}
network = tsar.NLinear(**shared, **training, future_covariates=covariates)
board = compare([network, tsar.AutoReg(**shared)], history, metrics=["mase", "mae"], windows=2)
print(board, board.winners()["model"].value_counts(), sep="\n\n")

network.fit(history).calibrate(history, level=[80, 95])
forecast = network.predict(future=future, level=[80, 95])
print(f"forecasts are limited to {network.output_range_}", forecast.head(3), sep="\n\n")

plot.leaderboard(board).figure.savefig(folder / "leaderboard.pdf", bbox_inches="tight")
axes = plot.forecasts(history, forecast, n=12, rows=90)
axes[0].figure.savefig(folder / "forecasts.pdf")
forecast.to_csv(folder / "forecast.csv", index=False, date_format=STYLE)
if importlib.util.find_spec("openpyxl"):
    forecast.to_excel(folder / "forecast.xlsx", index=False)
