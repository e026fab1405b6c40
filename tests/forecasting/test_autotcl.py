import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

import tsar
from tsar.data.scaling import Scaling, series_tensors
from tsar.data.windows import Batch, Inputs, Windows
from tsar.exceptions import ParameterError
from tsar.forecasting.autotcl import ALPHAS, AutoTCLNetwork, regress
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.layers.learned_views import ViewObjective
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {"context_length": 35, "horizon": 4, "d_model": 5, "d_ff": 6, "n_layers": 2}
SMALL = {
    "context_length": 24, "horizon": 6, "d_model": 4, "d_ff": 5, "n_layers": 2, "max_epochs": 1,
    "random_state": 0, "device": "cpu",
}  # fmt: skip


def _network(output=None, n_variates=2, **options):
    torch.manual_seed(0)
    return AutoTCLNetwork(output=output or PointOutput(), n_variates=n_variates, **SIZES, **options)


def _random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _frame(n=150):
    values = np.random.default_rng(0).normal(size=(n, 2)).cumsum(axis=0)
    return pd.DataFrame(values, pd.date_range("2024", periods=n, freq="h"), ["a", "b"])


def _objective():
    return ViewObjective(local_weight=0.3, sparsity_weight=0.2, smoothness_weight=0.1)


def test_published_size_of_the_encoder():
    """Seven variates with seven calendar features: kernels of 255 steps over 320 features."""
    network = AutoTCLNetwork(
        context_length=201, horizon=24, n_variates=7, output=PointOutput(),
        covariates=CovariateSpec(n_calendar=7),
    )  # fmt: skip
    blocks = 10 * 2 * (3 * 64 * 64 + 64)
    last = (3 * 64 * 320 + 320) + (3 * 320 * 320 + 320) + (64 * 320 + 320)
    causal = 255 * 320 * 320 + 8 * 320
    expected = (14 * 64 + 64) + blocks + last + causal
    assert sum(p.numel() for p in network.encoder.parameters()) == expected


def test_forecast_is_a_map_of_the_last_encoded_step_and_the_covariates():
    """All steps are encoded another way in training than the last of them for a forecast."""
    spec = CovariateSpec(past=(0,), future=(0, 0), static=(0,), n_calendar=4)
    network = _network(covariates=spec).eval()
    inputs = Inputs(
        _random(3, 35, 2), past=_random(3, 35, 1, seed=2), future=_random(3, 39, 2, seed=3),
        static=_random(3, 1, seed=4), calendar=_random(3, 39, 4, seed=5),
    )  # fmt: skip
    forecast = network(inputs)
    steps = torch.cat(
        [inputs.target, inputs.past, inputs.future[:, :35], inputs.calendar[:, :35]], dim=2
    )
    last = network.encoder(steps)[:, -1]
    read = torch.cat([last, inputs.future[:, 35:].flatten(1), inputs.static], dim=1)
    expected = (read @ network.head.weight.T + network.head.bias).view(3, 4, 2)
    torch.testing.assert_close(forecast, expected, rtol=1e-4, atol=1e-5)


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.9]))(Inputs(_random(3, 35, 2)))
    assert forecast.shape == (3, 4, 2, 3)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_a_view_is_some_of_the_steps_times_a_factor():
    network, steps = _network(), _random(3, 35, 2)
    views = network.augmenter(steps, torch.Generator().manual_seed(0))
    ratio = views.steps / steps
    torch.testing.assert_close(ratio[..., 0], ratio[..., 1])
    gone = ratio[..., 0] == 0
    assert 0.1 < gone.float().mean() < 0.9
    assert ((ratio > 0) & (ratio < 1))[~gone].all()


def test_encoder_and_augmenter_learn_from_their_own_terms_alone():
    network, objective = _network(), _objective()
    batch = Batch(Inputs(_random(6, 35, 2)), _random(6, 4, 2), None, None)
    terms = objective.loss(network, batch, torch.Generator().manual_seed(0))
    for name, moved, still in (
        ("loss", network.encoder, network.augmenter),
        ("augmenter", network.augmenter, network.encoder),
    ):
        network.zero_grad()
        terms[name][0].backward(retain_graph=True)
        assert all(p.grad is None or not p.grad.any() for p in still.parameters())
        assert any(p.grad is not None and p.grad.any() for p in moved.parameters())


