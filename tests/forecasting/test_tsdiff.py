from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar.core.mixers import Bidirectional, SoftmaxAttention
from tsar.data.windows import Batch, Inputs
from tsar.evaluation import crps
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.layers.window_diffusion import PathInputs, PathRequest, TSDiffNetwork
from tsar.forecasting.outputs.losses import SampleLoss
from tsar.forecasting.outputs.output import SampleOutput
from tsar.forecasting.outputs.predictive import SampleForecasts
from tsar.forecasting.tsdiff import NoiseObjective

SIZES = {"context_length": 14, "horizon": 3, "d_model": 8, "n_layers": 2, "n_steps": 6}
SMALL = {**SIZES, "d_state": 4, "n_samples": 6, "max_epochs": 1, "random_state": 0, "device": "cpu"}


def _network(n_samples=6, **options):
    torch.manual_seed(0)
    options = {"d_state": 4, **SIZES, **options}
    return TSDiffNetwork(output=SampleOutput(n_samples), **options).double().eval()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _frame(rows=80, n=2):
    steps = np.arange(rows)[:, None]
    noise = np.random.default_rng(0).normal(scale=0.2, size=(rows, n))
    values = np.sin(2 * np.pi * (steps / 7 + np.arange(n) / n)) + noise
    return pd.DataFrame(values, pd.date_range("2024-01-01", periods=rows), list("abc")[:n])


@pytest.fixture(scope="module")
def fitted():
    return tsar.TSDiff(**SMALL).fit(_frame())


# ------------------------------------------------------------------ the network


def test_sizes():
    """The defaults, counted by hand: two state spaces in each of three layers, and the rest."""
    network = TSDiffNetwork(context_length=360, horizon=30, output=SampleOutput(2), d_state=128)
    width, modes = 64, 64
    space = width + width * modes * (1 + 1 + 2) + width + width * 2 * width + 2 * width
    square = width * width + width
    layer = 2 * space + 2 * square + 2 * width  # the time, a way out, the norm
    ends = (width + width) + (256 * width + width + square) + (square + width + 1)
    assert sum(p.numel() for p in network.parameters()) == 3 * layer + 2 * square + ends


def test_lags_lie_beside_their_values():
    network, whole = _network(lags=(2, 5)), _random(4, 17, 2)
    sequences = network._channels(whole)
    assert sequences.shape == (4, 2, 12, 3) and network.length == 12
    for variate in range(2):
        for step in range(12):
            for channel, lag in enumerate((0, 2, 5)):
                expected = whole[:, step + 5 - lag, variate]
                assert torch.equal(sequences[:, variate, step, channel], expected)


def test_what_was_not_observed_is_not_learned_from():
    network = _network(lags=(2,))
    target, future = _random(5, 14, 2), _random(5, 3, 2, seed=2)
    observed = torch.rand(5, 17, 2, generator=torch.Generator().manual_seed(3)) < 0.5
    batch = Batch(Inputs(target, observed[:, :14]), future, observed[:, 14:], None)
    weighted = Batch(
        Inputs(target), future, observed[:, 14:].double(), None, weight=observed.double()[..., :1]
    )
    for one in (batch, weighted):
        network.generator = torch.Generator().manual_seed(4)
        said, noise, weight = network.compare(one)[:3]
        assert said.shape == noise.shape == weight.shape == (5, 15, 4)
        seen = observed if one is batch else torch.cat(
            [observed[:, :14, :1].expand(-1, -1, 2), observed[:, 14:]], dim=1
        )  # fmt: skip
        assert torch.equal(weight.unflatten(2, (2, 2))[..., 0] > 0, seen[:, 2:])
        assert torch.equal(weight.unflatten(2, (2, 2))[..., 1] > 0, seen[:, :-2])
        total, count = NoiseObjective().loss(network, one, torch.Generator().manual_seed(4))["loss"]
        assert total.item() == pytest.approx(((said - noise).square() * weight).sum().item())
        assert float(count) == float(weight.sum())


def test_every_weight_is_reached():
    network = _network(lags=(3,))
    batch = Batch(Inputs(_random(4, 14, 2)), _random(4, 3, 2, seed=2), None, None)
    total, _ = NoiseObjective().loss(network, batch, torch.Generator().manual_seed(0))["loss"]
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_path_does_not_know_its_company():
    """Neither other windows, nor other variates after it, nor gradients being off, move a path."""
    network, target = _network(n_steps=4), _random(11, 14, 3)
    request = PathRequest(n_samples=5, seed=3)
    whole = network(PathInputs(target, request=request))
    assert whole.shape == (11, 3, 3, 5)
    for some, variates in (([2], 3), ([7, 0, 3], 1)):
        with torch.inference_mode():
            found = network(PathInputs(target[some, :, :variates], request=request))
        torch.testing.assert_close(found, whole[some, :, :variates], rtol=1e-9, atol=1e-9)
    other = network(PathInputs(target, request=replace(request, seed=4)))
    assert not torch.isclose(other, whole).any()


