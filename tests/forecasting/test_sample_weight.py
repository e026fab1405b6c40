"""Weights of rows: what they count for, and how they find their rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
import tsar.forecasting
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling, series_tensors
from tsar.data.windows import Batch, Inputs, Windows
from tsar.exceptions import DataError
from tsar.forecasting.layers.segment_tokens import AutoTimesNetwork
from tsar.forecasting.network import NetworkForecaster
from tsar.forecasting.nlinear import NLinearNetwork
from tsar.forecasting.outputs.losses import make_loss
from tsar.forecasting.outputs.objective import ForecastObjective

NETWORKS = [
    name
    for name in tsar.forecasting.__all__
    if issubclass(getattr(tsar.forecasting, name), NetworkForecaster)
    # The views that AutoTCL draws depend on how many windows there are; it has a test of its own.
    # These draw noise for every window of a batch, and so other noise for other batches.
    and name not in ("NetworkForecaster", "AutoTimes", "AutoTCL", "TSDiff", "PVRNN")
]
SMALL = {
    # The contrast draws at random, and how much depends on how many windows there are.
    "AutoCon": {"d_model": 4, "d_ff": 4, "n_layers": 1, "contrast_weight": 0.0},
    "AutoformerForecaster": {"d_model": 8, "d_ff": 8, "n_layers": 1, "n_decoder_layers": 1},
    "CARD": {"d_model": 8, "d_ff": 8, "n_layers": 1, "patch_length": 4},
    "Chimera": {"d_model": 8, "n_layers": 1, "patch_length": 4, "d_state": 3},
    "ETSformer": {"d_model": 8, "d_ff": 8, "n_layers": 2, "augmentation": 0.0},
    "DGM2": {"d_model": 8, "n_patterns": 5},
    "Informer": {"d_model": 8, "d_ff": 8, "n_layers": 1, "n_decoder_layers": 1},
    "LSTNet": {"d_model": 8, "season_length": 2},
    "PITS": {"d_model": 8, "patch_length": 4, "stride": 2},
    "PatchTST": {"d_model": 8, "d_ff": 8, "n_heads": 2, "n_layers": 1, "patch_length": 4},
    "SMamba": {"d_model": 8, "d_ff": 8, "n_layers": 1},
    "SpaceTime": {"d_model": 8, "n_heads": 2, "d_state": 4},
    "TimeMoE": {
        **{"d_model": 8, "d_ff": 8, "n_heads": 2, "n_layers": 1, "n_experts": 3},
        "horizon_lengths": (1, 3),
    },
    "TSM2": {"d_model": 8, "n_layers": 1, "patch_length": 4, "d_state": 3},
    "iTransformer": {"d_model": 8, "d_ff": 8, "n_heads": 2, "n_layers": 1},
}


def _long(n=40, ids="ab"):
    days = pd.date_range("2024-01-01", periods=n)
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": days, "y": rng.normal(size=n).cumsum()})
        for name in ids
    ]
    return pd.concat(parts, ignore_index=True)


def _fitted(frame, name="NLinear", *, sample_weight=None, **options):
    own = {"context_length": 8} | SMALL.get(name, {}) | options
    common = {"horizon": 3, "max_epochs": 3, "batch_size": 1000, "early_stopping": False}
    model = getattr(tsar, name)(**{**common, "random_state": 0, "device": "cpu", **own})
    return model.fit(frame, sample_weight=sample_weight)


def _losses(model):
    return np.array(model.history_["train_loss"])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_weighs_nothing_is_not_learned_from(name):
    """In batches of all windows, gradients are those of the other series alone."""
    frame = _long()
    options = {"dropout": 0.0} if "dropout" in getattr(tsar, name)().get_params() else {}
    if name in ("CARD", "PatchTST"):
        options["norm"] = "layer"  # statistics of a batch are those of all that is in it
    both = _fitted(frame, name, sample_weight={"a": 2.0, "b": 0.0}, **options)
    alone = _fitted(frame[frame["unique_id"] == "a"], name, **options)
    np.testing.assert_allclose(_losses(both), _losses(alone), rtol=1e-4)
    without = _fitted(frame, name, **options)
    same = _fitted(frame, name, sample_weight=np.full(len(frame), 7.0), **options)
    np.testing.assert_allclose(_losses(same), _losses(without), rtol=1e-4)
    assert not np.allclose(_losses(both), _losses(without), rtol=1e-3)


def test_a_weighted_step_against_the_formula():
    rng = np.random.default_rng(1)
    values, weight = rng.normal(size=(30, 2)), rng.uniform(size=30)
    values[12, 0] = np.nan
    offsets = np.array([0, 30])
    series = series_tensors(values, offsets, Scaling.identity(1, 2), torch.device("cpu"))
    series = replace(series, weight=torch.from_numpy(weight).float()[:, None])
    windows = Windows(series, np.array([4]), np.array([27]), 4, 3)
    batch = windows.batch(torch.arange(len(windows)))
    objective = ForecastObjective(make_loss("mse"))
    network = NLinearNetwork(context_length=4, horizon=3, output=objective.output)
    terms = objective.loss(network, batch, torch.Generator())
    total, count = (part.detach().item() for part in terms["loss"])
    forecast = network(batch.inputs).detach().numpy()
    expected = counted = 0.0
    for window in range(len(windows)):
        for step in range(3):
            row = 4 + window + step
            for variate in range(2):
                if not np.isnan(values[row, variate]):
                    error = forecast[window, step, variate] - values[row, variate]
                    expected += weight[row] * error**2
                    counted += weight[row]
    assert total == pytest.approx(expected, rel=1e-5)
    assert count == pytest.approx(counted, rel=1e-5)


@pytest.mark.parametrize("form", ["long", "wide", "series", "multiindex"])
def test_weights_go_with_their_rows(form):
    frame = _long(ids="a" if form in ("wide", "series") else "ab")
    weight = np.random.default_rng(2).uniform(0.1, 2, size=len(frame))
    if form == "multiindex":
        frame = frame.set_index(["unique_id", "ds"])
    elif form != "long":
        frame = frame.set_index("ds")[["y"]]
        frame = frame["y"] if form == "series" else frame.assign(z=1.5 * frame["y"] + 1)
    order = np.random.default_rng(3).permutation(len(frame))
    straight = _fitted(frame, sample_weight=weight)
    shuffled = _fitted(frame.iloc[order], sample_weight=pd.Series(weight[order]))
    np.testing.assert_allclose(_losses(straight), _losses(shuffled), rtol=1e-5)
    other = _fitted(frame.iloc[order], sample_weight=weight)
    assert (abs(_losses(other) / _losses(straight) - 1) > 1e-3).any()


def test_rows_put_into_gaps_weigh_nothing_but_their_zeros():
    frame, kept = _long(ids="a"), np.delete(np.arange(40), [9, 20, 21])
    weight = np.random.default_rng(4).uniform(0.5, 2, size=40)
    panels = [
        Panel.from_frame(frame.iloc[kept], gaps=gaps, weight=weight[kept])
        for gaps in ("mask", "zero")
    ]
    expected = weight.copy()
    expected[[9, 20, 21]] = 1.0
    for panel in panels:
        np.testing.assert_array_equal(panel.weight, expected)


def test_validation_weighs_too_and_training_goes_on_with_weights():
    frame = _long(80)
    weight = np.where(frame["unique_id"] == "a", 1.0, 0.0)
    model = _fitted(frame, sample_weight=weight, early_stopping=True)
    alone = _fitted(frame[frame["unique_id"] == "a"], early_stopping=True)
    np.testing.assert_allclose(model.history_["val_loss"], alone.history_["val_loss"], rtol=1e-4)
    model.partial_fit(frame, sample_weight=weight)
    alone.partial_fit(frame[frame["unique_id"] == "a"])
    np.testing.assert_allclose(model.history_["val_loss"], alone.history_["val_loss"], rtol=1e-4)


def test_checkpoints_know_the_weights(tmp_path):
    frame = _long()
    model = tsar.NLinear(context_length=8, horizon=3, max_epochs=1, random_state=0, device="cpu")
    digests = set()
    for weight in (None, np.ones(len(frame)), np.arange(len(frame))):
        panel = model.read_training(frame, weight)
        digests.add(model._training_data(panel, False, torch.device("cpu")).digest(panel))
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"one number for each of the 80 rows of df.*got the shape \(3,\)"),
        (np.full(80, -1.0), r"from 0 on, got -1 for row 0 and 79 others"),
        (np.r_[np.ones(79), np.nan], r"got nan for row 79 and 0 others"),
        (np.zeros(80), "0 everywhere"),
        (["x"] * 80, "must be numbers"),
        ("turnover", r"a dict by id or 'equal_series', got 'turnover'; pass df\['turnover'\]"),
        ({"a": 1.0}, r"got none for \['b'\]"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, r"unknown ids \['c'\]"),
    ],
)
def test_bad_weights(weight, message):
    with pytest.raises(DataError, match=f"NLinear: sample_weight .*{message}"):
        _fitted(_long(), sample_weight=weight)


def test_series_count_the_same_however_long_they_are():
    long = _long(60, "ab")
    frame = long[(long["unique_id"] == "a") | (long["ds"] < "2024-02-15")]
    counts = frame["unique_id"].map(frame["unique_id"].value_counts())
    by_hand = _fitted(frame, sample_weight=1.0 / counts)
    equal = _fitted(frame, sample_weight="equal_series")
    np.testing.assert_allclose(equal.predict()["y"], by_hand.predict()["y"], rtol=1e-5)
    plain = _fitted(frame)
    assert np.abs(equal.predict()["y"] - plain.predict()["y"]).max() > 1e-4
    panel = equal.read_training(frame, "equal_series")
    sums = np.add.reduceat(panel.weight, panel.offsets[:-1])
    np.testing.assert_allclose(sums, sums[0])


def test_weights_of_held_out_rows_alone_and_ids_that_are_not_there():
    frame = _long(ids="a")
    with pytest.raises(DataError, match="0 for all rows but those held out"):
        _fitted(frame, sample_weight=np.arange(40) // 35, early_stopping=True)
    with pytest.raises(DataError, match="the Series has no ids"):
        _fitted(frame.set_index("ds")["y"], sample_weight={"a": 1.0})


def test_segment_networks_weigh_the_context():
    """What is compared of the context has the weights of its rows."""

    class Repeat(AutoTimesNetwork):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.segment_length = 2

        def next_segments(self, inputs):
            return inputs.target

    inputs = Inputs(torch.randn(5, 6, 1))
    weight = torch.rand(5, 8, 1)
    batch = Batch(inputs, torch.randn(5, 2, 1), weight[:, 6:], None, weight=weight)
    compared = Repeat().compare(batch)
    assert torch.equal(compared.observed, weight[:, 2:])