def test_windows_without_weight_are_not_contrasted():
    network, objective = _network(), _objective()
    target, future = _random(6, 35, 2), _random(6, 4, 2)
    weight = torch.ones(6, 39, 1)
    weight[4:] = 0
    some = Batch(Inputs(target), future, None, None, weight=weight)
    alone = Batch(Inputs(target[:4]), future[:4], None, None)
    results = [
        objective.loss(network, batch, torch.Generator().manual_seed(0)) for batch in (some, alone)
    ]
    for name in ("loss", "augmenter"):
        first, second = (terms[name][0] / terms[name][1] for terms in results)
        torch.testing.assert_close(first, second)


def test_a_batch_without_any_weight_moves_nothing():
    network, objective = _network(), _objective()
    batch = Batch(
        Inputs(_random(6, 35, 2)), _random(6, 4, 2), None, None, weight=torch.zeros(6, 39, 1)
    )
    terms = objective.loss(network, batch, torch.Generator().manual_seed(0))
    sum(total for total, _ in terms.values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


def test_head_is_the_ridge_regression_that_validation_prefers():
    """Against scikit-learn, penalty by penalty; validation windows are other ones."""
    values = np.random.default_rng(3).normal(size=(130, 2)).cumsum(axis=0)
    series = series_tensors(values, np.array([0, 130]), Scaling.identity(1, 2), torch.device("cpu"))
    training = Windows(series, np.array([35]), np.array([90]), 35, 4)
    validation = Windows(series, np.array([95]), np.array([126]), 35, 4)
    network = _network().eval()
    x, y, x_val, y_val = (
        part
        for windows in (training, validation)
        for batch in [windows.batch(torch.arange(len(windows)))]
        for part in (
            network.represent(batch.inputs).detach().double().numpy(),
            batch.target.flatten(1).double().numpy(),
        )
    )
    scores, models = {}, {}
    for alpha in ALPHAS:
        models[alpha] = Ridge(alpha).fit(x, y)
        errors = models[alpha].predict(x_val) - y_val
        scores[alpha] = np.sqrt((errors**2).mean()) + np.abs(errors).mean()
    regress(network, training, validation)
    best = min(scores, key=scores.get)
    assert network.alpha.item() == pytest.approx(best)
    np.testing.assert_allclose(
        network.head.weight.detach(), models[best].coef_, rtol=1e-3, atol=1e-4
    )
    regress(network, training, None)
    assert network.alpha.item() == 1.0
    expected = models[1.0].intercept_
    np.testing.assert_allclose(network.head.bias.detach(), expected, rtol=1e-3, atol=1e-3)


def test_another_loss_trains_the_head_and_nothing_else(tmp_path):
    frame = _frame()
    regressed = tsar.AutoTCL(**SMALL).fit(frame)
    trained = tsar.AutoTCL(loss="gaussian", **SMALL).fit(frame)
    first, second = (
        {name: w for name, w in model.module_.state_dict().items() if name.startswith("encoder")}
        for model in (regressed, trained)
    )
    assert first and all(torch.equal(first[name], second[name]) for name in first)
    assert regressed.alpha_ in ALPHAS and np.isnan(trained.alpha_)
    assert (regressed.n_epochs_, trained.n_epochs_) == (1, 2)
    trained.partial_fit(frame)
    assert trained.n_epochs_ == 3
    regressed.save(tmp_path / "model")
    assert tsar.load(tmp_path / "model").alpha_ == regressed.alpha_


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"d_ff": 0}, r"AutoTCL: d_ff must be an integer in \[1, inf\), got 0"),
        ({"augmenter_learning_rate": 0.0}, "AutoTCL: augmenter_learning_rate must be"),
        ({"local_weight": -1.0}, "AutoTCL: local_weight must be .* got -1"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.AutoTCL(**(SMALL | parameters)).fit(_frame())
