"""Whether a second training on all rows pays, once the best number of steps has been seen.

    TSAR_DATA=... OMP_NUM_THREADS=1 python tests/benchmarks/refitting.py [--panels elnino co2 ...]

fits models to the rows of panels of ``tsar bench untuned`` before their test windows, as they come;
then as many steps as were best, and as many as were made, without holding anything out. Prints MASE
and the quantile loss of both by those of the first fit, and geometric means over panels and seeds.
"""

import argparse

import numpy as np
import pandas as pd
from validation import rows_before

import tsar
from tsar.evaluation import compare
from tsar.evaluation.untuned import METRICS, PANELS, QUANTILES


def errors_of(name: str, model: str, seed: int) -> pd.DataFrame | None:
    """Return the errors of three fits; None where the first one holds nothing out."""
    panel = PANELS[name]
    frame, step = panel.read(), panel.step or panel.horizon
    shared = {"horizon": panel.horizon, "time_column": "time", "target": "value"}
    if frame["id"].nunique() == 1:
        frame = frame.drop(columns="id")
    else:
        shared["id_column"] = "id"
    make = getattr(tsar, model)
    first = make(random_state=seed, **shared)
    past = rows_before(frame, panel.horizon + (panel.windows - 1) * step)
    fitted = make(random_state=seed, **shared).fit(past)
    if not fitted.early_stopping_:
        return None
    best = max(round(fitted.max_steps_ * fitted.best_epoch_ / fitted.n_epochs_), 1)
    again = fitted.chosen_ | {"early_stopping": False, "random_state": seed, **shared}
    models = {
        "held out": first,
        "best": make(**again | {"max_steps": best}),
        "all": make(**again),
    }
    board = compare(
        models,
        frame,
        metrics=list(METRICS),
        windows=panel.windows,
        step=step,
        quantiles=list(QUANTILES),
        # Those that learn no quantiles are calibrated.
        level=80,
        n_resamples=1,
    )
    return board.frame.set_index("model")[list(METRICS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    small = ["elnino", "gasoline", "co2", "sales", "exchange_rate"]
    parser.add_argument("--panels", nargs="+", choices=list(PANELS), default=small)
    parser.add_argument("--models", nargs="+", default=["PatchTST", "NLinear"])
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    for model in arguments.models:
        logs = []
        for name in arguments.panels:
            for seed in range(arguments.seeds):
                errors = errors_of(name, model, seed)
                if errors is None:
                    print(model, name, "holds nothing out", flush=True)
                    break
                ratios = errors.loc[["best", "all"]] / errors.loc["held out"]
                logs.append(np.log(ratios))
                print(model, name, seed, ratios.round(3).to_dict("index"), flush=True)
        if logs:
            means = np.exp(sum(logs) / len(logs)).round(3)
            print(f"{model}, geometric means:\n{means.to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
