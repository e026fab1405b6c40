"""What networks say of their training is heard, whatever is built around them."""

import inspect
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.core.decoder import Decoder
from tsar.core.mixers import Mixer, make_mixer
from tsar.data.windows import Batch, Inputs, SeriesTensors
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.covariates import CovariatePathway, CovariateSpec
from tsar.forecasting.layers.segment_tokens import AutoTimesNetwork
from tsar.forecasting.network import NetworkForecaster
from tsar.forecasting.nlinear import NLinearNetwork
from tsar.forecasting.outputs.losses import make_loss
from tsar.forecasting.outputs.objective import (
    Compared,
    ForecastNetwork,
    ForecastObjective,
    compare,
    penalise,
)
from tsar.forecasting.variate_tokens import VariateTokenNetwork

CONTEXT, HORIZON, VARIATES = 8, 4, 5
HOOKS = {name for name, value in vars(ForecastNetwork).items() if inspect.isfunction(value)}


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _batch(observed=False, counts=False):
    inputs = Inputs(
        _random(3, CONTEXT, VARIATES).abs(),
        _random(3, CONTEXT, VARIATES, seed=1) > -1 if observed else None,
        future=_random(3, CONTEXT + HORIZON, 1, seed=2),
    )
    target = _random(3, HORIZON, VARIATES, seed=3)
    scale = _random(3, VARIATES, seed=4).abs() + 0.5
    if counts:
        history = torch.poisson(inputs.target * 9) / scale[:, None]
        inputs = replace(inputs, target=history)
        target = torch.poisson(target.abs() * 9) / scale[:, None]
    seen = _random(3, HORIZON, VARIATES, seed=5) > -1 if observed else None
    return Batch(inputs, target, seen, scale)


def _behind_covariates(network, output=None):
    pathway = CovariatePathway(
        network,
        CovariateSpec(future=(0,)),
        context_length=CONTEXT,
        horizon=HORIZON,
        n_variates=VARIATES,
        output=output,
    )
    for name, parameter in pathway.named_parameters():
        if not name.startswith("network."):
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(6))
    return pathway


