"""AR-Net against least squares, closed forms and a plain network written out."""

import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.arima_process import ArmaProcess
from torch import nn

import tsar
from tsar import plot
from tsar.data.windows import Inputs
from tsar.exceptions import MissingExtraError, NotFittedError, ParameterError
from tsar.forecasting.arnet import ARNetNetwork, sparsity_regulariser
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

# The coefficients of the authors' examples.
DENSE = [0.2, 0.3, -0.5]
SPARSE = [0.2, 0.0, 0.3, *[0.0] * 6, -0.5]
QUICK = {"random_state": 0, "device": "cpu"}


def _autoregression(coefficients, n_rows, *, level=0.0, scale=1.0, seed=0):
    process = ArmaProcess.from_coeffs(coefficients)
    draw = np.random.default_rng(seed).normal
    sample = process.generate_sample(n_rows, distrvs=lambda size: draw(size=size), burnin=500)
    index = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    return pd.Series(level + scale * sample, index=index, name="y")


def _least_squares(series, order):
    """Return coefficients by lag, and the intercept."""
    fitted = AutoReg(series.to_numpy(), lags=order).fit().params
    return fitted[1:], fitted[0]


# ------------------------------------------------------------- the regulariser


def test_regulariser_equals_its_closed_form():
    weights = [0.7, -0.02, 0.0, 3.5, -1e-3, 0.3]
    expected = [2 / (1 + math.exp(-3 * abs(w) ** (1 / 3))) - 1 for w in weights]
    found = sparsity_regulariser(torch.tensor(weights, dtype=torch.float64).view(2, 3))
    assert found.item() == pytest.approx(sum(expected) / 6, rel=1e-12)


