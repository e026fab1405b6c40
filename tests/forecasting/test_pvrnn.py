import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.data.windows import Batch, Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.losses import MSELoss
from tsar.forecasting.outputs.objective import ForecastObjective
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput
from tsar.forecasting.pvrnn import Gaussians, PVRNNNetwork, divergence

SIZES = {"horizon": 3, "n_variates": 2, "d_model": 6, "n_latents": 3, "n_iterations": 4}


def _network(output=None, **options):
    torch.manual_seed(0)
    network = PVRNNNetwork(output=output or PointOutput(), **SIZES | options)
    return network.double().eval()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_a_time_constant_of_one_is_a_plain_recurrence():
    network, latents = _network(time_constants=(1.0,)), _random(4, 7, 3)
    plain = nn.RNN(3, 6, batch_first=True).double()
    plain.weight_ih_l0, plain.weight_hh_l0 = network.enter.weight, network.recurrence.weight
    plain.bias_hh_l0 = network.recurrence.bias
    nn.init.zeros_(plain.bias_ih_l0)
    torch.testing.assert_close(network.run(latents).tanh(), plain(latents)[0])


def test_the_generator_against_a_loop():
    network, latents = _network(time_constants=(1.5, 4.0)), _random(2, 5, 3)
    states, ahead = network.run(latents), network.go_on(network.run(latents)[:, -1])
    tau = torch.tensor([1.5, 1.5, 1.5, 4.0, 4.0, 4.0], dtype=torch.float64)
    for window in range(2):
        h = torch.zeros(6, dtype=torch.float64)
        for step in range(5 + 3):
            if step < 5:
                z = latents[window, step]
            else:
                z = network.prior(h.tanh())[:3].tanh()
            said = network.recurrence.weight @ h.tanh() + network.recurrence.bias
            h = (1 - 1 / tau) * h + (said + network.enter.weight @ z) / tau
            torch.testing.assert_close((states if step < 5 else ahead)[window, step % 5], h)


def test_divergence_against_torch():
    several = [Gaussians(_random(2, 4, 3, seed=i), _random(2, 4, 3, seed=i + 9)) for i in (0, 1)]
    normals = [torch.distributions.Normal(one.mean, one.log_deviation.exp()) for one in several]
    expected = torch.distributions.kl_divergence(*normals)
    torch.testing.assert_close(divergence(*several), expected)


def test_a_posterior_that_is_the_prior_diverges_by_nothing():
    network, states = _network(), torch.zeros(2, 0, 6, dtype=torch.float64)
    means, deviations = [], []
    for step in range(5):
        prior = (
            network._prior(states[:, -1:]) if step else Gaussians(*torch.zeros(2, 2, 1, 3).double())
        )
        means.append(prior.mean)
        deviations.append(prior.log_deviation)
        states = network.run(torch.cat(means, dim=1))
    posterior = Gaussians(torch.cat(means, dim=1), torch.cat(deviations, dim=1))
    found = divergence(posterior, network.expected(states))
    torch.testing.assert_close(found, torch.zeros_like(found))


def test_the_free_energy_against_its_parts():
    network, x, free = _network(kl_weight=0.3), _random(2, 5, 2), _random(2, 5, 6, seed=2)
    observed = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(3)) < 0.6
    mean, log_deviation = free[..., :3].tanh(), free[..., 3:]
    states = network.run(mean)
    errors = (states.tanh() @ network.head.weight.mT + network.head.bias - x) ** 2 * observed
    prior = network.prior(states.tanh())
    for window in range(2):
        total = 0.0
        for step, latent in np.ndindex(5, 3):
            before = prior[window, step - 1]
            centre, spread = (before[latent].tanh(), before[3 + latent].exp()) if step else (0, 1)
            own = torch.distributions.Normal(
                mean[window, step, latent], log_deviation[window, step, latent].exp()
            )
            total += torch.distributions.kl_divergence(
                own, torch.distributions.Normal(centre, spread)
            )
        expected = errors[window].mean() + 0.3 * total / 15
        torch.testing.assert_close(network.free_energy(free, x, observed)[window], expected)


