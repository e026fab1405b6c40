"""The estimator around language models and the decoder that stands in for one."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.base import clone

import tsar
from tsar.data.windows import Inputs
from tsar.exceptions import (
    DataError,
    MissingExtraError,
    ParameterError,
    PersistenceError,
)
from tsar.forecasting.layers.language_backbone import freeze

SMALL = {
    **{"context_length": 48, "segment_length": 12, "horizon": 18, "max_epochs": 2},
    **{"d_model": 8, "n_heads": 2, "d_ff": 12, "n_layers": 1, "random_state": 0, "device": "cpu"},
}


class Sum(torch.nn.Module):
    """A causal module of transformers' shape and without its ways: running sums."""

    d_model = 6

    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, tokens, *, mask=None):
        if mask is not None:
            tokens = tokens * mask[..., None]
        return tokens + self.factor * tokens.cumsum(dim=1)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_a_language_model_stays_as_it_is(language_models, wide, name, tmp_path):
    """Fitted, saved and loaded: only what was trained is in the folder."""
    model = tsar.AutoTimes(llm=str(language_models / name), **SMALL)
    model.fit(wide)
    assert model.history_["train_loss"][1] < model.history_["train_loss"][0]
    backbone = model.module_.backbone
    stored = load_file(language_models / name / "model.safetensors")
    kept = {
        key.removeprefix("transformer.").removeprefix("model."): value
        for key, value in stored.items()
    }
    for key, weight in backbone.module.state_dict().items():
        assert torch.equal(weight, kept[key])
    width = backbone.d_model
    n_trained = 2 * 12 * width + width + 12 + 1
    assert model.n_trainable_ == n_trained
    frozen = sum(weight.numel() for weight in backbone.module.parameters())
    assert model.n_parameters_ == n_trained + frozen
    model.save(tmp_path / "saved")
    arrays = load_file(tmp_path / "saved" / "arrays.safetensors")
    network = [value for key, value in arrays.items() if key.startswith("network.")]
    assert sum(value.numel() for value in network) == n_trained
    twin = tsar.load(tmp_path / "saved")
    pd.testing.assert_frame_equal(twin.predict(40), model.predict(40), check_exact=True)
    assert (twin.n_trainable_, twin.n_parameters_) == (model.n_trainable_, model.n_parameters_)


def test_fits_with_one_seed_agree(language_models, wide):
    """Loading may draw random numbers; the start of the trained weights does not move."""
    model = tsar.AutoTimes(llm=str(language_models / "gpt2"), **SMALL)
    first = model.fit(wide).predict()
    backbone = model.module_.backbone
    pd.testing.assert_frame_equal(model.fit(wide).predict(), first, check_exact=True)
    assert model.module_.backbone is backbone, "the language model was loaded again"
    pd.testing.assert_frame_equal(clone(model).fit(wide).predict(), first, check_exact=True)


def test_continued_training_shares_the_language_model(language_models, wide, tmp_path):
    llm, options = str(language_models / "gpt2"), SMALL | {"early_stopping": False}
    whole = tsar.AutoTimes(llm=llm, **options).set_params(max_epochs=4).fit(wide)
    half = tsar.AutoTimes(llm=llm, **options).fit(wide)
    half.save(tmp_path / "half")
    stored = tsar.load(tmp_path / "half").partial_fit(wide)
    pd.testing.assert_frame_equal(stored.predict(), whole.predict(), rtol=1e-6)
    assert half.partial_fit(wide).module_.backbone is half._language_model()


def test_a_moved_language_model_is_named_at_load(language_models, wide, tmp_path):
    (tmp_path / "here").symlink_to(language_models / "gpt2")
    model = tsar.AutoTimes(llm=str(tmp_path / "here"), **SMALL).fit(wide)
    model.save(tmp_path / "saved")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(PersistenceError, match=r"here' does not exist.*tsar.load\(folder, llm="):
        tsar.load(tmp_path / "saved")
    with pytest.raises(PersistenceError, match="llama' holds other weights than"):
        tsar.load(tmp_path / "saved", llm=str(language_models / "llama"))
    with pytest.raises(PersistenceError, match="'d_model' is no reference of AutoTimes; it has"):
        tsar.load(tmp_path / "saved", d_model=9)
    twin = tsar.load(tmp_path / "saved", llm=str(tmp_path / "there"))
    pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)