def test_regulariser_pulls_towards_zero_and_rests_there():
    weights = torch.tensor([0.4, -0.05, 0.0, 1e-7], dtype=torch.float64, requires_grad=True)
    sparsity_regulariser(weights).backward()

    def price(w):
        return 2 / (1 + math.exp(-3 * abs(w) ** (1 / 3))) - 1

    slopes = [(price(w + 1e-7) - price(w - 1e-7)) / 2e-7 / 4 for w in (0.4, -0.05)]
    np.testing.assert_allclose(weights.grad[:2], slopes, rtol=1e-5)
    assert weights.grad[2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("hidden_layers", [(), (4, 6)])
def test_penalty_follows_the_share_of_lags_and_the_error(hidden_layers):
    network = _network(hidden_layers=hidden_layers, sparsity=0.2, strength=0.03)
    first = (network.hidden[0] if hidden_layers else network.head).weight
    with torch.no_grad():
        first.uniform_(-1, 1)
    expected = 0.03 * (1 / 0.2 - 1) * math.sqrt(0.49) * sparsity_regulariser(first)
    torch.testing.assert_close(network.penalty(torch.tensor(0.49).double()), expected)
    assert _network(sparsity=1.0).penalty(torch.tensor(0.49)) is None


# ----------------------------------------------------------------- the network


def _network(output=None, **options):
    torch.manual_seed(0)
    sizes = {"context_length": 7, "horizon": 5, "n_variates": 3}
    network = ARNetNetwork(output=output or PointOutput(), **sizes, **options).double()
    for parameter in network.parameters():
        # The last layer begins with zeros, from which nothing could be told.
        nn.init.uniform_(parameter, -1, 1)
    return network


@pytest.mark.parametrize("hidden_layers", [(), (4, 6)])
@pytest.mark.parametrize("output", [PointOutput(), QuantileOutput([0.1, 0.5, 0.6, 0.9])])
def test_every_variate_has_a_network_of_its_own(hidden_layers, output):
    network = _network(output, hidden_layers=hidden_layers)
    target = torch.randn(2, 7, 3, dtype=torch.float64)
    forecast = network(Inputs(target))
    n_outputs = output.n_outputs
    assert forecast.shape == ((2, 5, 3) if n_outputs == 1 else (2, 5, 3, n_outputs))
    for c in range(3):
        x = target[:, :, c]
        for layer in network.hidden:
            x = torch.relu(x @ layer.weight[c] + layer.bias[c])
        raw = (x @ network.head.weight[c] + network.head.bias[c]).view(2, 5, 1, n_outputs)
        torch.testing.assert_close(forecast[:, :, c : c + 1], output(raw, 0.0, 1.0))


def test_an_untrained_model_forecasts_the_mean():
    torch.manual_seed(0)
    network = ARNetNetwork(context_length=7, horizon=5, n_variates=3, output=PointOutput())
    assert not network(Inputs(torch.randn(2, 7, 3))).any()


# --------------------------------------------------------------- coefficients


@pytest.mark.parametrize(
    ("coefficients", "order", "options"), [(DENSE, 10, {}), (SPARSE, 20, {"max_steps": 1500})]
)
def test_coefficients_are_those_of_least_squares(coefficients, order, options):
    series = _autoregression(coefficients, 2000, level=30.0, scale=5.0)
    model = tsar.ARNet(context_length=order, horizon=1, **options, **QUICK).fit(series)
    expected, intercept = _least_squares(series, order)
    assert list(model.coefficients_.index) == list(range(1, order + 1))
    np.testing.assert_allclose(model.coefficients_["y"], expected, atol=1e-2)
    assert model.intercept_["y"] == pytest.approx(intercept, abs=0.5)


def test_sparse_lags_are_found_among_many():
    coefficients = np.zeros(90)
    coefficients[[0, 29, 89]] = 0.3
    series = _autoregression(coefficients, 5000)
    model = tsar.ARNet(context_length=100, horizon=1, expected_lags=3, max_steps=1200, **QUICK)
    found = model.fit(series).coefficients_["y"]
    assert sorted(found.abs().nlargest(3).index) == [1, 30, 90]
    truth = np.append(coefficients, np.zeros(10))
    error = np.abs(found - truth).sum()
    least_squares = np.abs(_least_squares(series, 100)[0] - truth).sum()
    assert error < 0.3 * least_squares


def test_a_share_and_a_number_of_lags_are_the_same(wide):
    options = {"context_length": 20, "horizon": 2, "max_epochs": 2, **QUICK}
    number, share, neither = (
        tsar.ARNet(**given, **options).fit(wide).coefficients_
        for given in ({"expected_lags": 3}, {"sparsity": 0.15}, {"sparsity": 1.0})
    )
    pd.testing.assert_frame_equal(number, share)
    assert not np.allclose(number, neither, rtol=1e-3)


def test_variates_are_models_of_their_own():
    """Together in a frame they are what they are alone, on whatever scale."""
    parts = {
        "dense": _autoregression(DENSE, 2000, level=30.0, scale=5.0, seed=1),
        "slow": _autoregression([0.9], 2000, level=-4.0, scale=1e-3, seed=2),
    }
    model = tsar.ARNet(context_length=4, horizon=1, max_steps=1500, **QUICK)
    model.fit(pd.DataFrame(parts))
    assert list(model.coefficients_.columns) == ["dense", "slow"]
    for name, series in parts.items():
        expected, intercept = _least_squares(series, 4)
        np.testing.assert_allclose(model.coefficients_[name], expected, atol=1e-2)
        assert model.intercept_[name] == pytest.approx(intercept, abs=0.02 * abs(series.mean()))


def test_series_of_a_panel_share_coefficients_on_levels_of_their_own():
    one, other = (
        _autoregression([0.6, -0.3], 1500, level=level, scale=scale, seed=seed)
        for seed, (level, scale) in enumerate([(10.0, 1.0), (-200.0, 20.0)])
    )
    long = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": series.index, "y": series.to_numpy()})
        for name, series in (("one", one), ("other", other))
    )
    model = tsar.ARNet(context_length=2, horizon=1, max_steps=1000, **QUICK).fit(long)
    np.testing.assert_allclose(model.coefficients_["y"], [0.6, -0.3], atol=0.05)
    weights = model.coefficients_["y"].to_numpy()
    for name, series in (("one", one), ("other", other)):
        # Forecasting by hand, in original units.
        step = weights @ series.to_numpy()[:-3:-1] + model.intercept_.loc[name, "y"]
        forecast = model.predict(1).set_index("unique_id").loc[name, "y"]
        assert forecast == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", "quantile"])
def test_coefficients_give_the_first_step_of_a_longer_horizon(wide, loss):
    model = tsar.ARNet(
        context_length=24, horizon=6, max_epochs=3, sparsity=0.5, loss=loss, **QUICK
    ).fit(wide)
    history = wide.to_numpy()[:-25:-1]
    first = (history * model.coefficients_).sum(axis=0) + model.intercept_
    np.testing.assert_allclose(model.predict().iloc[0], first, rtol=1e-5)


