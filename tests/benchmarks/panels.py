"""Forecast the end of panels by models as they come: errors and seconds of processor.

    TSAR_DATA=FOLDER python tests/benchmarks/panels.py [--panels sales tourism] [--models AutoReg]

reads FOLDER/panels: hourly load, hourly prices with covariates, daily sales, quarterly tourism and
weekly gasoline. Each model is fitted to all rows but those of the last horizon and forecasts it;
``--skip 1`` leaves one more horizon out: by such origins defaults are chosen. MASE is the mean over
the series of the absolute error by that of the last season inside the fitted rows.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import tsar

HORIZONS = {"load": 48, "prices": 24, "sales": 28, "tourism": 8, "gasoline": 13}
SEASONS = {"load": 24, "prices": 24, "sales": 7, "tourism": 4, "gasoline": 52}
MODELS = {
    "SeasonalNaive": lambda roles, horizon: tsar.SeasonalNaive(horizon=horizon),
    "AutoReg": lambda roles, horizon: tsar.AutoReg(horizon=horizon, **roles),
    "LagRegressor": lambda roles, horizon: tsar.LagRegressor(
        horizon=horizon, random_state=0, **roles
    ),
    "LagRegressor, recursive": lambda roles, horizon: tsar.LagRegressor(
        horizon=horizon, random_state=0, strategy="recursive", **roles
    ),
    "Theta": lambda roles, horizon: tsar.Theta(horizon=horizon),
    "ETS": lambda roles, horizon: tsar.ETS(horizon=horizon),
}


def read(name: str, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return a panel in long form, and its covariates that are known ahead."""
    if name == "load":
        frame, ahead = pd.read_csv(folder / "pjm_load_hourly.csv", parse_dates=["ds"]), []
    elif name == "prices":
        frame = pd.read_csv(folder / "electricity_prices_hourly.csv", parse_dates=["ds"])
        ahead = ["Exogenous1", "Exogenous2"]
    elif name == "sales":
        frame = pd.read_csv(folder / "m5_sales_small.csv", parse_dates=["ds"])
        ahead = [column for column in frame if column.startswith(("sell_price", "event_type"))]
    elif name == "tourism":
        frame = pd.read_csv(folder / "tourism.csv")
        quarters = pd.PeriodIndex(frame["Quarter"].str.replace(" ", ""), freq="Q")
        ids = frame[["Region", "State", "Purpose"]].agg("/".join, axis=1)
        frame = pd.DataFrame({"unique_id": ids, "ds": quarters.to_timestamp(), "y": frame["Trips"]})
        ahead = []
    else:
        frame, ahead = pd.read_csv(folder / "us_gasoline_weekly.csv"), []
        frame = frame.rename(columns={"Week": "ds", "Gasoline": "y"}).assign(unique_id="gasoline")
        frame["ds"] = pd.to_datetime(frame["ds"])
    frame = frame.sort_values(["unique_id", "ds"], ignore_index=True)
    return frame[["unique_id", "ds", "y", *ahead]].astype({"y": float}), ahead


def measure(name: str, label: str, frame: pd.DataFrame, ahead: list[str], skip: int) -> str:
    """Return the error and the seconds of a model at one origin."""
    horizon = HORIZONS[name]
    left = frame.groupby("unique_id").cumcount(ascending=False)
    past = frame[left >= horizon * (1 + skip)]
    truth = frame[(left < horizon * (1 + skip)) & (left >= horizon * skip)]
    model = MODELS[label]({"future_covariates": ahead} if ahead else {}, horizon)
    reads = bool(model.roles.get("future_covariates"))
    before = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(past if reads else past[["unique_id", "ds", "y"]])
        forecast = model.predict(future=truth.drop(columns="y") if reads else None)
    seconds = time.process_time() - before
    both = truth.merge(forecast, on=["unique_id", "ds"], suffixes=("", "_forecast"))
    errors = (both["y"] - both["y_forecast"]).abs().groupby(both["unique_id"]).mean()
    units = past.groupby("unique_id")["y"].apply(lambda y: y.diff(SEASONS[name]).abs().mean())
    return f"{name:9} {label:24} MASE {np.mean(errors / units):.3f}  {seconds:5.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--panels", nargs="+", choices=list(HORIZONS), default=list(HORIZONS))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--skip", type=int, default=0, help="horizons to leave out at the end")
    options = parser.parse_args()
    folder = Path(os.environ["TSAR_DATA"]) / "panels"
    for name in options.panels:
        frame, ahead = read(name, folder)
        for label in options.models:
            print(measure(name, label, frame, ahead, options.skip), flush=True)


if __name__ == "__main__":
    main()