def test_a_module_is_given_again_at_load(wide, tmp_path):
    module = Sum()
    model = tsar.AutoTimes(llm=module, **SMALL).fit(wide)
    # A copy: whoever made it may train it.
    own = model.module_.backbone.module
    assert own is not module and own.factor == module.factor == 0.5
    assert (model.n_trainable_, model.n_parameters_) == (12 * 6 + 6 + 6 * 12 + 12 + 1, 164)
    model.save(tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "model.json").read_text())
    assert manifest["objects"] == {"llm": "Sum"} and "llm" not in manifest["parameters"]
    with pytest.raises(PersistenceError, match="an object of type Sum as llm, which is not saved"):
        tsar.load(tmp_path / "saved")
    with pytest.raises(PersistenceError, match="'a Sum object' holds other weights"):
        tsar.load(tmp_path / "saved", llm=Sum(0.4))
    twin = tsar.load(tmp_path / "saved", llm=Sum())
    pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)


def test_a_mixer_without_heads_takes_any_width(wide):
    model = tsar.AutoTimes(**{**SMALL, "d_model": 9, "mixer": "mamba"})
    assert model.fit(wide).predict().notna().all(axis=None)


def test_a_language_model_is_neither_taken_away_nor_added_at_load(wide, tmp_path):
    tsar.AutoTimes(llm=Sum(), **SMALL).fit(wide).save(tmp_path / "with")
    with pytest.raises(PersistenceError, match="fitted with a language model, got llm=None"):
        tsar.load(tmp_path / "with", llm=None)
    tsar.AutoTimes(**SMALL).fit(wide).save(tmp_path / "without")
    with pytest.raises(PersistenceError, match="fitted with no language model, got llm=Sum"):
        tsar.load(tmp_path / "without", llm=Sum())


def test_the_standing_decoder_is_trained_along(wide):
    model = tsar.AutoTimes(**SMALL).fit(wide)
    weights = sum(weight.numel() for weight in model.module_.parameters())
    assert model.n_trainable_ == model.n_parameters_ == weights
    assert any(name.startswith("backbone.encoder") for name in model.module_.state_dict())


@pytest.mark.parametrize("segment_length", [12, 8])
def test_any_horizon_continues_the_same_forecast(wide, segment_length):
    """The horizon that was fitted holds one segment and a half, or two and a quarter."""
    model = tsar.AutoTimes(**SMALL | {"segment_length": segment_length}).fit(wide)
    longest = model.predict(60)[wide.columns]
    for horizon in (1, 11, 12, 13, 18, 19, 36, 47):
        forecast = model.predict(horizon)[wide.columns]
        pd.testing.assert_frame_equal(forecast, longest[:horizon], check_exact=True)


def test_a_wave_is_learned():
    """Also where the horizon is longer than a segment and the history not complete."""
    steps = np.arange(600)
    index = pd.date_range("2024-01-01", periods=600, freq="h")
    wave = pd.Series(np.sin(2 * np.pi * steps / 24), index=index)
    wave[np.random.default_rng(0).random(600) < 0.05] = np.nan
    model = tsar.AutoTimes(**SMALL | {"d_model": 32, "max_epochs": 8, "learning_rate": 5e-3})
    truth = np.sin(2 * np.pi * np.arange(600, 648) / 24)
    assert np.abs(model.fit(wave).predict(48) - truth).mean() < 0.25


def test_calendar_is_read_on_the_clock(wide):
    """A forecast at another hour differs, unless the calendar is left out."""
    later = wide.shift(5, freq="h")
    told = tsar.AutoTimes(**SMALL).fit(wide)
    assert told.module_.time_scale is not None
    assert not np.allclose(told.predict(df=later), told.predict())
    untold = tsar.AutoTimes(calendar_features=False, **SMALL).fit(wide)
    assert untold.module_.time_scale is None
    np.testing.assert_array_equal(untold.predict(df=later), untold.predict())


# -------------------------------------------------------------------- in context


def test_prompt_comes_before_the_history(wide):
    """The same as one longer window of the network, by hand."""
    model = tsar.AutoTimes(calendar_features=False, **SMALL).fit(wide)
    prompt = wide[["trend", "price", "load"]][7:67]  # five segments of 12
    forecast = model.predict(30, context=prompt)
    scaling = model.learned_.scaling
    scaled = (wide.to_numpy() - scaling.mean) / scaling.scale
    window = torch.from_numpy(np.concatenate([scaled[7:67], scaled[-48:]])).float()[None]
    with torch.inference_mode():
        rolled = model.module_.roll(Inputs(window), 3, n_prompt=60)[0, :30]
    expected = rolled.double().numpy() * scaling.scale + scaling.mean
    np.testing.assert_allclose(forecast[wide.columns], expected, rtol=1e-5)
    assert not np.allclose(forecast[wide.columns], model.predict(30)[wide.columns])
    assert forecast["extrapolated"].tolist() == [False] * 18 + [True] * 12
    pd.testing.assert_index_equal(forecast.index, model.predict(30).index)