def test_horizon_one_rolls_forward_as_a_classical_autoregression():
    series = _autoregression(DENSE, 500, level=7.0)
    model = tsar.ARNet(context_length=3, horizon=1, max_epochs=100, **QUICK).fit(series)
    values, weights = list(series), model.coefficients_["y"].to_numpy()
    for _ in range(4):
        values.append(weights @ values[:-4:-1] + model.intercept_["y"])
    forecast = model.predict(horizon=4)
    np.testing.assert_allclose(forecast, values[-4:], rtol=1e-5)


def test_hidden_layers_learn_what_is_not_linear():
    rng = np.random.default_rng(0)
    values = np.zeros(1200)
    for step in range(2, len(values)):
        values[step] = 1.6 * abs(values[step - 1]) - 1.0 + 0.1 * rng.normal()
    series = pd.Series(values, index=pd.date_range("2024-01-01", periods=1200, freq="h"))
    errors = {}
    for hidden_layers in [(), (8,)]:
        model = tsar.ARNet(
            context_length=2, horizon=1, hidden_layers=hidden_layers, max_steps=600, **QUICK
        ).fit(series)
        errors[hidden_layers] = model.history_["train_loss"][-1]
    assert errors[(8,)] < 0.3 * errors[()]
    with pytest.raises(AttributeError, match="hidden_layers has no coefficients"):
        model.coefficients_  # noqa: B018
    assert not hasattr(model, "intercept_")


def test_coefficients_survive_saving(wide, tmp_path):
    model = tsar.ARNet(context_length=9, horizon=2, max_epochs=2, **QUICK).fit(wide)
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(twin.coefficients_, model.coefficients_)
    pd.testing.assert_series_equal(twin.intercept_, model.intercept_)


@pytest.mark.parametrize(("name", "column"), [("load", "load"), (None, "y"), (7, 7)])
def test_the_name_of_a_series_is_that_of_its_coefficients(wide, name, column):
    model = tsar.ARNet(context_length=9, horizon=2, max_epochs=1, **QUICK)
    model.fit(wide["load"].rename(name))
    for found in (model.coefficients_.columns, model.intercept_.index):
        assert list(found) == [column]


def test_coefficients_need_a_fit():
    with pytest.raises(NotFittedError, match="ARNet is not fitted"):
        tsar.ARNet().coefficients_  # noqa: B018


# ----------------------------------------------------------------- covariates


SPEC = CovariateSpec(past=(0, 3), future=(4, 0), static=(0,), n_calendar=2)


def _inputs(batch=2):
    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    past, future = normal(batch, 7, 2), normal(batch, 12, 2)
    past[..., 1] = torch.randint(0, 3, (batch, 7))
    future[..., 0] = torch.randint(0, 4, (batch, 12))
    return Inputs(normal(batch, 7, 3), None, past, future, normal(batch, 1), normal(batch, 12, 2))


@pytest.mark.parametrize("output", [PointOutput(), QuantileOutput([0.1, 0.5, 0.6, 0.9])])
def test_first_step_weighs_lags_and_covariates(output):
    network, inputs = _network(output, covariates=SPEC), _inputs()
    step = network.first_step()
    past, known, static = network.encoder(inputs)
    expected = (
        step.bias
        + torch.einsum("blc,lc->bc", inputs.target, step.lags)
        + torch.einsum("blf,lfc->bc", past, step.past)
        + torch.einsum("blf,lfc->bc", known[:, :8], step.known_ahead)
        + static @ step.static
    )
    torch.testing.assert_close(output.point(network(inputs))[:, 0], expected)


@pytest.mark.parametrize("hidden_layers", [(), (4,)])
def test_a_step_reads_known_covariates_up_to_itself(hidden_layers):
    network, inputs = _network(covariates=SPEC, hidden_layers=hidden_layers), _inputs()
    before = network(inputs)
    inputs.calendar[:, 7 + 2] += 1.0  # the third step of the horizon
    changed = (network(inputs) != before).flatten(2).any(dim=2).any(dim=0).tolist()
    assert changed == ([False, False, True, True, True] if not hidden_layers else [True] * 5)


def _explained(n_rows, seed=0):
    """Return an autoregression with regressors of every kind, in a frame."""
    rng = np.random.default_rng(seed)
    price, wind = 5.0 + 2.0 * rng.normal(size=(2, n_rows))
    kind = rng.choice(["plain", "sale"], size=n_rows)
    noise = 0.1 * rng.normal(size=n_rows)
    y = np.zeros(n_rows)
    for t in range(2, n_rows):
        regressors = -1.5 * price[t] + 0.5 * price[t - 1] + 2.0 * wind[t - 2]
        y[t] = 4.0 + 0.6 * y[t - 1] + regressors + 3.0 * (kind[t] == "sale") + noise[t]
    index = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    return pd.DataFrame({"y": y, "price": price, "wind": wind, "kind": kind}, index=index)


