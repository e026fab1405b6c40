import numpy as np
import pytest
import torch

from tsar.data.windows import Inputs
from tsar.forecasting.layers.cycle_features import (
    N_STATISTICS,
    N_WAYS,
    ScaledHistory,
    ways_on,
)
from tsar.forecasting.layers.cycle_patches import (
    LEVELS,
    LONGEST_HORIZON,
    CyclePatchForecaster,
    CyclePatchNetwork,
)

MEDIAN = LEVELS.index(0.5)


def _series(n_series=3, n_rows=100, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.cumsum(rng.normal(size=(n_series, n_rows)), axis=1) + 50)


def _everything(history):
    return torch.ones_like(history, dtype=torch.bool)


def _trained(seed=0, **sizes):
    """A network whose head says something."""
    torch.manual_seed(seed)
    network = CyclePatchNetwork(**sizes)
    for weights in network.head.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    return network.eval()


# ------------------------------------------------------------- what is read off


def test_scale_is_that_of_mase_and_level_the_mean_of_the_last_cycle():
    history = _series()
    scaled = ScaledHistory.of(history, _everything(history), 7)
    values = history.numpy()
    naive_errors = np.abs(values[:, 7:] - values[:, :-7]).mean(axis=1)
    assert (naive_errors > 0.1 * values.std(axis=1)).all()
    np.testing.assert_allclose(scaled.scale[:, 0], naive_errors)
    np.testing.assert_allclose(scaled.level[:, 0], values[:, -7:].mean(axis=1))


def test_missing_steps_count_nothing():
    history = _series()
    observed = _everything(history)
    observed[:, [3, 40, 99]] = False
    other = torch.where(observed, history, 1e6)
    for cycles in ((7, 28), (1, 1)):
        one, two = (ScaledHistory.of(part, observed, cycles[0]) for part in (history, other))
        for mine, theirs in zip(ways_on(one, cycles, 9), ways_on(two, cycles, 9), strict=True):
            assert torch.equal(mine, theirs)
    # The last cycle has a hole: its last step is what was seen last.
    naive = ways_on(one, (1, 1), 4).naive * one.scale + one.level
    torch.testing.assert_close(naive.double(), history[:, 98:99].expand(-1, 4), rtol=1e-6, atol=0)