def test_only_what_was_observed_guides():
    network, target = _network(), _random(2, 14, 1)
    observed = torch.ones(2, 14, 1, dtype=torch.bool)
    observed[:, 4:7] = False
    for guidance in ("quantile", "squared"):
        request = PathRequest(n_samples=4, guidance=guidance)
        changed = torch.where(observed, target, target + 3)
        first, second = (network(PathInputs(x, observed, request=request)) for x in
                         (target, changed))  # fmt: skip
        torch.testing.assert_close(first, second)
        moved = network(PathInputs(target + (torch.arange(14) == 2)[:, None], request=request))
        assert not torch.isclose(moved, first).any()


def test_other_mixers():
    assert isinstance(_network().blocks[0].mixer, Bidirectional)
    network = _network(mixer="attention", n_heads=2)
    assert isinstance(network.blocks[0].mixer, SoftmaxAttention)
    assert network(Inputs(_random(2, 14, 1))).isfinite().all()


# ---------------------------------------------------------------- what is shared


def test_the_loss_of_samples_is_their_score():
    rng = np.random.default_rng(0)
    truth, samples = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2, 7))
    loss = SampleLoss(7)
    found = float(loss(torch.from_numpy(samples), torch.from_numpy(truth)))
    pairs = np.abs(samples[..., :, None] - samples[..., None, :]).mean(axis=(-1, -2)) / 2
    expected = (np.abs(samples - truth[..., None]).mean(axis=-1) - pairs).mean()
    assert found == pytest.approx(expected)
    assert found == pytest.approx(crps(truth, samples))


def test_samples_as_forecasts():
    samples = np.random.default_rng(0).normal(size=(2, 3, 1, 6))
    predictive, output = SampleForecasts(), SampleOutput(6)
    median = np.median(samples, axis=-1)
    np.testing.assert_allclose(predictive.point(samples), median)
    np.testing.assert_allclose(predictive.fed_back(torch.from_numpy(samples)), median)
    np.testing.assert_allclose(output.point(torch.from_numpy(samples[..., :5])),
                               np.median(samples[..., :5], axis=-1))  # fmt: skip
    by = torch.from_numpy(samples[..., 0])
    shifted = output.shift(torch.from_numpy(samples), by)
    np.testing.assert_allclose(shifted, samples + samples[..., :1])
    drawn = predictive.sample(samples, np.random.default_rng(1))
    assert (drawn[..., None] == samples).any(axis=-1).all()


# ----------------------------------------------------------------- the estimator


def test_quantiles_and_paths_come_from_one_network(fitted):
    forecast = fitted.predict(quantiles=[0.05, 0.5, 0.77])
    assert (forecast["a_q0.05"] <= forecast["a_q0.77"]).all()
    np.testing.assert_array_equal(forecast["a_q0.5"], forecast["a"])
    paths = fitted.predict(samples=4)
    pd.testing.assert_frame_equal(paths, fitted.predict(samples=4), check_exact=True)
    assert len(paths) == 12 and not np.isclose(paths["a"], paths["b"]).any()
    longer = fitted.predict(5, samples=4)
    first = longer.groupby("sample").head(3)[["a", "b"]]
    np.testing.assert_allclose(first, paths[["a", "b"]], rtol=1e-6)


def test_series_draw_noise_of_their_own():
    wide = _frame(60, 1)["a"].to_numpy()
    days = pd.date_range("2024-01-01", periods=60)
    long = pd.concat([pd.DataFrame({"unique_id": i, "ds": days, "y": wide}) for i in ("x", "y")])
    model = tsar.TSDiff(**SMALL).fit(long)
    both = model.predict(samples=3)
    alone = model.predict(df=long[long["unique_id"] == "y"], samples=3)
    own = both[both["unique_id"] == "y"]
    np.testing.assert_allclose(own["y"], alone["y"], rtol=1e-6)
    assert not np.isclose(own["y"], both[both["unique_id"] == "x"]["y"]).any()