def test_covariate_coefficients_are_in_original_units():
    frame = _explained(800)
    model = tsar.ARNet(
        context_length=2,
        horizon=1,
        past_covariates="wind",
        future_covariates=["kind", "price"],
        max_steps=1200,
        **QUICK,
    ).fit(frame)
    np.testing.assert_allclose(model.coefficients_["y"], [0.6, 0.0], atol=0.02)
    found = model.covariate_coefficients_["y"]
    expected = {
        **{("wind", 1): 0.0, ("wind", 2): 2.0},
        **{("price", 0): -1.5, ("price", 1): 0.5, ("price", 2): 0.0},
    }
    for place, value in expected.items():
        assert found[place] == pytest.approx(value, abs=0.05), place
    assert found["kind=sale", 0] - found["kind=plain", 0] == pytest.approx(3.0, abs=0.1)
    # Forecasting by hand from the frame as it is.
    coming = {"price": 7.0, "kind": "sale"}
    forecast = model.predict(
        future=model.make_future_frame().assign(**{name: [v] for name, v in coming.items()})
    )
    total = model.intercept_["y"] + model.coefficients_["y"] @ frame["y"].to_numpy()[:-3:-1]
    rows = pd.concat([frame, pd.DataFrame(coming, index=[0])])[::-1]
    for (name, lag), weight in found.items():
        column, _, category = name.partition("=")
        value = rows[column].iloc[lag]
        total += weight * (value == category if category else value)
    assert forecast["y"].item() == pytest.approx(total, rel=1e-4)


def test_covariate_coefficients_of_a_panel_are_those_of_each_series():
    one, other = _explained(400), _explained(400, seed=1)
    other["y"] = 100 * other["y"]
    long = pd.concat(
        frame.assign(unique_id=name, size=size).reset_index(names="ds")
        for name, frame, size in (("one", one, 3.0), ("other", other, 8.0))
    )
    model = tsar.ARNet(
        context_length=3,
        horizon=1,
        future_covariates="price",
        static_covariates="size",
        calendar_features=True,
        max_epochs=20,
        **QUICK,
    ).fit(long)
    table = model.covariate_coefficients_
    assert table.index.names == ["unique_id", "covariate", "lag"]
    assert table.shape == (2 * ((1 + 4) * 4 + 1), 1)
    scale = other["y"].std() / one["y"].std()
    np.testing.assert_allclose(table.loc["other"], scale * table.loc["one"], rtol=1e-6)
    assert {"price", "size", "calendar_hour"} <= set(table.loc["one"].index.get_level_values(0))


def test_without_covariates_there_are_no_coefficients_of_them(wide):
    model = tsar.ARNet(context_length=9, horizon=2, max_epochs=1, **QUICK).fit(wide)
    assert model.covariate_coefficients_.shape == (0, 3)


# ------------------------------------------------------------------ manners


def test_plot_takes_and_returns_axes(wide):
    model = tsar.ARNet(context_length=9, horizon=2, max_epochs=2, **QUICK).fit(wide)
    axes = plot.coefficients(model)
    assert axes.get_xlabel() == "lag" and len(axes.get_legend().get_texts()) == 3
    drawn = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(np.transpose(drawn), model.coefficients_)
    own = Figure().add_subplot()
    assert plot.coefficients(model, ax=own) is own and own.lines


def test_plot_without_matplotlib_says_what_to_install(wide, monkeypatch):
    model = tsar.ARNet(context_length=9, horizon=2, max_epochs=1, **QUICK).fit(wide)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib: pip install 'tsar\[plot\]'"):
        plot.coefficients(model)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sparsity": 0.1, "expected_lags": 3}, "sparsity=0.1 and expected_lags=3; give one"),
        ({"expected_lags": 30}, "expected_lags must be at most context_length=24, got 30"),
        ({"sparsity": 0.0}, r"sparsity must be a number in \(0, 1\] or None, got 0.0"),
        ({"hidden_layers": (8, 0)}, "hidden_layers must be a list or tuple"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.ARNet(context_length=24, **parameters).fit(wide)
