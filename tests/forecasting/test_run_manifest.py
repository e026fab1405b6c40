"""The manifest of a fit: what it says, that it is saved, and what models without one say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.panel import Panel
from tsar.evaluation.runs import fingerprint_of
from tsar.exceptions import PersistenceError
from tsar.forecasting.run_manifest import ReferenceBins

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SMALL = {"context_length": 24, "horizon": 6, "max_epochs": 3, "random_state": 4, "device": "cpu"}


@pytest.fixture(params=["NLinear", "ETS", "Ensemble"])
def fitted(request, wide):
    options = SMALL if request.param == "NLinear" else {"horizon": 6}
    return getattr(tsar, request.param)(**options).fit(wide[["load", "trend"]])


def test_it_says_what_was_fitted(fitted, wide):
    manifest = fitted.manifest_
    assert (manifest.rows, manifest.series, manifest.variates) == (len(wide), 1, 2)
    assert manifest.observed == 2 * len(wide)
    assert manifest.begins == str(wide.index[0]) and manifest.ends == str(wide.index[-1])
    assert manifest.step == "h" and manifest.seconds > 0
    assert manifest.held_out_rows == fitted.learned_.held_out.sum()
    assert manifest.versions["pandas"] == pd.__version__
    assert manifest.versions["numpy"] == np.__version__
    age = pd.Timestamp.now(tz="UTC") - pd.Timestamp(manifest.fitted_at)
    assert pd.Timedelta(0) <= age < pd.Timedelta("1h")


def test_it_is_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    assert loaded.manifest_ == fitted.manifest_
    assert loaded.describe() == fitted.describe()
    assert json.loads(json.dumps(loaded.describe(), allow_nan=False)) == loaded.describe()


def test_a_description_has_the_losses_of_the_best_epoch(wide):
    model = tsar.NLinear(**SMALL).fit(wide)
    told = model.describe()
    best = model.best_epoch_
    assert told["seed"] == 4 and told["metrics"]["best_epoch"] == best
    assert told["metrics"]["val_loss"] == min(model.history_["val_loss"])
    assert told["parameters"]["context_length"] == "24"
    ensemble = tsar.Ensemble(models={"long": tsar.NLinear(**SMALL)}, horizon=6).fit(wide)
    member = ensemble.describe()["members"]["long"]
    assert member["metrics"] == told["metrics"] and member["weights"] == [1.0, 1.0, 1.0]


def test_a_model_of_an_earlier_version_says_what_is_missing():
    model = tsar.load(GOLDEN / "1" / "seasonal_naive_months" / "model")
    assert model.manifest_ is None
    told = model.describe()
    assert told["manifest"] is None and "fit it again" in told["missing"]


def test_a_training_that_goes_on_names_the_data_before(wide):
    model = tsar.NLinear(**SMALL).fit(wide[:150])
    first = model.manifest_
    assert first.continued_from is None
    model.partial_fit(wide)
    assert model.manifest_.continued_from == first.fingerprint != model.manifest_.fingerprint
    assert model.fit(wide).manifest_.continued_from is None


def test_models_of_one_fit_are_one_to_compare_whenever_they_were_fitted(wide, monkeypatch):
    one = fingerprint_of(tsar.SeasonalNaive(horizon=6).fit(wide))
    monkeypatch.setattr("tsar.forecasting.run_manifest._now", lambda: "1999-01-01T00:00:00+00:00")
    assert fingerprint_of(tsar.SeasonalNaive(horizon=6).fit(wide)) == one


@pytest.mark.parametrize(
    "values",
    [
        np.arange(1000.0),
        np.random.default_rng(0).poisson(0.4, 5000).astype(float),
        np.array([1.0, np.nan, 2.0]),
        np.zeros(7),
        np.full(3, np.nan),
    ],
)
def test_bins_hold_the_shares_of_their_own_values(values):
    bins = ReferenceBins.of(values)
    assert len(bins.shares) == len(bins.edges) + 1 and sum(bins.shares) == pytest.approx(1)
    if not np.isnan(values).all():
        np.testing.assert_allclose(bins.shares_of(values), bins.shares, atol=1e-12)
        assert min(bins.shares) > 0


def test_bins_of_distinct_values_are_tenths():
    bins = ReferenceBins.of(np.random.default_rng(1).permutation(500).astype(float))
    assert bins.edges == tuple(np.arange(49.0, 450, 50))
    np.testing.assert_allclose(bins.shares, 0.1)


def test_bins_of_many_values_are_near_their_deciles():
    values = np.random.default_rng(2).normal(size=400_000)
    # The standard error of a share of 100,000 draws is 0.0016 at most.
    shares = ReferenceBins.of(values).shares_of(values)
    np.testing.assert_allclose(shares, 0.1, atol=0.008)


def test_distributions_of_other_variates_are_refused(wide, tmp_path):
    model = tsar.SeasonalNaive(horizon=6).fit(wide)
    record, tensors = model.learned_state()
    del record["manifest"]["reference"][0]
    with pytest.raises(PersistenceError, match="distributions of 2 variates"):
        tsar.SeasonalNaive(horizon=6).restore_learned_state(record, tensors, {})


def test_the_order_of_series_does_not_change_the_fingerprint(wide):
    long = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    panels = [Panel.from_frame(frame) for frame in (long, long.iloc[::-1])]
    assert list(panels[0].ids) != list(panels[1].ids)
    prints = [
        tsar.SeasonalNaive(horizon=3).fit(one).manifest_.fingerprint for one in (long, long[::-1])
    ]
    assert prints[0] == prints[1]