def test_every_series_may_have_a_prompt_of_its_own(wide):
    """With the calendar: of the prompt, the history and what is forecast."""
    long = wide.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    model = tsar.AutoTimes(**SMALL).fit(long)
    prompts = long[long["ds"] < wide.index[40]]
    together = model.predict(30, context=prompts).set_index("unique_id")["y"]
    for name in ("load", "price"):
        alone = model.predict(
            30,
            df=long[long["unique_id"] == name],
            context=prompts[prompts["unique_id"] == name],
        )
        np.testing.assert_allclose(alone["y"], together[name], rtol=1e-5)
    short = prompts[(prompts["unique_id"] != "load") | (prompts["ds"] >= wide.index[20])]
    mixed = model.predict(30, context=short).set_index("unique_id")["y"]
    np.testing.assert_allclose(mixed["price"], together["price"], rtol=1e-5)
    assert np.isfinite(mixed).all() and not np.allclose(mixed["load"], together["load"])
    with pytest.raises(DataError, match="context has no series for id 'trend'"):
        model.predict(context=prompts[prompts["unique_id"] != "trend"])


def test_prompts_that_cannot_be_used(wide):
    model = tsar.AutoTimes(**SMALL).fit(wide)
    with pytest.raises(DataError, match="context needs segment_length=12 rows of a series, got 11"):
        model.predict(context=wide[:11])
    with pytest.raises(DataError, match=r"missing \['load'\]"):
        model.predict(context=wide[["trend", "price"]])
    endless = pd.DataFrame(
        np.zeros((12 * 1024, 3)),
        index=pd.date_range("2000-01-01", periods=12 * 1024, freq="h"),
        columns=wide.columns,
    )
    with pytest.raises(ParameterError, match="1028 segments are more than the 1024 tokens"):
        model.predict(context=endless)
    helped = tsar.AutoTimes(future_covariates="price", target=["load", "trend"], **SMALL)
    helped.fit(wide)
    with pytest.raises(ParameterError, match="context needs a model without covariates"):
        helped.predict(context=wide)


# ------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"segment_length": 49}, "context_length must be at least segment_length=49, got 48"),
        ({"segment_length": 10}, "must be a multiple of segment_length=10, got 48; the nearest "),
        ({"d_model": 9}, "d_model must be a multiple of n_heads=2, got 9"),
        ({"mixer": "atention"}, "did you mean 'attention'"),
        ({"llm": "./nowhere"}, "AutoTimes: llm='./nowhere' does not exist"),
        ({"llm": 7}, "an instance of Module or an instance of FittedLanguageModel or None, got 7"),
        ({"llm": torch.nn.Linear(3, 3)}, "AutoTimes: llm must be a model of transformers or"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    pytest.importorskip("transformers")
    with pytest.raises(ParameterError, match=message):
        tsar.AutoTimes(**(SMALL | parameters)).fit(wide)


def test_language_model_that_takes_fewer_tokens(wide):
    module = Sum()
    module.max_tokens = 3
    with pytest.raises(ParameterError, match="4 segments are more than the 3 tokens"):
        tsar.AutoTimes(llm=module, **SMALL).fit(wide)
    assert freeze(module).max_tokens == 3


def test_more_segments_than_the_decoder_takes():
    hours = pd.date_range("2024-01-01", periods=1200, freq="h")
    series = pd.Series(np.arange(1200.0), index=hours)
    model = tsar.AutoTimes(
        **SMALL | {"context_length": 1025, "segment_length": 1, "early_stopping": False}
    )
    with pytest.raises(ParameterError, match="1025 segments are more than the 1024 tokens"):
        model.fit(series)


def test_without_transformers_the_default_works(wide, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert tsar.AutoTimes(**SMALL).fit(wide).predict().shape == (18, 3)
    with pytest.raises(MissingExtraError, match="AutoTimes: llm= needs transformers"):
        tsar.AutoTimes(llm="gpt2", **SMALL).fit(wide)