def test_ways_are_means_of_phases_shifts_and_lines():
    rng = np.random.default_rng(1)
    values = rng.normal(size=60)
    history = torch.from_numpy(values[None])
    season, long, horizon = 4, 12, 30
    scaled = ScaledHistory.of(history, _everything(history), season)
    naive, ways, statistics = ways_on(scaled, (season, long), horizon)
    x = ((values - scaled.level.item()) / scaled.scale.item())[None][0]
    assert ways.shape == (1, horizon, N_WAYS) and statistics.shape == (1, N_STATISTICS)
    expected = np.empty((horizon, N_WAYS))
    last = np.array([x[60 - season + h % season] for h in range(horizon)])
    column = 0
    for cycle, counts in ((season, (2, 4, 8, 15)), (long, (1, 2, 4, 5, 5))):
        for n in counts:
            for h in range(horizon):
                rows = [60 - cycle * k + h % cycle for k in range(1, n + 1)]
                expected[h, column] = np.mean([x[row] for row in rows if row >= 0]) - last[h]
            column += 1
    levels = (x[-1], x[-4:].mean(), x[-season:].mean())
    expected[:, column : column + 3] = np.array(levels) - last[:, None]
    mixed = column + 3
    column += 4
    # What each of five forecasts missed in the history, and how far the last steps are above it.
    half = x[season // 2 :] - x[: -(season // 2)]
    missed, forecasts, shifts = [np.abs(half).mean()], [np.full(horizon, x[-1])], [np.zeros(3)]
    for cycle in (season, long):
        ahead = [60 - cycle + h % cycle for h in range(horizon)]
        change = x[cycle:] - x[:-cycle]
        phases = np.array([x[i % cycle :: cycle].mean() for i in range(60)])
        n_cycles = 60 / cycle
        missed += [np.abs(change).mean(), np.abs(x - phases).mean() * n_cycles / (n_cycles - 1)]
        forecasts += [x[ahead], phases[ahead]]
        for differences in (change, x - phases):
            shifts.append(np.array([differences[-n:].mean() for n in (1, 4, season)]))
            expected[:, column : column + 3] = shifts[-1]
            column += 3
    weight = (np.array(missed) / min(missed)) ** -4.0
    weight /= weight.sum()
    expected[:, mixed] = weight @ np.array(forecasts) - last
    expected[:, column : column + 3] = weight @ np.array(shifts)
    column += 3
    steps = np.arange(1, horizon + 1)
    cycle_change = (x[-season:] - x[-2 * season : -season]).mean()
    cycles_ahead = np.arange(horizon) // season + 1
    expected[:, column] = cycle_change * cycles_ahead
    for n, place in ((60, column + 1), (15, column + 3)):
        slope = np.polyfit(np.arange(n), x[-n:], 1)[0]
        expected[:, place] = slope * steps
        expected[:, place + 1] = slope * season * cycles_ahead
    np.testing.assert_allclose(naive[0], last, atol=1e-5)
    np.testing.assert_allclose(ways[0], expected, atol=1e-4)


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize(("season", "horizon"), [(1, 5), (7, 20), (24, 50)])
def test_untrained_median_is_the_seasonal_naive(season, horizon):
    history = _series()
    forecast = CyclePatchNetwork(n_layers=1)(
        history, _everything(history), (season, 2 * season), horizon
    )
    last = history[:, -season:]
    expected = last.repeat(1, -(-horizon // season))[:, :horizon]
    torch.testing.assert_close(forecast[..., MEDIAN], expected, rtol=1e-6, atol=1e-5)


def test_quantiles_do_not_cross():
    history = _series()
    forecast = _trained(n_layers=1)(history, _everything(history), (7, 7), 40)
    assert (forecast.diff(dim=-1) >= 0).all()
    assert (forecast.diff(dim=-1) > 0).any()


def test_forecast_moves_with_the_units():
    history = _series()
    network = _trained(n_layers=2)
    forecast = network(history, _everything(history), (7, 14), 20)
    moved = network(1000 * history - 77, _everything(history), (7, 14), 20)
    torch.testing.assert_close(moved, 1000 * forecast - 77, rtol=1e-4, atol=1e-1)


def test_constant_is_forecast_as_it_is():
    history = torch.full((2, 50), 12.5, dtype=torch.float64)
    forecast = _trained(n_layers=1)(history, _everything(history), (7, 7), 10)
    assert torch.equal(forecast, torch.full_like(forecast, 12.5))


def test_first_steps_do_not_depend_on_how_many_are_asked_for():
    history = _series()
    network = _trained(n_layers=2)
    observed = _everything(history)
    few = network(history, observed, (7, 14), 10)
    many = network(history, observed, (7, 14), 100)
    torch.testing.assert_close(few, many[:, :10], rtol=1e-5, atol=1e-4)


def test_rows_that_were_not_observed_at_the_beginning_change_nothing():
    history = _series(n_rows=64)
    network = _trained(n_layers=2)
    longer = torch.cat([torch.full((3, 48), 1e5, dtype=torch.float64), history], dim=1)
    observed = torch.cat([torch.zeros(3, 48, dtype=torch.bool), _everything(history)], dim=1)
    alone = network(history, _everything(history), (7, 14), 10)
    torch.testing.assert_close(network(longer, observed, (7, 14), 10), alone, rtol=1e-5, atol=1e-4)


def test_long_horizons_read_what_was_forecast():
    history = _series(n_series=4)
    patches = _trained(n_layers=1)
    n_more = 20
    network = CyclePatchForecaster(patches, (7, 14), LONGEST_HORIZON + n_more)
    forecast = network(Inputs(history.view(2, 2, 100).transpose(1, 2)))
    assert forecast.shape == (2, LONGEST_HORIZON + n_more, 2, len(LEVELS))
    first = patches(history, _everything(history), (7, 14), LONGEST_HORIZON)
    read = torch.cat([history, first[..., MEDIAN]], dim=1)[:, LONGEST_HORIZON:]
    second = patches(read, _everything(read), (7, 14), n_more)
    expected = torch.cat([first, second], dim=1).view(2, 2, -1, len(LEVELS)).transpose(1, 2)
    torch.testing.assert_close(forecast, expected)
