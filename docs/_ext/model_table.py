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
from tsar.forecasting.network import NetworkForecaster
from tsar.forecasting.registry import forecaster_class, forecaster_names

YES, NO, MEMBERS = "●", "", "by member"
COLUMNS = {
    "learns": "trained network, estimated series by series, or nothing to learn",
    "distribution": "forecasts quantiles or a distribution by itself; every model has calibrated "
    "intervals",
    "past": "reads columns known up to now",
    "future": "reads columns known ahead",
    "static": "reads what is constant in a series",
    "joint": "the history of one column moves the forecast of another",
    "missing": "takes missing values",
    "new series": "forecasts series that it was not fitted on",
    "pretrain": "can learn from any series first",
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


def capabilities(cls: type[Forecaster]) -> dict[str, str]:
    """Return an entry for each column but the name, by fitting a small model and asking it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parameters = cls().get_params()
        data = _data(0)
        model = _small(cls).fit(data)
        holes = data.mask(np.random.default_rng(1).random(data.shape) < 0.1)
        # The other column is moved, by more than what a model rounds off.
        moved = data.assign(b=data["b"].to_numpy()[::-1] + 5)
        found = {
            "distribution": "loss" in parameters or model.predictive.has_quantiles,
            "past": "past_covariates" in parameters,
            "future": "future_covariates" in parameters,
            "static": "static_covariates" in parameters,
            "joint": not np.allclose(
                model.predict(df=data)["a"], model.predict(df=moved)["a"], atol=1e-6
            ),
            "missing": _works(lambda: _small(cls).fit(holes).predict()),
            "new series": _works(lambda: model.predict(df=_data(2))),
            "pretrain": hasattr(cls, "pretrain"),
        }
    marks = {name: YES if has else NO for name, has in found.items()}
    if "models" in parameters:
        # Covariates are parameters of the members.
        marks |= dict.fromkeys(("past", "future", "static"), MEMBERS)
    return {"learns": _learns(cls), **marks}


def _learns(cls: type[Forecaster]) -> str:
    if issubclass(cls, NetworkForecaster):
        return "network"
    parameters = cls().get_params()
    if "models" in parameters:
        return "its members"
    return "per series" if "n_jobs" in parameters else "nothing"


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
        held = capabilities(cls)
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
