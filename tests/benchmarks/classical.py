"""How long classical models take for many short series.

    OMP_NUM_THREADS=1 python tests/benchmarks/classical.py [--series 1000] [--models ETS Theta]

fits monthly series of 120 rows with level, trend, season and noise of their own, and forecasts a
year, in one process. Seconds are those of the processor; ``n_jobs=2`` shares them between two.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd

import tsar

ROWS, HORIZON = 120, 12
MODELS = {
    "SeasonalNaive": tsar.SeasonalNaive(),
    "Drift": tsar.Drift(),
    "Mean": tsar.Mean(),
    "AutoReg": tsar.AutoReg(),
    "LagRegressor": tsar.LagRegressor(random_state=0),
    "Theta": tsar.Theta(),
    "ETS": tsar.ETS(),
    "AutoETS": tsar.AutoETS(),
    "STLETS": tsar.STLETS(),
    "MSTL": tsar.MSTL(),
    "ETS(seasonal='mul')": tsar.ETS(seasonal="mul"),
    "ETS(seasonal='mul', initialization='heuristic')": tsar.ETS(
        seasonal="mul", initialization="heuristic"
    ),
    "AutoARIMA": tsar.AutoARIMA(),
    "ARIMA": tsar.ARIMA(),
    "ARIMA(order=(0, 1, 1), seasonal_order=(0, 1, 1))": tsar.ARIMA(
        order=(0, 1, 1), seasonal_order=(0, 1, 1)
    ),
}


def months(n_series: int) -> pd.DataFrame:
    """Return positive series, a column each."""
    rng = np.random.default_rng(0)
    steps = np.arange(ROWS)[:, None]
    trend = rng.normal(0, 0.3, n_series) * steps
    season = np.sin(2 * np.pi * (steps / 12 + rng.random(n_series))) * rng.uniform(3, 15, n_series)
    walk = np.cumsum(rng.normal(0, 1.5, (ROWS, n_series)), axis=0)
    values = 150 + trend + season + walk + rng.normal(0, 2, (ROWS, n_series))
    index = pd.date_range("2010-01-01", periods=ROWS, freq="MS")
    return pd.DataFrame(values, index, [f"s{number}" for number in range(n_series)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    frame = months(options.series)
    # What is imported on first use is no part of it.
    for name in options.models:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MODELS[name].set_params(horizon=HORIZON)
            model.fit(frame.iloc[:, :1]).predict()
            begin = time.process_time()
            model.fit(frame)
            fitted = time.process_time()
            model.predict()
            done = time.process_time()
        print(f"{name:50} fit {fitted - begin:7.2f} s  predict {done - fitted:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
