"""Likelihoods, quantiles and samples, against scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from tsar.forecasting.outputs.distributions import DISTRIBUTIONS
from tsar.forecasting.outputs.losses import make_loss

NAMES = list(DISTRIBUTIONS)


def _parameters(name: str) -> np.ndarray:
    """Parameters of shape (4, 3, K) in original units."""
    rng = np.random.default_rng(5)
    positive = rng.uniform(0.3, 3.0, size=(4, 3, 3))
    centre = rng.normal(size=(4, 3, 3)) * 4
    if name == "gaussian":
        return np.stack([centre[..., 0], positive[..., 0]], -1)
    if name == "student_t":
        return np.stack([centre[..., 0], positive[..., 0], 2 + positive[..., 1]], -1)
    if name == "negative_binomial":
        mean = np.array([[0.02, 0.7, 3.0], [8.0, 40.0, 300.0], [1.0, 5.0, 0.3], [2e4, 9.0, 1e5]])
        return np.stack([mean, 10 ** rng.uniform(-6, 0.5, size=(4, 3))], -1)
    weight = np.log(rng.dirichlet([1, 2, 3], size=(4, 3)))
    return np.concatenate([centre, positive, weight], -1)


def _frozen(name: str, parameters: np.ndarray) -> list:
    """Return scipy's distribution for each of the parameters (mixtures: weights and parts)."""
    found = []
    for one in parameters.reshape(-1, parameters.shape[-1]):
        if name == "gaussian":
            found.append(stats.norm(*one))
        elif name == "student_t":
            found.append(stats.t(one[2], *one[:2]))
        elif name == "negative_binomial":
            mean, dispersion = one
            variance = mean + dispersion * mean**2
            found.append(stats.nbinom(mean**2 / (variance - mean), mean / variance))
        else:
            parts = zip(one[:3], one[3:6], strict=True)
            found.append([np.exp(one[6:]), [stats.norm(*part) for part in parts]])
    return found


def _cdf(frozen, value: float) -> float:
    if isinstance(frozen, list):
        return float(sum(w * part.cdf(value) for w, part in zip(*frozen, strict=True)))
    return float(frozen.cdf(value))


def _scaled(name: str, parameters: np.ndarray, location: float, scale: float) -> torch.Tensor:
    """Return what a network would have to give for these parameters in original units."""
    given = torch.from_numpy(parameters).clone()
    if name == "negative_binomial":
        mean = given[..., 0] / scale
        # The inverse of softplus.
        given[..., 0] = torch.where(mean > 30, mean, torch.expm1(mean).log())
        return given
    n = 3 if name == "gaussian_mixture" else 1
    given[..., :n] = (given[..., :n] - location) / scale
    given[..., n : 2 * n] /= scale
    return given


@pytest.mark.parametrize("name", NAMES)
def test_log_likelihood_is_that_of_scipy(name):
    parameters = _parameters(name)
    counts = name == "negative_binomial"
    value = np.random.default_rng(1).normal(size=(4, 3)) * 3
    if counts:
        value = np.floor(parameters[..., 0] * np.array([0.0, 1.0, 1.7]))
    expected = []
    for frozen, y in zip(_frozen(name, parameters), value.reshape(-1), strict=True):
        if isinstance(frozen, list):
            density = sum(w * part.pdf(y) for w, part in zip(*frozen, strict=True))
            expected.append(np.log(density))
        else:
            expected.append(frozen.logpmf(y) if counts else frozen.logpdf(y))
    found = DISTRIBUTIONS[name]().log_prob(
        _scaled(name, parameters, 0.0, 1.0), torch.from_numpy(value)
    )
    np.testing.assert_allclose(found.numpy().reshape(-1), expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.001, 0.1, 0.5, 0.83, 0.995])
def test_quantiles_are_those_of_scipy(name, level):
    parameters = _parameters(name)
    found = DISTRIBUTIONS[name]().quantile(parameters, level).reshape(-1)
    for frozen, y in zip(_frozen(name, parameters), found, strict=True):
        if name == "negative_binomial":
            # The smallest count that so much lies at or below.
            assert _cdf(frozen, y) >= level - 1e-9 and (y == 0 or _cdf(frozen, y - 1) < level)
        else:
            assert _cdf(frozen, y) == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_distribution(name):
    parameters = np.repeat(_parameters(name)[:, :, None], 4000, axis=2)
    drawn = DISTRIBUTIONS[name]().sample(parameters, np.random.default_rng(3))
    again = DISTRIBUTIONS[name]().sample(parameters, np.random.default_rng(3))
    np.testing.assert_array_equal(drawn, again)
    assert drawn.shape == (4, 3, 4000)
    pairs = zip(_frozen(name, parameters[:, :, 0]), drawn.reshape(12, 4000), strict=True)
    for frozen, sample in pairs:
        for level in (0.1, 0.5, 0.9):
            quantile = np.quantile(sample, level)
            # Counts may jump over the level.
            low, high = _cdf(frozen, quantile - 1e-9), _cdf(frozen, quantile)
            assert low - 0.03 < level < high + 0.03


@pytest.mark.parametrize("name", NAMES)
def test_original_units_come_back(name):
    parameters = _parameters(name)
    location, scale = (0.0, 37.0) if name == "negative_binomial" else (-5.0, 37.0)
    given = _scaled(name, parameters, location, scale).numpy()
    found = DISTRIBUTIONS[name]().restore(given, np.full((4, 1), location), np.full((4, 1), scale))
    np.testing.assert_allclose(found, parameters, rtol=1e-9)


def test_counts_are_scored_as_counts_whatever_the_scale():
    """The likelihood is that of the counts, not of a density of what scaling made of them."""
    parameters = _parameters("negative_binomial")
    value = np.floor(parameters[..., 0] * 1.4)
    expected = [
        -frozen.logpmf(y)
        for frozen, y in zip(
            _frozen("negative_binomial", parameters), value.reshape(-1), strict=True
        )
    ]
    loss = make_loss("negative_binomial")
    for scale in (1.0, 7.3, 1e4):
        forecast = _scaled("negative_binomial", parameters, 0.0, scale)[None]
        target = torch.from_numpy(value / scale)[None].float()
        scales = torch.full((1, 3), scale)
        observed = torch.ones(1, 4, 3, dtype=torch.bool)
        observed[0, 3, 0] = observed[0, 3, 2] = False  # float32 does not hold their scaled values
        found = loss(forecast, target, observed, scales)
        kept = np.array(expected).reshape(4, 3)[observed[0].numpy()]
        assert float(found) == pytest.approx(kept.mean(), rel=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_far_away(name):
    loss = make_loss(name)
    output = loss.make_output()
    raw = torch.full((1, 2, 3, output.n_outputs), -60.0, requires_grad=True)
    target = torch.tensor([[[0.0, 1.0, 50.0], [3.0, 0.0, 7.0]]])
    error = loss(output(raw, 0.0, 1.0), target, None, torch.ones(1, 3))
    error.backward()
    assert error.isfinite() and raw.grad.isfinite().all()


def test_a_series_of_zeros_has_a_likelihood():
    loss = make_loss("negative_binomial")
    forecast = loss.make_output()(torch.zeros(1, 2, 1, 2), 0.0, 1.0)
    found = loss(forecast, torch.zeros(1, 2, 1), None, torch.zeros(1, 1))
    assert found.isfinite() and found > 0
