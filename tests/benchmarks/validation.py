"""Whether errors of held-out windows say which model is best afterwards.

    TSAR_DATA=... OMP_NUM_THREADS=1 python tests/benchmarks/validation.py [--panels sales load ...]

lets AutoForecaster try candidates on the rows of each panel of ``tsar bench untuned`` before its
test windows, and compares the errors of its leaderboard with those of the test windows: their rank
correlation, and what the candidate that was best on held-out windows has lost against the one that
is best on the test windows, in percent of MASE.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import tsar
from tsar.evaluation import compare
from tsar.evaluation.untuned import PANELS


def candidates() -> dict[str, tsar.Forecaster]:
    """Return models of many kinds, none of which takes long."""
    return {
        "SeasonalNaive": tsar.SeasonalNaive(),
        "Naive": tsar.Naive(),
        "Mean": tsar.Mean(),
        "Theta": tsar.Theta(),
        "AutoReg": tsar.AutoReg(),
        "AutoETS": tsar.AutoETS(),
        "LagRegressor": tsar.LagRegressor(strategy="recursive", random_state=0),
        "LagRegressorDirect": tsar.LagRegressor(random_state=0),
        "NLinear": tsar.NLinear(random_state=0),
    }


def rows_before(frame: pd.DataFrame, n_test: int) -> pd.DataFrame:
    """Return the rows of every series but its last ones."""
    if "id" not in frame:
        return frame.iloc[:-n_test]
    return frame[frame.groupby("id", sort=False).cumcount(ascending=False) >= n_test]


def errors_of(name: str) -> pd.DataFrame:
    """Return the errors of each candidate, on held-out and on test windows."""
    panel = PANELS[name]
    frame = panel.read()
    columns = {"time_column": "time", "target": "value"}
    if frame["id"].nunique() == 1:
        frame = frame.drop(columns="id")
    else:
        columns["id_column"] = "id"
    step = panel.step or panel.horizon
    past = rows_before(frame, panel.horizon + (panel.windows - 1) * step)
    shared = {"horizon": panel.horizon, **columns}
    model = tsar.AutoForecaster(candidates=candidates(), time_limit=600, **shared)
    board = model.fit(past).leaderboard_.set_index("model")
    tried = board[board["status"].isin(["member", "tried"])]
    models = {key: one.set_params(**shared) for key, one in candidates().items()}
    tested = compare(
        {key: models[key] for key in tried.index},
        frame,
        windows=panel.windows,
        step=step,
        metrics=["mase"],
        n_resamples=1,
    )
    test = tested.frame.set_index("model")["mase"]
    return pd.DataFrame({"held_out": tried["mase"], "test": test.reindex(tried.index)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    there = [name for name, panel in PANELS.items() if not panel.missing]
    parser.add_argument("--panels", nargs="+", choices=there, default=there)
    options = parser.parse_args()
    correlations, losses = [], []
    for name in options.panels:
        errors = errors_of(name)
        correlations.append(float(spearmanr(errors["held_out"], errors["test"]).statistic))
        chosen = errors["test"][errors["held_out"].idxmin()]
        losses.append(100 * (chosen / errors["test"].min() - 1))
        print(
            f"{name:14} rank correlation {correlations[-1]:5.2f}, best on held-out windows loses "
            f"{losses[-1]:5.1f} %",
            flush=True,
        )
    print(
        f"mean           rank correlation {np.mean(correlations):5.2f}, {np.mean(losses):20.1f} %"
    )


if __name__ == "__main__":
    main()
