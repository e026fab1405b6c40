"""Forecasters, mixers, losses and metrics from outside of tsar are as good as its own."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar import checks
from tsar.core.mixers import MIXERS, Mixer
from tsar.evaluation import Metric, backtest, compare, measure
from tsar.evaluation.measuring import METRICS
from tsar.exceptions import ParameterError, PersistenceError
from tsar.forecasting.outputs.losses import LOSSES, Loss
from tsar.forecasting.registry import FORECASTERS, forecaster_class, forecaster_names


@dataclass(kw_only=True, eq=False, repr=False)
class Lowered(tsar.SeasonalNaive):
    """The last season, lowered.

    Parameters
    ----------
    by : float, default 0.0
        How much.
    """

    by: float = 0.0

    def _forecast_batch(self, inputs):
        return super()._forecast_batch(inputs) - self.by


class Shift(Mixer):
    """Every token becomes the one before it."""

    causal = True

    def __init__(self, d_model):
        super().__init__()

    def forward(self, x, *, mask=None, memory=None):
        return torch.nn.functional.pad(x[:, :-1], (0, 0, 1, 0))


class FourthPower(Loss):
    """The fourth power of the error."""

    def errors(self, forecast, target):
        return (forecast - target) ** 4


def _largest(truth, model):
    return np.abs(truth - model.point) ** 3


REGISTERED = {
    "Lowered": (Lowered, None, FORECASTERS),
    "shift": (Shift, "shift", MIXERS),
    "FourthPower": (FourthPower, None, LOSSES),
    "cubed": (Metric(_largest), "cubed", METRICS),
}


@pytest.fixture
def registered():
    for thing, name, _ in REGISTERED.values():
        assert tsar.register(thing, name) is thing
    yield
    for name, (_, _, registry) in REGISTERED.items():
        registry.unregister(name)


@pytest.mark.usefixtures("registered")
def test_a_forecaster_is_known_by_name_and_loaded(wide, tmp_path):
    assert "Lowered" in forecaster_names() and forecaster_class("Lowered") is Lowered
    assert Lowered in checks.all_forecasters()
    model = Lowered(horizon=3, by=2.0).fit(wide)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tsar.load(tmp_path / "model").predict(), model.predict())
    plain = tsar.SeasonalNaive(horizon=3).fit(wide).predict()
    np.testing.assert_allclose(model.predict(), plain - 2)


@pytest.mark.usefixtures("registered")
def test_a_forecaster_can_be_a_member(wide, tmp_path):
    model = tsar.Ensemble(models=[Lowered(by=1.0), tsar.Naive()], horizon=3).fit(wide)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tsar.load(tmp_path / "model").predict(), model.predict())


def test_every_check_holds_for_it():
    checks.check_estimator(Lowered)
    checks.check_estimator(Lowered(horizon=5, season_length=12, by=0.0))


@pytest.mark.usefixtures("registered")
def test_a_mixer_is_known_by_name(wide):
    model = checks.small_forecaster(tsar.PatchTST, mixer="shift").fit(wide)
    assert any(isinstance(part, Shift) for part in model.module_.modules())
    with pytest.raises(ParameterError, match="did you mean 'shift'"):
        checks.small_forecaster(tsar.PatchTST, mixer="shft").fit(wide)


@pytest.mark.usefixtures("registered")
def test_a_loss_is_known_by_name_and_saved_by_it(wide, tmp_path):
    model = checks.small_forecaster(tsar.NLinear, loss="FourthPower").fit(wide)
    given = checks.small_forecaster(tsar.NLinear, loss=FourthPower()).fit(wide)
    pd.testing.assert_frame_equal(model.predict(), given.predict(), check_exact=True)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tsar.load(tmp_path / "model").predict(), model.predict())


@pytest.mark.usefixtures("registered")
def test_a_metric_is_measured_and_ranks(wide):
    past = backtest([tsar.Naive(horizon=3), tsar.SeasonalNaive(horizon=3)], wide, windows=4)
    found = measure(past, "cubed").set_index("model")["cubed"]
    for name in ("Naive", "SeasonalNaive"):
        assert found[name] == pytest.approx((past["y"] - past[name]).abs().pow(3).mean())
    models = {"naive": tsar.Naive(horizon=3), "seasonal": tsar.SeasonalNaive(horizon=3)}
    board = compare(models, wide, windows=4, metrics="cubed", baseline="naive")
    assert board.metric == "cubed" and board.frame["model"].tolist()[0] == found_best(found)


def found_best(found):
    return {"Naive": "naive", "SeasonalNaive": "seasonal"}[found.idxmin()]


@pytest.mark.parametrize(
    ("thing", "name", "message"),
    [
        (3, "three", "a class must be a forecaster, another estimator, a mixer or a loss"),
        (dict, None, "a class must be a forecaster"),
        (Lowered, "Other", "known by the name of its class, 'Lowered', got name='Other'"),
        (type("Naive", (Lowered,), {}), None, "there is a forecaster called 'Naive' already"),
        (tsar.Forecaster, None, "Forecaster is abstract, it lacks _learn, forecast"),
        (FourthPower, "mse", "there is a loss called 'mse' already"),
        (Metric(_largest), None, "the name of a metric must be an identifier"),
    ],
)
def test_what_cannot_be_registered(thing, name, message):
    with pytest.raises(ParameterError, match=message):
        tsar.register(thing, name)


def test_a_module_is_imported_for_its_class_if_it_is_trusted(wide, tmp_path):
    code = (
        "import sys; from dataclasses import dataclass; import tsar\n"
        "@dataclass(kw_only=True, eq=False, repr=False)\n"
        "class Outside(tsar.Naive):\n    'Of a module of its own.'\n"
    )
    (tmp_path / "outside_of_tsar.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    try:
        from outside_of_tsar import Outside

        model = Outside(horizon=2).fit(wide)
        model.save(tmp_path / "model")
        tsar.Ensemble(models=[Outside(), tsar.Naive()], horizon=2).fit(wide).save(tmp_path / "both")
        inner = tsar.Ensemble(models=[Outside(), tsar.SeasonalNaive()])
        deep = tsar.Ensemble(models=[inner, tsar.Naive()], horizon=2).fit(wide)
        deep.save(tmp_path / "deep")
        del sys.modules["outside_of_tsar"]
        for folder in ("model", "both", "deep"):
            with pytest.raises(PersistenceError, match="trust='outside_of_tsar'"):
                tsar.load(tmp_path / folder)
            assert "outside_of_tsar" not in sys.modules, "nothing is imported unasked"
        twin = tsar.load(tmp_path / "model", trust="outside_of_tsar")
        pd.testing.assert_frame_equal(twin.predict(), model.predict())
        twin = tsar.load(tmp_path / "deep", trust="outside_of_tsar")
        pd.testing.assert_frame_equal(twin.predict(), deep.predict())
        with pytest.raises(PersistenceError, match=r"'Outside', a member of the model, .*register"):
            tsar.load(tmp_path / "deep", trust="elsewhere")
        assert tsar.load(tmp_path / "both", trust=["outside_of_tsar"]).predict().shape == (2, 3)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("outside_of_tsar", None)


def test_a_class_of_the_name_of_one_of_tsar_is_not_taken_for_it(wide, tmp_path):
    same = type("SeasonalNaive", (Lowered,), {"__module__": "somewhere.else"})
    same(horizon=3, by=5.0).fit(wide).save(tmp_path / "model")
    with pytest.raises(PersistenceError, match="trust='somewhere.else'"):
        tsar.load(tmp_path / "model")
    with pytest.raises(PersistenceError, match="'somewhere.else' gives no estimator"):
        tsar.load(tmp_path / "model", trust="somewhere.else")
    with pytest.raises(PersistenceError, match="trust must be the name of a module"):
        tsar.load(tmp_path / "model", trust=5)


def test_an_installed_package_brings_its_own_by_entry_points(tmp_path):
    (tmp_path / "plugin_of_tsar.py").write_text(
        "import tsar\nfrom tsar.forecasting.outputs.losses import MAELoss\n"
        "class Brought(tsar.Naive): pass\nclass Own(MAELoss): pass\n"
    )
    metadata = tmp_path / "plugin_of_tsar-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: plugin_of_tsar\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[tsar.forecasters]\nBrought = plugin_of_tsar:Brought\n"
        "[tsar.losses]\nown = plugin_of_tsar:Own\n"
    )
    code = (
        "import sys, tsar\n"
        "from tsar.forecasting.registry import forecaster_class, forecaster_names\n"
        "from tsar.forecasting.outputs.losses import LOSSES, make_loss\n"
        "assert 'plugin_of_tsar' not in sys.modules\n"
        "assert 'Brought' in forecaster_names() and 'own' in LOSSES\n"
        "print(forecaster_class('Brought').__name__, type(make_loss('own')).__name__)"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["Brought", "Own"], done.stderr