class Spy(ForecastNetwork):
    """Notes what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.weight = nn.Parameter(torch.ones(VARIATES))

    def forward(self, inputs):
        return inputs.target[:, -1:].expand(-1, HORIZON, -1) * self.weight


def _hook_spy(name):
    def hook(self, *arguments):
        self.asked.append(name)
        return getattr(ForecastNetwork, name)(self, *arguments)

    return type("HookSpy", (Spy,), {name: hook})


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_the_pathway_of_covariates_hands_every_hook_on(hook):
    """A hook that is added to the base has to be handed on, or this fails."""
    assert HOOKS >= {"compare", "penalty"}
    network = _hook_spy(hook)()
    objective = ForecastObjective(make_loss("mse"))
    for around in (network, _behind_covariates(network)):
        network.asked.clear()
        assert hook in vars(type(around)), f"{type(around).__name__} does not hand on {hook}"
        if hook in ("prepare", "measure"):  # asked before the training, and not in a step of it
            rows = SeriesTensors(_random(9, VARIATES), None, torch.tensor([0, 9]))
            getattr(around, hook)(rows, torch.tensor([9]))
        else:
            objective.loss(around, _batch(), torch.Generator())
        assert network.asked == [hook]


@pytest.mark.parametrize("covariates", [False, True])
def test_terms_of_a_batch_stand_beside_the_penalty(covariates):
    class Net(Spy):
        def penalty(self, error):
            return self.weight.sum()

        def compare(self, batch):
            squares = batch.target.square()
            terms = {"size": (squares.sum(), torch.tensor(squares.numel()))}
            return super().compare(batch)._replace(terms=terms)

    network = _behind_covariates(Net()) if covariates else Net()
    batch = _batch()
    left = batch.target
    if covariates:  # what the covariates do not explain
        left = left - network._split(batch.inputs)[2]
    terms = ForecastObjective(make_loss("mse")).loss(network, batch, None)
    assert list(terms) == ["loss", "size", "penalty"]
    means = {name: total / count for name, (total, count) in terms.items()}
    torch.testing.assert_close(means["size"], left.square().mean())
    torch.testing.assert_close(means["penalty"], torch.tensor(float(VARIATES)))


@pytest.mark.parametrize("covariates", [False, True])
def test_a_penalty_is_in_the_gradient(covariates):
    """Against the closed form: 10 times the square of the weights, times the root of the error."""

    class Net(NLinearNetwork):
        def penalty(self, error):
            assert not error.requires_grad
            return 10 * error.sqrt() * self.linear.weight.square().sum()

    torch.manual_seed(0)
    output = make_loss("mse").make_output()
    inner = Net(context_length=CONTEXT, horizon=HORIZON, output=output)
    network = _behind_covariates(inner, output) if covariates else inner
    batch, objective = _batch(observed=True), ForecastObjective(make_loss("mse"))
    terms = objective.loss(network, batch, torch.Generator())
    error = terms["loss"][0] / terms["loss"][1]
    plain = ((network(batch.inputs) - batch.target).square() * batch.observed).sum()
    torch.testing.assert_close(error, plain / batch.observed.sum())
    (total, count), weight = terms["penalty"], inner.linear.weight
    torch.testing.assert_close(total, 10 * error.detach().sqrt() * weight.square().sum())
    assert count == 1
    (of_error,) = torch.autograd.grad(error, weight, retain_graph=True)
    (of_both,) = torch.autograd.grad(error + total, weight)
    expected = of_error + 20 * error.detach().sqrt() * weight
    torch.testing.assert_close(of_both, expected)


@pytest.mark.parametrize("covariates", [None, "price"])
def test_a_penalty_of_an_estimator_is_trained_on(covariates, wide):
    calls = []

    class Net(NLinearNetwork):
        def penalty(self, error):
            calls.append(error.item())
            return 100.0 * self.linear.weight.square().sum()

    @dataclass(kw_only=True, eq=False, repr=False)
    class Penalised(NetworkForecaster):
        def _build_network(self, spec):
            return Net(context_length=spec.context_length, horizon=spec.horizon, output=spec.output)

    model = Penalised(
        context_length=24, horizon=6, max_epochs=3, random_state=0, device="cpu",
        batch_size=32, learning_rate=0.02, future_covariates=covariates,
    ).fit(wide)  # fmt: skip
    free = tsar.NLinear(**model.get_params()).fit(wide)
    assert len(calls) > 0 and len(model.history_["train_penalty"]) == 3
    assert "train_penalty" not in free.history_
    norms = [
        dict(m.module_.named_parameters())[
            "linear.weight" if covariates is None else "network.linear.weight"
        ].norm()
        for m in (model, free)
    ]
    assert norms[0] < 0.5 * norms[1]


def test_a_network_of_no_class_of_ours_needs_forward_alone():
    class Last(nn.Module):
        def forward(self, inputs):
            return inputs.target[:, -1:].expand(-1, HORIZON, -1)

    batch = _batch()
    compared = compare(Last(), batch)
    assert torch.equal(compared.forecast, Last()(batch.inputs))
    assert compared.target is batch.target and compared.scale is batch.scale
    assert penalise(Last(), torch.tensor(1.0)) is None

    class Opinionated(Last):
        def penalty(self, error):
            return error * 3

        def compare(self, batch):
            return self(batch.inputs)[:, :1], batch.target[:, :1], None

    for network in (Opinionated(), _behind_covariates(Opinionated())):
        terms = ForecastObjective(make_loss("mae")).loss(network, batch, torch.Generator())
        total, count = terms["loss"]
        assert count == 3 * VARIATES
        torch.testing.assert_close(terms["penalty"][0], 3 * total / count)
        with pytest.raises(ParameterError, match="compare must return the scale"):
            counts = ForecastObjective(make_loss("negative_binomial"))
            counts.loss(network, batch, torch.Generator())


# ------------------------------------------------------------------- losses of counts


def _variate_network(output, share):
    class Mean(Mixer):
        def forward(self, x, *, mask=None, memory=None):
            return x + x.mean(dim=1, keepdim=True)

    torch.manual_seed(0)
    return VariateTokenNetwork(
        context_length=CONTEXT, horizon=HORIZON, output=output, make_mixer=Mean, n_layers=1,
        d_model=6, d_ff=6, dropout=0.0, variate_share=share,
    )  # fmt: skip


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("covariates", [False, True])
def test_a_share_of_variates_is_compared_in_their_own_units(covariates, observed):
    """Written out: the forecast of these variates alone, with effects, against their counts."""
    loss = make_loss("negative_binomial")
    inner = _variate_network(loss.make_output(), 0.4)
    network = _behind_covariates(inner, loss.make_output()) if covariates else inner
    batch, seen = _batch(observed, counts=True), []
    forward = inner.forward
    inner.forward = lambda inputs: seen.append(inputs) or forward(inputs)
    inner.dropout.generator = torch.Generator().manual_seed(8)
    objective = ForecastObjective(loss)
    total, count = objective.loss(network, batch, torch.Generator())["loss"]
    (inputs,) = seen
    assert inputs.target.shape[2] == 2
    order = torch.randperm(VARIATES, generator=torch.Generator().manual_seed(8))
    drawn = order[:2].sort().values
    later = torch.zeros(3, HORIZON, VARIATES)
    if covariates:
        later = (network.effect(batch.inputs.future) + network.curved_effect(batch.inputs.future))[
            :, CONTEXT:
        ]
    forecast = loss.make_output().shift(forward(inputs), later[..., drawn])
    truth = None if batch.observed is None else batch.observed[..., drawn]
    expected = loss.total(forecast, batch.target[..., drawn], truth, batch.scale[:, drawn])
    torch.testing.assert_close(total, expected[0])
    assert count == expected[1]


@pytest.mark.parametrize("covariates", [False, True])
def test_segments_of_the_context_teach_counts(covariates):
    loss = make_loss("negative_binomial")
    torch.manual_seed(0)
    inner = AutoTimesNetwork(
        horizon=HORIZON, segment_length=4, output=loss.make_output(),
        backbone=Decoder(
            [make_mixer("attention", 8, n_heads=2, causal=True)], d_model=8, d_ff=8, dropout=0.0
        ),
    )  # fmt: skip
    network = _behind_covariates(inner, loss.make_output()) if covariates else inner
    batch = _batch(observed=True, counts=True)
    total, count = ForecastObjective(loss).loss(network, batch, torch.Generator())["loss"]
    whole = torch.cat([batch.inputs.target, batch.target], dim=1)
    seen = torch.cat([batch.inputs.observed, batch.observed], dim=1)
    effect, history = torch.zeros(3, CONTEXT + HORIZON, VARIATES), batch.inputs.target
    if covariates:
        effect = network.effect(batch.inputs.future) + network.curved_effect(batch.inputs.future)
        history = history - effect[:, :CONTEXT] * batch.inputs.observed
    told = inner.next_segments(Inputs(history, batch.inputs.observed))
    forecast = loss.make_output().shift(told, (effect * seen)[:, 4:])
    expected = loss.total(forecast, whole[:, 4:], seen[:, 4:], batch.scale)
    assert count == seen[:, 4:].sum() == expected[1]
    torch.testing.assert_close(total, expected[0])


@pytest.mark.parametrize("loss", ["mse", "negative_binomial"])
@pytest.mark.parametrize("covariates", [None, "price"])
def test_an_estimator_trains_on_its_share_of_variates(loss, covariates, monkeypatch):
    seen, plain = set(), VariateTokenNetwork.forward

    def spy(self, inputs):
        if self.training:
            seen.add(inputs.target.shape[2])
        return plain(self, inputs)

    monkeypatch.setattr(VariateTokenNetwork, "forward", spy)
    index = pd.date_range("2024", periods=90, freq="h")
    values = np.random.default_rng(0).poisson(5, size=(90, 8)).astype(float)
    frame = pd.DataFrame(values, index=index, columns=list("abcdefgh")).assign(price=values[:, 0])
    tsar.iTransformer(
        context_length=24, horizon=6, d_model=8, d_ff=8, n_heads=2, n_layers=1, max_epochs=1,
        variate_share=0.25, loss=loss, random_state=0, device="cpu", future_covariates=covariates,
        target=None,
    ).fit(frame if covariates else frame.drop(columns="price"))  # fmt: skip
    assert seen == {2}


def test_compared_is_what_is_left_without_a_loss_of_counts():
    """Nothing is added back where an error does not change with it."""
    network = _behind_covariates(Spy())
    batch = _batch()
    compared = compare(network, batch)
    assert isinstance(compared, Compared) and compared.shift is not None
    torch.testing.assert_close(compared.target + compared.shift, batch.target)
    moved = ForecastObjective(make_loss("mse")).loss(network, batch, torch.Generator())
    still = make_loss("mse").total(compared.forecast, compared.target)
    assert torch.equal(moved["loss"][0], still[0])


class _Turned(nn.Module):
    """Forecasts with steps and variates in each other's place."""

    def __init__(self, spec):
        super().__init__()
        self.map = nn.Linear(spec.context_length, spec.horizon * spec.output.n_outputs)
        self.output = spec.output

    def forward(self, inputs):
        raw = self.map(inputs.target.transpose(1, 2))
        forecast = self.output(raw.unflatten(-1, (-1, self.output.n_outputs)), 0.0, 1.0)
        return forecast if self.output.n_outputs == 1 else forecast.squeeze(2)


