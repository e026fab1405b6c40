"""Compare autoregressions on elnino by lags that were chosen, the first so many, and all.

    python tests/benchmarks/chosen_lags.py

The lags are chosen by InputSelector without the last 120 months. Printed are the mean absolute
errors over these, one step ahead from 120 cutoffs and twelve steps ahead from 10.
"""

import warnings
from collections.abc import Sequence

import tsar
from tsar.evaluation import backtest, mae
from tsar.tuning import InputSelector

N_HELD_OUT, N_LAGS, N_SELECTED = 120, 24, (3, 5, 8)


def errors(lags: int | Sequence[int]) -> str:
    """Return both errors of an autoregression."""
    sea = tsar.load_dataset("elnino")
    found = []
    for horizon in (1, 12):
        windows = N_HELD_OUT // horizon
        table = backtest(tsar.AutoReg(lags=lags, horizon=horizon), sea, windows=windows)
        found.append(f"{mae(table['y'], table['AutoReg']):.3f}")
    return ", ".join(found)


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    training = tsar.load_dataset("elnino")[:-N_HELD_OUT]
    for number in N_SELECTED:
        selector = InputSelector(n_selected=number, context_length=N_LAGS).fit(training)
        chosen = selector.selected_["lags"]
        print(f"{number} chosen, {chosen}: {errors(chosen)}")
        print(f"the first {number}: {errors(number)}")
    print(f"all {N_LAGS}: {errors(N_LAGS)}")


if __name__ == "__main__":
    main()
