"""Time ARNet and least squares by the order of the autoregression, and compare what they find.

    python tests/benchmarks/arnet.py

The series is the paper's kind: noise of variance 1, and lags 1, 3 and 10 that matter. ARNet is
told to expect three lags and trains with its default settings; least squares is AutoReg of
statsmodels. sTPE is the error of the coefficients, as in examples/sparse_autoregression.py.

Times are those of the processor, which other work on the machine disturbs least. Growth from one
order to the next is the power of the order that the time grew with: 1 is linear.
"""

import argparse
import math
import time

import numpy as np
import pandas as pd
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.arima_process import ArmaProcess

import tsar

TRUE = {1: 0.2, 3: 0.3, 10: -0.5}
ORDERS = (10, 20, 50, 100, 200, 500, 1000, 2000)


def make_series(n_rows: int) -> pd.Series:
    """Return a sparse autoregression."""
    coefficients = np.zeros(max(TRUE))
    for lag, coefficient in TRUE.items():
        coefficients[lag - 1] = coefficient
    draw = np.random.default_rng(0).normal
    values = ArmaProcess.from_coeffs(coefficients).generate_sample(
        n_rows, distrvs=lambda size: draw(size=size), burnin=1000
    )
    return pd.Series(values, pd.date_range("2000-01-01", periods=n_rows, freq="min"), name="y")


def fit_arnet(series: pd.Series, order: int) -> np.ndarray:
    """Return the coefficients that ARNet finds."""
    model = tsar.ARNet(
        context_length=order, horizon=1, expected_lags=3, random_state=0, device="cpu"
    )
    return model.fit(series).coefficients_["y"].to_numpy()


def fit_least_squares(series: pd.Series, order: int) -> np.ndarray:
    """Return the coefficients that least squares finds."""
    return AutoReg(series.to_numpy(), lags=order).fit().params[1:]


def stpe(found: np.ndarray) -> float:
    """Return the symmetric total percentage error of coefficients."""
    truth = np.zeros(len(found))
    for lag, coefficient in TRUE.items():
        truth[lag - 1] = coefficient
    return 100 * np.abs(found - truth).sum() / (np.abs(found) + np.abs(truth)).sum()


def main() -> None:
    """Fit both at every order and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--orders", type=int, nargs="+", default=ORDERS)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    series = make_series(options.rows)
    fit_arnet(series[:100], 10)  # what is loaded on first use is no part of the first line
    methods = {"ARNet": fit_arnet, "least squares": fit_least_squares}
    previous: dict[str, tuple[int, float]] = {}
    for order in options.orders:
        line = [f"order {order:5d}"]
        for name, fit in methods.items():
            started = time.process_time()
            found = fit(series, order)
            seconds = time.process_time() - started
            growth = " " * 11
            if name in previous:
                before, then = previous[name]
                growth = f"growth {math.log(seconds / then) / math.log(order / before):4.1f}"
            previous[name] = order, seconds
            line.append(f"{name} {seconds:7.2f} s  {growth}  sTPE {stpe(found):5.1f}")
        print("   ".join(line), flush=True)


if __name__ == "__main__":
    main()
