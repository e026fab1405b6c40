import pytest
import torch
from torch.nn import functional as F

from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.losses import LOSSES, HuberLoss, make_loss
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

LEVELS = (0.1, 0.5, 0.7)


def _forecast(n_outputs=1):
    generator = torch.Generator().manual_seed(0)
    shape = (3, 5, 2, n_outputs) if n_outputs > 1 else (3, 5, 2)
    forecast = torch.randn(shape, generator=generator, dtype=torch.float64)
    target = 2 * torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    observed = torch.rand(3, 5, 2, generator=generator) > 0.4
    return forecast, target, observed


def _case(name):
    """A loss, and a forecast of its kind."""
    loss = make_loss(name, LEVELS if name == "quantile" else None)
    output = loss.make_output()
    raw, target, observed = _forecast(output.n_outputs)
    forecast = output(raw.view(3, 5, 2, -1), 0.0, 1.0).clone()
    if loss.needs_scale:
        target = target.abs().round()
    return loss, forecast, target, observed


@pytest.mark.parametrize(
    ("name", "builtin"),
    [("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", F.huber_loss)],
)
def test_point_losses_equal_torch(name, builtin):
    forecast, target, observed = _forecast()
    loss = make_loss(name)
    torch.testing.assert_close(loss(forecast, target), builtin(forecast, target))
    expected = builtin(forecast[observed], target[observed])
    torch.testing.assert_close(loss(forecast, target, observed), expected)


def test_where_a_huber_loss_becomes_a_line():
    forecast, target, _ = _forecast()
    errors = (forecast - target).abs()
    for delta in (0.5, 2.0):
        line = delta * (errors - delta / 2)
        expected = torch.where(errors < delta, errors.square() / 2, line).mean()
        torch.testing.assert_close(HuberLoss(delta)(forecast, target), expected)
    assert HuberLoss(2.0) == HuberLoss(delta=2.0) != HuberLoss()
    with pytest.raises(ParameterError, match="HuberLoss: delta must be .* got 0"):
        HuberLoss(0)


def test_near_steps_count_more():
    """The weights of five steps by hand."""
    forecast, target, observed = _forecast()
    weights = torch.tensor([1, 2**-0.5, 3**-0.5, 1 / 2, 5**-0.5], dtype=torch.float64)
    errors = (forecast - target).abs() * weights[:, None]
    loss = make_loss("decaying_mae")
    torch.testing.assert_close(loss(forecast, target), errors.mean())
    torch.testing.assert_close(loss(forecast, target, observed), errors[observed].mean())


def test_quantile_loss_is_the_pinball_error():
    forecast, target, observed = _forecast(n_outputs=3)
    errors = []
    for place in observed.nonzero().tolist():
        y = target[tuple(place)]
        for q, level in enumerate(LEVELS):
            miss = y - forecast[tuple(place)][q]
            errors.append(level * miss if miss > 0 else (level - 1) * miss)
    loss = make_loss("quantile", LEVELS)
    torch.testing.assert_close(loss(forecast, target, observed), torch.stack(errors).mean())


@pytest.mark.parametrize("name", LOSSES)
def test_mean_is_total_over_count(name):
    loss, forecast, target, observed = _case(name)
    total, count = loss.total(forecast, target, observed)
    assert count == observed.sum()
    torch.testing.assert_close(loss(forecast, target, observed), total / count)
    parts = [
        loss.total(forecast[part], target[part], observed[part])
        for part in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(part[0] for part in parts), total)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_observed_is_zero_with_a_zero_gradient(name):
    loss, forecast, target, observed = _case(name)
    forecast.requires_grad_()
    loss = loss(forecast, target, torch.zeros_like(observed))
    loss.backward()
    assert loss == 0 and (forecast.grad == 0).all()


def test_point_forecast_and_output():
    forecast, _, _ = _forecast(n_outputs=3)
    loss = make_loss("quantile", LEVELS)
    assert torch.equal(loss.point(forecast), forecast[..., 1])
    output = loss.make_output()
    assert isinstance(output, QuantileOutput) and output.levels == LEVELS
    assert isinstance(make_loss("mae").make_output(), PointOutput)
    assert make_loss("mse").point(forecast) is forecast


def test_half_precision_forecasts_are_scored_in_the_precision_of_the_target():
    forecast, target, _ = _forecast()
    loss = make_loss("mse")(forecast.bfloat16(), target.float())
    assert loss.dtype is torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("msee",), "did you mean 'mse'"),
        (("quantile",), "needs quantiles, got None"),
        (("quantile", [0.1, 0.9]), "with 0.5 among them"),
        (("mse", [0.5]), "quantiles need loss='quantile'"),
    ],
)
def test_losses_that_cannot_be_built(arguments, message):
    with pytest.raises(ParameterError, match=message):
        make_loss(*arguments)
