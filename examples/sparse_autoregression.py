"""Find the lags that matter among many, and compare the coefficients with least squares.

Run with ``python examples/sparse_autoregression.py``; it needs nothing but tsar and takes
seconds. The series is made: its value depends on those one hour, a day and two days before.

sTPE, the measure of the AR-Net paper (Triebe et al., arXiv:1911.12436), is the sum of all
errors of the coefficients, in percent of the sum of the sizes of both, the found and the true.
"""

import numpy as np
import pandas as pd
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.arima_process import ArmaProcess

import tsar

ORDER, N_ROWS = 60, 10_000
TRUE = {1: 0.2, 24: 0.3, 48: -0.4}

truth = pd.Series(0.0, index=pd.RangeIndex(1, ORDER + 1, name="lag"))
for lag, coefficient in TRUE.items():
    truth[lag] = coefficient
draw = np.random.default_rng(0).normal
sample = ArmaProcess.from_coeffs(truth).generate_sample(
    N_ROWS, distrvs=lambda size: draw(size=size), burnin=1000
)
index = pd.date_range("2024-01-01", periods=N_ROWS, freq="h")
load = pd.Series(50 + 5 * sample, index=index, name="load")


def stpe(found: pd.Series) -> float:
    """Return the symmetric total percentage error of coefficients."""
    return 100 * (found - truth).abs().sum() / (found.abs() + truth.abs()).sum()


model = tsar.ARNet(context_length=ORDER, horizon=1, expected_lags=3, random_state=0)
sparse = model.fit(load).coefficients_["load"]
least_squares = pd.Series(AutoReg(load.to_numpy(), lags=ORDER).fit().params[1:], truth.index)

recovered = sparse[sparse.abs() > 0.05]
print("recovered lags:", ", ".join(f"{lag} ({weight:+.3f})" for lag, weight in recovered.items()))
print("true lags:     ", ", ".join(f"{lag} ({weight:+.3f})" for lag, weight in TRUE.items()))
assert set(recovered.index) == set(TRUE)
for name, found in [("ARNet", sparse), ("least squares", least_squares)]:
    print(f"{name:14} sTPE {stpe(found):5.1f}, not zero: {(found.abs() > 1e-3).sum()} of {ORDER}")

print("the next three hours:", model.predict(horizon=3).round(2).tolist())