@dataclass(kw_only=True, eq=False, repr=False)
class _TurnedForecaster(NetworkForecaster):
    def _build_network(self, spec):
        return _Turned(spec)


@dataclass(kw_only=True, eq=False, repr=False)
class _Nothing(NetworkForecaster):
    def _build_network(self, spec):
        return None


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("loss", ["mae", "gaussian"])
def test_a_forecast_of_another_shape_is_not_stretched_to_the_target(early_stopping, loss):
    frame = pd.DataFrame(
        {"a": np.sin(np.arange(60.0))}, index=pd.date_range("2024-01-01", periods=60)
    )
    settings = {"context_length": 12, "horizon": 4, "max_epochs": 1, "device": "cpu"}
    model = _TurnedForecaster(**settings, early_stopping=early_stopping, loss=loss)
    with pytest.raises(ParameterError, match=r"_Turned: forecasts must have the shape \(\d+, 4, 1"):
        model.fit(frame)
    with pytest.raises(ParameterError, match="_build_network must return an nn.Module, got None"):
        _Nothing(**settings).fit(frame)


def test_one_quantile_is_trained_as_it_was():
    frame = pd.DataFrame({"a": np.arange(60.0)}, index=pd.date_range("2024-01-01", periods=60))
    model = tsar.NLinear(
        loss="quantile",
        quantiles=[0.5],
        context_length=12,
        horizon=4,
        max_epochs=1,
        device="cpu",
    )
    assert model.fit(frame).predict(quantiles=[0.5]).shape == (4, 2)
