"""A window has one forecast, to the bit, whatever is forecast beside it and wherever it stands."""

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar import checks
from tsar.forecasting.network import NetworkForecaster

NETWORKS = [
    name
    for name in tsar.forecasting.__all__
    if issubclass(getattr(tsar.forecasting, name), NetworkForecaster)
]
# Context and horizon: odd ones, and few numbers in all.
SHAPES = [(14, 7), (5, 1), (3, 2), (37, 3), (9, 11)]
# Enough that all together are divided among threads, and some of them are not.
N_SERIES = 31


def _small(name, context, horizon, **parameters):
    # What it has learned does not matter.
    model = checks.small_forecaster(getattr(tsar, name), max_steps=1, early_stopping=False)
    fitting = {
        "context_length": context,
        "horizon": horizon,
        "patch_length": min(3, context),
        "stride": 2,
        "kernel": 3,
        "season_length": min(context - 3, 2) or None,
        "n_steps": 2,
        # It has to divide the context.
        "segment_length": next(size for size in (7, 5, 3, 1) if context % size == 0),
        **parameters,
    }
    known = model.get_params()
    return model.set_params(**{key: value for key, value in fitting.items() if key in known})


def _long(rows, variates=("y",)):
    rng = np.random.default_rng(0)
    index = np.repeat([f"s{number:02d}" for number in range(N_SERIES)], rows)
    days = np.tile(pd.date_range("2024-01-01", periods=rows), N_SERIES)
    values = {name: rng.normal(size=N_SERIES * rows) for name in variates}
    return pd.DataFrame({"unique_id": index, "ds": days, **values})


def _in_company(model, data, ids):
    some = data.set_index("unique_id").loc[ids].reset_index()
    return model.predict(df=some).set_index(["unique_id", "ds"])


def _same_in_any_company(model, data):
    names = list(data["unique_id"].unique())
    whole = _in_company(model, data, names)
    companies = [names[::-1], names[3:4], names[5:14], names[1::2], names[-3:]]
    for ids in companies:
        found = _in_company(model, data, ids)
        pd.testing.assert_frame_equal(found, whole.loc[found.index], check_exact=True)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("context", "horizon"), SHAPES)
def test_a_forecast_does_not_depend_on_its_company(name, context, horizon):
    data = _long(context + horizon + 8)
    _same_in_any_company(_small(name, context, horizon).fit(data), data)


@pytest.mark.parametrize("name", NETWORKS)
def test_nor_with_several_variates_threads_and_a_longer_horizon(name):
    data = _long(30, ("y", "z", "w"))
    model = _small(name, 13, 3, target=["y", "z", "w"]).fit(data)
    threads = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            _same_in_any_company(model, data)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["NLinear", "ARNet", "iTransformer"])
def test_nor_with_covariates(name):
    data = _long(30).assign(price=lambda frame: np.sin(np.arange(len(frame))))
    data["kind"] = np.where(data["unique_id"] < "s07", "a", "b")
    roles = {"past_covariates": "price", "static_covariates": "kind", "calendar_features": True}
    _same_in_any_company(_small(name, 7, 3, **roles).fit(data), data)
