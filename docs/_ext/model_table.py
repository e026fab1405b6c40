"""The table of models: what each can do, tried out on tiny data, so that it cannot go stale."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar.checks import small_forecaster
from tsar.exceptions import TsarError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.capabilities import CAPABILITIES, capabilities, learning
from tsar.forecasting.registry import forecaster_class, forecaster_names

MARKS = {True: "●", False: "", None: "by member"}
COLUMNS = {
    "learns": "trained network, one regression, estimated series by series, or nothing to learn",
    **CAPABILITIES,
    "missing": "takes missing values",
    "new series": "forecasts series that it was not fitted on",
}


def _data(seed: int) -> pd.DataFrame:
    """Return two columns of a weekly pattern."""
    day = np.arange(120)
    noise = np.random.default_rng(seed).normal(0, 0.3, (120, 2))
    values = 10 + np.sin(2 * np.pi * day / 7)[:, None] + noise
    return pd.DataFrame(values, pd.date_range("2025-01-01", periods=120), ["a", "b"])


def _small(cls: type[Forecaster], **parameters: Any) -> Forecaster:
    if "season_length" in cls().get_params():
        parameters["season_length"] = 7
    return small_forecaster(cls, **parameters)


def tried(cls: type[Forecaster]) -> dict[str, bool]:
    """Return what a small model turns out to do, of what can be tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parameters = cls().get_params()
        data = _data(0)
        model = _small(cls).fit(data)
        holes = data.mask(np.random.default_rng(1).random(data.shape) < 0.1)
        # The other column is moved, by more than what a model rounds off.
        moved = data.assign(b=data["b"].to_numpy()[::-1] + 5)
        return {
            "distribution": bool({"loss", "quantiles"} & set(parameters))
            or model.predictive.has_quantiles,
            "joint": not np.allclose(
                model.predict(df=data)["a"], model.predict(df=moved)["a"], atol=1e-6
            ),
            "missing": _works(lambda: _small(cls).fit(holes).predict()),
            "new series": _works(lambda: model.predict(df=_data(2))),
        }


def entries(cls: type[Forecaster]) -> dict[str, str]:
    """Return an entry for each column but the name.

    Raises
    ------
    ValueError
        What a forecaster declares is not what it does.
    """
    declared, seen = capabilities(cls), tried(cls)
    for name in ("distribution", "joint"):
        if declared[name] not in (None, seen[name]):
            raise ValueError(f"{cls.__name__} declares {name}={declared[name]}, and is not so")
    both = {**seen, **declared}
    return {"learns": learning(cls), **{name: MARKS[has] for name, has in both.items()}}


def _works(forecast: Callable[[], Any]) -> bool:
    try:
        return bool(np.isfinite(forecast().to_numpy()).all())
    except TsarError:
        return False


def model_table(names: list[str]) -> str:
    """Write the table in MyST, a row for each forecaster of those names."""
    lines = [f"| model | {' | '.join(COLUMNS)} |", f"| --- {'| :-: ' * len(COLUMNS)}|"]
    for name in names:
        cls = forecaster_class(name)
        held = entries(cls)
        path = f"{{py:class}}`~tsar.{name}`"
        lines.append(f"| {path} | {' | '.join(held[column] for column in COLUMNS)} |")
    meaning = [f"{name}\n: {text[0].upper()}{text[1:]}.\n" for name, text in COLUMNS.items()]
    return "\n".join([*lines, "", *meaning])


def write_model_table(page: Path) -> None:
    """Write the table to be included in a page."""
    page.parent.mkdir(parents=True, exist_ok=True)
    text = model_table(forecaster_names())
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