def test_another_guidance_needs_no_other_fit(fitted):
    free = fitted.guided(None, n_samples=3)
    assert free.module_ is fitted.module_ and fitted.guidance == "quantile"
    assert not np.allclose(free.predict(), fitted.predict())
    np.testing.assert_allclose(
        fitted.guided("quantile", guidance_scale=0.0, n_samples=3).predict(), free.predict()
    )
    with pytest.raises(ParameterError, match=r"TSDiff: guidance_scale must be .* got -1"):
        fitted.guided("squared", guidance_scale=-1)


def test_a_forecast_goes_through_so_many_steps(fitted, monkeypatch):
    """One pass for a step back, and two more for the gradient of all but the last."""
    passes = []
    told = TSDiffNetwork.said
    monkeypatch.setattr(
        TSDiffNetwork,
        "said",
        lambda self, x, time: passes.append(int(time[0])) or told(self, x, time),
    )
    for n_steps, places in ((None, [5, 4, 3, 2, 1, 0]), (3, [5, 3, 1])):
        fitted.guided(None, n_samples=2, n_sampling_steps=n_steps).predict()
        assert passes == places
        passes.clear()
    fitted.guided("squared", n_samples=2, n_sampling_steps=3).predict()
    assert passes == [5, 5, 3, 3, 1]


def test_refining_keeps_the_form_and_moves_little(fitted):
    frame = _frame()
    base = tsar.NLinear(
        context_length=14, horizon=3, loss="gaussian", max_epochs=1, random_state=0
    ).fit(frame)
    samples = base.predict(samples=5)
    for guidance in ("quantile", "squared"):
        refined = fitted.refine(samples, guidance=guidance, temperature=0.1)
        assert refined.drop(columns=["a", "b"]).equals(samples.drop(columns=["a", "b"]))
        assert np.isfinite(refined[["a", "b"]].to_numpy()).all()
    # A step of next to nothing leaves the samples of each step as they were, in their order.
    still = fitted.refine(samples, frame[["b", "a"]], n_iterations=1, step_size=1e-9)
    for name in "ab":
        expected = np.sort(samples[name].to_numpy().reshape(5, 3), axis=0)
        np.testing.assert_allclose(still[name].to_numpy().reshape(5, 3), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "how", "error", "message"),
    [
        (lambda s: s.drop(columns="sample"), {}, DataError, "samples must be a frame with the col"),
        (lambda s: s[:-1], {}, DataError, "samples must hold the 3 steps of every sample"),
        (lambda s: s.assign(a=np.nan), {}, DataError, "samples must be finite"),
        (lambda s: s, {"guidance": "mse"}, ParameterError, "guidance must be one of"),
        (lambda s: s, {"n_iterations": 0}, ParameterError, "n_iterations must be an integer"),
        (lambda s: s, {"step_size": 0.0}, ParameterError, "step_size must be above 0, got 0.0"),
        (lambda s: s, {"temperature": -1}, ParameterError, "temperature must be at least 0"),
    ],
)
def test_what_cannot_be_refined(fitted, change, how, error, message):
    with pytest.raises(error, match=f"TSDiff.refine: {message}"):
        fitted.refine(change(fitted.predict(samples=2)), **how)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lags": (3, 14)}, "TSDiff: lags must be below context_length=14, got 14"),
        ({"lags": (0,)}, r"TSDiff: lags must be .*integer in \[1, inf\)"),
        ({"n_sampling_steps": 7}, "TSDiff: n_sampling_steps must be at most n_steps=6, got 7; low"),
        ({"n_steps": 1}, r"TSDiff: n_steps must be an integer in \[2, inf\), got 1"),
        ({"mixer": "mmba"}, "did you mean 'mamba'"),
        ({"loss": "mse"}, "TSDiff has no parameter .loss.: the parameters are"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.TSDiff(**(SMALL | parameters)).fit(_frame())


def test_repeats_in_the_protocol_of_the_paper(published_data):
    """Normalised deviation of five windows: the score of the seasonal naive forecast is theirs."""
    rates = tsar.load_dataset("exchange_rate")
    cutoffs = 6071 + 30 * np.arange(5)
    truth = rates.to_numpy()[cutoffs[:, None] + np.arange(30)]
    for model, expected in (
        (tsar.SeasonalNaive(season_length=5, horizon=30), 0.01075),
        (tsar.Naive(horizon=30), 0.00931),
    ):
        forecast = model.fit(rates[:6071]).forecast_windows(rates, cutoffs)
        assert round(np.abs(forecast - truth).sum() / np.abs(truth).sum(), 5) == expected
