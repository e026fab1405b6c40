"""Save small fitted models with their forecasts, to be loaded by every later version.

    python tests/golden/make.py

writes ``tests/golden/<format version>/<model>/``: the saved model, a history in
``history.csv``, how to read it and what to ask for in ``request.json``, and in
``forecast.csv`` and ``new.csv`` what the model forecast after its own series and after
that history. Run it once per format version: what is there already is never replaced, it
stands for the models that users have saved.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tsar
from tsar.estimator.saving import FORMAT_VERSION

HERE = Path(__file__).resolve().parent
TRAINING = {"max_epochs": 3, "learning_rate": 0.01, "random_state": 0, "device": "cpu"}


def wave(stamps: pd.DatetimeIndex, period: int, level: float) -> np.ndarray:
    steps = np.arange(len(stamps))
    return level + np.sin(2 * np.pi * steps / period) + 0.1 * np.cos(1.7 * steps)


def wide() -> pd.DataFrame:
    # The forecast crosses the change of the clocks on 31 March.
    hours = pd.date_range("2024-03-25 18:00", "2024-03-30 22:00", freq="h", tz="UTC")
    values = {"load": wave(hours, 24, 50.0), "price": wave(hours, 12, -3.0)}
    return pd.DataFrame({"ds": hours, **values})


def long() -> pd.DataFrame:
    days = pd.date_range("2024-01-01", periods=70, freq="D", tz="UTC")
    parts = [
        pd.DataFrame({"unique_id": name, "ds": days, "y": wave(days, 7, level)})
        for name, level in (("south", 10.0), ("north", 1000.0))
    ]
    return pd.concat(parts, ignore_index=True)


def months() -> pd.DataFrame:
    starts = pd.date_range("2019-01-01", periods=40, freq="MS", tz="UTC")
    return pd.DataFrame({"ds": starts, "sales": wave(starts, 12, 7.0)})


CASES: dict[str, tuple[Any, pd.DataFrame, dict[str, Any]]] = {
    "patchtst_wide_berlin": (
        tsar.PatchTST(
            **(TRAINING | {"context_length": 24, "horizon": 6}),
            **{"patch_length": 6, "stride": 3, "n_layers": 1, "d_model": 8, "n_heads": 2},
            d_ff=16,
        ),
        wide(),
        {"horizon": 8, "quantiles": None, "zone": "Europe/Berlin", "index": ["ds"]},
    ),
    "nlinear_long_quantiles": (
        tsar.NLinear(
            **(TRAINING | {"context_length": 14, "horizon": 5}),
            loss="quantile",
            quantiles=[0.1, 0.9],
        ),
        long(),
        {"horizon": 4, "quantiles": [0.1, 0.9], "zone": None, "index": []},
    ),
    "seasonal_naive_months": (
        tsar.SeasonalNaive(horizon=12),
        months(),
        {"horizon": 15, "quantiles": None, "zone": None, "index": ["ds"]},
    ),
    "seasonal_naive_calibrated_split": (
        tsar.SeasonalNaive(horizon=6),
        long(),
        {"horizon": 5, "quantiles": None, "level": [50, 80], "zone": None, "index": []},
    ),
    "nlinear_calibrated_cqr": (
        tsar.NLinear(
            **(TRAINING | {"context_length": 24, "horizon": 6}),
            loss="quantile",
            quantiles=[0.2, 0.8],
        ),
        wide(),
        {
            **{"horizon": 6, "quantiles": [0.2], "level": [30, 70], "method": "cqr"},
            **{"zone": "Europe/Berlin", "index": ["ds"]},
        },
    ),
    "seasonal_naive_calibrated_pid": (
        tsar.SeasonalNaive(horizon=7),
        long(),
        {
            **{"horizon": 7, "quantiles": None, "level": [50, 80], "method": "pid"},
            **{"zone": None, "index": []},
        },
    ),
}


def prepare(history: pd.DataFrame, request: dict[str, Any]) -> pd.DataFrame:
    """Return the frame that a request describes, from times in UTC."""
    zone = request["zone"]
    stamps = history["ds"].dt.tz_convert(zone)
    frame = history.assign(ds=stamps)
    return frame.set_index(request["index"]) if request["index"] else frame


def asked(request: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``predict``; requests of earlier models ask for no level."""
    return {name: request.get(name) for name in ("horizon", "quantiles", "level")}


def plain(forecast: pd.DataFrame, request: dict[str, Any]) -> pd.DataFrame:
    """Return a forecast with its times as text."""
    frame = forecast.reset_index() if request["index"] else forecast
    return frame.assign(ds=[stamp.isoformat() for stamp in frame["ds"]])


def main() -> None:
    for name, (model, history, request) in CASES.items():
        folder = HERE / str(FORMAT_VERSION) / name
        if folder.exists():
            print(f"kept {folder}")
            continue
        frame = prepare(history, request)
        model.fit(frame)
        if "level" in request:
            model.calibrate(frame, method=request.get("method"), level=request["level"])
        model.save(folder / "model")
        numbers = history.select_dtypes("number").columns
        later = history.assign(**{column: history[column] * 2 + 1 for column in numbers})
        later.assign(ds=later["ds"].map(pd.Timestamp.isoformat)).to_csv(
            folder / "history.csv", index=False
        )
        (folder / "request.json").write_text(json.dumps(request, indent=1) + "\n")
        new = model.predict(df=prepare(later, request), **asked(request))
        plain(model.predict(**asked(request)), request).to_csv(folder / "forecast.csv", index=False)
        plain(new, request).to_csv(folder / "new.csv", index=False)
        print(f"wrote {folder}")


if __name__ == "__main__":
    main()