def test_regression_lowers_the_free_energy_of_every_window():
    network, x = _network(regression_rate=1e-3), _random(5, 8, 2)
    energies = []
    for n_iterations in range(6):
        network.n_iterations = n_iterations
        mean, log_deviation = network.regressed(x, None)
        free = torch.cat([mean.atanh(), log_deviation], dim=-1)
        energies.append(network.free_energy(free, x, None))
    assert (torch.stack(energies).diff(dim=0) < 0).all()


def test_a_forecast_knows_neither_its_company_nor_what_is_missing():
    network, target = _network(), _random(5, 8, 2)
    observed = torch.ones(5, 8, 2, dtype=torch.bool)
    observed[:, 3:6, 0] = False
    whole = network(Inputs(target, observed))
    assert whole.shape == (5, 3, 2)
    with torch.inference_mode():
        alone = network(Inputs(target[2:3], observed[2:3]))
    torch.testing.assert_close(alone, whole[2:3])
    other = network(Inputs(torch.where(observed, target, target + 5), observed))
    torch.testing.assert_close(other, whole)


def test_every_weight_is_reached_and_noise_is_that_of_the_run():
    network = _network(QuantileOutput([0.1, 0.5, 0.9])).train()
    batch = Batch(Inputs(_random(4, 8, 2)), _random(4, 3, 2, seed=2), None, None)

    def compared(seed):
        network.generator = torch.Generator().manual_seed(seed)
        return network.compare(batch)

    first = compared(0)
    assert first.forecast.shape == (4, 11, 2, 3) and first.target.shape == (4, 11, 2)
    torch.testing.assert_close(first.forecast, compared(0).forecast, rtol=0, atol=0)
    assert not torch.isclose(first.forecast, compared(1).forecast).any()
    (first.forecast.square().sum() + first.terms["divergence"][0]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    network = _network()
    terms = ForecastObjective(MSELoss()).loss(network, batch, torch.Generator())
    context = network.compare(batch).forecast[:, :8]
    horizon = network(batch.inputs)
    expected = (context - batch.inputs.target).square().sum() + (
        horizon - batch.target
    ).square().sum()
    torch.testing.assert_close(terms["loss"][0], expected)


def test_it_learns_a_season():
    """Better than the mean of the window, which is what a generator that knows nothing says."""
    steps = np.arange(160)
    frame = pd.DataFrame({"a": np.sin(2 * np.pi * steps / 8)}, pd.date_range("2024", periods=160))
    model = tsar.PVRNN(
        context_length=16, horizon=4, d_model=16, n_iterations=8, max_epochs=12, batch_size=32,
        learning_rate=0.02, learning_rate_schedule="constant", early_stopping=False,
        random_state=0, device="cpu",
    ).fit(frame[:128])  # fmt: skip
    errors = model.forecast_windows(frame, np.arange(128, 150)) - np.stack(
        [frame["a"].iloc[row : row + 4].to_numpy()[:, None] for row in range(128, 150)]
    )
    assert (errors**2).mean() < 0.25 * frame["a"].var()
    assert model.history_["train_divergence"][-1] > 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"time_constants": (0.5,)}, "PVRNN: time_constants must be"),
        (
            {"time_constants": ()},
            "PVRNN: time_constants must be from 1 to d_model=32 numbers, got 0",
        ),
        ({"compile": True}, "PVRNN: compile must be False, as every step"),
        ({"n_iterations": 0}, "PVRNN: n_iterations must be"),
    ],
)
def test_bad_parameters(parameters, message):
    frame = pd.DataFrame({"a": np.arange(60.0)}, pd.date_range("2024", periods=60))
    with pytest.raises(ParameterError, match=message):
        tsar.PVRNN(context_length=8, horizon=3, **parameters).fit(frame)
